"""The function graph tracer: its users, and the shadow stack of one task (GRAPH-*)."""

from __future__ import annotations

from dataclasses import dataclass, field

from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.filters import difference, empty_hash, select
from impl.batched.functions import Mask
from impl.batched.sites import GRAPH
from impl.batched.state import GraphUser, State, covered_by
from spec import operations as op
from spec.globs import record_index
from spec.traces import Event, GraphEntry, GraphReturn

__all__ = ["ShadowStack", "register", "unregister"]

DEPTH_KEPT = 4


def register(state: State, operation: op.RegisterFtraceGraph) -> None:
    """register_ftrace_graph() (GRAPH-1, GRAPH-3)."""
    graph = state.graph
    if any(user.name == operation.user for user in graph.users):
        raise Refused("EEXIST")
    filter_hash = _hash(state, operation.filter)
    function = _hash(state, _unnumbered(operation.function))
    notrace = _hash(state, _unnumbered(operation.notrace))
    state.refuse_if_dead()
    if not graph.free:
        raise Refused("EBUSY" if state.facts.graph_users == 1 else "ENOSPC")
    state.faults.stop_at("register")
    user = GraphUser(operation.user, graph.free[0], filter_hash, function, notrace, operation.depth)
    _change(state, sorted([*graph.users, user], key=lambda one: one.slot))
    graph.free.popleft()


def _hash(state: State, glob: str | None) -> Mask | None:
    if glob is None:
        return None
    found = select(state, glob)
    if glob.startswith("!") or not len(found):
        raise Refused("EINVAL")
    mask = empty_hash(state.functions)
    mask[found] = True
    return mask


def _unnumbered(glob: str | None) -> str | None:
    """set_graph_function and set_graph_notrace match symbols only (GRAPH-1)."""
    if glob is not None and record_index(glob) is not None:
        raise Refused("EINVAL")
    return glob


def unregister(state: State, operation: op.UnregisterFtraceGraph) -> None:
    """unregister_ftrace_graph() (GRAPH-7)."""
    graph = state.graph
    leaving = [user for user in graph.users if user.name == operation.user]
    if not leaving:
        raise Refused("EBADF")
    state.refuse_if_dead()
    _change(state, [user for user in graph.users if user is not leaving[0]])
    graph.free.append(leaving[0].slot)


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


@dataclass(slots=True)
class _Frame:
    """A pushed frame: who took it."""

    function: str
    taken: list[GraphUser]


@dataclass(slots=True)
class _Flags:
    """A user's task variable: the depth, modulo 4, at which `function` opened, and whether a notrace subtree runs."""

    opened: int | None = None
    silent: bool = False


@dataclass(slots=True)
class ShadowStack:
    """One task's frames, and each user's flags in it."""

    users: list[GraphUser]
    slot0_returns: bool
    frames: list[_Frame] = field(default_factory=list)
    _flags: dict[int, _Flags] = field(default_factory=dict)

    def enter(self, index: int, name: str, events: list[Event]) -> bool:
        """function_graph_enter(): whether a frame was pushed (GRAPH-4, GRAPH-5)."""
        taken = []
        depth = len(self.frames)
        for user in self.users:
            if user.filter_hash is None or user.filter_hash[index]:
                takes, records = self._entry(user, index, depth)
                if takes:
                    taken.append(user)
                if records:
                    events.append(GraphEntry(user.name, name, depth))
        if taken:
            self.frames.append(_Frame(name, taken))
        return bool(taken)

    def _entry(self, user: GraphUser, index: int, depth: int) -> tuple[bool, bool]:
        """trace_graph_entry(): whether the user takes the frame, and whether it records the entry."""
        flags = self._flags.setdefault(user.slot, _Flags())
        if flags.silent:
            return False, False
        if user.notrace is not None and user.notrace[index]:
            flags.silent = True
            return True, False
        if user.function is not None and flags.opened is None:
            if not user.function[index]:
                return False, False
            flags.opened = depth % DEPTH_KEPT
        recorded = not user.depth or depth < user.depth
        return recorded, recorded

    def leave(self, events: list[Event]) -> None:
        """The return of the frame on top: for who took it, and beside others for slot 0 (GRAPH-5, GRAPH-8)."""
        frame = self.frames.pop()
        depth = len(self.frames)
        for user in self.users:
            took = user in frame.taken
            if took or (user.slot == 0 and len(self.users) > 1):
                recorded = self._return(user, depth)
                if recorded and (took or self.slot0_returns):
                    events.append(GraphReturn(user.name, frame.function, depth))

    def _return(self, user: GraphUser, depth: int) -> bool:
        """trace_graph_return(): whether the user records the return (GRAPH-6)."""
        flags = self._flags.setdefault(user.slot, _Flags())
        if flags.opened == depth:
            flags.opened = None
        if flags.silent:
            flags.silent = False
            return False
        return True
