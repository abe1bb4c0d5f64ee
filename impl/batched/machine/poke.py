"""Text is poked in three phases, so that a processor meets the old instruction, a trap, or the new one.

After each phase all processors have synchronized: at every step of `poke` another task may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from spec.costs import POKE_BATCH

__all__ = ["INT3", "Phase", "finish", "poke"]

INT3: Final = 0xCC
TAIL: Final = "<u4"

Phase = Literal["int3", "tail", "first"]
"""The part that was just written: int3 in place of the first byte, the other bytes, or the first byte."""


def poke(text: NDArray[np.uint8], where: NDArray[np.int64], code: NDArray[np.uint8]) -> Iterator[tuple[Phase, int]]:
    """Puts code, one row a place, at these offsets of text, POKE_BATCH of them at a time.

    A row is an instruction of 5 bytes. Yields after each phase: which it was, and of how many sites.
    """
    tails = _words_at_every_byte(text)
    behind = where + 1
    firsts, rest = np.ascontiguousarray(code[:, 0]), np.ascontiguousarray(code[:, 1:]).view(TAIL)[:, 0]
    for start in range(0, len(where), POKE_BATCH):
        batch = slice(start, start + POKE_BATCH)
        places = where[batch]
        text[places] = INT3
        yield "int3", len(places)
        tails[behind[batch]] = rest[batch]
        yield "tail", len(places)
        text[places] = firsts[batch]
        yield "first", len(places)


def _words_at_every_byte(text: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The tail of an instruction that begins one byte before each place."""
    count = len(text) - np.dtype(TAIL).itemsize + 1
    return np.ndarray((count,), TAIL, text.data, 0, (1,))


def finish(steps: Iterator[tuple[Phase, int]]) -> int:
    """Drives a poke to its end; how many steps that took."""
    return sum(1 for _ in steps)
