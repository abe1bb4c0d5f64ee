"""Calling conventions: where a C call has its arguments, results, and what it preserves (ARG-1, ARG-2).

A *slot* is one 8-byte word of a program's context; an argument of n bytes has ceil(n / 8) of them. A *wide* argument
is aligned to 16 bytes, as an __int128 is; its size alone does not tell. Register names are lower case.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

__all__ = ["AAPCS64", "SLOT_BYTES", "SYSTEM_V", "Convention", "Slot"]

SLOT_BYTES: Final = 8


@dataclass(frozen=True, slots=True)
class Slot:
    """Where one context word comes from: a register, or the stack-th word of the caller's stack arguments."""

    argument: int
    offset: int
    size: int
    register: str | None
    stack: int | None


@dataclass(frozen=True, eq=False)
class Convention:
    """The convention of a machine with words of 8 bytes, whose stack grows down."""

    name: str

    arguments: tuple[str, ...]
    """Registers of arguments, in order."""

    back_fills: bool
    """Whether an argument behind one on the stack may be in registers again."""

    wide_is_even: bool
    """Whether a wide argument in registers begins with one of an even number."""

    results: tuple[str, str]
    """Low and high word of what a function returns."""

    preserved: tuple[str, ...]
    """Registers that a function leaves as they are, the stack pointer aside."""

    clear: tuple[str, ...]
    """Flags that are 0 at every call and return."""

    stack_pointer: str

    stack_alignment: int
    """Bytes; in the kernel the stack pointer is a multiple of it at every call."""

    link: str | None
    """The register that a call writes its return address to; None where a call pushes it."""

    @property
    def pushed(self) -> int:
        """How many bytes a call pushes."""
        return SLOT_BYTES if self.link is None else 0

    def slots(self, sizes: Sequence[int], wide: Collection[int] = ()) -> tuple[Slot, ...]:
        """The slots of arguments of these sizes, in bytes. wide: the places of those that are.

        An argument is in registers as a whole, or on the stack, where a wide one is at an even word.
        """
        found: list[Slot] = []
        used = stacked = 0
        for index, argument in enumerate(sizes):
            count = -(-argument // SLOT_BYTES)
            first = used + used % 2 if index in wide and self.wide_is_even else used
            fits = first + count <= len(self.arguments) and (self.back_fills or not stacked)
            start = first if fits else stacked + stacked % 2 if index in wide else stacked
            for part in range(count):
                size = min(SLOT_BYTES, argument - part * SLOT_BYTES)
                register = self.arguments[start + part] if fits else None
                found.append(Slot(index, part * SLOT_BYTES, size, register, None if fits else start + part))
            if fits:
                used = start + count
            else:
                stacked = start + count
        return tuple(found)


# The kernel is built with -mpreferred-stack-boundary=3.
SYSTEM_V: Final = Convention(
    name="System V",
    arguments=("rdi", "rsi", "rdx", "rcx", "r8", "r9"),
    back_fills=True,
    wide_is_even=False,
    results=("rax", "rdx"),
    preserved=("rbx", "rbp", "r12", "r13", "r14", "r15"),
    clear=("df",),
    stack_pointer="rsp",
    stack_alignment=8,
    link=None,
)

# AAPCS64, section 6.8.2, and x18, which the kernel keeps for the shadow call stack.
AAPCS64: Final = Convention(
    name="AAPCS64",
    arguments=tuple(f"x{number}" for number in range(8)),
    back_fills=False,
    wide_is_even=True,
    results=("x0", "x1"),
    preserved=tuple(f"x{number}" for number in range(18, 30)),
    clear=(),
    stack_pointer="sp",
    stack_alignment=16,
    link="x30",
)
