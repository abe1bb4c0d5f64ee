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

from impl.batched.btf import Indices, Mask, Named
from spec.globs import matcher, module_matcher
from spec.sharing import image_key
from spec.worlds import World

__all__ = ["ALL", "Functions", "Indices", "Mask", "functions_of"]

PATTERNS_KEPT: Final = 64

ALL: Final = slice(None)
"""All functions, in place of their indices: what is taken by it is no copy."""


class Functions:
    """The functions of one world as arrays of count + 1 elements, shared by all systems over that world.

    named: what of it BTF names, and what BTF names beside. module: index into `modules`, -1 for the kernel proper.
    has_site: while loaded. slots, arguments: how many.
    """

    def __init__(self, world: World) -> None:
        functions = world.functions
        self.all = functions
        self.count = self.nowhere = len(functions)
        self.modules = {name: number for number, name in enumerate(world.modules)}
        self.module = self._make_array((self.modules[f.module] if f.module else -1 for f in functions), np.int16, -1)
        self.named = Named(world)
        self.has_site = self._make_array((f.has_site for f in functions), np.bool_)
        prototypes = [f.prototype for f in functions]
        sizes = [tuple(argument.size for argument in p.arguments) if p else () for p in prototypes]
        self.arguments = self._make_array(map(len, sizes), np.uint16)
        self.slots = self._make_array((sum(-(-size // 8) for size in each) for each in sizes), np.uint16)
        self._symbols = [f.symbol for f in functions]
        self._index: dict[str, int] = {}
        self._patterns: OrderedDict[str, NDArray[np.int32]] = OrderedDict()
        self._groups: dict[str, NDArray[np.int32]] = {}

    def _make_array(self, values: Iterable[object], kind: DTypeLike, last: int = 0) -> NDArray[Any]:
        array = np.full(self.count + 1, last, kind)
        array[: self.count] = np.fromiter(values, array.dtype, self.count)
        return array

    def index(self, name: str | None) -> int:
        """The index of a function that ftrace has a record of by its unique name, or -1."""
        return self._number_names().get(name, -1) if name is not None else -1

    def name_index(self, name: str) -> int:
        """The index of a function that ftrace has a record of, or that BTF names, by its unique name; or -1."""
        index = self.index(name)
        return index if index >= 0 else self.named.other(name)

    def name_indices(self, names: Sequence[str]) -> Indices:
        """As name_index."""
        return self.named.complete(names, self.indices(names))

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

    def within(self, module: str) -> Mask:
        """The functions of the modules that MODULE of GLOB:mod:MODULE selects (GLOB-7)."""
        match = module_matcher(module)
        # The last element is that of the kernel, whose functions have module -1.
        chosen = np.fromiter((*map(match, self.modules), match(None)), np.bool_, len(self.modules) + 1)
        held: Mask = chosen[self.module]
        return held

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


_KNOWN: WeakKeyDictionary[World, Functions] = WeakKeyDictionary()


def functions_of(world: World) -> Functions:
    """The arrays of a world, made once: the search makes thousands of systems over one world."""
    if world not in _KNOWN:
        _KNOWN[world] = Functions(world)
    return _KNOWN[world]
