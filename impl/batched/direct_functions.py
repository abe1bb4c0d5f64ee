"""direct_functions: the one direct entry of each site, and the hash table that holds it."""

from __future__ import annotations

from typing import Final

import numpy as np

from impl.batched.functions import Indices

__all__ = ["BPF", "NO_ENTRY", "DirectFunctions"]

NO_ENTRY: Final = 0
BPF: Final = -1
SMALLEST_TABLE: Final = 32
MOST_BUCKETS: Final = 1 << 12


class DirectFunctions:
    """entry: for each site, and for address 0, NO_ENTRY, BPF, or the number of a trampoline.

    single: the filter of direct_ops, the ops of the single API, which is enabled while single_enabled.
    """

    def __init__(self, size: int) -> None:
        self.entry = np.zeros(size, np.int32)
        self.single = np.zeros(size, np.bool_)
        self.single_enabled = False
        self.names = [""]
        self._numbers: dict[str, int] = {}
        self._entries = 0
        self._buckets = 0

    def number(self, tramp: str) -> int:
        """The number that stands for a trampoline's address."""
        if tramp not in self._numbers:
            self._numbers[tramp] = len(self.names)
            self.names.append(tramp)
        return self._numbers[tramp]

    def growth(self, added: int) -> bool:
        """Whether adding so many entries exchanges the table (DIRECT-13)."""
        return self._grown(added)[1]

    def add(self, where: Indices, entry: int) -> None:
        """Enter sites that have no entry."""
        self._buckets, _ = self._grown(len(where))
        self._entries += len(where)
        self.entry[where] = entry

    def remove(self, where: Indices) -> None:
        """Remove the entries of these sites, where there are any."""
        self._entries -= int(np.count_nonzero(self.entry[where]))
        self.entry[where] = NO_ENTRY

    def _grown(self, added: int) -> tuple[int, bool]:
        """Buckets after adding entries one by one, and whether the table was exchanged for it."""
        entries, buckets, exchanged = self._entries, self._buckets, False
        last = entries + added - 1
        while True:
            if entries:
                entries = max(entries, 2 * buckets + 1)
            if entries > last:
                return buckets, exchanged
            exchanged = True
            buckets = min(1 << (max(SMALLEST_TABLE, entries + 1) // 2).bit_length(), MOST_BUCKETS)
            if buckets == MOST_BUCKETS:
                return buckets, exchanged
            entries += 1
