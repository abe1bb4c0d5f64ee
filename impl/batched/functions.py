"""The facts about a world's functions that never change, as arrays over indices in address order.

Every array has one element more than there are functions: the last stands for the addresses that stay in a hash when
their module goes, or for address 0 in their place (MODULE-5). No symbol matches it, and nothing is ever loaded there.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Iterable, Sequence
from itertools import repeat
from typing import Any, Final
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spec.globs import matcher
from spec.semantics import Semantics
from spec.sharing import image_key
from spec.worlds import World

__all__ = ["ATTRIBUTES", "Functions", "Indices", "Mask", "functions_of"]

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]

ATTRIBUTES: Final = {"deny": 1, "noreturn": 2, "fmod_ret": 4, "sleepable": 8, "freplace": 16, "disabled": 32}
PATTERNS_KEPT: Final = 64
WIDE_BYTES: Final = 8


class Functions:
    """The functions of one world as arrays of count + 1 elements, shared by all systems over that world.

    rank: place in the order of BTF ids, -1 where BTF does not name the function. module: index into `modules`, -1 for
    the kernel proper. has_site: while loaded. slots, arguments: how many. attributes: bits of ATTRIBUTES.
    """

    def __init__(self, world: World) -> None:
        functions = world.functions
        self.all = functions
        self.count = self.nowhere = len(functions)
        self.modules = {name: number for number, name in enumerate(world.modules)}
        self.module = self._make_array((self.modules[f.module] if f.module else -1 for f in functions), np.int16, -1)
        self.rank = _rank([f.btf_id for f in functions])
        self.attributes = self._make_array(
            (sum(map(ATTRIBUTES.__getitem__, f.attributes)) for f in functions), np.uint8
        )
        self.has_site = self._make_array((f.has_site for f in functions), np.bool_)
        prototypes = [f.prototype for f in functions]
        sizes = [tuple(argument.size for argument in p.arguments) if p else () for p in prototypes]
        self.arguments = self._make_array(map(len, sizes), np.uint16)
        self.slots = self._make_array((sum(-(-size // 8) for size in each) for each in sizes), np.uint16)
        self.describable = self._make_array((p is not None and p.describable for p in prototypes), np.bool_)
        self.has_union = self._make_array((p is not None and p.has_union for p in prototypes), np.bool_)
        self.wide = self._make_array((p is not None and p.returns.size > WIDE_BYTES for p in prototypes), np.bool_)
        self.verdicts: dict[tuple[Semantics, str, bool, bool], NDArray[np.uint8]] = {}
        self._symbols = [f.symbol for f in functions]
        self._index: dict[str, int] = {}
        self._patterns: OrderedDict[str, NDArray[np.int32]] = OrderedDict()
        self._groups: dict[str, NDArray[np.int32]] = {}

    def _make_array(self, values: Iterable[object], kind: DTypeLike, last: int = 0) -> NDArray[Any]:
        array = np.full(self.count + 1, last, kind)
        array[: self.count] = np.fromiter(values, array.dtype, self.count)
        return array

    def index(self, name: str | None) -> int:
        """The index of a function by its unique name, or -1."""
        return self._number_names().get(name, -1) if name is not None else -1

    def indices(self, names: Sequence[str]) -> Indices:
        """Indices by unique names, -1 for those that the world does not have."""
        known = self._number_names()
        return np.fromiter(map(known.get, names, repeat(-1)), np.intp, len(names))

    def _number_names(self) -> dict[str, int]:
        if not self._index:
            self._index = {function.name: index for index, function in enumerate(self.all)}
        return self._index

    def matching(self, pattern: str, loaded: Mask) -> Indices:
        """Loaded functions that a kernel glob without ! selects, in address order (GLOB-2, GLOB-3, GLOB-5)."""
        found = self._select(pattern)
        return found[loaded[found]].astype(np.intp)

    def record(self, number: int, modules: Iterable[str]) -> Indices:
        """The record of this number while these modules are loaded, which may have no site; 0 selects none (GLOB-4)."""
        loaded = [self.module[self.nowhere], *map(self.modules.__getitem__, modules)]
        present = np.flatnonzero(np.isin(self.module[: self.count], loaded))
        return present[number - 1 : number] if number else present[:0]

    def _select(self, pattern: str) -> NDArray[np.int32]:
        if pattern in self._patterns:
            self._patterns.move_to_end(pattern)
            return self._patterns[pattern]
        if pattern == "*":
            found = np.arange(self.count, dtype=np.int32)
        else:
            hits = np.fromiter(map(matcher(pattern), self._symbols), np.bool_, self.count)
            found = np.flatnonzero(hits).astype(np.int32)
        self._patterns[pattern] = found
        if len(self._patterns) > PATTERNS_KEPT:
            self._patterns.popitem(last=False)
        return found

    def groups(self, level: str) -> NDArray[np.int32]:
        """For each function the number of its spec.sharing.image_key at this level."""
        if level not in self._groups:
            keys: dict[Hashable, int] = {}
            numbers = (keys.setdefault(image_key(level, function), len(keys)) for function in self.all)
            self._groups[level] = self._make_array(numbers, np.int32)
        return self._groups[level]


def _rank(btf_ids: list[int | None]) -> NDArray[np.int32]:
    ids = np.fromiter((-1 if btf_id is None else btf_id for btf_id in btf_ids), np.int64, len(btf_ids))
    ranks = np.full(len(btf_ids) + 1, -1, np.int32)
    named = np.flatnonzero(ids >= 0)
    ranks[named[np.argsort(ids[named], kind="stable")]] = np.arange(len(named))
    return ranks


_KNOWN: WeakKeyDictionary[World, Functions] = WeakKeyDictionary()


def functions_of(world: World) -> Functions:
    """The arrays of a world, made once: the search makes thousands of systems over one world."""
    if world not in _KNOWN:
        _KNOWN[world] = Functions(world)
    return _KNOWN[world]
