"""Interned classes of program sets: which programs, in which order, are attached to each of many functions.

A class is one content: for each kind of list (fentry, fmod_ret, fexit) its nodes, newest first. Functions with equal
lists have the same class, whatever was attached and detached to get there. Work grows with the functions named and the
classes that they are in.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices
from spec.operations import LSM

__all__ = ["FENTRY", "FEXIT", "FMOD_RET", "LISTS", "ProgramSets", "lists_of"]

FENTRY, FMOD_RET, FEXIT = 0, 1, 2
LISTS: Final = {"fentry": (FENTRY,), "fmod_ret": (FMOD_RET,), "fexit": (FEXIT,), "fsession": (FENTRY, FEXIT)}
KINDS: Final = 3
SOME: Final = 4


def lists_of(kind: str, *, void: bool = False) -> tuple[int, ...]:
    """The lists in which a program of a kind stands, an extension in none; void: its function returns nothing."""
    if kind == LSM:
        return (FEXIT,) if void else (FMOD_RET,)
    return LISTS.get(kind, ())


_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX2 = np.uint64(0x94D049BB133111EB)


def _hash_nodes(nodes: NDArray[np.int32], kind: int, places: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """One 64-bit word for each node at its place, counted from the oldest, of a kind's list (splitmix64)."""
    words = (nodes.astype(np.uint64) << np.uint64(10)) + (places.astype(np.uint64) << np.uint64(2)) + np.uint64(kind)
    words = words * _ODD
    words = (words ^ (words >> np.uint64(30))) * _MIX1
    words = (words ^ (words >> np.uint64(27))) * _MIX2
    return words ^ (words >> np.uint64(31))


