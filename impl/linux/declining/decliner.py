"""The decliner finds the reason why an operation is not asked of a real kernel in an emulator."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from impl.linux import injection
from impl.linux.declining.bpf import BpfDecliner, keeps_no_records
from impl.linux.declining.ftrace import FtraceDecliner
from impl.linux.declining.graph import GraphDecliner
from impl.linux.declining.ipmodify import IpmodifyDecliner
from impl.linux.declining.patterns import Patterns
from impl.linux.directory import Directory
from impl.linux.laboratory.control import OPS_SLOTS, STUBS
from impl.linux.run import RunState
from spec import operations as op
from spec.inventory import Inventory
from spec.names import names_of
from spec.operations import Operation

__all__ = ["Decliner"]

NEVER = 1000
"""From so many on a `fail` takes an earlier one back."""

NO_FAIL_NTH = "has no /proc/self/fail-nth: it is built without CONFIG_FAULT_INJECTION or CONFIG_FAILSLAB"


@dataclass(slots=True)
class Decliner:
    """retries: a second try to attach works (DEFECT-2). asked: defects that the kernel is to show all the same."""

    directory: Directory
    run: RunState
    retries: bool
    asked: frozenset[str] = frozenset()
    _bpf: BpfDecliner = field(init=False)
    _handlers: dict[type[Operation], Callable[[Any], str]] = field(init=False)

    def __post_init__(self) -> None:
        patterns = Patterns(self.directory, self.run)
        ipmodify = IpmodifyDecliner(self.directory, self.run, self.asked)
        self._bpf = BpfDecliner(self.directory, self.run, self.retries, ipmodify)
        self._handlers = {
            op.Call: self._call,
            op.Fail: self._fail,
            op.FtraceOps: self._declare,
            **FtraceDecliner(self.directory, self.run, patterns, ipmodify).handlers,
            **GraphDecliner(self.directory, self.run, patterns).handlers,
            **ipmodify.handlers,
            **self._bpf.handlers,
        }

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def reason(self, operation: Operation) -> str:
        """Why the operation is declined in the present state; empty if it is not."""
        decline = self._handlers.get(type(operation))
        return (decline(operation) if decline else "") or self._stubs(operation) or self._fault(operation)

    def _call(self, operation: op.Call) -> str:
        if keeps_no_records(self.directory, operation.function):
            return "does not call the kernel's own functions: their bodies keep no records"
        # ftrace_kill() makes a site that several ops cover call ftrace_stub().
        return "calls nothing after ftrace has died" if self._inventory.dead else ""

    def _fail(self, operation: op.Fail) -> str:
        if operation.point == "nth":
            return "" if self.directory.station.fail_nth is not None else NO_FAIL_NTH
        if operation.point == "hash" and self.run.failing & {"alloc"}:
            return "makes alloc_ftrace_hash() fail for one reason at a time"
        if 1 < operation.count < NEVER:
            return "can only make a point fail when it is reached next"
        lacks = operation.point in injection.POINTS and not self.directory.station.injects
        return f"cannot make '{operation.point}' fail" if lacks else ""

    def _fault(self, operation: Operation) -> str:
        """A point that is armed, and which the operation may reach where no function of the kernel stands for it."""
        points = (point for point in sorted(self.run.failing) if self._cannot_fail(point, operation))
        return next((f"cannot make '{point}' fail in this operation" for point in points), "")

    def _cannot_fail(self, point: str, operation: Operation) -> bool:
        if injection.place_of(point, operation) is None:
            return injection.reaches(point, operation)
        match point, operation:
            case "alloc", op.BpfLinkDetach(name):
                return not self._leaves_alone(name)
            case "filter" | "register", _:
                record = self._inventory.ops.get(getattr(operation, "ops", ""))
                starts = isinstance(operation, op.RegisterFtraceFunction)
                direct = isinstance(operation, op.RegisterFtraceDirectMulti) or (record and record.direct)
                meets = direct and self._inventory.ipmodify_users()
                # Some checks come behind the function, and the rules have them before the point (FILTER-8, OPS-4, -5,
                # and those of direct calls that meet an IPMODIFY user).
                return record is not None and bool(record.ipmodify or (starts and record.enabled) or meets)
            case "patch", _:
                return self._is_live(operation)
        return False

    def _leaves_alone(self, name: str) -> bool:
        """Whether the link's function keeps its ops, so that its image may stay (NAME-12)."""
        link = self._inventory.links.get(name)
        single = link is None or not self._inventory.programs[link.prog].multi
        return single and (self._inventory.semantics.single_direct_ops or self._bpf.keeps_a_program(name))

    def _is_live(self, operation: Operation) -> bool:
        """Whether an ops that is live may change: then the kernel says nothing of a pass that fails."""
        record = self._inventory.ops.get(getattr(operation, "ops", ""))
        users = isinstance(operation, op.RegisterFtraceGraph) and self._inventory.graph_users
        shares = isinstance(operation, op.BpfRawTracepointOpen | op.Livepatch) or (record and record.ipmodify)
        return bool(users or (shares and self._inventory.links) or (record and record.enabled))

    def _declare(self, operation: op.FtraceOps) -> str:
        _ = operation
        return f"has {OPS_SLOTS} ops" if self._inventory.declared >= OPS_SLOTS else ""

    def _stubs(self, operation: Operation) -> str:
        tramps = {name.text for name in names_of(operation, "names") if name.space == "tramp"}
        return f"has {STUBS} direct trampolines" if len(tramps.union(self.run.stubs)) > STUBS else ""
