"""Directed runs of the graph tracer's users: their slots, and what each records beside another one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from spec.semantics import Semantics

__all__ = ["GRAPH_USERS"]

Lines = Iterator[str]


def _graph_users_up_to_the_limit(s: Semantics) -> Lines:
    """One user more than there are slots; a slot that comes back goes to the next one (GRAPH-1, GRAPH-3)."""
    for number in range(1, s.graph_users + 1):
        yield f"register_ftrace_graph g{number} filter=foo{number % 3 + 1} -> 0"
    yield f"register_ftrace_graph more -> {'-EBUSY' if s.graph_users == 1 else '-ENOSPC'}"
    yield "call foo1 1"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "register_ftrace_graph more -> 0"
    yield "call foo1 1"
    yield "call outer 1"


def _graph_slots_go_round(s: Semantics) -> Lines:
    """The slot free longest is next, so after as many registrations as there are slots the order changes (GRAPH-3)."""
    yield "register_ftrace_graph stays filter=foo1 -> 0"
    if s.graph_users == 1:
        return
    for number in range(s.graph_users + 2):
        yield f"register_ftrace_graph g{number} filter=foo* -> 0"
        yield "call foo1 1"
        yield f"unregister_ftrace_graph g{number} -> 0"
        if number == s.graph_users // 2:
            yield "unregister_ftrace_graph stays -> 0"
            yield "register_ftrace_graph stays filter=foo1 -> 0"
    yield "call foo1 1"


def _graph_subtrees_of_several_users(s: Semantics) -> Lines:
    """A frame that nobody takes ends no subtree, whoever is asked first (GRAPH-4 to GRAPH-6).

    A single user is asked on a way of its own. The kernel has one list of functions, and one depth, for all users.
    """
    if s.graph_users == 1:
        return
    silent, taken = "body foo1[ body =3 ] foo2[ body =4 ]", "foo1[ graph>g1 graph>g2 body <graph:g1 <graph:g2 =3 ]"
    for option, trace in (
        ("notrace=outer", f"{silent} =7"),
        ("function=foo1", f"body {taken} foo2[ body =4 ] =7"),
        ("depth=1", f"graph>g1 graph>g2 {silent} <graph:g1 <graph:g2 =7"),
    ):
        for user in ("g1", "g2"):
            yield f"register_ftrace_graph {user} filter=outer {option} -> 0"
            yield f"set_ftrace_filter {user} foo? -> 0"
        yield f"call outer 3 -> {trace}"
        yield "call foo1 3"
        yield f"call outer 3 -> {trace}"
        yield "unregister_ftrace_graph g1 -> 0"
        yield "call outer 3"
        yield "unregister_ftrace_graph g2 -> 0"


GRAPH_USERS: Final[tuple[Callable[[Semantics], Lines], ...]] = (
    _graph_slots_go_round,
    _graph_subtrees_of_several_users,
    _graph_users_up_to_the_limit,
)
