"""The graph tracer's users, and what their ops cover together (GRAPH-1 to GRAPH-3, GRAPH-7, GRAPH-10 to GRAPH-12)."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from typing import NamedTuple

from model.cost import waited
from model.endings import Refused, check_alive
from model.faults import reach
from model.filters import match_functions
from model.pending import cache_mod, flagged, process_mod_list
from model.poke import replaced
from model.registration import add_ftrace_ops, remove_ftrace_ops
from model.rules import cite
from model.sites import traced
from model.state import FL_MOD, GRAPH_OPS, GraphUser, Lines, Ops, State
from spec import operations as op
from spec.capabilities import HashSetting
from spec.globs import filter_line, record_index, without_bang

__all__ = [
    "add_subops",
    "change_subops",
    "hash_file",
    "process_cached_mods",
    "register_ftrace_graph",
    "remove_subops",
    "set_ftrace_filter",
    "set_ftrace_notrace",
    "set_graph_function",
    "set_graph_notrace",
    "unregister_ftrace_graph",
]


Filtering = tuple[frozenset[str], Lines]
"""A hash, and the lines for it that wait."""


class OpsHash(NamedTuple):
    """The two hashes of an ops (struct ftrace_ops_hash)."""

    filter_hash: frozenset[str] = frozenset()
    notrace_hash: frozenset[str] = frozenset()


def register_ftrace_graph(state: State, operation: op.RegisterFtraceGraph) -> State:
    """GRAPH-1: a user of the graph tracer begins."""
    check_alive(state, "GRAPH-1")
    filter_, waiting = _make_filter(state, operation.filter)
    function, notrace = (_make_graph_hash(state, glob) for glob in (operation.function, operation.notrace))
    # Since Linux kernel commit c132be2c4fcc ("function_graph: Have the instances use their own ftrace_ops for
    # filtering") (in v6.11) and its series there are several users.
    if not state.graph_slots:
        raise Refused(state, "EBUSY" if state.semantics.graph_users == 1 else "ENOSPC", "GRAPH-1")
    state = reach(state, "register")
    cite("GRAPH-1")
    user = GraphUser(state.graph_slots[0], filter_, function, notrace, operation.depth or None, mod_trace=waiting)
    return _start_user(state, operation.user, user)


def _start_user(state: State, name: str, user: GraphUser) -> State:
    """GRAPH-2, GRAPH-3: a user gets the slot that has been free longest, and graph_ops its filter."""
    cite("GRAPH-3")
    after = replace(state, graph_slots=state.graph_slots[1:], graph_users={**state.graph_users, name: user})
    return _ftrace_update_ops(after, _ftrace_startup_subops(after, user))


def add_subops(state: State, name: str, filter_hash: frozenset[str]) -> State:
    """A user of the kernel's own, with this filter, where a slot is free."""
    return _start_user(state, name, GraphUser(state.graph_slots[0], filter_hash, frozenset(), frozenset(), None))


def change_subops(state: State, name: str, filter_hash: frozenset[str]) -> State:
    """A user of the kernel's own has another filter."""
    return _move_subops(state, name, replace(state.graph_users[name], filter_hash=filter_hash), enable=True)


def _make_filter(state: State, text: str | None) -> Filtering:
    """The filter hash that a line makes at the start, and the line if it waits for its module; without a line none."""
    if text is not None and filter_line(text).removes:
        raise Refused(state, "EINVAL", "GRAPH-1")
    hash_, lines = _process_regex(state, (frozenset(), ()), text, "GRAPH-1")
    return flagged(hash_, lines), lines


def _make_graph_hash(state: State, glob: str | None) -> frozenset[str]:
    """The start of set_graph_function and set_graph_notrace, for which a record's number is no glob."""
    if glob is None:
        return frozenset()
    names = not glob.startswith("!") and record_index(glob) is None
    found = match_functions(state, glob) if names else frozenset()
    if not found:
        raise Refused(state, "EINVAL", "GRAPH-1")
    return found


def unregister_ftrace_graph(state: State, operation: op.UnregisterFtraceGraph) -> State:
    """GRAPH-7: a user of the graph tracer ends."""
    check_alive(state, "GRAPH-7")
    cite("GRAPH-7")
    return remove_subops(state, operation.user)


def remove_subops(state: State, gone: str) -> State:
    """GRAPH-2: a user goes, and its slot is free."""
    slot = state.graph_users[gone].slot
    users = {name: user for name, user in state.graph_users.items() if name != gone}
    after = replace(state, graph_users=users, graph_slots=(*state.graph_slots, slot))
    if not users:
        return remove_ftrace_ops(after, GRAPH_OPS).without_ops(GRAPH_OPS)
    return _ftrace_update_ops(after, _ftrace_shutdown_subops(after))


def set_ftrace_filter(state: State, operation: op.SetFtraceFilter) -> State:
    """GRAPH-10: the filter of a user's ops changes while it is live."""
    return _ftrace_regex_write(state, operation, enable=True)


