"""Bugs of the function graph tracer."""

from __future__ import annotations

from dataclasses import replace
from functools import reduce
from typing import Any
from unittest.mock import patch

import numpy as np

from impl.batched.direct_functions import BPF
from impl.batched.filters import empty_hash
from impl.batched.functions import Mask
from impl.batched.machine import addresses as at
from impl.batched.machine.entries import SITE_BYTES, site_offsets
from impl.batched.machine.kernel import EmulatedKernel
from impl.batched.machine.routines import Routines, routines
from impl.batched.machine.tables import Tables
from impl.batched.state import GraphUser, State
from impl.batched.system import Batched
from impl.planted.miscompiling import miscompiled
from impl.planted.planting import Origin, Original, planted
from spec import operations as op
from spec.outcomes import Outcome


@planted(
    "graph._unite",
    rule="GRAPH-2",
    origin=Origin(10, "38b14061947f", "ftrace: Fix accounting of adding subops to a manager ops"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    register_ftrace_graph g2 filter=foo2
    """,
)
def subops_accounting(original: Original, some: Mask, more: Mask) -> Any:
    """A second user empties the hash of graph_ops, which then covers everything."""
    return original(some, more) & False


@planted(
    "machine.kernel.EmulatedKernel.call",
    rule="GRAPH-2",
    origin=Origin(35, "d2a68c4effd8", "x86/ftrace: Do not call function graph from dynamic trampolines"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    ftrace_ops o1
    register_ftrace_function o1
    call foo2 1 2
    """,
)
def graph_from_dyn_tramp(original: Original, kernel: EmulatedKernel, index: int, arguments: tuple[int, ...]) -> Any:
    """Every function that some ops covers is graph traced, in spite of the users' filters."""
    state = kernel.state
    graph, nothing = state.graph, empty_hash(state.functions)
    bare = [replace(user, filter_hash=nothing, notrace_hash=nothing) for user in graph.users]
    if not state.sites.count[index] or not any(user.filter_hash.any() for user in graph.users):
        return original(kernel, index, arguments)
    place = at.TEXT + int(site_offsets(np.array([index]))[0])
    site = kernel.text.site(index)
    caller = routines().address["ftrace_regs_caller"]
    kernel.text.entries.write(place, b"\xe8" + (caller - place - SITE_BYTES).to_bytes(4, "little"))
    try:
        with (
            patch.multiple(graph, users=bare, filter_hash=nothing, notrace_hash=nothing),
            patch.object(state, "version", -2),
        ):
            return original(kernel, index, arguments)
    finally:
        kernel.text.entries.write(place, site)


@planted(
    "machine.tables.Tables._cover_graph",
    rule="GRAPH-4",
    origin=Origin(34, "ff205766dbbe", "ftrace: Fix function_graph tracer interaction with BPF trampoline"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def graph_vs_tramp(original: Original, tables: Tables) -> Any:
    """A function whose trampoline calls the original is silently not graph traced."""
    covered = original(tables)
    where = np.arange(len(covered))
    trampolines = tables.state.trampolines
    bpf = tables.state.direct.entry[:-1] == BPF
    return covered & ~(bpf & trampolines.calls_original(trampolines.images(where)))


@planted(
    "machine.loading.routines",
    rule="GRAPH-4",
    origin=Origin(39, "c8c9b1d2d5b4", "fgraph: Fix set_graph_notrace with setting TRACE_GRAPH_NOTRACE_BIT"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 notrace=foo1
    call outer 1
    """,
)
def notrace_bit(original: Original) -> Routines:
    """Once set_graph_notrace has silenced a task, it stays silent: the flag is not cleared."""
    return miscompiled(original(), "mov qword ptr [rdx + 8], 0", "nop; nop; nop; nop; nop; nop; nop; nop")


@planted(
    "machine.loading.routines",
    rule="GRAPH-4",
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 depth=1
    call outer 1
    """,
)
def graph_depth_off_by_one(original: Original) -> Routines:
    """max_graph_depth lets one frame more through: the branch behind the comparison is ja, not jae."""
    return miscompiled(original(), "cmp r13, rax; a: jae a", "cmp r13, rax; a: ja a", but_last=1)


@planted(
    op.UnregisterFtraceGraph,
    rule="GRAPH-3",
    origin=Origin(0, "b4df7ca88af9", "function_graph: Use a simple LRU for fgraph_array index number"),
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


@planted(
    "graph._join",
    rule="GRAPH-12",
    origin=Origin(9, "04a80a34c22f", "ftrace: Properly merge notrace hashes"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    register_ftrace_graph g2 filter=foo1
    """,
)
def notrace_merge(original: Original, state: State, user: GraphUser) -> Any:
    """What graph_ops does not trace is what the filters of its users have in common, not their notrace hashes.

    Two users of one function silence it for both.
    """
    joined = original(state, user)
    graph = state.graph
    return replace(joined, notrace_hash=graph.filter_hash & user.filter_hash) if graph.users else joined


@planted(
    "system.Batched._carry_out",
    rule="GRAPH-12",
    origin=Origin(0, "0ae6b8ce200d", "ftrace: Fix accounting of subop hashes"),
    semantics="linux-7.3",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    set_ftrace_notrace g1 foo1
    """,
)
def subop_hashes(original: Original, system: Batched, operation: op.Operation) -> Outcome:
    """graph_ops unites the filters of its users and intersects their notrace hashes, each by itself.

    Which functions a user wants depends on both of its hashes: more functions are patched than are traced.
    """
    with patch.object(system.state, "facts", replace(system.state.facts, graph_rebuilds=False)):
        outcome: Outcome = original(system, operation)
    return outcome


@planted(
    "machine.tables.Tables._cover_graph",
    rule="GRAPH-2",
    origin=Origin(36, "23a8e8441a0a", "ftrace: Have function graph only trace based on global_ops filters"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo2
    ftrace_ops o1
    ftrace_ops o2
    register_ftrace_function o1
    register_ftrace_function o2
    call foo1 1
    """,
)
def graph_ignores_global_filter(original: Original, tables: Tables) -> Any:
    """Where ftrace_ops_list_func() runs for other ops, the graph tracer's function runs too, whatever its filter."""
    return original(tables) | bool(tables.state.graph.users)


@planted(
    "machine.tables.Tables._list_users",
    rule="GRAPH-4",
    origin=Origin(0, "9cd2992f2d6c", "fgraph: Have set_graph_notrace only affect function_graph tracer"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 notrace=foo1
    register_ftrace_graph g2
    call foo1 1
    """,
)
def notrace_silences_every_user(original: Original, tables: Tables) -> None:
    """set_graph_notrace of one user of the graph tracer silences the others in these functions too."""
    graph = tables.state.graph
    silent = reduce(np.logical_or, (user.notrace for user in graph.users), empty_hash(tables.state.functions))
    with patch.object(graph, "users", [replace(user, notrace=silent) for user in graph.users]):
        original(tables)


@planted(
    op.RegisterFtraceGraph,
    rule="GRAPH-2",
    origin=Origin(0, "789a8cff8d2d", "ftrace: Fix function profiler's filtering functionality"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    register_ftrace_graph g2 filter=foo2
    """,
)
def second_user_unfiltered(original: Original, state: State, operation: op.RegisterFtraceGraph) -> None:
    """A second user, as the function profiler was, has an ops of its own that never gets the filter."""
    original(state, replace(operation, filter=None) if state.graph.users else operation)
