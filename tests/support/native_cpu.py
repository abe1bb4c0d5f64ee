"""Instructions executed by the processor that this runs on, one at a time, in a child process that may die of them.

The parent fills slots of a file that both have mapped; the child puts each slot's instruction, registers and memory in
place, runs it between code that loads and stores all registers, and writes the slot back. x86-64 Linux only.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import platform
import resource
import signal
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

GENERAL = tuple("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split())
PAGE = 0x1000
CODE = 0x200000000000
"""Where the child's code is; behind it a page of registers."""

AT = CODE + 0x800
"""Where the instruction is put."""

DATA = CODE + 0x100000
SIZE = 0x1000
"""The memory that instructions may use, pages apart from all else."""

LANDING = 0x40
"""How far behind the instruction a branch that is taken must go."""

AHEAD, BEHIND, TAKEN = CODE, CODE + 0x200, CODE + 0x400
LOADED, STORED = CODE + PAGE, CODE + PAGE + 0x200
FLAGS, PC, HOST = 16 * 8, 17 * 8, 18 * 8
FIXED = 0x100000
"""MAP_FIXED_NOREPLACE."""

SLOT = struct.Struct("<B15x16s18Q")
SLOT_BYTES = SLOT.size + SIZE
BATCH = 512
SECONDS = 60


@dataclass(frozen=True)
class Run:
    """An instruction and a state, or the state after it: registers by name, flags, where control is, SIZE bytes."""

    code: bytes
    registers: tuple[int, ...]
    flags: int
    memory: bytes
    pc: int = AT


def unavailable() -> str | None:
    """Why there is no such processor here; None if there is."""
    if platform.system() != "Linux" or platform.machine() not in {"x86_64", "AMD64"}:
        return f"no x86-64 Linux processor here but {platform.machine()}: nothing is executed natively"
    return None


