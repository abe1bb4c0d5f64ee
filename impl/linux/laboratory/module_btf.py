"""BTF for a module that was just linked, and the sets of BTF ids in it, which BTF must be there for."""

from __future__ import annotations

import struct
from pathlib import Path

from impl.linux.guest import tools
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
    """The BTF of a kernel, of its ELF file; `base` becomes a file with it."""
    tools.run("objcopy", ["-O", "binary", "--only-section=.BTF", vmlinux, base])
    return Btf(base.read_bytes())


def add_btf(ko: Path, base: Path, vmlinux: Btf, functions: tuple[Function, ...]) -> None:
    """Give a module its BTF, in which the world's functions have ids in ascending order, and fill its sets of ids."""
    tools.run("pahole", ["-J", "--btf_base", base, ko])
    tools.run("objcopy", ["--strip-debug", ko])
    names = [function.name for function in functions]
    blob = _reordered(_section(ko, ".BTF"), vmlinux, names)
    _replace(ko, ".BTF", blob)
    ids = Btf(blob, vmlinux).functions
    _fill(ko, FMODRET_SET, [ids[name] for name, _ in fmodret_functions(functions)])
    _fill(ko, KFUNC_SET, [ids[KFUNC]] if KFUNC in ids else [])


def _reordered(blob: bytes, vmlinux: Btf, names: list[str]) -> bytes:
    """A module's BTF with these functions in this order.

    gcc describes functions in the reverse of their order, and pahole follows. Every FUNC is as long as every other, and
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


def _section(ko: Path, name: str) -> bytes:
    content = ko.with_suffix(".section")
    tools.run("objcopy", [f"--dump-section={name}={content}", ko, ko.with_suffix(".copy")])
    return content.read_bytes()


def _replace(ko: Path, name: str, content: bytes) -> None:
    file = ko.with_suffix(".section")
    file.write_bytes(content)
    tools.run("objcopy", [f"--update-section={name}={file}", ko])


def _fill(ko: Path, section: str, ids: list[int]) -> None:
    """Give each member of a btf_id_set8 its id, and sort them as the kernel's search demands."""
    # a kernel without such sets, or a module without such functions, has no section of this name
    if f"\0{section}\0".encode() not in ko.read_bytes():
        return
    head, *pairs = SET.iter_unpack(_section(ko, section))
    filled = sorted((number, flags) for number, (_, flags) in zip(ids, pairs, strict=True))
    _replace(ko, section, b"".join(SET.pack(*pair) for pair in (head, *filled)))
