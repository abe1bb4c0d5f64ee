"""Assembler text that several routines share."""

from __future__ import annotations

from typing import Final

from impl.batched.machine import addresses as at
from impl.batched.machine.structs import Globals
from spec.abi import SYSTEM_V

__all__ = ["ARGUMENTS", "JUNK", "POP_SAVED", "PUSH_SAVED", "SAVED", "VOLATILE", "index_of", "record"]

JUNK: Final = 0x6B6B6B6B6B6B6B6B
"""The value left in registers that a C function need not preserve."""

ARGUMENTS: Final = SYSTEM_V.arguments
SAVED: Final = SYSTEM_V.preserved
VOLATILE: Final = "rcx rdx rsi rdi r8 r9 r10 r11".split()
PUSH_SAVED: Final = "; ".join(f"push {name}" for name in SAVED)
POP_SAVED: Final = "; ".join(f"pop {name}" for name in reversed(SAVED))


def index_of(register: str, address: str = "rdi") -> str:
    """The index of the function that an address of its entry belongs to."""
    return f"mov {register}, {address}; sub {register}, {at.TEXT}; shr {register}, 4"


def record(tag: int, *words: str) -> str:
    """Appends a record; r11 and r10 are lost."""
    stores = [f"mov r11, {at.GLOBALS}", f"mov r10, [r11 + {Globals.TRACE}]", f"mov qword ptr [r10], {tag}"]
    stores += [f"mov qword ptr [r10 + {8 * place}], {word}" for place, word in enumerate(words, 1)]
    return "; ".join([*stores, f"add r10, {8 + 8 * len(words)}", f"mov [r11 + {Globals.TRACE}], r10"])
