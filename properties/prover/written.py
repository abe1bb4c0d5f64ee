"""Which bytes of the stack the code has written, as a value.

A byte is *written* from a store to it until the stack pointer is above it: an interrupt may write there then. What is
not written is nothing that anybody may read.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from properties.prover.machine import FRAME_BYTES
from properties.prover.terms import Value, and_, not_, or_

__all__ = ["Written", "stack_above", "stack_bytes"]

FARTHEST: Final = 2 * FRAME_BYTES
"""Offsets from the first stack pointer that count; what else is accessed is no stack, or breaks another obligation."""


def stack_bytes(low: int, high: int) -> int:
    """The bytes at the offsets [low, high) of the stack, as a set: a number with a bit for each."""
    if low < -FARTHEST or high > FARTHEST:
        low, high = max(low, -FARTHEST), min(high, FARTHEST)
    return (1 << high - low) - 1 << low + FARTHEST if low < high else 0


def stack_above(offset: int) -> int:
    """The bytes at this offset of the stack and above, as a set."""
    return -1 << max(offset + FARTHEST, 0)


class Written(NamedTuple):
    """always: bytes that are written. partly: where paths have met, sets of bytes that are if a predicate holds."""

    always: int = 0
    partly: tuple[tuple[Value, int], ...] = ()

    def plus(self, stored: int) -> Written:
        """With these bytes."""
        return Written(self.always | stored, self._keep(~stored) if self.partly else ())

    def only(self, kept: int) -> Written:
        """Without all others than these bytes."""
        return Written(self.always & kept, self._keep(kept) if self.partly else ())

    def has(self, wanted: int) -> Value:
        """Whether all of these bytes are written: a predicate."""
        missing = wanted & ~self.always
        found: Value = 1
        while missing:
            byte = missing & -missing
            missing ^= byte
            either: Value = 0
            for predicate, stored in self.partly:
                either = or_(either, predicate, 1) if stored & byte else either
            found = and_(found, either, 1)
        return found

    def merged(self, other: Written, here: Value) -> Written:
        """As here where the predicate `here` holds, and as the other where it does not."""
        if self == other:
            return self
        both = self.always & other.always
        return Written(both, (*self._where(here, ~both), *other._where(not_(here), ~both)))

    def _keep(self, kept: int) -> tuple[tuple[Value, int], ...]:
        return tuple((predicate, stored & kept) for predicate, stored in self.partly if stored & kept)

    def _where(self, here: Value, kept: int) -> Iterator[tuple[Value, int]]:
        if self.always & kept:
            yield here, self.always & kept
        for predicate, stored in self._keep(kept):
            yield and_(here, predicate, 1), stored
