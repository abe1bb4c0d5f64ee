"""Memory for images: slots in slabs by size. Free slots are filled with int3, and stay unused for a while."""

from __future__ import annotations

from collections import defaultdict
from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.poke import INT3

__all__ = ["Arena"]

GRAIN: Final = 16
SMALLEST_SLAB: Final = 16
KEPT: Final = 256
"""How many freed slots of a size stay empty."""

Addresses = NDArray[np.int64]
NONE: Final[Addresses] = np.empty(0, np.int64)


class Arena:
    """Slots in region. Addresses are offsets from its first byte. touched: how many bytes were ever used."""

    def __init__(self, region: MemoryRegion) -> None:
        self.region = region
        self._bytes = region.u8
        self._end = self.touched = 0
        self._fresh: dict[int, Addresses] = defaultdict(lambda: NONE)
        self._freed: dict[int, Addresses] = defaultdict(lambda: NONE)

    def clear(self) -> None:
        """Frees everything: all bytes that were written become traps."""
        self._bytes[: self._end] = INT3
        self._end = 0
        self._fresh.clear()
        self._freed.clear()

    def place(self, size: int, count: int) -> Addresses:
        """Returns new slots of at least this size. MemoryError if the region is full."""
        grains = -(-size // GRAIN)
        freed = self._freed[grains]
        usable = max(0, min(count, len(freed) - KEPT))
        again, self._freed[grains] = freed[:usable], freed[usable:]
        missing = count - usable - len(self._fresh[grains])
        if missing > 0:
            self._fresh[grains] = np.concatenate([self._fresh[grains], self._cut_slab(grains * GRAIN, missing)])
        fresh = self._fresh[grains]
        self._fresh[grains] = fresh[count - usable :]
        return np.concatenate([again, fresh[: count - usable]])

    def _cut_slab(self, size: int, count: int) -> Addresses:
        """Returns at least `count` slots that were never used."""
        slots = max(count, SMALLEST_SLAB)
        start, self._end = self._end, self._end + size * slots
        if self._end > len(self._bytes):
            raise MemoryError("the emulated kernel has no room for so many images")
        fresh = max(start, self.touched)
        self._bytes[fresh : self._end] = INT3
        self.touched = max(self._end, self.touched)
        return start + size * np.arange(slots, dtype=np.int64)

    def rows(self, where: Addresses, size: int) -> NDArray[np.uint8] | None:
        """The bytes of these slots of one size, a row each, if they are contiguous."""
        padded = -(-size // GRAIN) * GRAIN
        start, end = int(where[0]), int(where[-1]) + padded
        return self._bytes[start:end].reshape(-1, padded) if end - start == padded * len(where) else None

    def write(self, where: Addresses, code: NDArray[np.uint8]) -> None:
        """Puts code, a row each, at these slots."""
        self._view_grains(code.shape[1])[where // GRAIN] = code

    def free(self, where: Addresses, size: int) -> None:
        """Gives slots of this size back."""
        grains = -(-size // GRAIN)
        self._view_grains(grains * GRAIN)[where // GRAIN] = INT3
        self._freed[grains] = np.concatenate([self._freed[grains], where])

    def _view_grains(self, size: int) -> NDArray[np.uint8]:
        """The region as overlapping rows of this size, one a grain."""
        count = (len(self._bytes) - size) // GRAIN + 1
        return np.lib.stride_tricks.as_strided(self._bytes, (count, size), (GRAIN, 1))
