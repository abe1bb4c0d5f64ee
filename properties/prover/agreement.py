"""A second opinion on an instruction: its p-code, evaluated, against unicorn, on random states of registers and memory.

SLEIGH's descriptions have mistakes; an instruction has a model only where both agree on all that the processor defines.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from unicorn import UcError, unicorn_const  # type: ignore[attr-defined]

from properties.prover.architecture import Architecture
from properties.prover.cells import Cells
from properties.prover.operations import LiftedInstruction, Op, OpKind, Place, Space
from properties.prover.pcode import truth
from properties.prover.tools import emulator, register_number, register_numbers

__all__ = ["CODE", "Agreement"]

CODE: Final = 0xFFFFFFFFC0100000
"""The instruction is put here, at the start of a page of its own."""

PAGE: Final = 0x1000
DATA: Final = 0xFFFF888000010000
SIZE: Final = 0x4000
NOP_BYTES: Final = 0x20
TRIES: Final = 6
BITS: Final = (6, 64)
Places = Mapping[str, tuple[int, int]]


class Agreement:
    """Compares instructions. places: of registers. One serves a process: making an emulator takes a millisecond."""

    def __init__(self, architecture: Architecture, places: Places) -> None:
        self._architecture = architecture
        self._evaluated = _Evaluated(places)
        self._emulated = _Emulated(architecture)

    def compared(self, instruction: LiftedInstruction, code: bytes, count: int, seed: int = 0) -> tuple[int, str]:
        """Counts the states compared, at most `count`, and tells where the two differ, if they do.

        A state is left out where the instruction goes beyond its memory; for each, some others are tried.
        """
        draw = random.Random(seed)  # noqa: S311 - states are to be varied, not secret
        self._emulated.load(code)
        bases = _find_bases(code)
        done = 0
        for _ in range(TRIES * count):
            if done == count:
                break
            before = self._draw_state(draw, bases)
            try:
                expected = self._evaluated.run(instruction, before)
            except _OutsideError:
                continue
            done += 1
            found = _find_difference(expected, self._emulated.run(before), instruction)
            if found:
                return done, found
        return done, ""

    def _draw_state(self, draw: random.Random, bases: Sequence[int]) -> _Numbers:
        """Draws registers of any value: most point into the memory, and some are small, so that accesses reach it.

        bases: values of registers that are only read, by segments, from which an access reaches it.
        """
        architecture = self._architecture
        middle = DATA + SIZE // 2
        registers = {
            name: middle + draw.randrange(-0x400, 0x400) if draw.randrange(3) else draw.getrandbits(draw.choice(BITS))
            for name in architecture.general
        }
        for name in architecture.frame:
            registers[name] = middle + draw.randrange(-0x100, 0x100) * draw.choice((1, 8, 8, 8))
        registers |= {flag: draw.randrange(2) for flag in architecture.flags}
        registers |= {name: draw.choice(bases) for name in architecture.readable}
        return _Numbers(registers, bytearray(draw.randbytes(SIZE)))


def _find_bases(code: bytes) -> list[int]:
    """Finds what must be added to a number of 32 bits somewhere in the instruction, so that it is in the memory.

    The number may count from the next instruction.
    """
    middle = DATA + SIZE // 2
    numbers = [int.from_bytes(code[start : start + 4], "little", signed=True) for start in range(len(code) - 3)]
    starts = (0, CODE + len(code))
    return [0, middle, *((middle - start - number) % (1 << 64) for number in numbers for start in starts)]


@dataclass
class _Numbers:
    """A state: registers and flags by name, and SIZE bytes from DATA on."""

    registers: dict[str, int]
    memory: bytearray
    pc: int = CODE
    faulted: bool = field(default=False, compare=False)


class _OutsideError(Exception):
    """An access outside the bytes of the state."""


def _find_difference(one: _Numbers, other: _Numbers, instruction: LiftedInstruction) -> str:
    """Tells where two states differ in what the processor defines."""
    if other.faulted:
        return "it faults"
    for name, value in one.registers.items():
        if name not in instruction.undefined and value != other.registers[name]:
            return f"{name} is {value:#x} by p-code, and {other.registers[name]:#x} by unicorn"
    if one.memory != other.memory:
        return "memory differs"
    return "" if one.pc == other.pc else f"it goes to {one.pc:#x} by p-code, and to {other.pc:#x} by unicorn"


class _Evaluated:
    """Runs instructions by their p-code."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._registers, self._temporaries = Cells(), Cells()
        self._memory = bytearray()

    def run(self, instruction: LiftedInstruction, before: _Numbers) -> _Numbers:
        """The state after one instruction; _OutsideError where it needs more memory than there is."""
        self._registers, self._temporaries = Cells(), Cells()
        self._memory = bytearray(before.memory)
        for name, value in before.registers.items():
            self._registers.write(*self._places[name], value)
        pc = self._run_operations(instruction.ops)
        after = {name: self._read_number(self._registers, *self._places[name]) for name in before.registers}
        return _Numbers(after, self._memory, CODE + instruction.size if pc is None else pc)

    def _run_operations(self, ops: tuple[Op, ...]) -> int | None:
        index = 0
        while index < len(ops):
            kind, function, output, inputs = ops[index]
            values = [self._read_operand(place) for place in inputs]
            index += 1
            if kind is OpKind.GOTO or (kind is OpKind.GOTO_IF and truth(values[1]) == 1):
                return values[0]
            if kind is OpKind.SKIP or (kind is OpKind.SKIP_IF and truth(values[1]) == 1):
                index = values[0]
            elif kind is OpKind.STORE:
                self._store(values[0], values[1].to_bytes(inputs[1][2], "little"))
            elif output is not None:
                value = function(*values) if function else int.from_bytes(self._load(values[0], output[2]), "little")
                cells = self._registers if output[0] == Space.REGISTER else self._temporaries
                cells.write(output[1], output[2], value)
        return None

    def _read_operand(self, place: Place) -> int:
        space, offset, size = place
        if space == Space.CONSTANT:
            return offset
        return self._read_number(self._registers if space == Space.REGISTER else self._temporaries, offset, size)

    def _read_number(self, cells: Cells, offset: int, size: int) -> int:
        value = cells.read(offset, size, _refuse_unknown)
        assert isinstance(value, int)
        return value

    def _find_place(self, address: int, size: int) -> int:
        if not 0 <= address - DATA <= SIZE - size:
            raise _OutsideError
        return address - DATA

    def _load(self, address: int, size: int) -> bytes:
        place = self._find_place(address, size)
        return bytes(self._memory[place : place + size])

    def _store(self, address: int, content: bytes) -> None:
        place = self._find_place(address, len(content))
        self._memory[place : place + len(content)] = content


