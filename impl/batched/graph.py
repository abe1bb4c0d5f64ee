"""The function graph tracer's users (GRAPH-1 to GRAPH-3, GRAPH-7); its shadow stack is in machine.routines."""

from __future__ import annotations

from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.filters import difference, empty_hash, select
from impl.batched.functions import Mask
from impl.batched.sites import GRAPH
from impl.batched.state import GraphUser, State, covered_by
from spec import operations as op
from spec.globs import record_index

__all__ = ["register", "unregister"]


def register(state: State, operation: op.RegisterFtraceGraph) -> None:
    """register_ftrace_graph() (GRAPH-1, GRAPH-3)."""
    graph = state.graph
    filter_hash = _make_hash(state, operation.filter)
    function = _make_hash(state, _refuse_number(operation.function))
    notrace = _make_hash(state, _refuse_number(operation.notrace))
    state.refuse_if_dead()
    if not graph.free:
        raise Refused("EBUSY" if state.facts.graph_users == 1 else "ENOSPC")
    state.faults.stop_at("register")
    user = GraphUser(operation.user, graph.free[0], filter_hash, function, notrace, operation.depth)
    _change(state, sorted([*graph.users, user], key=lambda one: one.slot))
    graph.free.popleft()


def _make_hash(state: State, glob: str | None) -> Mask | None:
    if glob is None:
        return None
    found = select(state, glob)
    if glob.startswith("!") or not len(found):
        raise Refused("EINVAL")
    mask = empty_hash(state.functions)
    mask[found] = True
    return mask


def _refuse_number(glob: str | None) -> str | None:
    """set_graph_function and set_graph_notrace match symbols only (GRAPH-1)."""
    if glob is not None and record_index(glob) is not None:
        raise Refused("EINVAL")
    return glob


def unregister(state: State, operation: op.UnregisterFtraceGraph) -> None:
    """unregister_ftrace_graph() (GRAPH-7)."""
    graph = state.graph
    state.refuse_if_dead()
    leaving = next(user for user in graph.users if user.name == operation.user)
    _change(state, [user for user in graph.users if user is not leaving])
    graph.free.append(leaving.slot)


def _change(state: State, users: list[GraphUser]) -> None:
    """graph_ops covers what its users cover, and is in the list while it has one (GRAPH-2)."""
    graph, sites = state.graph, state.sites
    before, after = covered_by(graph.users, sites), covered_by(users, sites)
    joined, left = difference(state, after, before), difference(state, before, after)
    bill = Bill()
    bill.patch(sites.joining(joined, regs=False) + sites.leaving(left, regs=False))
    state.settle(bill)
    sites.join(joined, GRAPH)
    sites.leave(left, GRAPH)
    if not graph.users:
        state.ops_list.insert(0, graph)
    if not users:
        state.ops_list.remove(graph)
    graph.users = users
