"""The function graph tracer's users (GRAPH-1 to GRAPH-3, GRAPH-7, GRAPH-10 to GRAPH-12).

The shadow stack is in machine.fgraph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from typing import Final, Literal

from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.filters import empty_hash, select
from impl.batched.functions import Mask
from impl.batched.pending import begin_with, end_waiting, take_line
from impl.batched.sites import GRAPH
from impl.batched.state import GraphUser, State
from spec import operations as op
from spec.globs import record_index, without_bang

__all__ = [
    "add_user",
    "change_filter",
    "process_waiting",
    "register",
    "remove_user",
    "set_filter",
    "set_graph_function",
    "set_graph_notrace",
    "set_notrace",
    "unregister",
]


Pay = Callable[[Bill], None]


@dataclass(frozen=True, slots=True, eq=False)
class _Hashes:
    """Both hashes that graph_ops is to have (struct ftrace_ops_hash)."""

    filter_hash: Mask
    notrace_hash: Mask


def register(state: State, operation: op.RegisterFtraceGraph) -> None:
    """register_ftrace_graph() (GRAPH-1, GRAPH-3)."""
    graph = state.graph
    state.refuse_if_dead()
    filter_hash, waiting = begin_with(state, operation.filter)
    function = _make_hash(state, _refuse_number(operation.function))
    notrace = _make_hash(state, _refuse_number(operation.notrace))
    if not graph.free:
        raise Refused("EBUSY" if state.facts.graph_users == 1 else "ENOSPC")
    state.faults.stop_at("register")
    nothing = empty_hash(state.functions)
    user = GraphUser(operation.user, graph.free[0], filter_hash, nothing, function, notrace, operation.depth)
    add_user(state, user.with_filter(filter_hash, waiting))


def add_user(state: State, user: GraphUser) -> None:
    """A user joins in the first free slot (GRAPH-3)."""
    _change(state, [*state.graph.users, user], _join(state, user), state.settle)
    state.graph.free.popleft()


def remove_user(state: State, leaving: GraphUser) -> None:
    """A user goes, and its slot is free."""
    staying = [user for user in state.graph.users if user is not leaving]
    _change(state, staying, _recompute(state, staying), state.settle)
    state.graph.free.append(leaving.slot)


def change_filter(state: State, user: GraphUser, filter_hash: Mask) -> None:
    """A user's own ops has another filter."""
    users = [replace(each, filter_hash=filter_hash) if each is user else each for each in state.graph.users]
    _change(state, users, _recompute(state, users), state.settle)


def _make_hash(state: State, glob: str | None) -> Mask:
    mask = empty_hash(state.functions)
    if glob is None:
        return mask
    found = select(state, glob)
    if glob.startswith("!") or not len(found):
        raise Refused("EINVAL")
    mask[found] = True
    return mask


def _refuse_number(glob: str | None) -> str | None:
    """set_graph_function and set_graph_notrace match symbols only (GRAPH-1)."""
    if glob is not None and record_index(glob) is not None:
        raise Refused("EINVAL")
    return glob


def unregister(state: State, operation: op.UnregisterFtraceGraph) -> None:
    """unregister_ftrace_graph() (GRAPH-7)."""
    state.refuse_if_dead()
    remove_user(state, _find(state, operation.user))


def set_filter(state: State, operation: op.SetFtraceFilter) -> None:
    """A line for set_ftrace_filter of a live user (GRAPH-10)."""
    user = _begin_setting(state, operation.user)
    changed = user.with_filter(*take_line(state, user.own_filter(), user.mod_trace, operation.glob))
    state.faults.stop_at("filter")
    _exchange(state, user, changed, state.settle, setting="filter")


def set_notrace(state: State, operation: op.SetFtraceNotrace) -> None:
    """A line for set_ftrace_notrace of a live user (GRAPH-10)."""
    user = _begin_setting(state, operation.user)
    hash_, lines = take_line(state, user.notrace_hash, user.mod_notrace, operation.glob)
    state.faults.stop_at("filter")
    changed = replace(user, notrace_hash=hash_, mod_notrace=lines)
    _exchange(state, user, changed, state.settle, setting="notrace")


def process_waiting(state: State, module: str) -> None:
    """A module has come: hashes with lines that wait are made anew, those of other modules too (MODULE-7)."""
    for place in range(len(state.graph.users)):
        user = state.graph.users[place]
        if user.mod_trace:
            changed = user.with_filter(*end_waiting(state, user.own_filter(), user.mod_trace, module))
            _exchange(state, user, changed, state.enter, setting="filter")
        user = state.graph.users[place]
        if user.mod_notrace:
            hash_, lines = end_waiting(state, user.notrace_hash, user.mod_notrace, module)
            changed = replace(user, notrace_hash=hash_, mod_notrace=lines)
            _exchange(state, user, changed, state.enter, setting="notrace")


def _exchange(state: State, old: GraphUser, new: GraphUser, pay: Pay, *, setting: Literal["filter", "notrace"]) -> None:
    """A user's hashes are others, and graph_ops follows; without `graph_rebuilds` in the hash that was set alone."""
    users = [new if user is old else user for user in state.graph.users]
    hashes = _recompute(state, users)
    if not state.facts.graph_rebuilds and state.facts.graph_users > 1:
        graph = state.graph
        hashes = (
            replace(hashes, notrace_hash=graph.notrace_hash)
            if setting == "filter"
            else replace(hashes, filter_hash=graph.filter_hash)
        )
    _change(state, users, hashes, pay)


