"""Bugs of the direct-call API."""

from __future__ import annotations

from impl.batched.direct_functions import Addresses, DirectFunctions
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.state import Ops, State
from impl.planted.planting import Original, planted
from spec import operations as op


@planted(
    op.ModifyFtraceDirect,
    rule="DIRECT-5",
    origin="#18 8a141dd7f706",
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
    origin="#21 fea3ffa48c6d",
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
    origin="#22 7d54c15cb89a",
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
