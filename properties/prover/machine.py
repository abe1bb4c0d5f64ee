"""What obligations see of a machine that runs an image: the prover's with terms, the emulator with numbers, or angr's.

Beside it, what each of these machines demands of the instructions that it runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal, Protocol

from properties.prover.architecture import Architecture
from properties.prover.image import Image
from properties.prover.meaning import MODULUS, signed
from properties.prover.terms import Term, Value, linear, or_, sub, ult

__all__ = [
    "ALIGNED",
    "FRAME_BYTES",
    "NEAR",
    "NOP_THERE",
    "NO_FAULT",
    "NO_LOAD",
    "NO_STALE",
    "NO_STORE",
    "ONLY_GENERAL",
    "STACK_POINTER",
    "WHOLE_PLACES",
    "AccessRegion",
    "BrokenError",
    "Departure",
    "FrameBounds",
    "InfeasibleError",
    "Machine",
    "SplitError",
    "instruction_limit",
    "stack_within",
]

FRAME_BYTES = 1024
"""The most that an image may take of the stack, twice what Linux's largest takes."""


NEAR: Final = 1 << 20
"""Bytes on either side of the image in which nothing else is. An address as near to a region is meant to be in it."""


@dataclass(frozen=True, slots=True)
class AccessRegion:
    """Memory apart from the stack: the bytes [low, high) from an address on.

    base: the address, a symbol or a number. place: where the byte at that address is on the line of places, on which
    the stack has its offsets from the first stack pointer. load, store: whether the code may.
    """

    base: Value
    place: int
    low: int
    high: int
    load: bool = True
    store: bool = False

    def holds(self, low: int, high: int) -> bool:
        """Whether places are all in the region."""
        return self.low <= low - self.place and high - self.place <= self.high

    def near(self, distance: int) -> int | None:
        """The place at this distance from the base, if it is in the region or near it."""
        return self.place + distance if self.low - NEAR <= distance < self.high + NEAR else None

    def within(self, address: Value, size: int) -> Value:
        """Whether an access is in the region: a predicate."""
        distance = sub(sub(address, self.base, 64), self.low % MODULUS, 64)
        return ult(distance, max(self.high - size - self.low + 1, 0), 64)


class FrameBounds:
    """Which bytes an image may use: those of the stack, as offsets from the first stack pointer, and of regions.

    readable: the end of what it may load: return addresses, and the function's arguments on the stack.
    """

    def __init__(self, readable: int, regions: Sequence[AccessRegion] = ()) -> None:
        self.readable = readable
        self.regions = regions

    def load(self, low: int, high: int, floor: int) -> bool:
        """Whether [low, high) may be loaded; floor: the stack pointer, below which interrupts write."""
        return (floor <= low and high <= self.readable) or any(
            one.load and one.holds(low, high) for one in self.regions
        )

    def store(self, low: int, high: int, floor: int) -> bool:
        """Whether [low, high) may be stored to."""
        return (floor <= low and high <= 0) or any(one.store and one.holds(low, high) for one in self.regions)

    def place(self, address: Value) -> int | None:
        """The place of an address that plainly is in a region, or near it."""
        base, offset = linear(address)
        for region in self.regions:
            root, start = linear(region.base)
            if base is root or (isinstance(base, int) and base == root):
                place = region.near(signed((offset - start) % MODULUS, 64))
                if place is not None:
                    return place
        return None

    def within(self, address: Value, size: int, *, store: bool) -> Value:
        """Whether an access is in a region, and may be: a predicate."""
        found: Value = 0
        for region in self.regions:
            if region.store if store else region.load:
                found = or_(found, region.within(address, size), 1)
        return found

    def pointer(self, offset: int) -> bool:
        """Whether the stack pointer may be here."""
        return -FRAME_BYTES <= offset <= self.readable


NO_LOAD = "no load outside the frame and the arguments"
NO_STALE = "no load of stack that nothing has written"
NO_STORE = "no store outside the frame"
STACK_POINTER = "the stack pointer stays in the frame"
ALIGNED = "the stack pointer is aligned after every instruction"
ONLY_GENERAL = "nothing but general registers and flags is written"
NO_FAULT = "no instruction faults"
NOP_THERE = "a place that is patched has its nop until then"
WHOLE_PLACES = "no instruction begins within a place that is patched"


def stack_within(top: Value, address: Value, low: int, last: int) -> Value:
    """Whether an address is at one of the offsets [low, last] from the top, of which there may be none: a predicate."""
    return ult(sub(sub(address, top, 64), low % MODULUS, 64), last - low + 1, 64) if low <= last else 0


def instruction_limit(image: Image) -> int:
    """How many instructions one path may have: as many as an image without loops can at most, and then some."""
    return image.used + 64


class BrokenError(Exception):
    """An obligation is broken. got and expected: the two values, where it is about two."""

    def __init__(self, obligation: str, got: int | None = None, expected: int | None = None) -> None:
        super().__init__(obligation)
        self.obligation = obligation
        self.got = got
        self.expected = expected


class InfeasibleError(Exception):
    """No values of the symbols lead control here."""


class SplitError(Exception):
    """Going on takes a number where there is a term: each value that it may have is a case of its own."""

    def __init__(self, term: Term) -> None:
        super().__init__(term)
        self.term = term


Departure = Literal["call", "return", "jump"]
"""By which instruction control has left the image."""


class Machine(Protocol):
    """Values are of 64 bits, predicates of one. What goes wrong is told by the errors above."""

    architecture: Architecture
    bindings: dict[str, int]

    @property
    def departure(self) -> Departure:
        """By which instruction control has left the image."""

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

    def written(self, obligation: str, address: Value, size: int) -> None:
        """Demands that all of these bytes are written (see Written)."""

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """Demands that [low, low + size) is above the callee's stack pointer, and in the frame."""

    def known(self, predicate: Value) -> bool | None:
        """Whether a predicate is plainly true or false here."""

    def demand(self, obligation: str, predicate: Value) -> None:
        """Demands that a predicate is true."""

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """Demands that the low bits of two values are equal."""

    def constant(self, value: Value) -> int:
        """The value, where it must be a number to go on; SplitError where it is none."""

    def in_image(self, address: Value) -> Value:
        """Whether an address is in the image: a predicate."""

    def resume(self, address: int, pointer: Value) -> None:
        """Control is back at an address, with this stack pointer."""

    def clobber(self, step: str) -> None:
        """A callee, the step of this name, has run: what it need not preserve is unknown, and the stack below it."""

    def forget(self, address: Value, size: int) -> None:
        """A callee may have written these bytes, which belong to it."""
