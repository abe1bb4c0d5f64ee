"""Made-up kernels for tests of mutants: code in a guest that answers from memory, an ELF file, and mutants."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from impl.linux.architectures import Change
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest.guest import Guest
from impl.linux.instruments.code import find_code
from impl.linux.instruments.mutants import Candidates, Mutant, find_mutants
from impl.linux.probes.symbols import Symbols, Table

__all__ = ["BASE", "candidates", "function_code", "linked", "made_mutant"]

BASE = 0xFFFFFFFF81000000


class Reading:
    """A guest with some text."""

    def __init__(self, code: dict[int, bytes], vmlinux: Path) -> None:
        self.code = code
        self.kernel = SimpleNamespace(architecture=X86_64, vmlinux=vmlinux)

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The text at each address."""
        return [self._read(address, length) for address, length in places]

    def _read(self, address: int, length: int) -> bytes:
        return next(
            (text[address - start :][:length] for start, text in self.code.items() if 0 <= address - start < len(text)),
            b"",
        )


def function_code(distance: int, errno: int = -12) -> bytes:
    """A function, which calls what is so far behind its first byte.

    test edi, edi; je behind the call; call; mov [rdi + 8], rax; cmp eax, 3; jne to itself; mov eax, errno; ret
    """
    text = bytes.fromhex("85ff 7405 e8") + struct.pack("<i", distance - 9) + bytes.fromhex("48894708 83f803 75ee b8")
    return (text + struct.pack("<i", errno) + bytes.fromhex("c3")).ljust(32, b"\xcc")


def linked(path: Path, code: dict[int, bytes]) -> Path:
    """Write an ELF file with a segment for each stretch of code."""
    header = struct.pack(
        "<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0, 64, 0, 0, 64, 56, len(code), 64, 0, 0
    )
    segments, body = b"", b""
    start = len(header) + 56 * len(code)
    for address, text in code.items():
        offset = start + len(body)
        segments += struct.pack("<IIQQQQQQ", 1, 5, offset, address, address, len(text), len(text), 16)
        body += text
    path.write_bytes(header + segments + body)
    return path


def candidates(path: Path, base: int, live: bytes, built: bytes | None = None) -> Candidates:
    """The mutants of bpf_trampoline_get at an address, beside which bpf_trampoline_put stands at 0x100.

    live: the code of the first; built: as it was linked, if that differs.
    """
    names = {base: "bpf_trampoline_get", base + 0x100: "bpf_trampoline_put", base + 0x110: "last"}
    code, file = ({base: _beside(each)} for each in (live, built or live))
    guest = cast("Guest", Reading(code, linked(path, file)))
    symbols = Symbols(Table(list(names), list(names.values())))
    return find_mutants(guest, symbols, find_code(guest, symbols))


def _beside(text: bytes) -> bytes:
    return text.ljust(0x100, b"\xcc") + b"\xc3".ljust(16, b"\xcc")


def made_mutant(number: int = 0, change: Change = Change.CALL, **members: object) -> Mutant:
    """A mutant of some function; members: those that matter."""
    made = {
        "source": "kernel/bpf/trampoline.c",
        "function": f"function{number}",
        "at": number,
        "address": BASE + number,
        "change": change,
        "text": "call 0x10",
        "old": "e800000000",
        "new": "31c00f1f00",
        "target": "kfree",
        "code": f"{number:012x}",
        "block": BASE + number,
        "ways": (),
        "before": (),
        "near": (("kfree",),),
    }
    return Mutant(**{**made, **members})  # type: ignore[arg-type]