def _refuse_unknown(offset: int, size: int) -> int:
    raise AssertionError(f"{offset:#x} ({size}) is read, and has no value")


class _Emulated:
    """Runs instructions in one unicorn, each from the start of a page of its own."""

    def __init__(self, architecture: Architecture) -> None:
        self._architecture = architecture
        self._machine: Any = emulator(architecture)
        self._machine.mem_map(CODE, PAGE)
        self._machine.mem_map(DATA, SIZE)
        self._numbers = register_numbers(architecture)
        self._flags = register_number(architecture, architecture.flags_register)

    def load(self, code: bytes) -> None:
        """Puts an instruction in place. unicorn keeps what it has translated before, unless it is told not to."""
        self._machine.mem_write(CODE, code + bytes(NOP_BYTES - len(code)))
        self._machine.ctl_remove_cache(CODE, CODE + PAGE)

    def run(self, before: _Numbers) -> _Numbers:
        """The state after one instruction."""
        machine, architecture = self._machine, self._architecture
        for name in (*architecture.general, *architecture.readable):
            machine.reg_write(self._numbers[name], before.registers[name])
        flags = sum(before.registers[name] << bit for name, bit in architecture.flags.items())
        machine.reg_write(self._flags, flags | architecture.set_flags)
        machine.mem_write(DATA, bytes(before.memory))
        faulted = False
        try:
            machine.emu_start(CODE, 1 << 63, count=1)
        except UcError as error:
            faulted = error.errno != unicorn_const.UC_ERR_FETCH_UNMAPPED
        after = {name: int(machine.reg_read(self._numbers[name])) for name in architecture.general}
        flags = machine.reg_read(self._flags)
        after |= {name: flags >> bit & 1 for name, bit in architecture.flags.items()}
        after |= {name: before.registers[name] for name in architecture.readable}
        pc = int(machine.reg_read(self._numbers[architecture.pc]))
        return _Numbers(after, machine.mem_read(DATA, SIZE), pc, faulted)