def set_ftrace_notrace(state: State, operation: op.SetFtraceNotrace) -> State:
    """GRAPH-10: the notrace hash of a user's ops changes while it is live."""
    return _ftrace_regex_write(state, operation, enable=False)


def set_graph_function(state: State, operation: op.SetGraphFunction) -> State:
    """GRAPH-11: the subtrees that a user records change."""
    state, user = _begin_setting(state, operation, "GRAPH-11")
    hash_ = _ftrace_graph_set_hash(state, user.function, operation.glob)
    return _exchange(state, operation.user, replace(user, function=hash_), user.function)


def set_graph_notrace(state: State, operation: op.SetGraphNotrace) -> State:
    """GRAPH-11: the subtrees that a user does not record change."""
    state, user = _begin_setting(state, operation, "GRAPH-11")
    hash_ = _ftrace_graph_set_hash(state, user.notrace, operation.glob)
    return _exchange(state, operation.user, replace(user, notrace=hash_), user.notrace)


def hash_file(state: State, operation: HashSetting) -> str:
    """GRAPH-10: the symbols of the functions in a hash that are there, and the lines that wait."""
    cite("GRAPH-10")
    hash_, lines = _read_hash(state.graph_users[operation.user], enable=isinstance(operation, op.SetFtraceFilter))
    present = sorted(state.world.by_name[name].symbol for name in hash_ if name in state.world.by_name)
    return " ".join([*present, *sorted(f"{glob}:mod:{module}" for glob, module in lines)])


def _begin_setting(
    state: State,
    operation: op.SetFtraceFilter | op.SetFtraceNotrace | op.SetGraphFunction | op.SetGraphNotrace,
    rule: str,
) -> tuple[State, GraphUser]:
    check_alive(state, rule)
    cite(rule)
    return reach(state, "alloc", rule), state.graph_users[operation.user]


def _ftrace_regex_write(state: State, operation: op.SetFtraceFilter | op.SetFtraceNotrace, *, enable: bool) -> State:
    """GRAPH-10: a line for the filter with `enable`, else for the notrace hash."""
    state, user = _begin_setting(state, operation, "GRAPH-10")
    hash_, lines = _process_regex(state, _read_hash(user, enable=enable), operation.glob, "GRAPH-10")
    state = reach(state, "filter", "GRAPH-10")
    return _move_subops(state, operation.user, _with_hash(user, hash_, lines, enable=enable), enable=enable)


def _process_regex(state: State, old: Filtering, text: str | None, rule: str) -> Filtering:
    """GRAPH-10: a copy of the hash with what a line selects, or without it, and what waits; no line empties both."""
    if text is None:
        return frozenset(), ()
    (hash_, waiting), line = old, filter_line(text)
    matched = match_functions(state, line.glob, line.module)
    if matched:
        return hash_ - matched if line.removes else hash_ | matched, waiting
    if line.module is None:
        raise Refused(state, "EINVAL", "FILTER-6", rule)
    return hash_, cache_mod(state, waiting, line, rule)


def _read_hash(user: GraphUser, *, enable: bool) -> Filtering:
    return (user.filter_hash, user.mod_trace) if enable else (user.notrace_hash, user.mod_notrace)


def _with_hash(user: GraphUser, hash_: frozenset[str], lines: Lines, *, enable: bool) -> GraphUser:
    """FILTER-13: the user with another filter, which is marked while a line waits, or with another notrace hash."""
    if enable:
        return replace(user, filter_hash=flagged(hash_, lines), mod_trace=lines)
    return replace(user, notrace_hash=hash_, mod_notrace=lines)


def _ftrace_graph_set_hash(state: State, old: frozenset[str], glob: str | None) -> frozenset[str]:
    """GRAPH-11: the same, where removing must find something in the hash, and a number is a name."""
    if glob is None:
        return frozenset()
    pattern, removes = without_bang(glob)
    matched = frozenset() if record_index(pattern) is not None else match_functions(state, pattern)
    found = matched & old if removes else matched
    if not found:
        raise Refused(state, "EINVAL", "GRAPH-11")
    return old - found if removes else old | found


def _exchange(state: State, name: str, user: GraphUser, old: frozenset[str]) -> State:
    """GRAPH-11: another hash is in place; an old one that was not empty is waited for."""
    after = replace(state, graph_users={**state.graph_users, name: user})
    return waited(after, "rcu_tasks_rude") if old and state.semantics.rude_waits else after


def process_cached_mods(state: State, module: str) -> State:
    """MODULE-7: of each user each hash for which a line waits is made anew, whether its module has come or not."""
    for name, enable in product(state.graph_users, (True, False)):
        user = state.graph_users[name]
        hash_, waiting = _read_hash(user, enable=enable)
        if waiting:
            hash_, lines = process_mod_list(state, hash_, waiting, module)
            state = _move_subops(state, name, _with_hash(user, hash_, lines, enable=enable), enable=enable)
    return state


