"""IPMODIFY users, livepatches among them, meet images and direct calls: the reasons not to ask for it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Any

from impl.linux.directory import PATCHED, Directory
from impl.linux.run import RunState
from spec import operations as op
from spec.existing import OpsRecord
from spec.inventory import Inventory
from spec.operations import Operation

__all__ = ["IpmodifyDecliner"]

LOCKDEP = "lock_is_held_type"
"""A kernel with CONFIG_LOCKDEP has this function, which lockdep_assert_held() calls."""

UNLOCKED = "asks livepatched neighbours' trampolines without their locks, so that its lockdep warns (DEFECT-27)"

UNFOUND = "has our module ask ftrace for the site of what it livepatches, which a dead ftrace answers before it looks"

MEETS_GONE = "makes the handshake of IPMODIFY users also for addresses of functions that have gone (DEFECT-11)"


@dataclass(frozen=True, slots=True)
class IpmodifyDecliner:
    """asked: names of defects that a kernel is asked to show all the same."""

    directory: Directory
    run: RunState
    asked: frozenset[str]

    @property
    def handlers(self) -> dict[type[Operation], Callable[[Any], str]]:
        """Each finds why an operation of its kind is declined, or an empty text."""
        return {op.Livepatch: self._livepatch, op.Unlivepatch: self._unlivepatch}

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def _livepatch(self, operation: op.Livepatch) -> str:
        if operation.function in self.directory.station.own:
            return f"has no patched body ({PATCHED}) for a function of the kernel's own"
        if self._inventory.dead and not self._inventory.loaded(operation.function):
            return UNFOUND
        return self.ask_neighbours({operation.function}, {operation.function})

    def _unlivepatch(self, operation: op.Unlivepatch) -> str:
        return self.ask_neighbours({operation.function}, {operation.function})

    def shake_hands(self, record: OpsRecord | None) -> str:
        """The images of an IPMODIFY user's functions are made anew, one after the other."""
        functions = record.filter if record and record.ipmodify else ()
        return next(filter(None, (self.ask_neighbours({name}, {name}) for name in functions)), "")

    def meets_gone(self, record: OpsRecord | None) -> str:
        """An IPMODIFY user and a raw direct ops that both hold an address of a function that has gone."""
        gone = set(record.filter_hash).difference(record.filter) if record and record.ipmodify else set[str]()
        others = (each for each in self._inventory.ops.values() if each.direct and each.enabled)
        return MEETS_GONE if any(not gone.isdisjoint(each.filter_hash) for each in others) else ""

    def ask_neighbours(self, changed: Collection[str], locked: Collection[str]) -> str:
        """All of BPF's IPMODIFY sites are asked, locked or not, when an image takes another's place at a site."""
        inventory = self._inventory
        watched = bool(self.directory.symbols.addresses(LOCKDEP)) and inventory.semantics.single_direct_ops
        if not watched or "DEFECT-27" in self.asked or not any(map(inventory.has_image, changed)):
            return ""
        asked = filter(inventory.has_image, inventory.ipmodify_users().difference(locked))
        return UNLOCKED if any(asked) else ""
