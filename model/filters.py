"""Filter and notrace hashes (FILTER-*), and declaring and freeing the ops that have them."""

from __future__ import annotations

from dataclasses import replace

from model.endings import Refused, Warned, check_alive
from model.faults import reach
from model.poke import replaced
from model.regs import drop_regs, keep_regs
from model.rules import cite
from model.sites import has_direct_ops, has_ipmodify_user, traced
from model.state import Ops, State
from spec import operations as op
from spec.globs import is_glob, record_index, without_bang

__all__ = [
    "ftrace_free_filter",
    "ftrace_ops",
    "ftrace_set_filter",
    "ftrace_set_filter_ips",
    "ftrace_set_notrace",
    "match_functions",
]


def ftrace_ops(state: State, operation: op.FtraceOps) -> State:
    """OPS-1: declare an ops."""
    cite("OPS-1")
    flags = {"save_regs", "ipmodify", "dynamic", "permanent"}
    ops = Ops(operation.ops, **{flag: getattr(operation, flag) for flag in flags})
    return state.with_ops(operation.ops, ops)


def ftrace_free_filter(state: State, operation: op.FtraceFreeFilter) -> State | Warned:
    """NAME-5: the ops is gone, or a warning says that it is in use."""
    cite("NAME-5")
    if state.enabled(operation.ops):
        return Warned(state)
    return state.without_ops(operation.ops)


def match_functions(state: State, pattern: str, within: str | None = None) -> frozenset[str]:
    """The loaded functions that a glob without ! selects (ftrace_match_record, add_rec_by_index).

    within: MODULE of GLOB:mod:MODULE.
    """
    if within is not None:
        cite("GLOB-7")
    if record_index(pattern) is not None:
        cite("GLOB-4")
    elif is_glob(pattern):
        cite("GLOB-2", "GLOB-3")
    lenient = state.semantics.lenient_index
    found = state.world.matching(pattern, state.modules, lenient_index=lenient, within=within)
    if not all(function.has_site for function in found):
        cite("FILTER-11")
    if len({function.symbol for function in found}) < len(found):
        cite("GLOB-5")
    return frozenset(function.name for function in found)


def ftrace_set_filter_ips(state: State, operation: op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> State:
    """ftrace_set_filter_ips, and ftrace_set_filter_ip for a single site."""
    state = _begin_setting(state)
    hash_ = frozenset() if operation.reset else state.ops[operation.ops].filter_hash
    functions = (operation.function,) if isinstance(operation, op.FtraceSetFilterIp) else operation.functions
    hash_ = _ftrace_match_addr(state, hash_, functions, remove=operation.remove)
    return _move_filter_hash(state, operation.ops, hash_)


def ftrace_set_filter(state: State, operation: op.FtraceSetFilter) -> State:
    """ftrace_set_filter: a glob for the filter hash."""
    _refuse_command(state, operation.glob)
    state = _begin_setting(state)
    hash_ = _match_records(state, state.ops[operation.ops].filter_hash, operation)
    return _move_filter_hash(state, operation.ops, hash_)


def ftrace_set_notrace(state: State, operation: op.FtraceSetNotrace) -> State:
    """ftrace_set_notrace: a glob for the notrace hash."""
    _refuse_command(state, operation.glob)
    state = _begin_setting(state)
    hash_ = _match_records(state, state.ops[operation.ops].notrace_hash, operation)
    return _move_notrace_hash(state, operation.ops, hash_)


def _refuse_command(state: State, glob: str) -> None:
    """FILTER-14: GLOB:mod:MODULE is not for an ops that is no tracer's."""
    if state.semantics.set_filter_splits and ":" in glob:
        raise Refused(state, "EINVAL", "FILTER-14")


def _begin_setting(state: State) -> State:
    """FILTER-3: what a filter call does before it looks at its arguments."""
    check_alive(state, "FILTER-3")
    return reach(state, "alloc")


def _ftrace_match_addr(
    state: State, hash_: frozenset[str], functions: tuple[str, ...], *, remove: bool
) -> frozenset[str]:
    """FILTER-5: the hash with these sites added, or removed, one after another."""
    cite("FILTER-4", "FILTER-5")
    for function in functions:
        if not state.site(function):
            raise Refused(state, "EINVAL", "FILTER-5")
        if remove and function not in hash_:
            raise Refused(state, "ENOENT", "FILTER-5")
        hash_ = hash_ - {function} if remove else hash_ | {function}
    return hash_


def _match_records(
    state: State, old: frozenset[str], operation: op.FtraceSetFilter | op.FtraceSetNotrace
) -> frozenset[str]:
    """FILTER-6: the hash as the glob makes it of the old one."""
    pattern, removes = without_bang(operation.glob)
    matched = match_functions(state, pattern)
    if not matched:
        raise Refused(state, "EINVAL", "FILTER-6")
    cite("FILTER-6", "FILTER-4")
    if removes:
        cite("GLOB-1")
    copy = frozenset() if operation.reset else old
    return copy - matched if removes else copy | matched


def _move_filter_hash(state: State, name: str, hash_: frozenset[str]) -> State:
    """FILTER-8, FILTER-9 (ftrace_hash_move_and_update_ops): the ops has another filter."""
    old = state.ops[name]
    if old.ipmodify and state.enabled(name):
        _ftrace_hash_ipmodify_update(state, old.filter_hash, hash_)
    state = reach(state, "filter")
    cite("FILTER-9")
    if old.filter_hash and not hash_:
        cite("FILTER-10")
    return _ftrace_hash_move(state, name, replace(old, filter_hash=hash_))


def _ftrace_hash_ipmodify_update(state: State, old: frozenset[str], new: frozenset[str]) -> None:
    """FILTER-8: an enabled IPMODIFY user may not trace everything, and takes no site from another one."""
    if not old or not new:
        raise Refused(state, "EINVAL", "FILTER-8")
    joining = new - old
    if not state.semantics.share_ipmodify and any(has_direct_ops(state, function) for function in joining):
        raise Refused(state, "EBUSY", "IPMODIFY-3")
    if any(has_ipmodify_user(state, function) for function in joining):
        raise Refused(state, "EBUSY", "FILTER-8")


def _move_notrace_hash(state: State, name: str, hash_: frozenset[str]) -> State:
    """FILTER-7, FILTER-9: the ops has another notrace hash."""
    old = state.ops[name]
    if old.ipmodify:
        raise Refused(state, "EINVAL", "FILTER-7")
    state = reach(state, "filter")
    cite("FILTER-9")
    new = replace(old, notrace_hash=hash_)
    if state.semantics.notrace_leaves_regs or not state.enabled(name):
        return _ftrace_hash_move(state, name, new)
    # Here the kernel counts the sites that the new hash and the filter hold down when the hash is in place, even where
    # the old one held them too. So it finds whether anybody else needs R there (SITE-6).
    held = hash_ & old.filter_hash if old.filter_hash else hash_
    moved = drop_regs(state.with_ops(name, new), old, held)
    return replaced(state, moved, {*traced(state, old), *traced(moved, new), *held})


def _ftrace_hash_move(state: State, name: str, new: Ops) -> State:
    """FILTER-9, SITE-6: the ops has the new hashes; if it is enabled, sites leave and join, and are patched."""
    old, moved = state.ops[name], state.with_ops(name, new)
    if not state.enabled(name):
        return moved
    before, now = set(traced(state, old)), set(traced(moved, new))
    return replaced(state, keep_regs(moved, old, before - now), before | now)
