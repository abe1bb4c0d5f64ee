"""The graph tracer's users (GRAPH-1 to GRAPH-3, GRAPH-7)."""

from __future__ import annotations

from dataclasses import replace

from model.endings import Refused, check_alive
from model.faults import reach
from model.filters import match_functions
from model.poke import replaced
from model.registration import add_ftrace_ops, remove_ftrace_ops
from model.rules import cite
from model.sites import traced
from model.state import GRAPH_OPS, GraphUser, Ops, State
from spec import operations as op
from spec.globs import record_index

__all__ = ["register_ftrace_graph", "unregister_ftrace_graph"]


def register_ftrace_graph(state: State, operation: op.RegisterFtraceGraph) -> State:
    """GRAPH-1: a user of the graph tracer begins."""
    filter_ = _make_filter(state, operation.filter)
    function, notrace = (_ftrace_graph_set_hash(state, glob) for glob in (operation.function, operation.notrace))
    check_alive(state, "GRAPH-1")
    # Since Linux kernel commit c132be2c4fcc ("function_graph: Have the instances use their own ftrace_ops for
    # filtering") (in v6.11) and its series there are several users.
    if not state.graph_slots:
        raise Refused(state, "EBUSY" if state.semantics.graph_users == 1 else "ENOSPC", "GRAPH-1")
    state = reach(state, "register")
    cite("GRAPH-1", "GRAPH-3")
    slot, *free = state.graph_slots
    user = GraphUser(slot, filter_, function, notrace, operation.depth or None)
    users = {**state.graph_users, operation.user: user}
    return _ftrace_startup_subops(replace(state, graph_slots=tuple(free)), users)


def _make_filter(state: State, glob: str | None) -> frozenset[str] | None:
    """The sites that a user's ops covers, None for all."""
    if glob is None:
        return None
    found = frozenset() if glob.startswith("!") else match_functions(state, glob)
    if not found:
        raise Refused(state, "EINVAL", "GRAPH-1")
    return found


def _ftrace_graph_set_hash(state: State, glob: str | None) -> frozenset[str] | None:
    """set_graph_function and set_graph_notrace: a record's number is no glob for them."""
    if glob is not None and record_index(glob) is not None:
        raise Refused(state, "EINVAL", "GRAPH-1")
    return _make_filter(state, glob)


def unregister_ftrace_graph(state: State, operation: op.UnregisterFtraceGraph) -> State:
    """GRAPH-7: a user of the graph tracer ends."""
    check_alive(state, "GRAPH-7")
    cite("GRAPH-7")
    slot = state.graph_users[operation.user].slot
    users = {name: user for name, user in state.graph_users.items() if name != operation.user}
    return _ftrace_startup_subops(replace(state, graph_slots=(*state.graph_slots, slot)), users)


def _ftrace_startup_subops(state: State, users: dict[str, GraphUser]) -> State:
    """GRAPH-2: graph_ops covers what one of its users covers; it is registered with the first, and not for none."""
    cite("GRAPH-2")
    after = replace(state, graph_users=users)
    if not users:
        return remove_ftrace_ops(after, GRAPH_OPS).without_ops(GRAPH_OPS)
    ops = Ops("graph_ops", filter_hash=_append_hashes(users))
    after = after.with_ops(GRAPH_OPS, ops)
    if not state.enabled(GRAPH_OPS):
        return add_ftrace_ops(after, GRAPH_OPS)
    return replaced(state, after, {*traced(state, state.ops[GRAPH_OPS]), *traced(after, ops)})


def _append_hashes(users: dict[str, GraphUser]) -> frozenset[str]:
    """The union of the users' filters; empty, and so everything, if one of them has none."""
    filters = [user.filter for user in users.values()]
    given = [hash_ for hash_ in filters if hash_ is not None]
    return frozenset().union(*given) if len(given) == len(filters) else frozenset()
