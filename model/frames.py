"""The graph tracer's frames on a task's shadow stack (GRAPH-4 to GRAPH-8, GRAPH-13)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from model.rules import cite
from model.state import FPROBE_USER, GraphUser, State, ftrace_ops_test
from spec.traces import Event, GraphEntry, GraphReturn

__all__ = ["Frame", "ShadowStack", "fgraph_return", "function_graph_enter"]

FLAG_DEPTHS = 4


@dataclass(frozen=True, slots=True)
class Frame:
    """A function whose return goes through return_to_handler, and the users that took it at entry."""

    function: str
    depth: int
    taken: frozenset[str]


@dataclass
class ShadowStack:
    """A task's frames, and each user's flags.

    depth: frames on the stack. opened: the depth, modulo 4, of the frame that set a user's `function` flag. silent:
    users inside a notrace subtree.
    """

    depth: int = 0
    opened: dict[str, int] = field(default_factory=dict)
    silent: set[str] = field(default_factory=set)


def function_graph_enter(state: State, stack: ShadowStack, function: str, events: list[Event]) -> Frame | None:
    """GRAPH-4, GRAPH-5: every user decides about an entry; the frame, if one of them took it."""
    cite("GRAPH-4")
    taken = frozenset(
        name
        for name, user in _sort_by_slot(state)
        if _is_asked(state, user, function) and _enter_user(stack, name, user, function, events)
    )
    if not taken:
        return None
    cite("GRAPH-5")
    stack.depth += 1
    return Frame(function, stack.depth - 1, taken)


def _enter_user(stack: ShadowStack, name: str, user: GraphUser, function: str, events: list[Event]) -> bool:
    """KPROBE-5: the fprobes' user takes the frame if one of them is on the function; others by GRAPH-4."""
    if name == FPROBE_USER:
        return function in user.filter_hash
    return _trace_graph_entry(stack, name, user, function, events)


def _is_asked(state: State, user: GraphUser, function: str) -> bool:
    """GRAPH-13: whether a user is asked; the only one is asked wherever graph_ops covers the site."""
    if len(state.graph_users) == 1:
        return True
    cite("GRAPH-13")
    return ftrace_ops_test(user, function)


def _trace_graph_entry(stack: ShadowStack, name: str, user: GraphUser, function: str, events: list[Event]) -> bool:
    """GRAPH-4: whether a user takes an entry; what it records stands in the events."""
    if name in stack.silent:
        return False
    if function in user.notrace:
        stack.silent.add(name)
        return True
    if not _ftrace_graph_addr(stack, name, user, function):
        return False
    if user.depth is not None and stack.depth >= user.depth:
        return False
    events.append(GraphEntry(name, function, stack.depth))
    return True


def _ftrace_graph_addr(stack: ShadowStack, name: str, user: GraphUser, function: str) -> bool:
    """GRAPH-6: whether an entry is in set_graph_function, or in what runs inside of it."""
    if not user.function or name in stack.opened:
        return True
    if function not in user.function:
        return False
    cite("GRAPH-6")
    # The flag stays, even where the depth then keeps the frame from being recorded.
    stack.opened[name] = stack.depth % FLAG_DEPTHS
    return True


def fgraph_return(
    state: State, stack: ShadowStack, frame: Frame, events: list[Event], probes: Iterable[Event] = ()
) -> None:
    """GRAPH-5, GRAPH-8: the return of a frame, for its users, and for slot 0's; probes: the events of fprobes."""
    stack.depth -= 1
    for name, user in _sort_by_slot(state):
        took = name in frame.taken
        # Bit 0 marks the frame, so that slot 0's user is called for the frames that other users took.
        if not took and (user.slot or len(state.graph_users) == 1):
            continue
        if name == FPROBE_USER:
            events += probes if took else ()
            continue
        if not took:
            cite("GRAPH-8")
        if stack.opened.get(name) == frame.depth:
            del stack.opened[name]
        if name in stack.silent:
            stack.silent.discard(name)
        elif took or state.semantics.slot0_returns:
            events.append(GraphReturn(name, frame.function, frame.depth))


def _sort_by_slot(state: State) -> list[tuple[str, GraphUser]]:
    return sorted(state.graph_users.items(), key=lambda item: item[1].slot)
