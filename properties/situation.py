"""What exists after a sequence of operations: a fold over (operation, outcome) that believes the outcomes.

It serves the bias of the strategies, the calls that must not be drawn, and undoing everything. It is no second model,
for it never predicts an outcome.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spec import operations as op
from spec.globs import is_glob, without_bang
from spec.outcomes import Errno, Ok, Outcome
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["Link", "OpsState", "Program", "Situation", "follow", "functions_of", "initial", "undo_operations"]

NEVER = 1_000_000_000
MOST_TOUCHED = 6
PROBE = "probe"
PROBE_MOST_FUNCTIONS = 1000


@dataclass(frozen=True, slots=True)
class OpsState:
    """A declared ops. role: `plain` or `direct` once it was registered so, successfully or not; empty before."""

    ipmodify: bool = False
    filter: tuple[str, ...] = ()
    enabled: bool = False
    role: str = ""
    entries: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Program:
    """A loaded program."""

    kind: str
    target: str | None
    multi: bool
    calls: str | None


@dataclass(frozen=True, slots=True)
class Link:
    """A link and the functions that it names; a glob stands for every loaded function that it matches."""

    prog: str
    functions: frozenset[str]


@dataclass(frozen=True, slots=True)
class Situation:
    """What exists.

    stale: functions with an image that stayed after a failed detach (IMAGE-2). armed: points given to `fail`. touched:
    the functions named last, newest first. last: the last operation. dead: ftrace has died. unclean: a detach failed,
    so that undoing need not give back everything.
    """

    world: World
    semantics: Semantics
    modules: frozenset[str]
    ops: Mapping[str, OpsState] = field(default_factory=dict)
    programs: Mapping[str, Program] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    graph_users: tuple[str, ...] = ()
    livepatches: tuple[str, ...] = ()
    raw_entries: Mapping[str, str] = field(default_factory=dict)
    armed: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    touched: tuple[str, ...] = ()
    last: op.Operation | None = None
    dead: bool = False
    unclean: bool = False

    def matching(self, pattern: str) -> tuple[str, ...]:
        """The loaded functions that a glob or number without ! selects."""
        lenient = self.semantics.lenient_index
        return tuple(f.name for f in self.world.matching(pattern, self.modules, lenient_index=lenient))

    def may_call(self, function: str) -> bool:
        """Whether a call of it reaches no stale image: in kernels such a call may be a use after free."""
        return not self.stale or function not in self._unsafe()

    def _unsafe(self) -> frozenset[str]:
        unsafe = set(self.stale)
        grown = True
        while grown:
            callers = {f.name for f in self.world.functions if any(callee.function in unsafe for callee in f.callees)}
            for link in self.links.values():
                if self.programs[link.prog].calls in unsafe:
                    callers |= link.functions
            grown = not callers <= unsafe
            unsafe |= callers
        return frozenset(unsafe)


def initial(world: World, semantics: Semantics) -> Situation:
    """Nothing attached, every module loaded."""
    return Situation(world, semantics, frozenset(world.modules))


def follow(situation: Situation, operation: op.Operation, outcome: Outcome) -> Situation:
    """The situation after an operation that gave this outcome."""
    handler = _HANDLERS.get(type(operation))
    if handler is not None and isinstance(outcome, Ok):
        situation = handler(situation, operation, outcome)
    elif isinstance(outcome, Errno):
        situation = _follow_failure(situation, operation, outcome)
    touched = tuple(dict.fromkeys((*functions_of(operation), *situation.touched)))[:MOST_TOUCHED]
    return replace(situation, touched=touched, last=operation)


_REGISTERS = op.RegisterFtraceFunction, op.RegisterFtraceDirectMulti, op.UpdateFtraceDirectAdd


def _follow_failure(s: Situation, o: op.Operation, outcome: Errno) -> Situation:
    if outcome.warn and outcome.name == "ENODEV":
        s = replace(s, dead=True)
    if isinstance(o, _REGISTERS) and outcome.name not in {"EBADF", "EOPNOTSUPP"}:
        state = s.ops.get(o.ops)
        if state and not state.enabled:
            return _with_ops(s, o.ops, role="plain" if isinstance(o, op.RegisterFtraceFunction) else "direct")
    return s


def functions_of(o: op.Operation) -> tuple[str, ...]:
    """The functions to which an operation attaches, as far as it names them, and not very many."""
    match o:
        case op.FtraceSetFilterIps(functions=functions):
            return functions[:MOST_TOUCHED]
        case op.UpdateFtraceDirectAdd(entries=entries):
            return tuple(function for function, _ in entries[:MOST_TOUCHED])
        case op.BpfLinkCreate(targets=targets):
            return tuple(function for function, _ in targets[:MOST_TOUCHED] if not is_glob(function))
        case op.BpfRawTracepointOpen() | op.Livepatch() | op.RegisterFtraceDirect() | op.FtraceSetFilterIp():
            return (o.function,) if o.function else ()
    return ()


def _with_ops(s: Situation, name: str, **changes: Any) -> Situation:
    return replace(s, ops={**s.ops, name: replace(s.ops[name], **changes)}) if name in s.ops else s


def _without(mapping: Mapping[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _declare(s: Situation, o: op.FtraceOps, _: Outcome) -> Situation:
    return replace(s, ops={**s.ops, o.ops: OpsState(ipmodify=o.ipmodify)})


def _set_filter(
    s: Situation,
    o: op.FtraceSetFilterIp | op.FtraceSetFilterIps | op.FtraceSetFilter,
    _: Outcome,
) -> Situation:
    if isinstance(o, op.FtraceSetFilter):
        pattern, removes = without_bang(o.glob)
        names: tuple[str, ...] = s.matching(pattern)
    else:
        names, removes = (o.function,) if isinstance(o, op.FtraceSetFilterIp) else o.functions, o.remove
    present = () if o.reset else s.ops[o.ops].filter
    if removes:
        return _with_ops(s, o.ops, filter=tuple(name for name in present if name not in set(names)))
    return _with_ops(s, o.ops, filter=tuple(dict.fromkeys(present + names)))


def _free(s: Situation, o: op.FtraceFreeFilter, _: Outcome) -> Situation:
    return replace(s, ops=_without(s.ops, o.ops))


def _register(s: Situation, o: op.RegisterFtraceFunction, _: Outcome) -> Situation:
    return _with_ops(s, o.ops, enabled=True, role="plain")


def _unregister(s: Situation, o: op.UnregisterFtraceFunction, _: Outcome) -> Situation:
    return _with_ops(s, o.ops, enabled=False)


def _register_raw(s: Situation, o: op.RegisterFtraceDirect, _: Outcome) -> Situation:
    return replace(s, raw_entries={**s.raw_entries, o.function: o.tramp})


def _unregister_raw(s: Situation, o: op.UnregisterFtraceDirect, _: Outcome) -> Situation:
    return replace(s, raw_entries=_without(s.raw_entries, o.function))


def _modify_raw(s: Situation, o: op.ModifyFtraceDirect, _: Outcome) -> Situation:
    return replace(s, raw_entries={**s.raw_entries, o.function: o.new})


def _register_direct(s: Situation, o: op.RegisterFtraceDirectMulti, _: Outcome) -> Situation:
    entries = dict.fromkeys(s.ops[o.ops].filter, o.tramp)
    return _with_ops(s, o.ops, enabled=True, role="direct", entries=entries)


def _unregister_direct(s: Situation, o: op.UnregisterFtraceDirectMulti, _: Outcome) -> Situation:
    if o.free and s.semantics.free_filters:
        return replace(s, ops=_without(s.ops, o.ops))
    return _with_ops(s, o.ops, enabled=False, entries={})


def _modify_direct(s: Situation, o: op.ModifyFtraceDirectMulti, _: Outcome) -> Situation:
    return _with_ops(s, o.ops, entries=dict.fromkeys(s.ops[o.ops].entries, o.tramp))


def _update_add(s: Situation, o: op.UpdateFtraceDirectAdd, _: Outcome) -> Situation:
    entries = {**s.ops[o.ops].entries, **dict(o.entries)}
    return _with_ops(s, o.ops, enabled=True, role="direct", entries=entries, filter=tuple(entries))


def _update_del(s: Situation, o: op.UpdateFtraceDirectDel, _: Outcome) -> Situation:
    entries = _without(s.ops[o.ops].entries, *(function for function, _ in o.entries))
    return _with_ops(s, o.ops, enabled=bool(entries), entries=entries, filter=tuple(entries))


def _update_mod(s: Situation, o: op.UpdateFtraceDirectMod, _: Outcome) -> Situation:
    known = s.ops[o.ops].entries
    return _with_ops(s, o.ops, entries={**known, **{f: tramp for f, tramp in o.entries if f in known}})


def _register_graph(s: Situation, o: op.RegisterFtraceGraph, _: Outcome) -> Situation:
    return replace(s, graph_users=(*s.graph_users, o.user))


def _unregister_graph(s: Situation, o: op.UnregisterFtraceGraph, _: Outcome) -> Situation:
    return replace(s, graph_users=tuple(user for user in s.graph_users if user != o.user))


def _livepatch(s: Situation, o: op.Livepatch, _: Outcome) -> Situation:
    return replace(s, livepatches=(*s.livepatches, o.function))


def _unlivepatch(s: Situation, o: op.Unlivepatch, _: Outcome) -> Situation:
    return replace(s, livepatches=tuple(name for name in s.livepatches if name != o.function))


def _load(s: Situation, o: op.BpfProgLoad, _: Outcome) -> Situation:
    return replace(s, programs={**s.programs, o.prog: Program(o.kind, o.target, o.multi, o.calls)})


def _open(s: Situation, o: op.BpfRawTracepointOpen, _: Outcome) -> Situation:
    function = o.function or s.programs[o.prog].target or ""
    return _linked(s, o.link, o.prog, frozenset({function}), {function})


def _create(s: Situation, o: op.BpfLinkCreate, _: Outcome) -> Situation:
    exact = {function for function, _ in o.targets if not is_glob(function)}
    matched = {name for pattern, _ in o.targets if is_glob(pattern) for name in s.matching(pattern)}
    return _linked(s, o.link, o.prog, frozenset(exact | matched), exact)


def _linked(s: Situation, link: str, prog: str, functions: frozenset[str], exact: set[str]) -> Situation:
    renewed = exact if s.programs[prog].kind != "freplace" else set()
    return replace(s, links={**s.links, link: Link(prog, functions)}, stale=s.stale - renewed)


def _detach(s: Situation, o: op.BpfLinkDetach, outcome: Outcome) -> Situation:
    gone = s.links[o.link].functions
    if outcome.warn:
        return replace(s, links=_without(s.links, o.link), stale=s.stale | gone, unclean=True)
    return replace(s, links=_without(s.links, o.link))


def _init_module(s: Situation, o: op.InitModule, _: Outcome) -> Situation:
    return replace(s, modules=s.modules | {o.module})


def _delete_module(s: Situation, o: op.DeleteModule, _: Outcome) -> Situation:
    gone = {function.name for function in s.world.functions if function.module == o.module}
    return replace(
        s,
        modules=s.modules - {o.module},
        livepatches=tuple(name for name in s.livepatches if name not in gone),
        raw_entries=_without(s.raw_entries, *gone),
        ops={
            name: replace(
                state,
                filter=tuple(function for function in state.filter if function not in gone),
                entries=_without(state.entries, *gone),
            )
            for name, state in s.ops.items()
        },
    )


def _fail(s: Situation, o: op.Fail, _: Outcome) -> Situation:
    return replace(s, armed=s.armed | {o.point})


_HANDLERS: dict[type[op.Operation], Callable[[Situation, Any, Outcome], Situation]] = {
    op.FtraceOps: _declare,
    op.FtraceSetFilterIp: _set_filter,
    op.FtraceSetFilterIps: _set_filter,
    op.FtraceSetFilter: _set_filter,
    op.FtraceFreeFilter: _free,
    op.RegisterFtraceFunction: _register,
    op.UnregisterFtraceFunction: _unregister,
    op.RegisterFtraceDirect: _register_raw,
    op.UnregisterFtraceDirect: _unregister_raw,
    op.ModifyFtraceDirect: _modify_raw,
    op.RegisterFtraceDirectMulti: _register_direct,
    op.UnregisterFtraceDirectMulti: _unregister_direct,
    op.ModifyFtraceDirectMulti: _modify_direct,
    op.UpdateFtraceDirectAdd: _update_add,
    op.UpdateFtraceDirectDel: _update_del,
    op.UpdateFtraceDirectMod: _update_mod,
    op.RegisterFtraceGraph: _register_graph,
    op.UnregisterFtraceGraph: _unregister_graph,
    op.Livepatch: _livepatch,
    op.Unlivepatch: _unlivepatch,
    op.BpfProgLoad: _load,
    op.BpfRawTracepointOpen: _open,
    op.BpfLinkCreate: _create,
    op.BpfLinkDetach: _detach,
    op.InitModule: _init_module,
    op.DeleteModule: _delete_module,
    op.Fail: _fail,
}


def undo_operations(situation: Situation) -> Iterator[op.Operation]:
    """What detaches and unregisters everything, and then shows that no entry was left; nothing once ftrace is dead.

    A direct ops gets one address first: unregister_ftrace_direct_multi refuses entries that differ (DIRECT-8).
    """
    if situation.dead:
        return
    yield from (op.Fail(point, NEVER) for point in sorted(situation.armed))
    yield from (op.BpfLinkDetach(link) for link in situation.links)
    yield from (op.UnregisterFtraceGraph(user) for user in situation.graph_users)
    yield from (op.Unlivepatch(function) for function in situation.livepatches)
    yield from (op.UnregisterFtraceDirect(function, tramp) for function, tramp in situation.raw_entries.items())
    for name, state in situation.ops.items():
        if state.enabled and state.role == "direct":
            yield op.ModifyFtraceDirectMulti(name, "T1")
            yield op.UnregisterFtraceDirectMulti(name, "T1")
        elif state.enabled:
            yield op.UnregisterFtraceFunction(name)
    yield from (op.InitModule(module) for module in situation.world.modules if module not in situation.modules)
    if len(situation.world.functions) <= PROBE_MOST_FUNCTIONS and not situation.unclean:
        yield from _probe(situation.world)


def _probe(world: World) -> Iterator[op.Operation]:
    """A direct registration over everything meets any entry and any IPMODIFY user that was left."""
    yield op.FtraceOps(PROBE)
    yield op.FtraceSetFilterIps(PROBE, tuple(function.name for function in world.functions if function.has_site))
    yield op.RegisterFtraceDirectMulti(PROBE, "T1")
    yield op.UnregisterFtraceDirectMulti(PROBE, "T1")
