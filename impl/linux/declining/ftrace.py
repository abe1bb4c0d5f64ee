"""A real kernel is not asked for some changes of an ops, its hashes and its direct calls: the reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from impl.linux.declining.ipmodify import IpmodifyDecliner
from impl.linux.declining.patterns import EVERYTHING, Patterns
from impl.linux.directory import Directory
from impl.linux.run import RunState
from spec import operations as op
from spec.globs import matcher, without_bang
from spec.inventory import Inventory
from spec.operations import Operation

__all__ = ["HALF_STARTED", "FtraceDecliner"]

HALF_STARTED = "leaves an ops half started at which ftrace died, so that further direct calls of it are misuse"

GIVEN_BACK = "gives the filter of a direct ops back also where it answers -ENODEV, and our module then forgets the ops"

TAKEN_OUT = "warns, and takes the entry of a site out of its table that ftrace, once dead, keeps (DEFECT-37)"

DIES_REFUSING = "answers -ENODEV, not 0, where ftrace dies as the last direct call of the single API leaves (SYSCTL-5)"

COUNTED = "goes on counting the ops at whose start ftrace died, and then exchanges an entry that it no longer shows"

REGS_GIVEN = "gives R, by a change of this notrace hash, to functions beyond the world, and warns later (SITE-6)"

NO_HASH = (
    "looks for direct calls in the hash of an IPMODIFY ops, which it may lack after ftrace has died: a NULL pointer"
)


@dataclass(frozen=True, slots=True)
class FtraceDecliner:
    """Reasons to decline operations of ops."""

    directory: Directory
    run: RunState
    patterns: Patterns
    ipmodify: IpmodifyDecliner

    @property
    def handlers(self) -> dict[type[Operation], Callable[[Any], str]]:
        """Each finds why an operation of its kind is declined, or an empty text."""
        return {
            op.FtraceSetFilter: self._filter,
            op.FtraceSetFilterIp: self._becomes_empty,
            op.FtraceSetFilterIps: self._becomes_empty,
            op.FtraceSetNotrace: self._notrace,
            op.RegisterFtraceDirectMulti: self._start_direct,
            op.UnregisterFtraceDirectMulti: self._end_direct,
            op.UnregisterFtraceDirect: self._end_single,
            op.ModifyFtraceDirect: self._modify_single,
            op.UpdateFtraceDirectAdd: self._update,
            op.UpdateFtraceDirectDel: self._update,
            op.RegisterFtraceFunction: self._register,
            op.UnregisterFtraceFunction: self._unregister,
        }

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def _unregister(self, operation: op.UnregisterFtraceFunction) -> str:
        record = self._inventory.ops.get(operation.ops)
        if self._inventory.dead and record and record.ipmodify and not record.enabled:
            return NO_HASH
        return self.ipmodify.shake_hands(record)

    def _end_direct(self, operation: op.UnregisterFtraceDirectMulti) -> str:
        return GIVEN_BACK if self._inventory.dead and operation.free else ""

    def _end_single(self, _operation: op.UnregisterFtraceDirect) -> str:
        if self._inventory.dead:
            return TAKEN_OUT
        return DIES_REFUSING if self._inventory.was_off else ""

    def _modify_single(self, _operation: op.ModifyFtraceDirect) -> str:
        return COUNTED if self._inventory.dead else ""

    def _filter(self, operation: op.FtraceSetFilter) -> str:
        pattern, removes = without_bang(operation.glob)
        return (self.patterns.alone(pattern) if removes else self.patterns.beyond(pattern)) or self._becomes_empty(
            operation
        )

    def _notrace(self, operation: op.FtraceSetNotrace) -> str:
        pattern, removes = without_bang(operation.glob)
        return self.patterns.alone(pattern) or self._grows_loud(operation, pattern, removes=removes)

    def _grows_loud(self, operation: op.FtraceSetNotrace, pattern: str, *, removes: bool) -> str:
        """An enabled ops without a filter covers what its notrace hash no longer holds."""
        record = self._inventory.ops.get(operation.ops)
        if record is None or not record.enabled or record.filter_hash or record.direct:
            return ""
        if record.save_regs and not self._inventory.semantics.notrace_leaves_regs:
            return REGS_GIVEN
        match, foreign = matcher(pattern), self.directory.station.foreign
        loud = any(map(match, foreign)) if removes else operation.reset and not all(map(match, foreign))
        return EVERYTHING if loud else ""

    def _becomes_empty(self, operation: op.FtraceSetFilter | op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> str:
        """An enabled ops whose filter becomes empty covers everything (FILTER-10)."""
        record = self._inventory.ops.get(operation.ops)
        if record is None or not record.enabled or record.ipmodify or record.direct or operation.ops in self.run.quiet:
            return ""
        return EVERYTHING if not self._inventory.filter_after(operation) else ""

    def _update(self, operation: op.UpdateFtraceDirectAdd | op.UpdateFtraceDirectDel) -> str:
        """update_ftrace_direct_add() and _del() give the ops an empty notrace hash, if it stays enabled."""
        if self._inventory.dead:
            return HALF_STARTED
        record = self._inventory.ops.get(operation.ops)
        forgets = record and record.enabled and record.notrace_hash
        return "forgets the notrace hash of an ops whose direct calls change" if forgets else ""

    def _start_direct(self, _operation: op.RegisterFtraceDirectMulti) -> str:
        return HALF_STARTED if self._inventory.dead else ""

    def _register(self, operation: op.RegisterFtraceFunction) -> str:
        record = self._inventory.ops.get(operation.ops)
        quiet = operation.ops in self.run.quiet
        covers_all = record and not (quiet or record.filter_hash or record.ipmodify or record.direct)
        return EVERYTHING if covers_all else self.ipmodify.shake_hands(record) or self.ipmodify.meets_gone(record)
