"""What obligations see of a machine that runs an image: symbolically with terms, or in the emulator with numbers."""

from __future__ import annotations

from typing import Protocol

from properties.proofs.architecture import Architecture
from properties.proofs.terms import Value

__all__ = [
    "FRAME_BYTES",
    "NO_FAULT",
    "NO_LOAD",
    "NO_STORE",
    "ONLY_GENERAL",
    "STACK_POINTER",
    "Frame",
    "Machine",
]

FRAME_BYTES = 1024
"""The most that an image may take of the stack, twice what Linux's largest takes."""


class Frame:
    """Which bytes of the stack an image may use, as offsets from the first stack pointer.

    readable: the end of what it may load: return addresses, and the function's arguments on the stack.
    """

    def __init__(self, readable: int) -> None:
        self.readable = readable

    def load(self, low: int, high: int, floor: int) -> bool:
        """Whether [low, high) may be loaded; floor: the stack pointer, below which interrupts write."""
        return floor <= low and high <= self.readable

    def store(self, low: int, high: int, floor: int) -> bool:
        """Whether [low, high) may be stored to."""
        return floor <= low and high <= 0

    def pointer(self, offset: int) -> bool:
        """Whether the stack pointer may be here."""
        return -FRAME_BYTES <= offset <= self.readable


NO_LOAD = "no load outside the frame and the arguments"
NO_STORE = "no store outside the frame"
STACK_POINTER = "the stack pointer stays in the frame"
ONLY_GENERAL = "nothing but general registers and flags is written"
NO_FAULT = "no instruction faults"


class Machine(Protocol):
    """Values are of 64 bits, predicates of one."""

    architecture: Architecture
    bindings: dict[str, int]

    def symbol(self, name: str, bits: int) -> Value:
        """An unknown: symbolically itself, in the emulator its value in the counterexample."""

    def register(self, name: str) -> Value:
        """A general register, or a flag."""

    def set_register(self, name: str, value: Value) -> None:
        """What a callee leaves in a register."""

    def word(self, address: Value) -> Value:
        """The word of memory that a callee reads."""

    def set_word(self, address: Value, value: Value) -> None:
        """What a callee writes into the frame."""

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """Demands that [low, low + size) is above the callee's stack pointer, and in the frame."""

    def known(self, predicate: Value) -> bool | None:
        """Whether a predicate is plainly true or false here."""

    def demand(self, obligation: str, predicate: Value) -> None:
        """Demands that a predicate is true."""

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """Demands that the low bits of two values are equal."""

    def constant(self, value: Value) -> int:
        """The value, where it must be a number to go on."""

    def in_image(self, address: Value) -> Value:
        """Whether an address is in the image: a predicate."""

    def resume(self, address: int, pointer: Value) -> None:
        """Control is back at an address, with this stack pointer."""

    def clobber(self, step: str) -> None:
        """A callee, the step of this name, has run: what it need not preserve is unknown, and the stack below it."""

    def forget(self, address: Value, size: int) -> None:
        """A callee may have written these bytes, which belong to it."""
