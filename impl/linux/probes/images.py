"""BPF trampoline images: what one calls, in order, read from its machine code.

Source: arch_prepare_bpf_trampoline() and invoke_bpf_prog() of arch/x86/net/bpf_jit_comp.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import capstone  # type: ignore[import-untyped]

from impl.linux.probes.symbols import Symbols
from spec.errors import BadInputError

__all__ = [
    "Helpers",
    "Image",
    "Original",
    "ProgramCall",
    "entry_text",
    "helpers",
    "instructions",
    "parse_image",
]

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
NUMBER = re.compile(r"-?0x[0-9a-f]+|-?\d+")
WORD = 1 << 64


@dataclass(frozen=True, slots=True)
class Helpers:
    """Addresses of what an image calls around programs, and at its own begin and end."""

    prog_enter: frozenset[int]
    prog_exit: frozenset[int]
    tramp: frozenset[int]


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A program's run in an image.

    kind: what its place makes it, fentry, fmod_ret or fexit; a session is both fentry and fexit. program: the address
    of its code. prog: that of its struct bpf_prog. cookie: what bpf_get_attach_cookie will read. skipped: the kernel
    has patched it out, since the program was detached and the image stayed.
    """

    kind: str
    program: int
    prog: int
    cookie: int
    enter: int
    skipped: bool = False


@dataclass(frozen=True, slots=True)
class Original:
    """The call of the original: its address, or None where the image takes it from its stack (ORIG_STACK)."""

    target: int | None


@dataclass(frozen=True, slots=True)
class Image:
    """What an image does.

    steps: its calls of programs and of the original, in order. skips_frame: it returns to the function's caller, not
    to the function, by dropping a return address. used: bytes through the last instruction.
    """

    steps: tuple[ProgramCall | Original, ...]
    skips_frame: bool
    used: int

    @property
    def programs(self) -> tuple[ProgramCall, ...]:
        """The programs in running order."""
        return tuple(step for step in self.steps if isinstance(step, ProgramCall))

    @property
    def original(self) -> Original | None:
        """How the original is called, None if it is not."""
        return next((step for step in self.steps if isinstance(step, Original)), None)


@dataclass(frozen=True, slots=True)
class _Instruction:
    offset: int
    size: int
    name: str
    operands: str

    @property
    def number(self) -> int:
        """The last number in the operands."""
        return int(NUMBER.findall(self.operands)[-1], 0) % WORD


@dataclass
class _Reading:
    """Where the reader stands. register: what rdi holds, if it is a constant. run: the program that is being called."""

    helpers: Helpers
    steps: list[ProgramCall | Original] = field(default_factory=list)
    register: int | None = None
    cookie: int = 0
    skipped: bool = False
    run: dict[str, int] | None = None
    skips_frame: bool = False


def helpers(symbols: Symbols) -> Helpers:
    """The helpers of a kernel, by their names."""

    def starting(prefix: str) -> frozenset[int]:
        names = symbols.kernel.by_name
        return frozenset(start for name, starts in names.items() if name.startswith(prefix) for start in starts)

    return Helpers(starting("__bpf_prog_enter"), starting("__bpf_prog_exit"), starting("__bpf_tramp_"))


def parse_image(address: int, code: bytes, known: Helpers) -> Image:
    """The image at an address. Code may be longer than the image; one without an end is a BadInputError."""
    reading = _Reading(known)
    used = 0
    for instruction in instructions(address, code):
        _step(reading, instruction)
        used = instruction.offset + instruction.size
    return Image(tuple(reading.steps), reading.skips_frame, used)


def entry_text(image: Image, name: Callable[[ProgramCall], str]) -> str:
    """An image as a seed spells the entry of a site; `name` spells a program, as KIND:PROG."""
    return "trampoline:" + ",".join(map(name, image.programs))


def instructions(address: int, code: bytes) -> Iterator[_Instruction]:
    """Through `ret`, or the jump to a return thunk."""
    for at, size, name, operands in DECODER.disasm_lite(code, address):
        instruction = _Instruction(at - address, size, name, operands)
        yield instruction
        if name == "ret" or (name == "jmp" and not address <= instruction.number < address + len(code)):
            return
    raise BadInputError(f"the trampoline image at {address:#x} has no end in its {len(code)} bytes")


def _step(reading: _Reading, instruction: _Instruction) -> None:
    name, operands = instruction.name, instruction.operands
    if name == "call":
        _call(reading, None if operands == "rbx" else instruction.number)
    elif name == "jmp":
        # bpf_trampoline_skip_prog() turns the nop in front of a program into a jump behind it.
        reading.skipped = True
    elif operands.startswith(("rdi, ", "edi, ")):
        reading.register = _constant(instruction)
    elif operands.startswith("qword ptr [rbp") and operands.endswith(", rdi") and reading.register is not None:
        reading.cookie = reading.register
    elif name == "cmp" and operands == "qword ptr [rbp - 8], 0":
        _make_last_fmod_ret(reading)
    elif name == "add" and operands == "rsp, 8":
        reading.skips_frame = True


def _constant(instruction: _Instruction) -> int | None:
    if instruction.name == "xor":
        return 0
    immediate = instruction.name in {"mov", "movabs"} and "[" not in instruction.operands
    return instruction.number if immediate and NUMBER.search(instruction.operands) else None


def _call(reading: _Reading, target: int | None) -> None:
    """The calls of a run come as enter, program, exit; what is called outside of one is the original."""
    if target in reading.helpers.prog_enter:
        reading.run = {"enter": _known(target), "prog": _known(reading.register), "cookie": reading.cookie}
    elif target in reading.helpers.prog_exit:
        reading.run, reading.skipped = None, False
    elif reading.run is not None:
        kind = "fexit" if any(isinstance(step, Original) for step in reading.steps) else "fentry"
        reading.steps.append(ProgramCall(kind, _known(target), skipped=reading.skipped, **reading.run))
    elif target not in reading.helpers.tramp:
        reading.steps.append(Original(target))
    reading.register = None


def _known(value: int | None) -> int:
    if value is None:
        raise BadInputError("a trampoline image calls a program in a way that is not known")
    return value


def _make_last_fmod_ret(reading: _Reading) -> None:
    # Only behind an fmod_ret program is the return slot compared with 0.
    last = reading.steps[-1]
    assert isinstance(last, ProgramCall)
    reading.steps[-1] = ProgramCall("fmod_ret", last.program, last.prog, last.cookie, last.enter, last.skipped)
