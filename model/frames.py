"""The graph tracer's frames on a task's shadow stack (GRAPH-4 to GRAPH-8)."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.rules import cite
from model.state import GraphUser, State
from spec.traces import Event, GraphEntry, GraphReturn

__all__ = ["Frame", "ShadowStack", "enter", "leave"]

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


def enter(state: State, stack: ShadowStack, function: str, events: list[Event]) -> Frame | None:
    """Every user decides about an entry; the frame if one of them took it (GRAPH-5)."""
    cite("GRAPH-4")
    taken = set()
    for name, user in _by_slot(state):
        if user.filter is not None and function not in user.filter:
            continue
        if name in stack.silent:
            continue
        if user.notrace is not None and function in user.notrace:
            stack.silent.add(name)
            taken.add(name)
        elif _records(stack, name, user, function):
            events.append(GraphEntry(name, function, stack.depth))
            taken.add(name)
    if not taken:
        return None
    cite("GRAPH-5")
    stack.depth += 1
    return Frame(function, stack.depth - 1, frozenset(taken))


def _records(stack: ShadowStack, name: str, user: GraphUser, function: str) -> bool:
    """Whether a user records an entry outside its notrace subtrees."""
    if user.function is not None and name not in stack.opened:
        if function not in user.function:
            return False
        cite("GRAPH-6")
        stack.opened[name] = stack.depth % FLAG_DEPTHS
    return user.depth is None or stack.depth < user.depth


def leave(state: State, stack: ShadowStack, frame: Frame, events: list[Event]) -> None:
    """The return of a frame, for the users that took it, and for slot 0's (GRAPH-8)."""
    stack.depth -= 1
    for name, user in _by_slot(state):
        took = name in frame.taken
        if not took and (user.slot or len(state.graph_users) == 1):
            continue
        if not took:
            cite("GRAPH-8")
        if stack.opened.get(name) == frame.depth:
            del stack.opened[name]
        if name in stack.silent:
            stack.silent.discard(name)
        elif took or state.semantics.slot0_returns:
            events.append(GraphReturn(name, frame.function, frame.depth))


def _by_slot(state: State) -> list[tuple[str, GraphUser]]:
    return sorted(state.graph_users.items(), key=lambda item: item[1].slot)
