"""What the system remembers of its own operations: names, and of each ops what no file of the kernel shows.

A running kernel has no names for ops, programs and links, and it crashes on some misuses of its interfaces; both are
kept here. Nothing that can be observed is answered from here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from spec import operations as op
from spec.globs import is_glob, without_bang
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome
from spec.worlds import World

__all__ = ["GraphUser", "Ledger", "Link", "OpsRecord", "Program"]


@dataclass(slots=True)
class OpsRecord:
    """One ftrace_ops.

    role: `plain` or `direct`, once it took one. silenced: its notrace hash was set. entries: the direct calls that it
    made.
    """

    slot: int
    ipmodify: bool
    role: str = ""
    enabled: bool = False
    silenced: bool = False
    filter: set[str] = field(default_factory=set)
    entries: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """A BPF program as it was declared."""

    declared: op.BpfProgLoad


@dataclass(frozen=True, slots=True)
class Link:
    """A link: its program and its functions."""

    prog: str
    functions: frozenset[str]


@dataclass(frozen=True, slots=True)
class GraphUser:
    """A user of the graph tracer."""

    name: str


@dataclass(slots=True)
class Ledger:
    """Everything that exists by the answers so far.

    free_filters: unregister_ftrace_direct(ops, addr, true) ends the life of an ops (NAME-5). single: entries of the
    single API. armed: jit_charge will fail. slots: how many ops have had. unloads: of modules,
    whose functions' addresses stay in filters, under other names here (MODULE-5). lost: programs whose target went with
    one (NAME-10).
    """

    world: World
    modules: set[str]
    free_filters: bool
    ops: dict[str, OpsRecord] = field(default_factory=dict)
    programs: dict[str, Program] = field(default_factory=dict)
    links: dict[str, Link] = field(default_factory=dict)
    graph_users: dict[str, GraphUser] = field(default_factory=dict)
    livepatches: set[str] = field(default_factory=set)
    single: dict[str, str] = field(default_factory=dict)
    armed: bool = False
    slots: int = 0
    unloads: int = 0
    lost: set[str] = field(default_factory=set)

    def loaded(self, function: str) -> bool:
        """Whether the world has the function, and its module is loaded."""
        found = self.world.by_name.get(function)
        return found is not None and found.has_site and (found.module is None or found.module in self.modules)

    def matching(self, pattern: str) -> set[str]:
        """The loaded functions of the world that a glob without ! selects."""
        return {function.name for function in self.world.matching(pattern, frozenset(self.modules))}

    def attached(self, function: str) -> bool:
        """Whether a link holds the function."""
        return any(function in link.functions for link in self.links.values())

    def patched(self) -> set[str]:
        """The functions that have an IPMODIFY user."""
        users = (record.filter for record in self.ops.values() if record.ipmodify and record.enabled)
        return self.livepatches.union(*users)

    def entry(self, function: str) -> str | None:
        """The raw direct call on a function, `bpf` for a trampoline of BPF's, None without one."""
        owners = (record.entries for record in self.ops.values())
        raw = next((entries[function] for entries in (self.single, *owners) if function in entries), None)
        return raw or ("bpf" if self.attached(function) else None)

    def filter_after(self, operation: Operation) -> set[str]:
        """The filter that an ops has if a filter operation succeeds."""
        if isinstance(operation, op.FtraceSetFilter):
            pattern, removes = without_bang(operation.glob)
            named = self.matching(pattern)
        elif isinstance(operation, op.FtraceSetFilterIp):
            named, removes = {operation.function}, operation.remove
        else:
            assert isinstance(operation, op.FtraceSetFilterIps)
            named, removes = set(operation.functions), operation.remove
        present = set() if operation.reset else self.ops[operation.ops].filter
        return present - named if removes else present | named

    def follow(self, operation: Operation, outcome: Outcome) -> None:
        """Remember what an operation did."""
        if isinstance(outcome, Ok):
            handler = _HANDLERS.get(type(operation))
            if handler is not None:
                handler(self, operation)
        elif isinstance(operation, op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd):
            self._follow_failure(operation, outcome)

    def _follow_failure(self, operation: op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd, why: Errno) -> None:
        """A direct registration that failed behind its first checks has made the ops a direct one (NAME-3)."""
        record = self.ops.get(operation.ops)
        if record is None or why.name in {"EINVAL", "EBADF", "EOPNOTSUPP"}:
            return
        taken = any(self.entry(function) for function in record.filter)
        if not (why.name == "EBUSY" and taken):
            record.role = record.role or "direct"


def _declare(ledger: Ledger, operation: op.FtraceOps) -> None:
    ledger.ops[operation.ops] = OpsRecord(ledger.slots, operation.ipmodify)
    ledger.slots += 1


