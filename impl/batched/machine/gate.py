"""Calls that run to their end enter the emulated kernel here, and come back: by code, and a page of words beside it.

Registers are loaded and stored by that code. To write and read them one by one from outside takes longer than a call.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Final, NamedTuple

from impl.batched.jit.assembler import assemble
from impl.batched.machine.addresses import STOP
from impl.batched.machine.memory import PAGE, MemoryRegion
from spec.abi import SYSTEM_V

__all__ = ["GIVEN", "KEPT", "MARKS", "Gate"]

PRESERVED: Final = ("rbx", "rbp", "r12", "r13", "r14", "r15")
MARKS: Final = tuple(0x5A5A000000000000 + place for place in range(len(PRESERVED)))
"""The registers that C preserves hold these, in the order of PRESERVED."""

WORD: Final = 8
WORDS: Final = STOP + PAGE
GIVEN: Final = (*SYSTEM_V.arguments, *PRESERVED, "rsp")
"""The registers that a call begins with."""

KEPT: Final = (*PRESERVED, "rsp", "rax")
"""The registers that are looked at when it is back."""


class _Code(NamedTuple):
    """The code at STOP, which a call returns to, and where it ends; and where calls enter."""

    code: bytes
    left: int
    enter: int


@cache
def _code() -> _Code:
    stores = "; ".join(f"mov [r11 + {WORD * place}], {name}" for place, name in enumerate(KEPT))
    leave = assemble(f"mov r11, {WORDS}; {stores}", STOP)
    loads = "; ".join(f"mov {name}, [rax + {WORD * place}]" for place, name in enumerate(GIVEN))
    left = STOP + len(leave)
    enter = assemble(f"mov rax, {WORDS}; {loads}; jmp qword ptr [rax + {WORD * len(GIVEN)}]", left + 1)
    return _Code(leave + b"\xcc" + enter, left, left + 1)


class Gate:
    """enter: where the processor begins. left: where it stops, once a call is back. region: code and words."""

    def __init__(self) -> None:
        self.region = MemoryRegion(STOP, 2 * PAGE)
        made = _code()
        self.region.write(STOP, made.code)
        self.enter, self.left = made.enter, made.left
        self._words = self.region.u64[PAGE // WORD :]

    def aim(self, function: int, arguments: Sequence[int], stack: int) -> None:
        """The next to enter calls a function, its six argument registers given, with this stack pointer."""
        self._words[: len(GIVEN) + 1] = (*arguments, *MARKS, stack, function)

    @property
    def kept(self) -> list[int]:
        """The words of the registers KEPT, as the last call that came back left them."""
        found: list[int] = self._words[: len(KEPT)].tolist()
        return found
