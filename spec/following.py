"""The inventory after an operation: a fold over (operation, outcome) that believes the outcomes."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

from spec import operations as op
from spec.existing import ADDRESS_ZERO, SINGLE_API, DirectEntry, GraphRecord, LinkRecord, OpsRecord
from spec.globs import link_pattern, without_bang
from spec.inventory import Inventory, edit_hash
from spec.outcomes import Errno, Outcome, Pending

__all__ = ["NEVER", "follow"]

NEVER = 1_000_000_000

Hashed = TypeVar("Hashed", OpsRecord, GraphRecord)


def follow(inventory: Inventory, operation: op.Operation, outcome: Outcome) -> Inventory:
    """The inventory after an operation that gave this outcome."""
    if isinstance(outcome, Errno):
        begun = operation.operation if isinstance(operation, op.Poke) else operation
        return _follow_failure(inventory, begun, outcome)
    pends = isinstance(outcome, Pending)
    if pends and isinstance(operation, op.Await | op.PokeStep):
        return inventory
    after = _HANDLERS[type(operation)](inventory, operation, outcome)
    dies = outcome.warn and (inventory.was_off or isinstance(operation, op.FtraceEnabled))
    after = after.changed(dead=True) if dies else after
    return after.changed(pending=operation) if pends else after


_REGISTERS_DIRECT = op.RegisterFtraceDirectMulti, op.UpdateFtraceDirectAdd
_BEFORE_ALLOC = frozenset({"EBADF", "EOPNOTSUPP", "EINVAL", "ENOMEM"})


def _follow_failure(s: Inventory, o: op.Operation, outcome: Errno) -> Inventory:
    if outcome.warn and outcome.name == "ENODEV":
        s = s.changed(dead=True)
    if isinstance(o, op.Livepatch):
        return s.changed(unsure=s.unsure | {o.function})
    if isinstance(o, op.RegisterFtraceFunction) and o.ops in s.ops and s.ops[o.ops].ipmodify:
        return s.changed(unsure=s.unsure.union(s.ops[o.ops].filter))
    if isinstance(o, _REGISTERS_DIRECT) and outcome.name not in _BEFORE_ALLOC:
        return _spoil(s, o)
    return s


def _spoil(s: Inventory, o: op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd) -> Inventory:
    """DIRECT-7: what a direct registration that failed behind `alloc` leaves of the ops."""
    record = s.ops[o.ops]
    if record.enabled or (isinstance(o, op.RegisterFtraceDirectMulti) and any(map(s.has_entry, record.filter_hash))):
        return s
    return _with_ops(s, o.ops, direct=True, func=not s.semantics.failed_direct_reusable)


def _with_ops(s: Inventory, name: str, **changes: Any) -> Inventory:
    return s.changed(ops={**s.ops, name: replace(s.ops[name], **changes)})


def _with_entries(s: Inventory, owner: str, entries: Iterable[tuple[str, str]]) -> Inventory:
    added = {function: DirectEntry(tramp, owner) for function, tramp in entries}
    return s.changed(direct_functions={**s.direct_functions, **added})


def _without(mapping: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _shake_hands(s: Inventory, record: OpsRecord) -> Inventory:
    """IPMODIFY-2, IPMODIFY-4: every trampoline of an IPMODIFY user's filter is told."""
    return s.changed(unsure=s.unsure.difference(record.filter)) if record.ipmodify else s


def _part(s: Inventory, record: OpsRecord) -> Inventory:
    """IPMODIFY-4: of several images one that is to fail may be any; where the kernel is short of memory, it is all."""
    shared = [function for function in record.filter if s.has_image(function)] if record.ipmodify else []
    if len(shared) > 1 and not s.armed.isdisjoint({"jit_charge", "register"}):
        return s.changed(unsure=s.unsure.union(shared))
    return _shake_hands(s, record)


def _set_notrace(s: Inventory, o: op.FtraceSetNotrace, _: Outcome) -> Inventory:
    pattern, removes = without_bang(o.glob)
    present = s.ops[o.ops].notrace_hash
    return _with_ops(s, o.ops, notrace_hash=edit_hash(present, s.matching(pattern), removes, o.reset))


def _register_multi(s: Inventory, o: op.RegisterFtraceDirectMulti, _: Outcome) -> Inventory:
    s = _with_ops(s, o.ops, enabled=True, func=True, direct=True)
    return _with_entries(s, o.ops, ((function, o.tramp) for function in s.ops[o.ops].filter_hash))


def _unregister_multi(s: Inventory, o: op.UnregisterFtraceDirectMulti, _: Outcome) -> Inventory:
    """DIRECT-8: entries with another address stay behind."""
    sites = s.ops[o.ops].filter_hash
    gone = {name for name in sites if name in s.direct_functions and s.direct_functions[name].tramp == o.tramp}
    s = s.changed(direct_functions=_without(s.direct_functions, gone))
    if o.free and s.semantics.free_filters:
        return s.changed(ops=_without(s.ops, {o.ops}))
    return _with_ops(s, o.ops, enabled=False, func=False)