def set_graph_function(state: State, operation: op.SetGraphFunction) -> None:
    """A line for set_graph_function (GRAPH-11)."""
    user = _begin_setting(state, operation.user)
    function = _edit_graph(state, user.function, operation.glob)
    _wait_for_old(state, user.function)
    user.function = function


def set_graph_notrace(state: State, operation: op.SetGraphNotrace) -> None:
    """A line for set_graph_notrace (GRAPH-11)."""
    user = _begin_setting(state, operation.user)
    notrace = _edit_graph(state, user.notrace, operation.glob)
    _wait_for_old(state, user.notrace)
    user.notrace = notrace


def _find(state: State, name: str) -> GraphUser:
    return next(user for user in state.graph.users if user.name == name and not user.fprobes)


def _begin_setting(state: State, name: str) -> GraphUser:
    state.refuse_if_dead()
    state.faults.stop_at("alloc")
    return _find(state, name)


def _edit_graph(state: State, present: Mask, glob: str | None) -> Mask:
    """A list with what a glob selects, or without it; a number names nothing, and what is removed must be there."""
    if glob is None:
        return empty_hash(state.functions)
    pattern, removes = without_bang(glob)
    found = empty_hash(state.functions)
    if record_index(pattern) is None:
        found[select(state, pattern)] = True
    if not (found & present if removes else found).any():
        raise Refused("EINVAL")
    edited: Mask = present & ~found if removes else present | found
    return edited


# The hashes of graph_ops (GRAPH-12).


def _join(state: State, user: GraphUser) -> _Hashes:
    """The hashes with one user more."""
    graph, rebuilds = state.graph, state.facts.graph_rebuilds
    if not graph.users:
        return _first(user) if rebuilds else _Hashes(user.filter_hash.copy(), user.notrace_hash.copy())
    present = _Hashes(graph.filter_hash, graph.notrace_hash)
    if rebuilds:
        return _next(present, user)
    return _Hashes(_unite(graph.filter_hash, user.filter_hash), graph.notrace_hash & user.notrace_hash)


def _recompute(state: State, users: list[GraphUser]) -> _Hashes:
    """Both hashes for these users."""
    graph = state.graph
    if not users:
        return _Hashes(empty_hash(state.functions), empty_hash(state.functions))
    newest, *others = users[::-1]
    if state.facts.graph_users == 1:
        return _Hashes(newest.filter_hash.copy(), newest.notrace_hash.copy())
    if state.facts.graph_rebuilds:
        return reduce(_next, others, _first(newest))
    # Of the newest user it is not seen that a line waits (DEFECT-39), and its notrace hash is passed over.
    filter_hash = reduce(_unite, (user.filter_hash for user in others), newest.own_filter())
    notrace_hash = reduce(lambda left, user: left & user.notrace_hash, others, graph.notrace_hash.copy())
    return _Hashes(filter_hash, notrace_hash)


def _first(user: GraphUser) -> _Hashes:
    nothing = user.filter_hash & False
    if user.filter_hash.any():
        return _Hashes(user.traced(), nothing)
    return _Hashes(nothing, user.notrace_hash.copy())


def _next(present: _Hashes, user: GraphUser) -> _Hashes:
    nothing = user.filter_hash & False
    united = _unite(user.traced(), present.filter_hash)
    return _Hashes(united, nothing if united.any() else present.notrace_hash & user.notrace_hash)


def _unite(some: Mask, more: Mask) -> Mask:
    """Two filters as one, where an empty one means everything."""
    both: Mask = some | more
    return both if some.any() and more.any() else both & False


_WAITS: Final = "rcu_tasks_rude"


def _wait_for_old(state: State, hash_: Mask) -> None:
    """A hash of set_graph_* that was not empty may be in use yet."""
    bill = Bill()
    if hash_.any() and state.facts.rude_waits:
        bill.wait(_WAITS)
    state.settle(bill)


def _change(state: State, users: list[GraphUser], hashes: _Hashes, pay: Pay) -> None:
    """graph_ops gets other users and hashes; it is in the list while it has users (GRAPH-2).

    A live ops gets first the filter, then the notrace hash, with a pass for each. pay: who takes the bill.
    """
    graph, sites = state.graph, state.sites
    here = _mark(state, graph.users, graph.filter_hash, graph.notrace_hash)
    halfway = _mark(state, users, hashes.filter_hash, graph.notrace_hash if graph.users else hashes.notrace_hash)
    there = _mark(state, users, hashes.filter_hash, hashes.notrace_hash)
    bill = Bill()
    bill.patch(sites.toggling(here ^ halfway, here))
    bill.patch(sites.toggling(halfway ^ there, here))
    pay(bill)
    sites.join((there & ~here).nonzero()[0], GRAPH)
    sites.leave((here & ~there).nonzero()[0], GRAPH)
    if not graph.users:
        state.ops_list.insert(0, graph)
    if not users:
        state.ops_list.remove(graph)
    graph.users, graph.filter_hash, graph.notrace_hash = users, hashes.filter_hash, hashes.notrace_hash


def _mark(state: State, users: list[GraphUser], filter_hash: Mask, notrace_hash: Mask) -> Mask:
    """The loaded sites that graph_ops covers with these hashes; none while it has no users."""
    mask = empty_hash(state.functions)
    if users:
        mask[state.sites.covered(filter_hash, notrace_hash)] = True
    return mask
