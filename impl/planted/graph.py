"""Bugs of the function graph tracer."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np

from impl.batched.direct_functions import BPF
from impl.batched.graph import ShadowStack
from impl.batched.sites import Sites
from impl.batched.state import GraphUser, State
from impl.planted.planting import Original, planted
from spec import operations as op

__all__ = [
    "graph_depth_off_by_one",
    "graph_from_dyn_tramp",
    "graph_slots_reused_at_once",
    "graph_vs_tramp",
    "notrace_bit",
    "subops_accounting",
]


@planted(
    "graph.covered_by",
    rule="GRAPH-2",
    origin="#10 38b14061947f",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    register_ftrace_graph g2 filter=foo2
    """,
)
def subops_accounting(original: Original, users: list[GraphUser], sites: Sites) -> Any:
    """A second user empties the hash of graph_ops, which then covers everything."""
    return original(users, sites) if len(users) < 2 else np.flatnonzero(sites.loaded)


@planted(
    "calls._Task._callbacks",
    rule="GRAPH-2",
    origin="#35 d2a68c4effd8",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    ftrace_ops o1
    register_ftrace_function o1
    call foo2 1 2
    """,
)
def graph_from_dyn_tramp(original: Original, task: Any, frame: Any) -> Any:
    """Whatever has a site for any ops is graph traced, in spite of the users' filters."""
    if task.state.sites.count[frame.index] and any(user.filter_hash is not None for user in task.stack.users):
        task.stack.users = [replace(user, filter_hash=None) for user in task.stack.users]
    return original(task, frame)


@planted(
    "calls._Task._callbacks",
    rule="GRAPH-4",
    origin="#34 ff205766dbbe",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def graph_vs_tramp(original: Original, task: Any, frame: Any) -> Any:
    """A function whose trampoline calls the original is silently not graph traced."""
    state, where = task.state, np.array([frame.index])
    calls_original = state.trampolines.calls_original(state.trampolines.images(where))[0]
    hidden = state.direct.entry[frame.index] == BPF and calls_original
    with patch.object(task.stack, "users", [] if hidden else task.stack.users):
        return original(task, frame)


@planted(
    "graph.ShadowStack._return",
    rule="GRAPH-4",
    origin="#39",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 notrace=foo1
    call outer 1
    """,
)
def notrace_bit(original: Original, stack: ShadowStack, user: GraphUser, depth: int) -> Any:
    """Once set_graph_notrace has silenced a task, it stays silent."""
    recorded = original(stack, user, depth)
    if not recorded and user.notrace is not None:
        silenced = replace(user, filter_hash=np.zeros_like(user.notrace))
        stack.users = [silenced if other is user else other for other in stack.users]
    return recorded


@planted(
    "graph.ShadowStack._entry",
    rule="GRAPH-4",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 depth=1
    call outer 1
    """,
)
def graph_depth_off_by_one(original: Original, stack: ShadowStack, user: GraphUser, index: int, depth: int) -> Any:
    """max_graph_depth lets one frame more through."""
    return original(stack, replace(user, depth=user.depth + 1) if user.depth else user, index, depth)


@planted(
    op.UnregisterFtraceGraph,
    rule="GRAPH-3",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1
    register_ftrace_graph g2
    unregister_ftrace_graph g1
    register_ftrace_graph g3
    call foo1 1
    """,
)
def graph_slots_reused_at_once(original: Original, state: State, operation: op.UnregisterFtraceGraph) -> None:
    """The slot released last is the next one that is taken."""
    original(state, operation)
    state.graph.free.rotate(1)
