"""Bugs of the direct-call API."""

from __future__ import annotations

from typing import Any
from unittest.mock import patch

import numpy as np

from impl.batched import direct_functions
from impl.batched.direct_functions import Addresses, DirectFunctions
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.sites import DIRECT
from impl.batched.state import Ops, State
from impl.planted.planting import LARGE, Origin, Original, planted
from spec import operations as op


@planted(
    op.ModifyFtraceDirect,
    rule="DIRECT-5",
    origin=Origin(18, "8a141dd7f706", "ftrace: Fix modify_ftrace_direct."),
    semantics="linux-6.1",
    minimal="""
    register_ftrace_direct foo1 T1
    modify_ftrace_direct foo1 T1 T2
    unregister_ftrace_direct foo1 T2
    """,
)
def modify_forgets_descriptor(original: Original, state: State, operation: op.ModifyFtraceDirect) -> None:
    """The site calls the new address, but a lookup of that address does not find the entry."""
    original(state, operation)
    direct = state.direct
    direct.entry[state.site(operation.function)] = len(direct.names)
    direct.names.append(operation.new)


@planted(
    op.UnregisterFtraceDirectMulti,
    rule="DIRECT-8",
    origin=Origin(21, "fea3ffa48c6d", "ftrace: Add cleanup to unregister_ftrace_direct_multi"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    register_ftrace_direct_multi o1 T1
    unregister_ftrace_direct_multi o1 T1
    register_ftrace_direct_multi o1 T1
    """,
)
def multi_no_reset(original: Original, state: State, operation: op.UnregisterFtraceDirectMulti) -> None:
    """An ops that was unregistered keeps its func."""
    original(state, operation)
    if operation.ops in state.ops:
        state.ops[operation.ops].func_set = True


@planted(
    "direct._register",
    rule="DIRECT-6",
    origin=Origin(22, "7d54c15cb89a", "ftrace: Clean up hash direct_functions on register failures"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    fail register
    register_ftrace_direct_multi o1 T1
    register_ftrace_direct_multi o1 T1
    """,
)
def failed_register_leaves_entry(
    original: Original, state: State, ops: Ops, where: Indices, entries: Indices, *gone: Addresses
) -> None:
    """A registration that fails leaves its entries in direct_functions."""
    try:
        original(state, ops, where, entries, *gone)
    except Refused:
        state.direct.entry[where] = entries
        raise


@planted(
    "direct_functions.DirectFunctions.growth",
    rule="DIRECT-13",
    semantics="linux-6.1",
    minimal="""
    register_ftrace_direct foo1 T1
    register_ftrace_direct foo2 T1
    """,
)
def growth_always_waits(_original: Original, _direct: DirectFunctions, added: int) -> bool:
    """Every new entry waits for a grace period, not only one that exchanges the table."""
    return added > 0


@planted(
    op.UnregisterFtraceDirect,
    rule="DIRECT-4",
    origin=Origin(0, "7d5b7cad79da", "ftrace: Use direct_ops hash in unregister_ftrace_direct"),
    semantics="linux-6.1",
    minimal="""
    register_ftrace_direct foo1 T1
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo2
    unregister_ftrace_direct foo1 T1
    """,
)
def direct_ops_left_enabled(original: Original, state: State, operation: op.UnregisterFtraceDirect) -> None:
    """direct_ops stays while direct_functions has entries of other ops; its empty filter then covers everything."""
    original(state, operation)
    direct, sites = state.direct, state.sites
    if not direct.single_enabled and direct.entry.any():
        direct.single_enabled = True
        sites.join(np.flatnonzero(sites.loaded & ~sites.direct), DIRECT, regs=True)


@planted(
    op.ModifyFtraceDirect,
    rule="FAIL-3",
    origin=Origin(0, "2a2d8c51defb", "ftrace: Fix issue that 'direct->addr' not restored in modify_ftrace_direct()"),
    semantics="linux-6.1",
    minimal="""
    register_ftrace_direct foo1 T1
    fail alloc
    modify_ftrace_direct foo1 T1 T2
    unregister_ftrace_direct foo1 T1
    """,
)
def direct_addr_not_restored(original: Original, state: State, operation: op.ModifyFtraceDirect) -> None:
    """When a modification fails the entry gets its old address again, but its descriptor keeps the new one.

    A lookup of the address that the site calls then finds nothing.
    """
    direct, index = state.direct, state.site(operation.function)
    try:
        original(state, operation)
    except Refused:
        if index >= 0 and direct.entry[index] == direct.number(operation.old) and not state.dead:
            direct.entry[index] = len(direct.names)
            direct.names.append(operation.old)
        raise


@planted(
    "direct_functions.DirectFunctions._grow",
    rule="DIRECT-13",
    origin=Origin(26, "92f1d3b40179", "ftrace: fix incorrect hash size in register_ftrace_direct()"),
    semantics="linux-6.1",
    world=LARGE,
    minimal="""
    ftrace_ops o1
    ftrace_set_filter o1 many*
    register_ftrace_direct_multi o1 T1
    register_ftrace_direct foo1 T1
    """,
)
def hash_size(original: Original, direct: DirectFunctions, added: int) -> Any:
    """direct_functions has 64 buckets at most: with more entries than fill them each new one exchanges the table."""
    with patch.object(direct_functions, "MOST_BUCKETS", 64):
        return original(direct, added)


@planted(
    "direct._begin_direct",
    rule="DIRECT-7",
    origin=Origin(0, "56b3c85e153b", "ftrace: Fix BPF fexit with livepatch"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    fail register
    register_ftrace_direct_multi o1 T1
    register_ftrace_direct_multi o1 T1
    """,
)
def failed_register_spoils_ops(original: Original, state: State, ops: Ops) -> None:
    """A registration that fails leaves func and trampoline of its ops set, so that no other try can succeed."""
    original(state, ops)
    ops.func_set = True
