"""BPF instructions as bytes: those that recorder programs need.

Encodings are those of the kernel's Documentation/bpf/standardization/instruction-set.rst; all loads and stores are of
8 bytes. A function that gives more than one instruction says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "BYTES",
    "Instruction",
    "add",
    "add_register",
    "bitwise_and",
    "call_helper",
    "call_kfunc",
    "encode",
    "exit_program",
    "fetch_add",
    "jump_if_at_least",
    "jump_if_not",
    "jump_if_zero",
    "load",
    "load_map_value",
    "move",
    "move_register",
    "shift_left",
    "store",
    "store_constant",
]

INSTRUCTION = struct.Struct("<BBhi")
BYTES = INSTRUCTION.size

ADD64, AND64, LSH64, MOV64 = 0x07, 0x57, 0x67, 0xB7
FROM_REGISTER = 0x08
LD_IMM64, LDX_DW, ST_DW, STX_DW, ATOMIC_DW = 0x18, 0x79, 0x7A, 0x7B, 0xDB
JEQ, JGE, JNE, CALL, EXIT = 0x15, 0x35, 0x55, 0x85, 0x95
ATOMIC_FETCH_ADD = 0x01
# what the source register of LD_IMM64 and CALL says
PSEUDO_MAP_VALUE, PSEUDO_KFUNC_CALL = 2, 2

HALF = 1 << 31
WORD = 1 << 64


class Instruction(NamedTuple):
    """One eight-byte instruction: registers by number, `offset` in bytes or, for jumps, in instructions."""

    opcode: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0


def encode(instructions: Iterable[Instruction]) -> bytes:
    """The instructions as the kernel takes them."""
    return b"".join(
        INSTRUCTION.pack(opcode, source << 4 | destination, offset, immediate)
        for opcode, destination, source, offset, immediate in instructions
    )


def move(register: int, value: int) -> tuple[Instruction, ...]:
    """Any 64-bit value, signed or not: one instruction where 32 bits hold it with its sign, else two."""
    signed = (value + WORD // 2) % WORD - WORD // 2
    if -HALF <= signed < HALF:
        return (Instruction(MOV64, register, immediate=signed),)
    return _load_64(register, 0, signed & 0xFFFFFFFF, signed >> 32)


def load_map_value(register: int, fd: int, offset: int) -> tuple[Instruction, ...]:
    """The address of a byte of a one-entry array map's value; two instructions."""
    return _load_64(register, PSEUDO_MAP_VALUE, fd, offset)


def _load_64(register: int, source: int, low: int, high: int) -> tuple[Instruction, ...]:
    low = low - 2 * HALF if low >= HALF else low
    return Instruction(LD_IMM64, register, source, 0, low), Instruction(0, immediate=high)


def move_register(register: int, source: int) -> Instruction:
    """Copy a register."""
    return Instruction(MOV64 | FROM_REGISTER, register, source)


def add(register: int, value: int) -> Instruction:
    """Add a constant."""
    return Instruction(ADD64, register, immediate=value)


def add_register(register: int, source: int) -> Instruction:
    """Add a register."""
    return Instruction(ADD64 | FROM_REGISTER, register, source)


def bitwise_and(register: int, value: int) -> Instruction:
    """Keep these bits."""
    return Instruction(AND64, register, immediate=value)


def shift_left(register: int, bits: int) -> Instruction:
    """Multiply by a power of two."""
    return Instruction(LSH64, register, immediate=bits)


def load(register: int, base: int, offset: int) -> Instruction:
    """The word at base + offset."""
    return Instruction(LDX_DW, register, base, offset)


def store(base: int, offset: int, register: int) -> Instruction:
    """A register to base + offset."""
    return Instruction(STX_DW, base, register, offset)


def store_constant(base: int, offset: int, value: int) -> Instruction:
    """A constant of 32 bits, with its sign, to base + offset."""
    return Instruction(ST_DW, base, 0, offset, value)


def fetch_add(base: int, offset: int, register: int) -> Instruction:
    """Add a register to the word at base + offset in one step; the register gets what was there."""
    return Instruction(ATOMIC_DW, base, register, offset, ATOMIC_FETCH_ADD)


def jump_if_at_least(register: int, value: int, count: int) -> Instruction:
    """Skip `count` instructions if the register is `value` or more, unsigned."""
    return Instruction(JGE, register, 0, count, value)


def jump_if_zero(register: int, count: int) -> Instruction:
    """Skip `count` instructions if the register is 0."""
    return Instruction(JEQ, register, 0, count)


def jump_if_not(register: int, value: int, count: int) -> Instruction:
    """Skip `count` instructions if the register is not `value`."""
    return Instruction(JNE, register, 0, count, value)


def call_helper(number: int) -> Instruction:
    """Call a helper by its BPF_FUNC_ number."""
    return Instruction(CALL, immediate=number)


def call_kfunc(btf_id: int, fd_array_index: int = 0) -> Instruction:
    """Call a kernel function by its BTF id: in vmlinux's BTF, or in that of an entry of fd_array, which are from 1."""
    return Instruction(CALL, 0, PSEUDO_KFUNC_CALL, fd_array_index, btf_id)


def exit_program() -> Instruction:
    """Return R0."""
    return Instruction(EXIT)
