"""Text is poked in three phases, so that a processor meets the old instruction, a trap, or the new one.

After each phase all processors have synchronized: at every step of `poke` another task may run.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

__all__ = ["INSTRUCTION", "INT3", "Phase", "poke"]

INT3: Final = 0xCC
INSTRUCTION: Final = np.dtype([("first", "u1"), ("tail", "<u4")])
"""The instruction of a site, as a poke writes it: its first byte, and the others as a word."""

Phase = Literal["int3", "tail", "first"]
"""The part that was just written: int3 in place of the first byte, the other bytes, or the first byte."""


def poke(text: NDArray[np.uint8], where: NDArray[np.int64], code: NDArray[np.void]) -> Iterator[Phase]:
    """Puts code, an INSTRUCTION a place, at these offsets of text; yields each phase after it."""
    text[where] = INT3
    yield "int3"
    _words_at_every_byte(text)[where + 1] = code["tail"]
    yield "tail"
    text[where] = code["first"]
    yield "first"


def _words_at_every_byte(text: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """The tail of an instruction that begins one byte before each place."""
    tail = INSTRUCTION["tail"]
    return np.ndarray((len(text) - tail.itemsize + 1,), tail, text.data, 0, (1,))
