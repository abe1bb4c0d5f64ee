"""BPF trampoline images: what one calls, in order, read from its machine code."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from impl.linux.architectures import Architecture, ImageInstruction, Meaning
from impl.linux.probes.symbols import Symbols
from spec.errors import BadInputError

__all__ = [
    "Disassembly",
    "Helpers",
    "Original",
    "ProgramCall",
    "disassemble",
    "helpers",
]


@dataclass(frozen=True, slots=True)
class Helpers:
    """Addresses of the functions that an image calls around programs, and at its own begin and end."""

    prog_enter: frozenset[int]
    prog_exit: frozenset[int]
    tramp_enter: frozenset[int]
    tramp_exit: frozenset[int]

    @property
    def tramp(self) -> frozenset[int]:
        """Those at begin and end."""
        return self.tramp_enter | self.tramp_exit


@dataclass(frozen=True, slots=True)
class ProgramCall:
    """A program's run in an image.

    kind: fentry, fmod_ret or fexit, by its place; a session is both fentry and fexit. program: the address
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
class Disassembly:
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
        """The call of the original, None if there is none."""
        return next((step for step in self.steps if isinstance(step, Original)), None)


@dataclass
class _Reading:
    """What the reader knows at an instruction.

    argument: the first argument of the next call, if it is a constant. run: the program that is being called. skipped:
    it was jumped over.
    """

    helpers: Helpers
    steps: list[ProgramCall | Original] = field(default_factory=list)
    argument: int | None = None
    cookie: int = 0
    skipped: bool = False
    run: dict[str, int] | None = None
    skips_frame: bool = False


def helpers(symbols: Symbols) -> Helpers:
    """The helpers of a kernel, by their names."""

    def starting(prefix: str) -> frozenset[int]:
        names = symbols.kernel.by_name
        return frozenset(start for name, starts in names.items() if name.startswith(prefix) for start in starts)

    names = ("__bpf_prog_enter", "__bpf_prog_exit", "__bpf_tramp_enter", "__bpf_tramp_exit")
    return Helpers(*map(starting, names))


def disassemble(architecture: Architecture, address: int, code: bytes, known: Helpers) -> Disassembly:
    """The image at an address. Code may be longer than the image; one without an end is a BadInputError."""
    reading = _Reading(known)
    used = 0
    for instruction in architecture.read_image(address, code):
        _step(reading, instruction)
        used = instruction.offset + instruction.size
    return Disassembly(tuple(reading.steps), reading.skips_frame, used)


def _step(reading: _Reading, instruction: ImageInstruction) -> None:
    match instruction.meaning:
        case Meaning.CALL:
            _call(reading, instruction.number)
        case Meaning.SKIP:
            reading.skipped = True
        case Meaning.ARGUMENT:
            reading.argument = instruction.number
        case Meaning.COOKIE if reading.argument is not None:
            reading.cookie = reading.argument
        case Meaning.TEST_RETURN:
            _make_last_fmod_ret(reading)
        case Meaning.DROP_FRAME:
            reading.skips_frame = True


def _call(reading: _Reading, target: int | None) -> None:
    """The calls of a run come as enter, program, exit; what is called outside of one is the original."""
    if target in reading.helpers.prog_enter:
        reading.run = {"enter": _require(target), "prog": _require(reading.argument), "cookie": reading.cookie}
    elif target in reading.helpers.prog_exit:
        reading.run, reading.skipped = None, False
    elif reading.run is not None:
        kind = "fexit" if any(isinstance(step, Original) for step in reading.steps) else "fentry"
        reading.steps.append(ProgramCall(kind, _require(target), skipped=reading.skipped, **reading.run))
    elif target not in reading.helpers.tramp:
        reading.steps.append(Original(target))
    reading.argument = None


def _require(value: int | None) -> int:
    if value is None:
        raise BadInputError("a trampoline image calls a program in a way that is not known")
    return value


def _make_last_fmod_ret(reading: _Reading) -> None:
    last = reading.steps[-1]
    assert isinstance(last, ProgramCall)
    reading.steps[-1] = replace(last, kind="fmod_ret")
