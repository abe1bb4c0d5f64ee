"""BPF trampoline images: what one calls, in order, read from its machine code; and the JSON form for the prover."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from impl.linux.architectures import Architecture, ImageInstruction, Meaning
from impl.linux.probes.enabled import parse_enabled_functions
from impl.linux.probes.symbols import Symbols
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

__all__ = [
    "Disassembly",
    "Helpers",
    "Original",
    "ProgramCall",
    "Subject",
    "disassemble",
    "helpers",
    "image_document",
]


@dataclass(frozen=True, slots=True)
class Helpers:
    """Addresses of the functions that an image calls around programs, and at its own begin and end."""

    prog_enter: frozenset[int]
    prog_exit: frozenset[int]
    tramp: frozenset[int]


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

    return Helpers(starting("__bpf_prog_enter"), starting("__bpf_prog_exit"), starting("__bpf_tramp_"))


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


@dataclass(frozen=True, slots=True)
class Subject:
    """What an image was made for: a function with its prototype, as text and as types, and its BTF id."""

    name: str
    text: str
    prototype: Prototype
    btf_id: int


def image_document(
    *,
    architecture: Architecture,
    kernel: str,
    release: str,
    subject: Subject,
    attach_order: Sequence[str],
    options: dict[str, Any],
    symbols: Symbols,
    function: tuple[int, bytes],
    image: tuple[int, bytes],
    enabled_functions: Sequence[str],
) -> dict[str, Any]:
    """A live trampoline as the design contract's JSON object (3.3), its keys in the usual order.

    Function: its address and first 16 bytes. Image: its address and bytes, through its last `ret` at least. Symbols:
    read while the trampoline is in place. Enabled_functions: the function's lines, without their newlines.
    """
    (start, prologue), (at, code) = function, image
    site = architecture.decode_site(start, prologue)
    calls, used = _document_calls(architecture, at, code, symbols)
    prototype = subject.prototype
    (listed,) = parse_enabled_functions("\n".join(enabled_functions))
    return {
        "kernel": kernel,
        "release": release,
        "attach": {kind: attach_order.count(kind) for kind in dict.fromkeys(attach_order)},
        "attach_order": list(attach_order),
        "options": options,
        "function": subject.name,
        "prototype": subject.text,
        "btf_id": subject.btf_id,
        "ret": _document_type(prototype.returns),
        "args": [_document_type(argument) for argument in prototype.arguments],
        "nregs": len(prototype.slots),
        "trampoline_symbol": _spell(symbols, at),
        "function_address": hex(start),
        "function_prologue_bytes": prologue.hex(),
        "fentry_offset": site.address - start,
        "callsite_target": None if site.target is None else hex(site.target),
        "callsite_target_sym": None if site.target is None else _spell(symbols, site.target),
        "enabled_functions": list(enabled_functions),
        "image_address": hex(at),
        "image_size_ksym": listed.entry.size if listed.entry and not listed.entry.offset else len(code),
        "used_bytes": used,
        "image_hex": code.hex(),
        "calls": calls,
        "programs": _document_programs(calls),
    }


def _document_calls(
    architecture: Architecture, address: int, code: bytes, symbols: Symbols
) -> tuple[list[dict[str, Any]], int]:
    """The calls and constants that are kernel addresses, and the bytes used."""
    calls = []
    used = 0
    for instruction in architecture.read_image(address, code):
        used = instruction.offset + instruction.size
        target = instruction.number
        if instruction.listed and target is not None and target >= architecture.kernel_addresses:
            symbol = _spell(symbols, target)
            calls.append({"off": instruction.offset, "insn": instruction.listed, "target": hex(target), "sym": symbol})
    return calls, used


def _document_programs(calls: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    # A program is called at its start, a function of such a name behind its site.
    called = (call for call in calls if call["sym"].startswith("bpf_prog_") and "+" not in call["sym"])
    found = {call["sym"]: call["target"] for call in called}
    return [{"name": name, "symbol_address": found[name]} for name in sorted(found, key=_by_number)]


def _by_number(name: str) -> tuple[str | int, ...]:
    # p2 before p10
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def _document_type(kind: Type) -> dict[str, Any]:
    return {"type": kind.name, "kind": kind.kind, "size": kind.size}


def _spell(symbols: Symbols, address: int) -> str:
    place = symbols.at(address)
    return str(place) if place else "heap"
