"""The functions' entries in text, as a compiler emits them, and the places of their sites.

Every other function begins with endbr64, as with CONFIG_X86_KERNEL_IBT; then the nop of its site, then a jump to its
body.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices
from impl.batched.machine import addresses as at
from impl.batched.machine.poke import INSTRUCTION, INT3

__all__ = [
    "CALL",
    "JMP",
    "SITE_BYTES",
    "body_address",
    "body_addresses",
    "branches",
    "entry_address",
    "entry_addresses",
    "fresh_text",
    "jump",
    "site_offset",
    "site_offsets",
]

ENDBR: Final = bytes.fromhex("f30f1efa")
NOP: Final = bytes.fromhex("0f1f440000")
SITE_BYTES: Final = len(NOP)
CALL, JMP = 0xE8, 0xE9
TOP: Final = 1 << 64


def fresh_text(count: int) -> NDArray[np.uint8]:
    """Entries of functions that have no body yet, one a row."""
    rows = np.full((count, at.FUNCTION_BYTES), INT3, np.uint8)
    for first, code in ((0, ENDBR + NOP), (1, NOP)):
        rows[first::2, : len(code)] = np.frombuffer(code, np.uint8)
    return rows


def site_offset(index: int) -> int:
    """The offset of one function's site from TEXT."""
    return index * at.FUNCTION_BYTES + (0 if index % 2 else len(ENDBR))


def entry_address(index: int) -> int:
    """One function's own address."""
    return at.TEXT + at.FUNCTION_BYTES * index


def body_address(index: int) -> int:
    """The address behind one function's site."""
    return at.TEXT + SITE_BYTES + site_offset(index)


def site_offsets(where: Indices) -> NDArray[np.int64]:
    """The offsets of functions' sites from TEXT."""
    offsets: NDArray[np.int64] = where.astype(np.int64) * at.FUNCTION_BYTES + len(ENDBR) * (where % 2 == 0)
    return offsets


def entry_addresses(where: Indices) -> NDArray[np.uint64]:
    """The functions' own addresses."""
    return np.uint64(at.TEXT) + (where * at.FUNCTION_BYTES).astype(np.uint64)


def body_addresses(where: Indices) -> NDArray[np.uint64]:
    """The addresses behind the functions' sites."""
    return np.uint64(at.TEXT + SITE_BYTES) + site_offsets(where).astype(np.uint64)


def jump(place: int, target: int) -> bytes:
    """The jmp rel32 at a place to a target."""
    return bytes([JMP]) + (target - place - SITE_BYTES).to_bytes(4, "little", signed=True)


def branches(sites: NDArray[np.int64], targets: NDArray[np.uint32]) -> NDArray[np.void]:
    """The INSTRUCTION of each site: a nop for 0, a jmp for an address with bit 0 set, else a call.

    sites: offsets from TEXT. targets: the low halves of addresses.
    """
    code = np.empty(len(sites), INSTRUCTION)
    code["first"] = np.where(targets & np.uint32(1), JMP, CALL)
    ends = (sites + (at.TEXT + SITE_BYTES - TOP)).astype(np.uint32)
    code["tail"] = (targets & np.uint32(-2 % (1 << 32))) - ends
    if not targets.all():
        code[targets == 0] = np.frombuffer(NOP, INSTRUCTION)
    return code