def _modify_multi(s: Inventory, o: op.ModifyFtraceDirectMulti, _: Outcome) -> Inventory:
    sites = (name for name in s.ops[o.ops].filter_hash if name in s.direct_functions)
    return _with_entries(s, o.ops, ((name, o.tramp) for name in sites))


def _update_add(s: Inventory, o: op.UpdateFtraceDirectAdd, _: Outcome) -> Inventory:
    joined = tuple(dict.fromkeys((*s.ops[o.ops].filter_hash, *(function for function, _ in o.entries))))
    s = _with_ops(s, o.ops, enabled=True, func=True, direct=True, filter_hash=joined)
    return _with_entries(s, o.ops, o.entries)


def _update_del(s: Inventory, o: op.UpdateFtraceDirectDel, _: Outcome) -> Inventory:
    gone = {function for function, _ in o.entries}
    left = tuple(name for name in s.ops[o.ops].filter_hash if name not in gone)
    s = s.changed(direct_functions=_without(s.direct_functions, gone))
    if left:
        return _with_ops(s, o.ops, filter_hash=left)
    return _with_ops(s, o.ops, filter_hash=(), notrace_hash=(), enabled=False, func=False)


def _open(s: Inventory, o: op.BpfRawTracepointOpen, _: Outcome) -> Inventory:
    function = s.programs[o.prog].target or o.function or ""
    return _add_link(s, o.link, LinkRecord(o.prog, frozenset({function})))


def _create(s: Inventory, o: op.BpfLinkCreate, _: Outcome) -> Inventory:
    if s.programs[o.prog].kind in op.KPROBES:
        record = LinkRecord(o.prog, frozenset(name for name, _ in s.kprobe_targets(o.targets)))
        return s.changed(kprobes={**s.kprobes, o.link: record})
    exact = frozenset(function for function, _ in o.targets if not link_pattern(function))
    globs = tuple(function for function, _ in o.targets if link_pattern(function))
    if s.programs[o.prog].multi:
        s = s.changed(btfs={**s.btfs, o.prog: s.btf_of(o.prog, o.targets[0][0])})
    return _add_link(s, o.link, LinkRecord(o.prog, exact, globs, lambda glob: s.expand(o.prog, glob)))


def _add_link(s: Inventory, name: str, link: LinkRecord) -> Inventory:
    """IMAGE-2: the new image ends a stale one."""
    renewed = link.exact if s.programs[link.prog].kind != "freplace" else frozenset()
    unsure = frozenset(function for function in s.unsure if function not in renewed or s.has_image(function))
    return s.changed(links={**s.links, name: link}, stale=s.stale - renewed, unsure=unsure)


def _detach(s: Inventory, o: op.BpfLinkDetach, outcome: Outcome) -> Inventory:
    if o.link in s.kprobes:
        return s.changed(kprobes=_without(s.kprobes, {o.link}))
    left = s.changed(links=_without(s.links, {o.link}))
    if not outcome.warn or (s.was_off and not s.dead and not s.armed):
        return left
    functions = s.links[o.link].functions
    alone = functions.difference(*(link.functions for link in left.links.values())) if "alloc" in s.armed else ()
    return left.changed(
        stale=s.stale | functions,
        orphaned=s.orphaned.union(alone),
        unclean=True,
        dead=s.dead or "patch" in s.armed,
        doubtful=s.doubtful or (not s.dead and (s.was_off or "patch" in s.armed)),
    )


def _register_graph(s: Inventory, o: op.RegisterFtraceGraph, _: Outcome) -> Inventory:
    return s.changed(graph_users={**s.graph_users, o.user: s.user_at_start(o)})


def _init_module(s: Inventory, o: op.InitModule, _: Outcome) -> Inventory:
    untraced = s.untraced | {o.module} if s.dead else s.untraced
    return s.changed(modules=s.modules | {o.module}, untraced=untraced, graph_users=s.users_after(o.module))


def _delete_module(s: Inventory, o: op.DeleteModule, _: Outcome) -> Inventory:
    """MODULE-5: the addresses of functions that have gone stay in hashes and in direct_functions."""
    unloads = s.unloads + 1
    gone = {f.name: f"{f.name} {unloads}" for f in s.world.functions if f.module == o.module}
    return s.changed(
        modules=s.modules - {o.module},
        untraced=s.untraced - {o.module},
        unloads=unloads,
        livepatches=tuple(name for name in s.livepatches if name not in gone),
        lost=s.lost | {name for name, program in s.programs.items() if s.world.is_in(program.target, o.module)},
        direct_functions={gone.get(name, name): entry for name, entry in s.direct_functions.items()},
        ops={name: _without_sites(record, gone) for name, record in s.ops.items()},
        graph_users={
            name: _without_sites(record, dict.fromkeys(gone, ADDRESS_ZERO)) for name, record in s.graph_users.items()
        },
    )


