"""The site of each function as sums over S(f), the enabled ops that cover it (SITE-*).

A site's instruction follows from how many ops cover it, whether it shows R, and, where it is one, which: the sum of the
codes of its ops is then that one's code.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from impl.batched.functions import ALL, Functions, Indices, Mask

__all__ = ["CALLER", "DIRECT", "FIRST_OPS", "GRAPH", "KLP", "REGS_CALLER", "Sites"]

CALLER, REGS_CALLER, DIRECT, GRAPH, KLP, FIRST_OPS = range(1, 7)
_OURS: Final = 2


class Sites:
    """Arrays with one element a function, and one for functions that have gone, which is never covered.

    count: |S(f)|. regs: how many of S(f) save regs. regs_left: R stays, however many that are (SITE-6). codes: the sum
    of the codes of S(f), modulo 2^16; there are places for fewer ops' trampolines. ipmodify, direct: whether S(f) has
    an IPMODIFY user, a direct ops. loaded: whether there is a site (NAME-8, FILTER-11). mapped: whether there is code,
    which a module that was loaded after ftrace's death has without sites (DEAD-2). off: ftrace is, so that all are
    nops, and a site that its last ops leaves keeps its R (SYSCTL-4).
    """

    def __init__(self, functions: Functions) -> None:
        size = functions.count + 1
        self.count = np.zeros(size, np.int16)
        self.regs = np.zeros(size, np.int16)
        # One element for all, which nobody may write, until R stays at a site: mostly it never does.
        self.regs_left = np.broadcast_to(np.False_, size)
        self.codes = np.zeros(size, np.uint16)
        self.ipmodify = np.zeros(size, np.bool_)
        self.direct = np.zeros(size, np.bool_)
        self.loaded = functions.has_site.copy()
        # The same array until they differ: mostly they never do.
        self.mapped = self.loaded
        self.off = False

    def joining(self, where: Indices, *, regs: bool) -> int:
        """How many of these sites change their instruction when one more ops covers them (SITE-1..4)."""
        changed = self.count[where] < _OURS
        if regs:
            changed |= ~self.shows_regs(where)
        return int(np.count_nonzero(changed))

    def leaving(self, where: Indices, *, regs: bool, narrowed: bool = False) -> int:
        """How many of them change when an ops leaves; narrowed: it keeps other sites, so that R stays (SITE-6)."""
        changed = self.count[where] <= _OURS
        if regs and not narrowed:
            changed |= self.regs[where] == 1
        return int(np.count_nonzero(changed))

    def toggling(self, where: Mask, present: Mask) -> int:
        """How many of these sites change when an ops without regs joins or leaves them; present: where it is now."""
        return int(np.count_nonzero(where & (self.count - present < _OURS)))

    def settling(self, where: Indices) -> int:
        """How many of them change when the kernel asks whether any ops that covers them still needs R."""
        return int(np.count_nonzero((self.count[where] >= _OURS) & self.regs_left[where] & (self.regs[where] == 0)))

    def alone(self, where: Indices) -> Indices:
        """Those of these sites that a temporary ops leads to a caller and back: |S(f)| is at most 1 (COST-3)."""
        return where[self.count[where] < _OURS]

    def join(self, where: Indices, code: int, *, regs: bool = False) -> None:
        """One more ops covers these sites."""
        self.count[where] += 1
        self.codes[where] += code
        if regs:
            self.regs[where] += 1
        if code == DIRECT:
            self.direct[where] = True

    def leave(self, where: Indices, code: int, *, regs: bool = False, narrowed: bool = False) -> None:
        """One ops less covers these sites; narrowed as in `leaving`."""
        kept = self.shows_regs(where) if self.off else False
        self.count[where] -= 1
        self.codes[where] -= code
        if regs:
            self.regs[where] -= 1
        self._leave_regs(where, np.where(self.count[where] == 0, kept, narrowed if regs else self.regs_left[where]))
        if code == DIRECT:
            self.direct[where] = False

    def settle(self, where: Indices) -> None:
        """R is dropped at these sites, where ops cover them of which none needs it."""
        self._leave_regs(where, self.regs_left[where] & (self.count[where] == 0))

    def shows_regs(self, where: Indices | slice = ALL) -> Mask:
        """Whether the line of each site, or of all sites, has an R (SITE-1, SITE-6)."""
        shown: Mask = np.greater(self.regs[where], 0) | self.regs_left[where]
        return shown

    def strands_regs(self) -> bool:
        """Whether R has stayed at a site that no ops covers any more (SYSCTL-5)."""
        return self.regs_left.flags.writeable and bool((self.count[self.regs_left] == 0).any())

    def come(self, where: Indices, *, traced: bool) -> None:
        """These functions are loaded; traced: ftrace makes their records (DEAD-2)."""
        if not traced and self.mapped is self.loaded:
            self.mapped = self.loaded.copy()
        self.mapped[where] = True
        self.loaded[where] = traced

    def forget(self, where: Indices) -> None:
        """The records of these sites are dropped."""
        sums = self.count, self.regs, self.codes
        for array in (*sums, self.ipmodify, self.direct, self.loaded, self.mapped):
            array[where] = 0
        self._leave_regs(where, np.zeros(len(where), np.bool_))

    def _leave_regs(self, where: Indices, kept: Mask) -> None:
        """R stays at those of these sites where it is kept, and at no other."""
        if not self.regs_left.flags.writeable:
            if not kept.any():
                return
            self.regs_left = self.regs_left.copy()
        self.regs_left[where] = kept

    def covered(self, filter_hash: Mask, notrace_hash: Mask) -> Indices:
        """The loaded sites that an ops with these hashes covers (FILTER-1, FILTER-2)."""
        if not filter_hash.any():
            return np.flatnonzero(self.loaded & ~notrace_hash)
        return np.flatnonzero(filter_hash & self.loaded & ~notrace_hash)
