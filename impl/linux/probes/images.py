"""BPF trampoline images: what one calls, in order, read from its machine code; and the JSON form for the prover.

Source: arch_prepare_bpf_trampoline() and invoke_bpf_prog() of arch/x86/net/bpf_jit_comp.c.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import capstone  # type: ignore[import-untyped]

from impl.linux.probes.enabled import decode_site, parse_enabled_functions
from impl.linux.probes.symbols import Symbols
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

__all__ = [
    "Helpers",
    "Image",
    "Original",
    "ProgramCall",
    "Subject",
    "entry_text",
    "helpers",
    "image_document",
    "parse_image",
]

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
NUMBER = re.compile(r"-?0x[0-9a-f]+|-?\d+")
WORD = 1 << 64
# Immediates below are no addresses but cookies.
KERNEL = 0xFFFF800000000000


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
    for instruction in _instructions(address, code):
        _step(reading, instruction)
        used = instruction.offset + instruction.size
    return Image(tuple(reading.steps), reading.skips_frame, used)


def entry_text(image: Image, name: Callable[[ProgramCall], str]) -> str:
    """An image as a seed spells the entry of a site; `name` spells a program, as KIND:PROG."""
    return "trampoline:" + ",".join(map(name, image.programs))


def _instructions(address: int, code: bytes) -> Iterator[_Instruction]:
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


@dataclass(frozen=True, slots=True)
class Subject:
    """What an image was made for: a function with its prototype, as text and as types, and its BTF id."""

    name: str
    text: str
    prototype: Prototype
    btf_id: int


def image_document(
    *,
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
    site = decode_site(start, prologue)
    calls, used = _document_calls(at, code, symbols)
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
        "trampoline_symbol": _spelled(symbols, at),
        "function_address": hex(start),
        "function_prologue_bytes": prologue.hex(),
        "fentry_offset": site.address - start,
        "callsite_target": None if site.target is None else hex(site.target),
        "callsite_target_sym": None if site.target is None else _spelled(symbols, site.target),
        "enabled_functions": list(enabled_functions),
        "image_address": hex(at),
        "image_size_ksym": listed.entry.size if listed.entry and not listed.entry.offset else len(code),
        "used_bytes": used,
        "image_hex": code.hex(),
        "calls": calls,
        "programs": _document_programs(calls),
    }


def _document_calls(address: int, code: bytes, symbols: Symbols) -> tuple[list[dict[str, Any]], int]:
    """The calls and immediates that are kernel addresses, and the bytes used; not a call through a register."""
    calls = []
    used = 0
    for instruction in _instructions(address, code):
        used = instruction.offset + instruction.size
        if instruction.name not in {"call", "movabs"} or instruction.operands == "rbx":
            continue
        target = instruction.number
        if target >= KERNEL:
            symbol = _spelled(symbols, target)
            calls.append({"off": instruction.offset, "insn": instruction.name, "target": hex(target), "sym": symbol})
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


def _spelled(symbols: Symbols, address: int) -> str:
    place = symbols.at(address)
    return str(place) if place else "heap"
