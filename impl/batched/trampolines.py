"""BPF trampolines: each function's programs, and its image, shared at one of three levels (IMAGE-*, COST-7)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import ALL, Functions, Indices, Mask
from impl.batched.sets import FEXIT, FMOD_RET, ProgramSets

__all__ = ["Trampolines"]

FRESH: Final = -1


class Trampolines:
    """sets: the programs linked to each function. The image in place is of these, unless it is stale.

    stale: the class of an image that outlived a failed detach (IMAGE-2), else FRESH. share: SHARE_IPMODIFY. orig_stack:
    how the image in place calls the original. extended: whether a freplace program stands in for the body. part: in the
    proposal, the part of each function, 0 without (LINK-11).
    """

    def __init__(self, functions: Functions, level: str, *, parts: bool) -> None:
        size = functions.count + 1
        self.level = level
        self.groups = None if level == "per_function" else functions.groups(level)
        self.sets = ProgramSets(size)
        # One element for all, which nobody may write, until the first stale image: mostly there never is one.
        self.stale = np.broadcast_to(np.int32(FRESH), size)
        self.share = np.zeros(size, np.bool_)
        self.orig_stack = np.zeros(size, np.bool_)
        self.extended = np.zeros(size, np.bool_)
        self.extension: dict[int, int] = {}
        self.part = np.zeros(size if parts else 0, np.int32)
        self.parts_made = 0
        self.cookies = np.zeros(8, np.uint64)
        self._nodes: dict[tuple[int, tuple[int, ...]], tuple[NDArray[np.uint64], NDArray[np.int32]]] = {}
        self._stale_ones = 0

    def nodes(self, program: int, lists: tuple[int, ...], cookies: NDArray[np.uint64]) -> NDArray[np.int32]:
        """The node of a program in these lists with each of these cookies."""
        key = program, lists
        known, numbers = self._nodes.get(key, (np.empty(0, np.uint64), np.empty(0, np.int32)))
        fresh = np.setdiff1d(cookies, known)
        if len(fresh):
            made = self.sets.new_nodes(program, lists, len(fresh))
            self._remember(made, fresh)
            known, numbers = np.concatenate([known, fresh]), np.concatenate([numbers, made])
            order = np.argsort(known)
            known, numbers = known[order], numbers[order]
            self._nodes[key] = known, numbers
        return numbers[np.searchsorted(known, cookies)]

    def _remember(self, nodes: NDArray[np.int32], cookies: NDArray[np.uint64]) -> None:
        size = int(nodes[-1]) + 1
        if size > len(self.cookies):
            self.cookies = np.concatenate([self.cookies, np.zeros(max(size, len(self.cookies)), np.uint64)])
        self.cookies[nodes] = cookies

    def has_programs(self, where: Indices) -> Mask:
        """Whether a program, other than an extension, is linked to each function."""
        linked: Mask = np.greater(self.sets.of[where], 0)
        return linked

    def has_image(self, where: Indices) -> Mask:
        """Whether each function has an image, which may have outlived its programs."""
        present: Mask = np.greater(self.images(where), 0)
        return present

    def images(self, where: Indices | slice = ALL) -> NDArray[np.int32]:
        """The class that each function's image is made of, 0 without an image; of all functions without `where`."""
        linked = self.sets.of[where]
        if not self._stale_ones:
            return linked
        stale = self.stale[where]
        return np.where(stale == FRESH, linked, stale)

    def calls_original(self, classes: NDArray[np.int32]) -> Mask:
        """Whether an image with these programs calls the original function (IMAGE-3)."""
        lengths = self.sets.lengths
        calls: Mask = (lengths[classes, FMOD_RET] > 0) | (lengths[classes, FEXIT] > 0)
        return calls

    def calls_by_address(self, where: Indices) -> Mask:
        """Whether the image in place calls the original by its address."""
        return self.calls_original(self.images(where)) & ~self.orig_stack[where]

    def keep_stale(self, where: Indices, classes: NDArray[np.int32]) -> None:
        """The images of these classes stay although the lists will change; called before they do."""
        new = self.stale[where] == FRESH
        where, classes = where[new], classes[new]
        if not self.stale.flags.writeable:
            self.stale = self.stale.copy()
        self.stale[where] = classes
        self._stale_ones += len(where)
        self.sets.hold(classes)

    def drop_stale(self, where: Indices) -> None:
        """Stale images of these functions are gone."""
        if not self._stale_ones:
            return
        where = where[self.stale[where] != FRESH]
        classes = self.stale[where]
        self.stale[where] = FRESH
        self._stale_ones -= len(where)
        self.sets.release(classes)

    def put(self, where: Indices) -> int:
        """New images for these functions' programs take their places; how many were built."""
        self.drop_stale(where)
        sharing = where[self.share[where]]
        self.orig_stack[where] = False
        self.orig_stack[sharing] = self.calls_original(self.sets.of[sharing])
        return self._count_built(where)

    def forget(self, where: Indices) -> None:
        """These functions have lost their last program, and their images."""
        self.drop_stale(where)
        self.orig_stack[where] = False
        self.share[where] = False

    def _count_built(self, where: Indices) -> int:
        if self.groups is None or not len(where):
            return len(where)
        keys = np.unique(self._make_keys(where))
        touched = np.zeros(len(self.sets.members), np.bool_)
        touched[self.sets.of[where]] = True
        outside = touched[self.images()]
        outside[where] = False
        return len(np.setdiff1d(keys, self._make_keys(np.flatnonzero(outside))))

    def _make_keys(self, where: Indices) -> NDArray[np.int64]:
        """One number for each (image_key, content, ORIG_STACK)."""
        assert self.groups is not None
        keys = self.images(where).astype(np.int64) * len(self.groups) + self.groups[where]
        return 2 * keys + self.orig_stack[where]

    def alive(self) -> int:
        """How many images are in place."""
        present = np.flatnonzero(self.images())
        return len(present) if self.groups is None else len(np.unique(self._make_keys(present)))