class Processor:
    """Executes runs, and starts a new child where one dies."""

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the processor
        self._file.truncate(8 + BATCH * SLOT_BYTES)
        self._slots = mmap.mmap(self._file.fileno(), 0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._slots.close()
        self._file.close()

    def run(self, runs: Sequence[Run]) -> list[Run | str]:
        """The states after the runs, or by which signal the processor ended one."""
        done: list[Run | str] = []
        for start in range(0, len(runs), BATCH):
            done += self._batch(runs[start : start + BATCH])
        return done

    def _batch(self, runs: Sequence[Run]) -> list[Run | str]:
        for place, run in enumerate(runs):
            header = SLOT.pack(len(run.code), run.code.ljust(16, b"\0"), *run.registers, run.flags, run.pc)
            self._slots[8 + place * SLOT_BYTES : 8 + (place + 1) * SLOT_BYTES] = header + run.memory
        ended: dict[int, str] = {}
        first = 0
        while first < len(runs):
            status = self._child(first, len(runs))
            reached = int.from_bytes(self._slots[:8], "little")
            if status == 0:
                break
            if status >= 0 or reached >= len(runs):
                raise RuntimeError(f"the child that executes natively ends with status {status}")
            ended[reached] = signal.Signals(-status).name
            first = reached + 1
        return [ended.get(place) or self._after(place) for place in range(len(runs))]

    def _child(self, first: int, count: int) -> int:
        self._slots[:8] = first.to_bytes(8, "little")
        arguments = [sys.executable, __file__, str(self._file.fileno()), str(first), str(count)]
        descriptor = self._file.fileno()
        return subprocess.run(arguments, pass_fds=[descriptor], timeout=SECONDS, check=False).returncode

    def _after(self, place: int) -> Run:
        start = 8 + place * SLOT_BYTES
        size, code, *words = SLOT.unpack(self._slots[start : start + SLOT.size])
        memory = self._slots[start + SLOT.size : start + SLOT_BYTES]
        return Run(code[:size], tuple(words[:16]), words[16], memory, words[17])


def _relative(code: bytes, at: int, target: int) -> bytes:
    """An instruction that ends in the distance to what it refers to."""
    return code + (target - at - len(code) - 4).to_bytes(4, "little", signed=True)


def _move(opcode: int, register: int, at: int, target: int) -> bytes:
    """A register to (0x89) or from (0x8b) memory; no flag changes."""
    return _relative(bytes([0x4C if register > 7 else 0x48, opcode, 5 | (register & 7) << 3]), at, target)


def _ahead() -> bytes:
    """Keeps the child's registers, and loads those of the state: the stack pointer last, after the flags."""
    code = b""
    for register in range(16):
        code += _move(0x89, register, AHEAD + len(code), LOADED + HOST + 8 * register)
    code += _relative(b"\xff\x35", AHEAD + len(code), LOADED + FLAGS)
    code += b"\x9d"
    for register in (*(one for one in range(16) if one != 4), 4):
        code += _move(0x8B, register, AHEAD + len(code), LOADED + 8 * register)
    return code + _relative(b"\xe9", AHEAD + len(code), AT)


def _behind(at: int, marker: int) -> bytes:
    """Stores the registers and flags of the state, and that control came here; then the child's are back."""
    code = b""
    for register in range(16):
        code += _move(0x89, register, at + len(code), STORED + 8 * register)
    code += _move(0x8B, 4, at + len(code), LOADED + HOST + 8 * 4)
    code += b"\x9c"
    code += _relative(b"\x8f\x05", at + len(code), STORED + FLAGS)
    code += b"\xfc"
    for register in range(16):
        code += _move(0x8B, register, at + len(code), LOADED + HOST + 8 * register)
    # mov qword ptr [rip + n], marker, whose distance counts from behind the marker.
    code += _relative(b"\x48\xc7\x05", at + len(code) + 4, STORED + PC) + marker.to_bytes(4, "little")
    return code + b"\xc3"


def _mapped(address: int, size: int, protection: int) -> None:
    library = ctypes.CDLL(None, use_errno=True)
    library.mmap.restype = ctypes.c_void_p
    library.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | FIXED
    if library.mmap(address, size, protection, flags, -1, 0) != address:
        raise OSError(ctypes.get_errno(), f"nothing can be mapped at {address:#x}")


def _execute(slots: mmap.mmap, place: int) -> None:
    start = 8 + place * SLOT_BYTES
    size, code, *words = SLOT.unpack(slots[start : start + SLOT.size])
    behind = AT + size
    text = code[:size] + _relative(b"\xe9", behind, BEHIND)
    ctypes.memmove(AT, text, len(text))
    ctypes.memmove(behind + LANDING, _relative(b"\xe9", behind + LANDING, TAKEN), 5)
    ctypes.memmove(LOADED, struct.pack("<17Q", *words[:17]), FLAGS + 8)
    ctypes.memmove(DATA, slots[start + SLOT.size : start + SLOT_BYTES], SIZE)
    ctypes.CFUNCTYPE(None)(AHEAD)()
    *after, marker = struct.unpack("<18Q", ctypes.string_at(STORED, PC + 8))
    pc = behind + LANDING if marker else behind
    slots[start : start + SLOT_BYTES] = SLOT.pack(size, code, *after, pc) + ctypes.string_at(DATA, SIZE)


def _main(descriptor: int, first: int, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))
    slots = mmap.mmap(descriptor, 0)
    os.close(descriptor)
    _mapped(CODE, 2 * PAGE, mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    _mapped(DATA, SIZE, mmap.PROT_READ | mmap.PROT_WRITE)
    for at, code in ((AHEAD, _ahead()), (BEHIND, _behind(BEHIND, 0)), (TAKEN, _behind(TAKEN, 1))):
        ctypes.memmove(at, code, len(code))
    for place in range(first, count):
        slots[:8] = place.to_bytes(8, "little")
        _execute(slots, place)


if __name__ == "__main__":
    _main(*map(int, sys.argv[1:]))
