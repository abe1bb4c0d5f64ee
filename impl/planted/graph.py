"""Bugs of the function graph tracer."""

from __future__ import annotations

from dataclasses import replace
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
from impl.batched.state import State
from impl.planted.miscompiling import miscompiled
from impl.planted.planting import Original, planted
from spec import operations as op


@planted(
    "graph._unite",
    rule="GRAPH-2",
    origin="#10 38b14061947f",
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
    origin="#35 d2a68c4effd8",
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
    origin="#34 ff205766dbbe",
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
    origin="#39",
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
