"""What BTF names, as arrays: the functions of `functions.py`, a place for nowhere, and behind it those without a site.

A function's index is the same here and there; one that ftrace has no record of has an index beyond all arrays of sites,
so that loops over sites know nothing of it. A name that is unknown is -1.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence
from itertools import repeat
from typing import Any, Final

import numpy as np
from numpy.typing import DTypeLike, NDArray

from spec.abi import SLOT_BYTES
from spec.globs import Pattern, libbpf_matcher
from spec.prototypes import Prototype
from spec.semantics import Semantics
from spec.worlds import LOOKUPS, Function, World

__all__ = ["ATTRIBUTES", "NO_SITE", "NO_SYMBOL", "VMLINUX", "Indices", "Mask", "Named"]

Mask = NDArray[np.bool_]
Indices = NDArray[np.intp]

VMLINUX: Final = -1
ATTRIBUTES: Final = {
    name: 1 << bit
    for bit, name in enumerate(
        ("deny", "noreturn", "fmod_ret", "sleepable", "freplace", "lsm", "lsm_sleepable", "lsm_bool")
    )
}
PATTERNS_KEPT: Final = 64
NO_SYMBOL, _OUTSIDE, NO_SITE = (LOOKUPS.index(each) + 1 for each in ("no_symbol", "outside", "no_site"))


class Named:
    """The functions of one world that BPF may be asked for, shared by all systems over that world.

    rank: place in the order of BTF ids, -1 where BTF does not name the function. module: index into the world's
    modules, or VMLINUX. lookup: 0 where BPF finds a site by the name, else from 1 as LOOKUPS has it (PROG-7). recorded:
    whether ftrace has a site. slots: how many. void: it returns nothing. attributes: bits of ATTRIBUTES.
    """

    def __init__(self, world: World) -> None:
        functions: list[Function | None] = [*world.functions, None, *world.others]
        self.beyond = len(world.functions) + 1
        modules = {name: number for number, name in enumerate(world.modules)}
        self.modules = modules
        known = [f for f in functions if f]
        self.module = self._make_array((modules[f.module] if f.module else VMLINUX for f in known), np.int16, VMLINUX)
        self.rank = _rank([f.btf_id if f else None for f in functions])
        bits = (sum(ATTRIBUTES.get(each, 0) for each in f.attributes) for f in known)
        self.attributes = self._make_array(bits, np.uint8)
        codes = {"": 0} | {each: code for code, each in enumerate(LOOKUPS, 1)}
        self.lookup = self._make_array((codes[f.lookup] for f in known), np.uint8)
        self.recorded = self._make_array((f.has_site for f in known), np.bool_)
        prototypes = [f.prototype for f in known]
        self.slots = self._make_array(map(_count_slots, prototypes), np.uint16)
        self.describable = self._make_array((p is not None and p.describable for p in prototypes), np.bool_)
        self.has_union = self._make_array((p is not None and p.has_union for p in prototypes), np.bool_)
        self.wide = self._make_array((p is not None and p.returns.size > SLOT_BYTES for p in prototypes), np.bool_)
        self.void = self._make_array((p is not None and p.returns.kind == "VOID" for p in prototypes), np.bool_)
        self.verdicts: dict[tuple[Semantics, str, bool, bool, int, bytes], NDArray[np.uint8]] = {}
        self._symbols = ["" if f is None else f.symbol for f in functions]
        self._index = {f.name: self.beyond + place for place, f in enumerate(world.others)}
        self._patterns: OrderedDict[Pattern, Indices] = OrderedDict()

    def _make_array(self, values: Iterable[object], kind: DTypeLike, nowhere: int = 0) -> NDArray[Any]:
        array = np.fromiter(values, np.dtype(kind))
        return np.insert(array, self.beyond - 1, nowhere)

    def other(self, name: str) -> int:
        """The index of a function without a record by its unique name, or -1."""
        return self._index.get(name, -1)

    def complete(self, names: Sequence[str], indices: Indices) -> Indices:
        """The indices of functions with a record, with -1 in other places: those that the others have are filled in."""
        missing = np.flatnonzero(indices < 0)
        if len(missing) and self._index:
            found = map(self._index.get, (names[place] for place in missing.tolist()), repeat(-1))
            indices[missing] = np.fromiter(found, np.intp, len(missing))
        return indices

    def matching(self, pattern: Pattern) -> Indices:
        """What a pattern of a link stands for, loaded or not; `attachable` selects from it (GLOB-6)."""
        if pattern in self._patterns:
            self._patterns.move_to_end(pattern)
            return self._patterns[pattern]
        module = VMLINUX if pattern.module is None else self.modules.get(pattern.module, len(self.modules))
        candidates = (self.rank >= 0) & (self.module == module) & self.describable
        if pattern.how:
            candidates &= self.recorded
        found = np.flatnonzero(candidates)
        if pattern.glob != "*":
            match = libbpf_matcher(pattern.glob)
            found = found[[match(self._symbols[index]) for index in found.tolist()]] if len(found) else found
        self._patterns[pattern] = found
        if len(self._patterns) > PATTERNS_KEPT:
            self._patterns.popitem(last=False)
        return found


def _count_slots(prototype: Prototype | None) -> int:
    return sum(-(-argument.size // SLOT_BYTES) for argument in prototype.arguments) if prototype else 0


def _rank(btf_ids: list[int | None]) -> NDArray[np.int32]:
    ids = np.fromiter((-1 if btf_id is None else btf_id for btf_id in btf_ids), np.int64, len(btf_ids))
    ranks = np.full(len(btf_ids), -1, np.int32)
    named = np.flatnonzero(ids >= 0)
    ranks[named[np.argsort(ids[named], kind="stable")]] = np.arange(len(named))
    return ranks