def _filter(ledger: Ledger, operation: op.FtraceSetFilter | op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> None:
    ledger.ops[operation.ops].filter = ledger.filter_after(operation)


def _silence(ledger: Ledger, operation: op.FtraceSetNotrace) -> None:
    ledger.ops[operation.ops].silenced = True


def _free(ledger: Ledger, operation: op.FtraceFreeFilter) -> None:
    del ledger.ops[operation.ops]


def _enable(ledger: Ledger, operation: op.RegisterFtraceFunction) -> None:
    record = ledger.ops[operation.ops]
    record.role, record.enabled = "plain", True


def _disable(ledger: Ledger, operation: op.UnregisterFtraceFunction) -> None:
    ledger.ops[operation.ops].enabled = False


def _single(ledger: Ledger, operation: op.RegisterFtraceDirect) -> None:
    ledger.single[operation.function] = operation.tramp


def _unsingle(ledger: Ledger, operation: op.UnregisterFtraceDirect) -> None:
    del ledger.single[operation.function]


def _resingle(ledger: Ledger, operation: op.ModifyFtraceDirect) -> None:
    ledger.single[operation.function] = operation.new


def _direct(ledger: Ledger, operation: op.RegisterFtraceDirectMulti) -> None:
    record = ledger.ops[operation.ops]
    record.role, record.enabled = "direct", True
    record.entries = dict.fromkeys(record.filter, operation.tramp)


def _undirect(ledger: Ledger, operation: op.UnregisterFtraceDirectMulti) -> None:
    if operation.free and ledger.free_filters:
        del ledger.ops[operation.ops]
        return
    record = ledger.ops[operation.ops]
    record.enabled, record.entries = False, {}


def _redirect(ledger: Ledger, operation: op.ModifyFtraceDirectMulti) -> None:
    record = ledger.ops[operation.ops]
    record.entries = dict.fromkeys(record.entries, operation.tramp)


def _add(ledger: Ledger, operation: op.UpdateFtraceDirectAdd) -> None:
    record = ledger.ops[operation.ops]
    record.role, record.enabled = "direct", True
    record.entries |= dict(operation.entries)
    record.filter |= set(dict(operation.entries))


def _delete(ledger: Ledger, operation: op.UpdateFtraceDirectDel) -> None:
    record = ledger.ops[operation.ops]
    gone = set(dict(operation.entries))
    record.entries = _without(record.entries, gone)
    record.filter -= gone
    if not record.filter:
        record.enabled = False


def _modify(ledger: Ledger, operation: op.UpdateFtraceDirectMod) -> None:
    record = ledger.ops[operation.ops]
    record.entries |= {f: tramp for f, tramp in operation.entries if f in record.entries}


def _graph(ledger: Ledger, operation: op.RegisterFtraceGraph) -> None:
    ledger.graph_users[operation.user] = GraphUser(operation.user)


def _ungraph(ledger: Ledger, operation: op.UnregisterFtraceGraph) -> None:
    del ledger.graph_users[operation.user]


def _patch(ledger: Ledger, operation: op.Livepatch) -> None:
    ledger.livepatches.add(operation.function)


def _unpatch(ledger: Ledger, operation: op.Unlivepatch) -> None:
    ledger.livepatches.discard(operation.function)


def _load(ledger: Ledger, operation: op.BpfProgLoad) -> None:
    ledger.programs[operation.prog] = Program(operation)


def _open(ledger: Ledger, operation: op.BpfRawTracepointOpen) -> None:
    function = operation.function or ledger.programs[operation.prog].declared.target or ""
    ledger.links[operation.link] = Link(operation.prog, frozenset({function}))


def _create(ledger: Ledger, operation: op.BpfLinkCreate) -> None:
    named: set[str] = set()
    for function, _ in operation.targets:
        named |= ledger.matching(function) if is_glob(function) else {function}
    ledger.links[operation.link] = Link(operation.prog, frozenset(named))


def _detach(ledger: Ledger, operation: op.BpfLinkDetach) -> None:
    del ledger.links[operation.link]


def _init(ledger: Ledger, operation: op.InitModule) -> None:
    ledger.modules.add(operation.module)


def _remove(ledger: Ledger, operation: op.DeleteModule) -> None:
    gone = {function.name for function in ledger.world.functions if function.module == operation.module}
    ledger.modules.discard(operation.module)
    ledger.unloads += 1
    ledger.livepatches -= gone
    ledger.lost |= {name for name, program in ledger.programs.items() if program.declared.target in gone}
    kept = {name: f"{name} {ledger.unloads}" for name in gone}
    ledger.single = {kept.get(name, name): tramp for name, tramp in ledger.single.items()}
    for record in ledger.ops.values():
        record.entries = {kept.get(name, name): tramp for name, tramp in record.entries.items()}
        record.filter = {kept.get(name, name) for name in record.filter}


def _without(entries: dict[str, str], gone: Iterable[str]) -> dict[str, str]:
    return {function: tramp for function, tramp in entries.items() if function not in gone}


_HANDLERS: dict[type[Operation], Callable[[Ledger, Any], None]] = {
    op.FtraceOps: _declare,
    op.FtraceSetFilter: _filter,
    op.FtraceSetFilterIp: _filter,
    op.FtraceSetFilterIps: _filter,
    op.FtraceSetNotrace: _silence,
    op.FtraceFreeFilter: _free,
    op.RegisterFtraceFunction: _enable,
    op.UnregisterFtraceFunction: _disable,
    op.RegisterFtraceDirect: _single,
    op.UnregisterFtraceDirect: _unsingle,
    op.ModifyFtraceDirect: _resingle,
    op.RegisterFtraceDirectMulti: _direct,
    op.UnregisterFtraceDirectMulti: _undirect,
    op.ModifyFtraceDirectMulti: _redirect,
    op.UpdateFtraceDirectAdd: _add,
    op.UpdateFtraceDirectDel: _delete,
    op.UpdateFtraceDirectMod: _modify,
    op.RegisterFtraceGraph: _graph,
    op.UnregisterFtraceGraph: _ungraph,
    op.Livepatch: _patch,
    op.Unlivepatch: _unpatch,
    op.BpfProgLoad: _load,
    op.BpfRawTracepointOpen: _open,
    op.BpfLinkCreate: _create,
    op.BpfLinkDetach: _detach,
    op.InitModule: _init,
    op.DeleteModule: _remove,
}