class ProgramSets:
    """Function index -> class -> content.

    `of` is the class of each function; class 0 is the empty content. A class's row holds its nodes oldest first. Equal
    contents meet by their fingerprint, the sum of a 64-bit word for each node. A class lives while it has members:
    functions, and those who keep it by `hold`.
    """

    def __init__(self, functions: int) -> None:
        self.of = np.zeros(functions, np.int32)
        self.members = np.zeros(8, np.int32)
        self.members[0] = functions + 1
        self.lengths = np.zeros((8, KINDS), np.uint8)
        self.depth = np.zeros(8, np.uint8)
        self.weight = np.zeros(8, np.uint8)
        self.rows = np.zeros((8, 1), np.int32)
        self.node_program = np.zeros(8, np.int32)
        self._node_lists = np.zeros((8, KINDS), np.bool_)
        self._node_used = np.zeros(8, np.bool_)
        self._nodes = 1
        self.fingerprints = np.zeros(8, np.uint64)
        self._renamed = np.zeros(8, np.int32)
        self._free = np.arange(7, 0, -1, dtype=np.int32)
        self._order: NDArray[np.intp] | None = None

    def new_nodes(self, program: int, lists: tuple[int, ...], count: int = 1) -> NDArray[np.int32]:
        """Numbers for nodes of a program (a number from 1) that no class holds yet."""
        first, self._nodes = self._nodes, self._nodes + count
        if self._nodes > len(self._node_used):
            size = max(self._nodes, 2 * len(self._node_used))
            self.node_program = _grow(self.node_program, size)
            self._node_lists = _grow(self._node_lists, size)
            self._node_used = _grow(self._node_used, size)
        self.node_program[first : self._nodes] = program
        for kind in lists:
            self._node_lists[first : self._nodes, kind] = True
        return np.arange(first, self._nodes, dtype=np.int32)

    def attach(self, indices: Indices, node: int) -> None:
        """Put one node at the head of its lists on each function; no index twice, none may have the program already."""
        old = self.of[indices]
        counts = np.bincount(old)
        touched = np.flatnonzero(counts)
        counts = counts[touched]
        if self._node_used[node]:
            new = self._intern(self._append(touched, node))
            self._rename(indices, old, touched, new)
            self._move(touched, new, counts)
            return
        # What a fresh node makes of a content cannot be there yet, so nothing is looked up, and a class that is named
        # whole keeps its number.
        self._node_used[node] = True
        split = touched
        whole = self.members[touched] == counts
        if whole.any():
            self._push(touched[whole], node)
            split, counts = touched[~whole], counts[~whole]
        if len(split):
            made = self._split(split, counts)
            self._push(made, node)
            self._renamed[touched] = touched
            self._rename(indices, old, split, made)

    def _split(self, split: Indices, counts: Indices) -> Indices:
        """Make a second class of each of these; `counts` says how many of the members will belong to it."""
        made = self._allocate(len(split))
        self.members[split] -= counts.astype(np.int32)
        self.members[made] = counts
        self.rows[made] = self.rows[split]
        self.depth[made] = self.depth[split]
        self.weight[made] = self.weight[split]
        self.lengths[made] = self.lengths[split]
        self.fingerprints[made] = self.fingerprints[split]
        return made

    def _push(self, classes: Indices, node: int) -> None:
        """Add a node that is in no class to whole classes, in place: their contents stay distinct."""
        depth = self.depth[classes]
        self._widen(int(depth.max()) + 1)
        self.rows[classes, depth] = node
        self.depth[classes] = depth + np.uint8(1)
        number = np.full(1, node, np.int32)
        for kind in np.flatnonzero(self._node_lists[node]):
            places = self.lengths[classes, kind]
            self.fingerprints[classes] += _hash_nodes(number, int(kind), places)
            self.lengths[classes, kind] = places + np.uint8(1)
            self.weight[classes] += np.uint8(1)
        self._order = None

    def attach_each(self, indices: Indices, nodes: NDArray[np.int32]) -> None:
        """Attach a node of its own to each function."""
        old = self.of[indices]
        pairs = (old.astype(np.int64) << 32) | nodes
        distinct, inverse, counts = np.unique(pairs, return_inverse=True, return_counts=True)
        base = distinct >> 32
        self._node_used[nodes] = True
        new = self._intern(self._append(base, (distinct & 0xFFFFFFFF).astype(np.int32)))
        self.of[indices] = new[inverse]
        self._move(base, new, counts)

    def detach(self, indices: Indices, program: int) -> None:
        """Take a program off each function, all of which must have it; classes that become equal merge."""
        old = self.of[indices]
        counts = np.bincount(old)
        touched = np.flatnonzero(counts)
        rows = self.rows[touched, : int(self.depth[touched].max(initial=0))]
        rest = rows[self.node_program[rows] != program].reshape(len(rows), -1)
        new = self._intern(rest)
        self._rename(indices, old, touched, new)
        self._move(touched, new, counts[touched])

    def _append(self, classes: Indices, node: int | NDArray[np.int32]) -> NDArray[np.int32]:
        depth = self.depth[classes]
        rows = np.zeros((len(classes), int(depth.max(initial=0)) + 1), np.int32)
        kept = min(rows.shape[1], self.rows.shape[1])
        rows[:, :kept] = self.rows[classes, :kept]
        rows[np.arange(len(classes)), depth] = node
        return rows

    def _rename(self, indices: Indices, old: NDArray[np.int32], classes: Indices, new: Indices) -> None:
        """Functions of these classes, among those at the indices, are now of others."""
        self._renamed[classes] = new
        self.of[indices] = self._renamed[old]

    def _move(self, base: Indices, new: Indices, counts: Indices) -> None:
        """Members go from each class to another, `counts` of them; classes may be named more than once."""
        np.subtract.at(self.members, base, counts.astype(np.int32))
        np.add.at(self.members, new, counts.astype(np.int32))
        self._bury(base)

    def hold(self, classes: NDArray[np.int32]) -> None:
        """Keep classes alive, once for each element."""
        np.add.at(self.members, classes, np.int32(1))

    def release(self, classes: NDArray[np.int32]) -> None:
        """Undo `hold`."""
        np.subtract.at(self.members, classes, np.int32(1))
        self._bury(np.unique(classes))

    def holding(self, program: int, classes: NDArray[np.int32]) -> NDArray[np.bool_]:
        """For each class whether it has the program."""
        touched = np.flatnonzero(np.bincount(classes))
        has = np.zeros(len(self.members), np.bool_)
        has[touched] = (self.node_program[self.rows[touched]] == program).any(axis=1)
        return has[classes]

    def row(self, number: int) -> list[int]:
        """The nodes of a class, oldest first, each once."""
        nodes: list[int] = self.rows[number, : self.depth[number]].tolist()
        return nodes

    def is_modifying(self, node: int) -> bool:
        """Whether a node stands in the fmod_ret list."""
        return bool(self._node_lists[node, FMOD_RET])

    def content(self, number: int) -> tuple[list[int], list[int], list[int]]:
        """The nodes of a class: fentry, fmod_ret and fexit list, newest first."""
        nodes = self.row(number)[::-1]
        held = list(zip(nodes, self._node_lists[nodes].tolist(), strict=True))
        fentry, fmod_ret, fexit = ([node for node, lists in held if lists[kind]] for kind in range(KINDS))
        return fentry, fmod_ret, fexit

    def alive(self) -> int:
        """How many classes are in use, the empty one left out."""
        return int(np.count_nonzero(self.members)) - 1

    def _intern(self, rows: NDArray[np.int32]) -> Indices:
        """The class of each row of nodes (oldest first, padded with zeros); a missing class is made."""
        prints, lengths = self._fingerprint(rows)
        distinct, first, inverse = np.unique(prints, return_index=True, return_inverse=True)
        found = self._find(distinct)
        found[distinct == 0] = 0
        absent = np.flatnonzero(found < 0)
        if len(absent):
            made = self._allocate(len(absent))
            source = first[absent]
            self._widen(rows.shape[1])
            self.rows[made] = 0
            self.rows[made, : rows.shape[1]] = rows[source]
            self.depth[made] = np.count_nonzero(rows[source], axis=1)
            self.lengths[made] = lengths[source]
            self.weight[made] = lengths[source].sum(axis=1)
            self.fingerprints[made] = distinct[absent]
            self._order = None
            found[absent] = made
        return found[inverse]

    def _fingerprint(self, rows: NDArray[np.int32]) -> tuple[NDArray[np.uint64], NDArray[np.uint8]]:
        prints = np.zeros(len(rows), np.uint64)
        lengths = np.zeros((len(rows), KINDS), np.uint8)
        for kind in range(KINDS):
            inside = self._node_lists[rows, kind]
            if inside.any():
                places = np.cumsum(inside, axis=1, dtype=np.uint8)
                lengths[:, kind] = places[:, -1]
                words = _hash_nodes(rows, kind, places - inside)
                prints += np.where(inside, words, np.uint64(0)).sum(axis=1, dtype=np.uint64)
        return prints, lengths

    def _find(self, prints: NDArray[np.uint64]) -> Indices:
        """The living class of each fingerprint, -1 where there is none."""
        if self._order is None and len(prints) <= SOME:
            same = (self.fingerprints == prints[:, None]) & (self.members > 0)
            return np.where(same.any(axis=1), same.argmax(axis=1), -1)
        if self._order is None:
            living = np.flatnonzero(self.members)
            self._order = living[np.argsort(self.fingerprints[living])]
        known = self.fingerprints[self._order]
        at = np.minimum(np.searchsorted(known, prints), len(known) - 1)
        return np.where(known[at] == prints, self._order[at], -1)

    def _allocate(self, count: int) -> Indices:
        """Returns numbers of dead classes; the caller fills in their records."""
        if count > len(self._free):
            old = len(self.members)
            size = max(2 * old, old + count)
            for name in ("members", "lengths", "depth", "weight", "rows", "fingerprints", "_renamed"):
                setattr(self, name, _grow(getattr(self, name), size))
            self._free = np.concatenate([np.arange(size - 1, old - 1, -1, dtype=np.int32), self._free])
        keep = len(self._free) - count
        taken, self._free = self._free[keep:], self._free[:keep]
        return taken[::-1].astype(np.intp)

    def _bury(self, classes: Indices) -> None:
        dead = np.unique(classes[self.members[classes] == 0]) if len(classes) else classes
        if len(dead):
            self._free = np.concatenate([self._free, dead[::-1].astype(np.int32)])
            self._order = None

    def _widen(self, width: int) -> None:
        if width > self.rows.shape[1]:
            wider = np.zeros((len(self.rows), max(width, 2 * self.rows.shape[1])), np.int32)
            wider[:, : self.rows.shape[1]] = self.rows
            self.rows = wider


def _grow(array: NDArray[Any], size: int) -> NDArray[Any]:
    bigger = np.zeros((size, *array.shape[1:]), array.dtype)
    bigger[: len(array)] = array
    return bigger
