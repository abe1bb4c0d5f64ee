"""The proposal's parts: sets of functions with one trampoline, cut where attaches overlap (LINK-11)."""

from __future__ import annotations

import numpy as np

from impl.batched.functions import Functions, Indices
from impl.batched.trampolines import Trampolines

__all__ = ["cut_parts", "end_parts", "parts_met"]


def parts_met(trampolines: Trampolines, where: Indices) -> int:
    """How many parts these functions belong to."""
    parts = trampolines.part[where]
    return len(np.unique(parts[parts > 0]))


def cut_parts(trampolines: Trampolines, functions: Functions, where: Indices) -> None:
    """A part that is held only in part is cut; functions without one get new parts by their number of arguments."""
    part = trampolines.part
    inside = np.bincount(part[where], minlength=int(part.max()) + 1)
    cut = (inside > 0) & (inside < np.bincount(part))
    cut[0] = False
    numbers = np.arange(len(cut))
    numbers[cut] = _new(trampolines, int(np.count_nonzero(cut)))
    fresh = where[part[where] == 0]
    part[where] = numbers[part[where]]
    arities, place = np.unique(functions.arguments[fresh], return_inverse=True)
    part[fresh] = _new(trampolines, len(arities))[place]


def end_parts(trampolines: Trampolines, where: Indices) -> int:
    """These functions have lost their last program; returns how many parts end by it."""
    ended = parts_met(trampolines, where)
    trampolines.part[where] = 0
    return ended


def _new(trampolines: Trampolines, count: int) -> Indices:
    first = trampolines.parts_made + 1
    trampolines.parts_made += count
    return np.arange(first, first + count)
