"""Adds BTF to a module that was just linked, and fills the sets of BTF ids in it, which takes that BTF."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path

from elftools.elf.elffile import ELFFile

from impl.linux.architectures import Architecture
from impl.linux.host import tools
from impl.linux.laboratory.sources import fmodret_functions
from impl.linux.probes.btf import Btf
from spec.errors import BadInputError
from spec.worlds import Function

__all__ = ["KFUNC", "add_btf", "read_base"]

KFUNC = "massattach_nested"
"""A kfunc for tracing programs, u64 massattach_nested(u64 address), which calls a function with zeros (PROG-5)."""

KFUNC_SET, FMODRET_SET = ".massattach_kfunc_ids", ".massattach_fmodret_ids"
SET = struct.Struct("<II")
# the length of BTF's header, and where the types begin behind it
PLACES = struct.Struct("<4xII")
WORD_BYTES, FUNC_BYTES = 4, 12


def read_base(vmlinux: Path, base: Path) -> Btf:
    """The BTF in a kernel's ELF file, which is also written to the file `base`."""
    blob = _find_section(vmlinux, ".BTF")
    if blob is None:
        raise BadInputError("the kernel was built without BTF", str(vmlinux))
    base.write_bytes(blob.content)
    return Btf(blob.content)


def add_btf(ko: Path, base: Path, vmlinux: Btf, functions: tuple[Function, ...], architecture: Architecture) -> None:
    """Give a module its BTF, in which the world's functions have ids in ascending order, and fill its sets of ids."""
    tools.run("pahole", ["-J", "--btf_base", base, ko])
    tools.run(architecture.objcopy, ["--strip-debug", ko])
    section = _find_section(ko, ".BTF")
    assert section is not None, "pahole has just added it"
    blob = _reorder(section.content, vmlinux, [function.symbol for function in functions])
    _overwrite(ko, section, blob)
    ids = Btf(blob, vmlinux).functions
    _fill(ko, FMODRET_SET, [ids[name] for name, _ in fmodret_functions(functions)])
    _fill(ko, KFUNC_SET, [ids[KFUNC]] if KFUNC in ids else [])


def _reorder(blob: bytes, vmlinux: Btf, names: list[str]) -> bytes:
    """A module's BTF with these functions in this order.

    gcc describes functions in reverse order, and pahole follows. Every FUNC is as long as every other, and
    no type refers to one, so that they can change places.
    """
    btf = Btf(blob, vmlinux)
    for name in names:
        if name not in btf.functions:
            raise BadInputError(f"pahole left the function {name} out of its module's BTF")
    length, types_at = PLACES.unpack_from(blob)
    wanted = [btf.functions[name] for name in names]
    places = {number: length + types_at + WORD_BYTES * btf.place(number)[1] for number in wanted}
    moved = bytearray(blob)
    for number, place in zip(wanted, sorted(places.values()), strict=True):
        moved[place : place + FUNC_BYTES] = blob[places[number] : places[number] + FUNC_BYTES]
    return bytes(moved)


@dataclass(frozen=True, slots=True)
class _Section:
    """A section of an ELF file, and where it is in the file."""

    offset: int
    content: bytes


def _find_section(path: Path, name: str) -> _Section | None:
    with path.open("rb") as file:
        section = ELFFile(file).get_section_by_name(name)
        return _Section(section["sh_offset"], section.data()) if section else None


def _overwrite(path: Path, section: _Section, content: bytes) -> None:
    """Replace the bytes of a section by as many others."""
    assert len(content) == len(section.content)
    with path.open("r+b") as file:
        file.seek(section.offset)
        file.write(content)


def _fill(ko: Path, name: str, ids: list[int]) -> None:
    """Give each member of a btf_id_set8 its id, and sort them as the kernel's search demands."""
    section = _find_section(ko, name)
    if section is None:
        # the kernel knows no such sets, or the module has no such functions
        return
    head, *pairs = SET.iter_unpack(section.content)
    filled = sorted((number, flags) for number, (_, flags) in zip(ids, pairs, strict=True))
    _overwrite(ko, section, b"".join(SET.pack(*pair) for pair in (head, *filled)))
