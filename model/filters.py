"""Filter and notrace hashes (FILTER-*), and the names of ops (NAME-*)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import patched_between
from model.faults import Faults
from model.regs import narrowed, uncovered
from model.rules import Refused, cite
from model.sites import has_direct_ops, has_entry, ipmodify_user, traced
from model.state import Ops, State
from spec import operations as op
from spec.globs import is_glob, record_index, without_bang

__all__ = ["free_filter", "ftrace_ops", "named_ops", "select", "set_filter", "set_filter_ips", "set_notrace"]


def ftrace_ops(state: State, operation: op.FtraceOps, _faults: Faults) -> State:
    """OPS-1: declare an ops."""
    if operation.ops in state.ops:
        raise Refused("EEXIST", "NAME-1")
    cite("OPS-1")
    ops = Ops(operation.ops, operation.save_regs, operation.ipmodify, operation.dynamic)
    return state.with_ops(operation.ops, ops)


def named_ops(state: State, name: str) -> Ops:
    """The ops of a name that a seed wrote."""
    if name not in state.ops:
        raise Refused("EBADF", "NAME-2")
    return state.ops[name]


def free_filter(state: State, operation: op.FtraceFreeFilter, _faults: Faults) -> State:
    """NAME-5: the ops is gone."""
    named_ops(state, operation.ops)
    if state.enabled(operation.ops):
        raise Refused("EOPNOTSUPP", "NAME-5")
    cite("NAME-5")
    return state.without_ops([operation.ops])


def select(state: State, pattern: str) -> frozenset[str]:
    """The loaded functions that a glob without ! selects."""
    if record_index(pattern) is not None:
        cite("GLOB-4")
    elif is_glob(pattern):
        cite("GLOB-2", "GLOB-3")
    found = state.world.matching(pattern, state.modules, lenient_index=state.semantics.lenient_index)
    if not all(function.has_site for function in found):
        cite("FILTER-11")
    if len({function.symbol for function in found}) < len(found):
        cite("GLOB-5")
    return frozenset(function.name for function in found)


def set_filter_ips(state: State, operation: op.FtraceSetFilterIp | op.FtraceSetFilterIps, faults: Faults) -> State:
    """ftrace_set_filter_ip and ftrace_set_filter_ips."""
    ops = _settable(state, operation.ops, faults)
    functions = (operation.function,) if isinstance(operation, op.FtraceSetFilterIp) else operation.functions
    hash_ = frozenset() if operation.reset else ops.filter_hash
    cite("FILTER-4", "FILTER-5")
    for function in functions:
        if not state.loaded(function):
            raise Refused("EINVAL", "FILTER-5")
        if operation.remove and function not in hash_:
            raise Refused("ENOENT", "FILTER-5")
        hash_ = hash_ - {function} if operation.remove else hash_ | {function}
    return _move(state, operation.ops, replace(ops, filter_hash=hash_), faults)


def set_filter(state: State, operation: op.FtraceSetFilter, faults: Faults) -> State:
    """ftrace_set_filter."""
    ops = _settable(state, operation.ops, faults)
    hash_ = _edited(state, ops.filter_hash, operation)
    return _move(state, operation.ops, replace(ops, filter_hash=hash_), faults)


def set_notrace(state: State, operation: op.FtraceSetNotrace, faults: Faults) -> State:
    """ftrace_set_notrace."""
    ops = _settable(state, operation.ops, faults)
    hash_ = _edited(state, ops.notrace_hash, operation)
    if ops.ipmodify:
        raise Refused("EINVAL", "FILTER-7")
    return _move(state, operation.ops, replace(ops, notrace_hash=hash_), faults, notrace=True)


def _settable(state: State, name: str, faults: Faults) -> Ops:
    """FILTER-3: what comes before a filter call looks at its arguments."""
    ops = named_ops(state, name)
    if ops.direct and state.enabled(name):
        raise Refused("EOPNOTSUPP", "NAME-4")
    if state.dead:
        raise Refused("ENODEV", "FILTER-3")
    faults.reach("alloc")
    return ops


def _edited(state: State, old: frozenset[str], operation: op.FtraceSetFilter | op.FtraceSetNotrace) -> frozenset[str]:
    """FILTER-6: the hash as the glob makes it."""
    pattern, removes = without_bang(operation.glob)
    matched = select(state, pattern)
    if not matched:
        raise Refused("EINVAL", "FILTER-6")
    cite("FILTER-6", "FILTER-4")
    if removes:
        cite("GLOB-1")
    copy = frozenset() if operation.reset else old
    return copy - matched if removes else copy | matched


def _move(state: State, name: str, new: Ops, faults: Faults, *, notrace: bool = False) -> State:
    """FILTER-8, FILTER-9: the new hash takes effect, the notrace hash or the other one."""
    old = state.ops[name]
    enabled = state.enabled(name)
    if enabled and new.ipmodify:
        _check_ipmodify(state, old, new)
    faults.reach("filter")
    cite("FILTER-9")
    if old.filter_hash and not new.filter_hash:
        cite("FILTER-10")
    after = state.with_ops(name, new)
    if not enabled:
        return after
    before, now = set(traced(state, old)), set(traced(after, new))
    if not notrace or state.semantics.notrace_leaves_regs:
        return patched_between(state, narrowed(after, old, before - now), before | now)
    held = new.notrace_hash & new.filter_hash if new.filter_hash else new.notrace_hash
    return patched_between(state, uncovered(after, old, held), before | now | held)


def _check_ipmodify(state: State, old: Ops, new: Ops) -> None:
    if not old.filter_hash or not new.filter_hash:
        raise Refused("EINVAL", "FILTER-8")
    joining = new.filter_hash - old.filter_hash
    if not state.semantics.share_ipmodify and any(has_direct_ops(state, function) for function in joining):
        raise Refused("EBUSY", "IPMODIFY-3")
    if any(has_entry(state, function) for function in joining):
        raise Refused("EOPNOTSUPP", "NAME-9")
    if any(ipmodify_user(state, function) for function in joining):
        raise Refused("EBUSY", "FILTER-8")
