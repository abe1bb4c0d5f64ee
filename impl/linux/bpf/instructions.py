"""The BPF instructions that our programs need, as bytes.

Encodings are those of the kernel's Documentation/bpf/standardization/instruction-set.rst; all loads and stores are of
8 bytes. A function that gives more than one instruction says so.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

__all__ = [
    "BYTES",
    "BpfInstruction",
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
# kinds of LD_IMM64 and CALL, which stand in place of the source register
PSEUDO_MAP_VALUE, PSEUDO_KFUNC_CALL = 2, 2

HALF = 1 << 31
MODULUS = 1 << 64


class BpfInstruction(NamedTuple):
    """One eight-byte instruction: registers by number, `offset` in bytes or, for jumps, in instructions."""

    opcode: int
    destination: int = 0
    source: int = 0
    offset: int = 0
    immediate: int = 0


def encode(instructions: Iterable[BpfInstruction]) -> bytes:
    """The instructions as the kernel takes them."""
    return b"".join(
        INSTRUCTION.pack(opcode, source << 4 | destination, offset, immediate)
        for opcode, destination, source, offset, immediate in instructions
    )


def move(register: int, value: int) -> tuple[BpfInstruction, ...]:
    """Set a register to a 64-bit value, signed or not: one instruction if 32 bits hold it with its sign, or two."""
    signed = (value + MODULUS // 2) % MODULUS - MODULUS // 2
    if -HALF <= signed < HALF:
        return (BpfInstruction(MOV64, register, immediate=signed),)
    return _load_64(register, 0, signed & 0xFFFFFFFF, signed >> 32)


def load_map_value(register: int, fd: int, offset: int) -> tuple[BpfInstruction, ...]:
    """Set a register to the address of a byte in the value of a one-entry array map; two instructions."""
    return _load_64(register, PSEUDO_MAP_VALUE, fd, offset)


def _load_64(register: int, source: int, low: int, high: int) -> tuple[BpfInstruction, ...]:
    low = low - 2 * HALF if low >= HALF else low
    return BpfInstruction(LD_IMM64, register, source, 0, low), BpfInstruction(0, immediate=high)


def move_register(register: int, source: int) -> BpfInstruction:
    """Copy a register."""
    return BpfInstruction(MOV64 | FROM_REGISTER, register, source)


def add(register: int, value: int) -> BpfInstruction:
    """Add a constant."""
    return BpfInstruction(ADD64, register, immediate=value)


def add_register(register: int, source: int) -> BpfInstruction:
    """Add a register."""
    return BpfInstruction(ADD64 | FROM_REGISTER, register, source)


def bitwise_and(register: int, value: int) -> BpfInstruction:
    """Keep these bits."""
    return BpfInstruction(AND64, register, immediate=value)


def shift_left(register: int, bits: int) -> BpfInstruction:
    """Multiply by a power of two."""
    return BpfInstruction(LSH64, register, immediate=bits)


def load(register: int, base: int, offset: int) -> BpfInstruction:
    """Load the word at base + offset."""
    return BpfInstruction(LDX_DW, register, base, offset)


def store(base: int, offset: int, register: int) -> BpfInstruction:
    """Store a register at base + offset."""
    return BpfInstruction(STX_DW, base, register, offset)


def store_constant(base: int, offset: int, value: int) -> BpfInstruction:
    """Store a constant of 32 bits, with its sign, at base + offset."""
    return BpfInstruction(ST_DW, base, 0, offset, value)


def fetch_add(base: int, offset: int, register: int) -> BpfInstruction:
    """Add a register to the word at base + offset in one step; the register gets what was there."""
    return BpfInstruction(ATOMIC_DW, base, register, offset, ATOMIC_FETCH_ADD)


def jump_if_at_least(register: int, value: int, count: int) -> BpfInstruction:
    """Skip `count` instructions if the register is `value` or more, unsigned."""
    return BpfInstruction(JGE, register, 0, count, value)


def jump_if_zero(register: int, count: int) -> BpfInstruction:
    """Skip `count` instructions if the register is 0."""
    return BpfInstruction(JEQ, register, 0, count)


def jump_if_not(register: int, value: int, count: int) -> BpfInstruction:
    """Skip `count` instructions if the register is not `value`."""
    return BpfInstruction(JNE, register, 0, count, value)


def call_helper(number: int) -> BpfInstruction:
    """Call a helper by its BPF_FUNC_ number."""
    return BpfInstruction(CALL, immediate=number)


def call_kfunc(btf_id: int, fd_array_index: int = 0) -> BpfInstruction:
    """Call a kernel function by its BTF id: in the BTF of vmlinux, or in that of an entry of fd_array, from 1."""
    return BpfInstruction(CALL, 0, PSEUDO_KFUNC_CALL, fd_array_index, btf_id)


def exit_program() -> BpfInstruction:
    """Return R0."""
    return BpfInstruction(EXIT)
