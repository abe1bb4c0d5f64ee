"""Small changes of x86-64 machine code: a jump turned, a call or a store left out, another constant, another errno."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import capstone  # type: ignore[import-untyped]
from capstone import x86

from impl.linux.architectures import Change, Mutation

__all__ = ["mask", "mutate"]

SHORT_JUMPS, NEAR_JUMPS = range(0x70, 0x80), range(0x80, 0x90)
TWO_BYTES, CALL, JUMP, SHORT_JUMP, NOP = 0x0F, 0xE8, b"\xe9", b"\xeb", b"\x90"
NEAR_JUMP_BYTES = 6
LOCK = 0xF0
NOPS: Final = tuple(
    map(
        bytes.fromhex,
        (
            "",
            "90",
            "6690",
            "0f1f00",
            "0f1f4000",
            "0f1f440000",
            "660f1f440000",
            "0f1f8000000000",
            "0f1f840000000000",
            "660f1f840000000000",
        ),
    )
)
"""The recommended nop of each size; longer ones are put together."""

ANSWER_0: Final = bytes.fromhex("31c0") + NOPS[3]
"""`xor eax, eax` in the place of a call: as if the callee had returned 0, or nothing."""

STORES: Final = frozenset("mov movq movups movaps movdqu movdqa or and add sub xor inc dec".split())
ERRNOS: Final = range(-133, -1)
"""-1 is a mask more often than -EPERM."""

EDOM, EINVAL = -33, -22
ADDRESS_BYTES = 4
MODULUS = 1 << 64
HIGHEST_OFFSET = 1 << 24
"""A negative number of four bytes that is further from 0 is an address of the kernel's."""

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
DECODER.detail = True


def mutate(address: int, code: bytes) -> Iterator[Mutation]:
    """Every change of every instruction, in the order of the code; it ends at what is no instruction."""
    before: tuple[str, ...] = ()
    for each in DECODER.disasm(code, address):
        old, text = bytes(each.bytes), f"{each.mnemonic} {each.op_str}".strip()
        target = each.operands[0].imm % MODULUS if _is_relative(each) else None
        for change, new in _change(each, old):
            yield Mutation(each.address, change, text, before, old, new, target)
        before = (*before[-1:], text)


def mask(address: int, code: bytes) -> bytes:
    """The code with zeros for distances of calls and jumps, and for addresses."""
    masked = bytearray(code)
    for each in DECODER.disasm(code, address):
        start = each.address - address
        fields = ((each.disp_offset, each.disp_size), (each.imm_offset, each.imm_size))
        for offset, size in fields:
            field = slice(start + offset, start + offset + size)
            if offset and (_is_relative(each) or _is_beside_code(each, offset) or _is_address(code[field])):
                masked[field] = bytes(size)
    return bytes(masked)


def _change(each: capstone.CsInsn, old: bytes) -> Iterator[tuple[Change, bytes]]:
    if len(old) == len(NOPS[2]) and old[0] in SHORT_JUMPS:
        yield Change.INVERTED, bytes([old[0] ^ 1, old[1]])
        yield Change.ALWAYS, SHORT_JUMP + old[1:]
        yield Change.NEVER, _nop(len(old))
    elif len(old) == NEAR_JUMP_BYTES and old[0] == TWO_BYTES and old[1] in NEAR_JUMPS:
        yield Change.INVERTED, bytes([old[0], old[1] ^ 1]) + old[2:]
        yield Change.ALWAYS, NOP + JUMP + old[2:]
        yield Change.NEVER, _nop(len(old))
    elif old[0] == CALL:
        yield Change.CALL, ANSWER_0
    elif each.mnemonic == "cmp" and each.imm_offset:
        yield Change.CONSTANT, _with_immediate(each, old, each.operands[-1].imm + 1)
    elif each.mnemonic == "mov" and (errno := _read_errno(each)):
        yield Change.ERRNO, _with_immediate(each, old, EDOM if errno != EDOM else EINVAL)
        yield Change.SUCCESS, _with_immediate(each, old, 0)
    elif _stores(each):
        yield Change.STORE, _nop(len(old))


def _nop(size: int) -> bytes:
    longest = len(NOPS) - 1
    return NOPS[longest] * (size // longest) + NOPS[size % longest]


def _with_immediate(each: capstone.CsInsn, old: bytes, value: int) -> bytes:
    size: int = each.imm_size
    start: int = each.imm_offset
    return old[:start] + (value % (1 << 8 * size)).to_bytes(size, "little") + old[start + size :]


def _read_errno(each: capstone.CsInsn) -> int:
    """The errno that a register is loaded with; 0 if it is none."""
    register, value = each.operands
    if register.type != x86.X86_OP_REG or value.type != x86.X86_OP_IMM:
        return 0
    bits = 8 * register.size
    number: int = value.imm % (1 << bits)
    number -= (1 << bits) if number >> (bits - 1) else 0
    return number if number in ERRNOS else 0


def _stores(each: capstone.CsInsn) -> bool:
    """Whether it changes memory outside the stack, of the one processor and without atomicity."""
    if each.mnemonic not in STORES or LOCK in each.prefix or not each.operands:
        return False
    place = each.operands[0]
    if place.type != x86.X86_OP_MEM or place.mem.segment:
        return False
    return bool(place.mem.base != x86.X86_REG_RSP)


def _is_relative(each: capstone.CsInsn) -> bool:
    """Whether its target is a distance from its end."""
    jumps = each.group(capstone.CS_GRP_CALL) or each.group(capstone.CS_GRP_JUMP)
    return bool(jumps and each.operands and each.operands[0].type == x86.X86_OP_IMM)


def _is_beside_code(each: capstone.CsInsn, offset: int) -> bool:
    """Whether the field there is the distance from the code to what it uses."""
    beside = any(operand.type == x86.X86_OP_MEM and operand.mem.base == x86.X86_REG_RIP for operand in each.operands)
    return beside and offset == each.disp_offset


def _is_address(field: bytes) -> bool:
    return len(field) == ADDRESS_BYTES and int.from_bytes(field, "little", signed=True) < -HIGHEST_OFFSET
