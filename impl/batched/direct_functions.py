"""direct_functions: the one direct entry of each site, and the hash table that holds it."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices

__all__ = ["BPF", "NOWHERE", "NO_ENTRY", "Addresses", "DirectFunctions"]

Addresses = NDArray[np.int64]

NOWHERE: Final[Addresses] = np.empty(0, np.int64)
NO_ENTRY: Final = 0
BPF: Final = -1
SMALLEST_TABLE: Final = 32
MOST_BUCKETS: Final = 1 << 12


class DirectFunctions:
    """entry: for each site NO_ENTRY, BPF, or the number of a trampoline.

    single: the filter of direct_ops, the ops of the single API, which is enabled while single_enabled. gone: addresses
    of functions that have gone, with their entries, and whether these are of the single API (MODULE-5). patched: the
    sites that were led to a caller and back when entries were last written in place, also those without one.
    """

    def __init__(self, size: int) -> None:
        self.entry = np.zeros(size, np.int32)
        self.single = np.zeros(size, np.bool_)
        self.single_enabled = False
        self.patched: Indices = np.empty(0, np.int64)
        self.gone = NOWHERE
        self.gone_entry = np.empty(0, np.int32)
        self.gone_single = np.empty(0, np.bool_)
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
        """Whether adding this number of entries exchanges the table (DIRECT-13)."""
        return self._grow(added)[1]

    def add(self, where: Indices, entry: int) -> None:
        """Enter sites that have no entry."""
        self._buckets, _ = self._grow(len(where))
        self._entries += len(where)
        self.entry[where] = entry

    def rewrite(self, where: Indices, entries: Indices | int, patched: Indices) -> None:
        """Sites that have entries get others in their place, while these are patched."""
        self.entry[where] = entries
        self.patched = patched

    def add_gone(self, addresses: Addresses, entry: int) -> None:
        """Enter addresses of functions that have gone and have no entry, for an ops other than direct_ops."""
        self._buckets, _ = self._grow(len(addresses))
        self._entries += len(addresses)
        self._remember(addresses, np.full(len(addresses), entry, np.int32), np.zeros(len(addresses), np.bool_))

    def remove(self, where: Indices) -> None:
        """Remove the entries that these sites have."""
        self._entries -= int(np.count_nonzero(self.entry[where]))
        self.entry[where] = NO_ENTRY

    def remove_gone(self, addresses: Addresses) -> None:
        """Remove the entries of these addresses."""
        kept = ~np.isin(self.gone, addresses)
        self._entries -= int(np.count_nonzero(~kept))
        self.gone, self.gone_entry, self.gone_single = self.gone[kept], self.gone_entry[kept], self.gone_single[kept]

    def keep_addresses(self, where: Indices, addresses: Addresses) -> None:
        """These functions go; their entries stay, at their addresses (MODULE-5)."""
        entered = self.entry[where] != NO_ENTRY
        where, addresses = where[entered], addresses[entered]
        self._remember(addresses, self.entry[where], self.single[where])
        self.single[-1] |= self.single[where].any()
        self.entry[where], self.single[where] = NO_ENTRY, False

    def entries(self, where: Indices, addresses: Addresses) -> NDArray[np.int32]:
        """The entries that these sites and addresses have."""
        found = self.entry[where]
        return np.concatenate([found[found != NO_ENTRY], self.gone_entry[np.isin(self.gone, addresses)]])

    def _remember(self, addresses: Addresses, entries: NDArray[np.int32], single: NDArray[np.bool_]) -> None:
        self.gone = np.concatenate([self.gone, addresses])
        self.gone_entry = np.concatenate([self.gone_entry, entries])
        self.gone_single = np.concatenate([self.gone_single, single])

    def _grow(self, added: int) -> tuple[int, bool]:
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