def _move_subops(state: State, name: str, user: GraphUser, *, enable: bool) -> State:
    """GRAPH-10: graph_ops follows a hash of one of its users, with `enable` the filter, else the notrace hash."""
    after = replace(state, graph_users={**state.graph_users, name: user})
    return _ftrace_update_ops(after, _ftrace_hash_move_and_update_subops(after, user, enable=enable))


def _ftrace_update_ops(state: State, hashes: OpsHash) -> State:
    """GRAPH-2: graph_ops gets these hashes, a pass for each that changes; it is registered with its first user."""
    cite("GRAPH-2")
    if not state.enabled(GRAPH_OPS):
        ops = Ops("graph_ops", filter_hash=hashes.filter_hash, notrace_hash=hashes.notrace_hash)
        return add_ftrace_ops(state.with_ops(GRAPH_OPS, ops), GRAPH_OPS)
    moved = _move_hash(state, replace(state.ops[GRAPH_OPS], filter_hash=hashes.filter_hash))
    return _move_hash(moved, replace(moved.ops[GRAPH_OPS], notrace_hash=hashes.notrace_hash))


def _move_hash(state: State, now: Ops) -> State:
    before = state.ops[GRAPH_OPS]
    if now == before:
        return state
    after = state.with_ops(GRAPH_OPS, now)
    return replaced(state, after, {*traced(state, before), *traced(after, now)})


# GRAPH-12. The users are a list, to whose head each new one is added.


def _list_subops(state: State) -> list[GraphUser]:
    return list(state.graph_users.values())[::-1]


def _ftrace_startup_subops(state: State, user: GraphUser) -> OpsHash:
    """GRAPH-12: what graph_ops covers when a user joins it."""
    cite("GRAPH-12")
    if len(state.graph_users) == 1:
        return _add_first_hash(user) if state.semantics.graph_rebuilds else _copy_hashes(user)
    manager = state.ops[GRAPH_OPS]
    present = OpsHash(manager.filter_hash, manager.notrace_hash)
    if state.semantics.graph_rebuilds:
        return _add_next_hash(present, user)
    return OpsHash(
        _append_hash(present.filter_hash, user.filter_hash),
        present.notrace_hash & user.notrace_hash,
    )


def _ftrace_shutdown_subops(state: State) -> OpsHash:
    """GRAPH-12: what graph_ops covers when a user has left it, and others stay."""
    cite("GRAPH-12")
    if state.semantics.graph_rebuilds:
        return _rebuild_hashes(state)
    return OpsHash(_append_hashes(state), _intersect_hashes(state))


def _ftrace_hash_move_and_update_subops(state: State, new: GraphUser, *, enable: bool) -> OpsHash:
    """GRAPH-12: what graph_ops covers when one of its users' hashes has changed."""
    cite("GRAPH-12")
    if state.semantics.graph_users == 1:
        return _copy_hashes(new)
    if state.semantics.graph_rebuilds:
        return _rebuild_hashes(state)
    manager = state.ops[GRAPH_OPS]
    if enable:
        return OpsHash(_append_hashes(state), manager.notrace_hash)
    return OpsHash(manager.filter_hash, _intersect_hashes(state))


def _copy_hashes(user: GraphUser) -> OpsHash:
    return OpsHash(user.filter_hash, user.notrace_hash)


def _rebuild_hashes(state: State) -> OpsHash:
    first, *others = _list_subops(state)
    hashes = _add_first_hash(first)
    for user in others:
        hashes = _add_next_hash(hashes, user)
    return hashes


def _add_first_hash(user: GraphUser) -> OpsHash:
    """A filter is given without what notrace takes out of it, even if nothing is left, so that it means everything."""
    if user.filter_hash:
        return OpsHash(user.filter_hash - user.notrace_hash)
    return OpsHash(notrace_hash=user.notrace_hash)


def _add_next_hash(hashes: OpsHash, user: GraphUser) -> OpsHash:
    """The same of a further user; where nothing is left of its filter, that too means everything."""
    filter_hash = _append_hash(user.filter_hash - user.notrace_hash, hashes.filter_hash)
    return OpsHash(filter_hash) if filter_hash else OpsHash(notrace_hash=hashes.notrace_hash & user.notrace_hash)


def _append_hash(hash_: frozenset[str], more: frozenset[str]) -> frozenset[str]:
    """The union of two filters; empty, and so everything, if one of them is."""
    return hash_ | more if hash_ and more else frozenset()


def _append_hashes(state: State) -> frozenset[str]:
    """The filters of all users; that of the newest is empty where nothing but a line that waits is in it."""
    newest, *others = (user.filter_hash for user in _list_subops(state))
    first = newest - {FL_MOD}
    for hash_ in others:
        first = _append_hash(first, hash_)
    return first


def _intersect_hashes(state: State) -> frozenset[str]:
    """The notrace hash of graph_ops, as far as all users hold it but the newest, whose hash the kernel passes over."""
    _newest, *others = _list_subops(state)
    return state.ops[GRAPH_OPS].notrace_hash.intersection(*(user.notrace_hash for user in others))
