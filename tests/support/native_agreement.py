"""A third opinion on instructions: the processor that this runs on, against p-code, on random states.

Only what p-code says stays in its memory, and is neither privileged nor elsewhere by a segment's base, is executed; a
branch is led to a place that can be seen.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import takewhile

from properties.prover import agreement
from properties.prover.agreement import _Evaluated, _Numbers, _OutsideError
from properties.prover.lift import lifter
from properties.prover.operations import LiftedInstruction, OpKind, Space
from properties.prover.x86_64 import X86_64
from tests.support.native_cpu import AT, DATA, LANDING, SIZE, Processor, Run

LIFTER = lifter(X86_64)
SEGMENTS = frozenset({0x64, 0x65})
ALWAYS = 1 << 1 | 1 << 9
"""Flags that are set whatever a program does: the reserved one, and IF."""

PREFIXES = frozenset({0x66, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, *SEGMENTS, *range(0x40, 0x50)})
TWO_BYTES, NEAR, LONG = 0x0F, range(0x80, 0x90), {0xE8, 0xE9}


class Evaluated(_Evaluated):
    """P-code on states whose memory is where the processor's is. loaded: the address of the last load."""

    loaded: int | None = None

    def run(self, instruction: LiftedInstruction, before: _Numbers) -> _Numbers:
        """The state after one instruction at AT."""
        self.loaded = None
        after = super().run(instruction, before)
        falls = after.pc == agreement.CODE + instruction.size
        return replace(after, pc=AT + instruction.size) if falls else after

    def _find_place(self, address: int, size: int) -> int:
        if not 0 <= address - DATA <= SIZE - size:
            raise _OutsideError
        return address - DATA

    def _load(self, address: int, size: int) -> bytes:
        self.loaded = address
        return super()._load(address, size)


@dataclass
class Report:
    """forms: of instructions compared; states: in which. left_out: forms by reason. wrong: where the two differ."""

    forms: int = 0
    states: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(self.left_out.items())) or "none"
        return f"{self.forms} forms executed natively in {self.states} states; left out: {reasons}"


def form(code: bytes) -> bytes:
    """The encoding; of a relative branch, the one that goes to where it can be seen."""
    instruction = LIFTER.one(code, AT, AT)
    code = code[: instruction.size] or code
    relative = any(op[0] in {OpKind.GOTO, OpKind.GOTO_IF} and op[3][0][0] == Space.CONSTANT for op in instruction.ops)
    if not relative:
        return code
    opcode = code[prefixes(code) :]
    size = 4 if opcode[0] in LONG or (opcode[0] == TWO_BYTES and opcode[1] in NEAR) else 1
    return code[:-size] + LANDING.to_bytes(size, "little")


def prefixes(code: bytes) -> int:
    """How many of the first bytes are prefixes."""
    return sum(1 for _ in takewhile(PREFIXES.__contains__, code))


def unfit(code: bytes, instruction: LiftedInstruction) -> str | None:
    """Why an instruction is not executed."""
    if instruction.unmodelled:
        return "without a model"
    return "relative to a segment's base" if SEGMENTS.intersection(code[: prefixes(code)]) else None


def state(draw: random.Random) -> _Numbers:
    """Registers of any value, most of them pointers into the memory, and some an index."""
    middle = DATA + SIZE // 2
    registers = {
        name: middle + draw.randrange(-0x200, 0x200) if draw.randrange(3) else draw.getrandbits(draw.choice((6, 64)))
        for name in X86_64.general
    }
    for name in X86_64.frame:
        registers[name] = middle + draw.randrange(-0x20, 0x20) * draw.choice((1, 8, 8, 8))
    registers |= {flag: draw.randrange(2) for flag in X86_64.flags}
    registers |= dict.fromkeys(X86_64.readable, 0)
    return _Numbers(registers, bytearray(draw.randbytes(SIZE)), AT)


def cases(codes: Iterable[bytes], count: int, report: Report) -> Iterator[tuple[LiftedInstruction, _Numbers, Run]]:
    """What to execute, and what p-code says is the state after it."""
    evaluated = Evaluated(LIFTER.registers)
    draw = random.Random(7)
    for code in sorted({form(code) for code in codes}):
        instruction = LIFTER.one(code, AT, AT)
        reason = unfit(code, instruction)
        found = [] if reason else [one for _ in range(count) if (one := case(instruction, code, evaluated, draw))]
        if not found:
            report.left_out[reason or "in no state within its memory"] += 1
            continue
        report.forms += 1
        report.states += len(found)
        yield from ((instruction, expected, run) for expected, run in found)


def case(
    instruction: LiftedInstruction, code: bytes, evaluated: Evaluated, draw: random.Random
) -> tuple[_Numbers, Run] | None:
    """One state before and after; None where the instruction goes beyond its memory, or to where nothing is seen."""
    before = state(draw)
    behind = AT + instruction.size
    try:
        after = evaluated.run(instruction, before)
        if after.pc not in {behind, behind + LANDING}:
            aim(before, after.pc, behind + LANDING, evaluated.loaded)
            after = evaluated.run(instruction, before)
    except _OutsideError:
        return None
    if after.pc not in {behind, behind + LANDING}:
        return None
    flags = sum(before.registers[name] << bit for name, bit in X86_64.flags.items()) | ALWAYS
    registers = tuple(before.registers[name] for name in X86_64.general)
    return after, Run(code, registers, flags, bytes(before.memory))


def aim(before: _Numbers, target: int, wanted: int, loaded: int | None) -> None:
    """Puts an indirect branch's target where it is read: in memory, or in the registers that have the old one."""
    if loaded is not None:
        before.memory[loaded - DATA : loaded - DATA + 8] = wanted.to_bytes(8, "little")
    for name in X86_64.general:
        if loaded is None and before.registers[name] == target:
            before.registers[name] = wanted


def difference(instruction: LiftedInstruction, expected: _Numbers, got: Run | str) -> str:
    """Where the processor's state differs from p-code's in what the manual defines; AF is in no model."""
    if isinstance(got, str):
        return f"the processor ends it with {got}"
    registers = dict(zip(X86_64.general, got.registers, strict=True))
    registers |= {name: got.flags >> bit & 1 for name, bit in X86_64.flags.items()}
    for name, value in registers.items():
        if name not in instruction.undefined and value != expected.registers[name]:
            return f"{name} is {expected.registers[name]:#x} by p-code, and {value:#x} by the processor"
    if got.memory != expected.memory:
        return "memory differs"
    same = got.pc == expected.pc
    return "" if same else f"it goes to {expected.pc:#x} by p-code, and to {got.pc:#x} by the processor"


def compared(codes: Iterable[bytes], count: int) -> Report:
    """P-code and the processor on `count` states for each form of these encodings."""
    report = Report()
    found = list(cases(codes, count, report))
    with Processor() as processor:
        for (instruction, expected, run), got in zip(found, processor.run([one[2] for one in found]), strict=True):
            wrong = difference(instruction, expected, got)
            report.wrong += [f"{run.code.hex()}: {wrong}"] if wrong else []
    return report
