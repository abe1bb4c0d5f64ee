"""The graph tracer's users (GRAPH-1 to GRAPH-3, GRAPH-7)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import patched_between
from model.faults import Faults
from model.filters import select
from model.registration import disable, enable
from model.rules import Refused, cite
from model.sites import traced
from model.state import GRAPH_OPS, GraphUser, Ops, State
from spec import operations as op
from spec.globs import record_index

__all__ = ["register", "unregister"]


def register(state: State, operation: op.RegisterFtraceGraph, faults: Faults) -> State:
    """GRAPH-1: register_ftrace_graph."""
    if operation.user in state.graph_users:
        raise Refused("EEXIST", "NAME-1")
    filter_ = _hash(state, operation.filter, numbered=True)
    function, notrace = (_hash(state, glob, numbered=False) for glob in (operation.function, operation.notrace))
    if state.dead:
        raise Refused("ENODEV", "GRAPH-1")
    if not state.graph_slots:
        raise Refused("EBUSY" if state.semantics.graph_users == 1 else "ENOSPC", "GRAPH-1")
    faults.reach("register")
    cite("GRAPH-1", "GRAPH-3")
    slot, *free = state.graph_slots
    user = GraphUser(slot, filter_, function, notrace, operation.depth or None)
    users = {**state.graph_users, operation.user: user}
    return _with_users(replace(state, graph_slots=tuple(free)), users)


def _hash(state: State, glob: str | None, *, numbered: bool) -> frozenset[str] | None:
    """numbered: whether a record's number may stand for a glob."""
    if glob is None:
        return None
    refused = glob.startswith("!") or not (numbered or record_index(glob) is None)
    found = frozenset() if refused else select(state, glob)
    if not found:
        raise Refused("EINVAL", "GRAPH-1")
    return found


def unregister(state: State, operation: op.UnregisterFtraceGraph, _faults: Faults) -> State:
    """GRAPH-7: unregister_ftrace_graph."""
    if operation.user not in state.graph_users:
        raise Refused("EBADF", "NAME-2")
    if state.dead:
        raise Refused("ENODEV", "GRAPH-7")
    cite("GRAPH-7")
    slot = state.graph_users[operation.user].slot
    users = {name: user for name, user in state.graph_users.items() if name != operation.user}
    return _with_users(replace(state, graph_slots=(*state.graph_slots, slot)), users)


def _with_users(state: State, users: dict[str, GraphUser]) -> State:
    """GRAPH-2: graph_ops as the union of its users' filters."""
    cite("GRAPH-2")
    after = replace(state, graph_users=users)
    if not users:
        return disable(after, GRAPH_OPS).without_ops([GRAPH_OPS])
    filters = [user.filter for user in users.values()]
    union = frozenset().union(*(one for one in filters if one is not None)) if None not in filters else frozenset()
    ops = Ops("graph_ops", filter_hash=union)
    after = after.with_ops(GRAPH_OPS, ops)
    if not state.enabled(GRAPH_OPS):
        return enable(after, GRAPH_OPS)
    return patched_between(state, after, {*traced(state, state.ops[GRAPH_OPS]), *traced(after, ops)})