def _arm(s: Inventory, o: op.Fail, _: Outcome) -> Inventory:
    """A point that is to fail; or, if that never comes about, one that is not to fail any more."""
    if o.point in op.UNSEEN:
        return s
    return s.changed(armed=s.armed - {o.point} if o.count >= NEVER else s.armed | {o.point})


def _without_sites(record: Hashed, gone: Mapping[str, str]) -> Hashed:
    filter_hash, notrace_hash = (
        tuple(dict.fromkeys(gone.get(name, name) for name in hash_))
        for hash_ in (record.filter_hash, record.notrace_hash)
    )
    return replace(record, filter_hash=filter_hash, notrace_hash=notrace_hash)


_HANDLERS: dict[type[op.Operation], Callable[[Inventory, Any, Outcome], Inventory]] = {
    op.FtraceOps: lambda s, o, _: s.changed(
        ops={**s.ops, o.ops: OpsRecord(s.declared, o.ipmodify, save_regs=o.save_regs)}, declared=s.declared + 1
    ),
    op.FtraceSetFilterIp: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetFilterIps: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetFilter: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetNotrace: _set_notrace,
    op.FtraceFreeFilter: lambda s, o, outcome: s if outcome.warn else s.changed(ops=_without(s.ops, {o.ops})),
    op.RegisterFtraceFunction: lambda s, o, _: _shake_hands(_with_ops(s, o.ops, enabled=True, func=True), s.ops[o.ops]),
    op.UnregisterFtraceFunction: lambda s, o, _: _part(_with_ops(s, o.ops, enabled=False), s.ops[o.ops]),
    op.RegisterFtraceDirect: lambda s, o, _: _with_entries(s, SINGLE_API, [(o.function, o.tramp)]),
    op.UnregisterFtraceDirect: lambda s, o, _: s.changed(direct_functions=_without(s.direct_functions, {o.function})),
    op.ModifyFtraceDirect: lambda s, o, _: _with_entries(s, SINGLE_API, [(o.function, o.new)]),
    op.RegisterFtraceDirectMulti: _register_multi,
    op.UnregisterFtraceDirectMulti: _unregister_multi,
    op.ModifyFtraceDirectMulti: _modify_multi,
    op.UpdateFtraceDirectAdd: _update_add,
    op.UpdateFtraceDirectDel: _update_del,
    op.UpdateFtraceDirectMod: lambda s, o, _: _with_entries(
        s, o.ops, ((f, tramp) for f, tramp in o.entries if f in s.direct_functions)
    ),
    op.RegisterFtraceGraph: _register_graph,
    op.UnregisterFtraceGraph: lambda s, o, _: s.changed(graph_users=_without(s.graph_users, {o.user})),
    op.SetFtraceFilter: lambda s, o, _: s.changed(graph_users={**s.graph_users, o.user: s.user_after(o)}),
    op.SetFtraceNotrace: lambda s, o, _: s.changed(graph_users={**s.graph_users, o.user: s.user_after(o)}),
    op.SetGraphFunction: lambda s, _, __: s,
    op.SetGraphNotrace: lambda s, _, __: s,
    op.FtraceEnabled: lambda s, o, outcome: (
        s if outcome.warn else s.changed(off=not o.on, was_off=s.was_off or not o.on)
    ),
    op.Livepatch: lambda s, o, _: s.changed(livepatches=(*s.livepatches, o.function), unsure=s.unsure - {o.function}),
    op.Unlivepatch: lambda s, o, _: s.changed(
        livepatches=tuple(name for name in s.livepatches if name != o.function), unsure=s.unsure - {o.function}
    ),
    op.BpfProgLoad: lambda s, o, _: s.changed(programs={**s.programs, o.prog: o}),
    op.BpfRawTracepointOpen: _open,
    op.BpfLinkCreate: _create,
    op.BpfLinkDetach: _detach,
    op.InitModule: _init_module,
    op.DeleteModule: _delete_module,
    op.Fail: _arm,
    op.Settle: lambda s, _, __: s,
    op.Task: lambda s, o, _: s.changed(tasks={**s.tasks, o.task: o}),
    op.Finish: lambda s, o, _: s.changed(tasks=_without(s.tasks, {o.task})),
    op.Await: lambda s, _, __: s.changed(pending=None),
    op.Poke: lambda s, o, outcome: _HANDLERS[type(o.operation)](s, o.operation, outcome),
    op.PokeStep: lambda s, _, __: s.changed(pending=None),
    op.GracePeriod: lambda s, _, __: s,
}
