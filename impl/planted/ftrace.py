"""Bugs of sites, filters and modules."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import numpy as np

from impl.batched.cost import Bill
from impl.batched.direct_functions import Addresses
from impl.batched.faults import Refused
from impl.batched.functions import Indices, Mask
from impl.batched.machine.addresses import FUNCTION_BYTES
from impl.batched.machine.entries import site_offset
from impl.batched.sites import CALLER, REGS_CALLER, Sites
from impl.batched.state import Ops, State
from impl.batched.system import Batched
from impl.planted.planting import Origin, Original, planted
from spec import operations as op
from spec.outcomes import Outcome


@planted(
    "sites.Sites.leave",
    rule="SITE-3",
    origin=Origin(1, "a124692b698b", "ftrace: Enable trampoline when rec count returns back to one"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_ops o2
    register_ftrace_function o1
    register_ftrace_function o2
    unregister_ftrace_function o2
    """,
)
def tramp_not_restored(original: Original, sites: Sites, where: Indices, code: int, **options: Any) -> None:
    """When the count returns to one, the site stays with the common caller."""
    original(sites, where, code, **options)
    lone = where[(sites.count[where] == 1) & ~sites.direct[where]]
    sites.codes[lone] = np.where(sites.shows_regs(lone), REGS_CALLER, CALLER)


@planted(
    op.InitModule,
    rule="MODULE-1",
    origin=Origin(4, "8a224ffb3f52", "ftrace: Setup correct FTRACE_FL_REGS flags for module"),
    semantics="linux-6.12",
    minimal="""
    delete_module mod1
    ftrace_ops o1 save_regs
    register_ftrace_function o1
    init_module mod1
    """,
)
def module_regs_flag(original: Original, state: State, operation: op.InitModule) -> None:
    """Sites of a new module are counted for an ops that saves regs, but not flagged REGS."""
    before = state.sites.loaded.copy()
    original(state, operation)
    state.sites.regs[state.sites.loaded & ~before] = 0


@planted(
    "sysctl._has_permanent_ops",
    rule="SYSCTL-1",
    origin=Origin(0, "7162431dcf72", "ftrace: Introduce PERMANENT ftrace_ops flag"),
    semantics="linux-6.12",
    minimal="""
    livepatch foo1
    ftrace_enabled 0
    """,
)
def permanent_ops_turned_off(_original: Original, _state: State) -> bool:
    """kernel.ftrace_enabled takes 0 whatever is registered, and livepatches are silently undone."""
    return False


@planted(
    op.RegisterFtraceFunction,
    rule="SYSCTL-2",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_enabled 0
    register_ftrace_function o1
    """,
)
def registered_while_off(original: Original, state: State, operation: op.RegisterFtraceFunction) -> None:
    """Registering an ops does not ask for kernel.ftrace_enabled, and patches sites: ftrace is on again."""
    original(state, operation)
    state.sites.off = False
    state.version += 1


@planted(
    "sites.Sites.leave",
    rule="SITE-6",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1 save_regs
    register_ftrace_function o1
    register_ftrace_graph g1
    ftrace_set_filter_ip o1 foo1
    """,
)
def regs_forgotten(original: Original, sites: Sites, where: Indices, code: int, **options: Any) -> None:
    """R goes with the ops that needs it, however it leaves."""
    original(sites, where, code, **{**options, "narrowed": False})


@planted(
    "state.Ops.keep_addresses",
    rule="MODULE-5",
    origin=Origin(6, "2a5bfe47624b", "ftrace: Zero out ftrace hashes when a module is removed"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 bar1
    delete_module mod1
    init_module mod1
    register_ftrace_function o1
    """,
)
def stale_module_hash(_original: Original, _ops: Ops, _where: Indices, _addresses: Addresses) -> None:
    """Sites of a module that has gone stay in filters, and match what is loaded there next."""


@planted(
    "state.Ops.keep_addresses",
    rule="MODULE-5",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 bar1
    delete_module mod1
    register_ftrace_function o1
    """,
)
def tombstone_forgotten(_original: Original, ops: Ops, where: Indices, _addresses: Addresses) -> None:
    """A filter whose only module has gone is empty, and so covers everything."""
    ops.filter_hash[where] = ops.notrace_hash[where] = False


@planted(
    "filters._move",
    rule="FILTER-10",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    ftrace_set_filter_ip o1 foo1 remove
    register_ftrace_function o1
    """,
)
def emptied_filter_means_nothing(
    original: Original, state: State, ops: Ops, filter_hash: Mask, notrace_hash: Mask
) -> None:
    """A filter that has lost its last entry covers nothing."""
    if ops.filter_hash.any() and not filter_hash.any():
        filter_hash[-1] = True
    original(state, ops, filter_hash, notrace_hash)


@planted(
    "system.Batched._carry_out",
    rule="FILTER-9",
    origin=Origin(8, "82cc4fc2e70e", "ftrace: Fix removing of second function probe"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ips o1 foo1 foo2
    register_ftrace_function o1
    ftrace_set_filter_ip o1 foo1 remove
    call foo1 1
    """,
)
def second_probe_removal(original: Original, system: Batched, operation: op.Operation) -> Outcome:
    """A function that leaves a filter which holds others is not patched: its record says nop, its text calls."""
    removing = isinstance(operation, op.FtraceSetFilterIp | op.FtraceSetFilterIps) and operation.remove
    with patch.object(system.text, "_poke", lambda: None) if removing else nullcontext():
        outcome: Outcome = original(system, operation)
    return outcome


@planted(
    op.InitModule,
    rule="MODULE-1",
    origin=Origin(0, "8a56d7761d2d", "ftrace: Fix function graph with loading of modules"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1
    delete_module mod1
    init_module mod1
    """,
)
def new_module_not_graphed(original: Original, state: State, operation: op.InitModule) -> None:
    """A module that is loaded is counted for the ops on the list, but not for that of the graph tracer."""
    with patch.object(state, "ops_list", [entry for entry in state.ops_list if isinstance(entry, Ops)]):
        original(state, operation)


@planted(
    op.InitModule,
    rule="MODULE-1",
    origin=Origin(0, "8c4f3c3fa968", "ftrace: Check module functions being traced on reload"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    register_ftrace_function o1
    delete_module mod1
    init_module mod1
    """,
)
def reloaded_module_uncounted(original: Original, state: State, operation: op.InitModule) -> None:
    """A module that comes back is not counted for the ops that trace all functions, nor traced."""
    with patch.object(state, "ops_list", [entry for entry in state.ops_list if not isinstance(entry, Ops)]):
        original(state, operation)


@planted(
    op.RegisterFtraceFunction,
    rule="DEAD-1",
    origin=Origin(
        0, "c3b0f72e805f", "ftrace: Fix NULL pointer dereference in is_ftrace_trampoline when ftrace is dead"
    ),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_ops o2
    ftrace_ops o3 save_regs
    register_ftrace_function o1
    register_ftrace_function o2
    fail patch
    register_ftrace_function o3
    call foo1 1
    """,
)
def ops_of_a_dead_ftrace(original: Original, state: State, operation: op.RegisterFtraceFunction) -> None:
    """An ops whose registration ends ftrace stays in ftrace_ops_list, although its owner was told that it failed."""
    lived = not state.dead
    try:
        original(state, operation)
    except Refused:
        if lived and state.dead:
            state.ops_list.insert(0, state.ops[operation.ops])
            state.version += 1
        raise


@planted(
    op.FtraceEnabled,
    rule="SYSCTL-2",
    origin=Origin(0, "1619dc3f8f55", "ftrace: Fix en(dis)able graph caller when en(dis)abling record via sysctl"),
    semantics="linux-6.12",
    minimal="""
    register_ftrace_graph g1
    ftrace_enabled 0
    ftrace_enabled 1
    call foo1 1
    """,
)
def graph_caller_stays_off(original: Original, state: State, operation: op.FtraceEnabled) -> Outcome:
    """When kernel.ftrace_enabled is 1 again the sites call ftrace, which does not go on to the graph tracer."""
    off = state.sites.off
    outcome: Outcome = original(state, operation)
    if off and not state.sites.off:
        for user in state.graph.users:
            user.function = np.zeros_like(user.function)
            user.function[-1] = True
        state.version += 1
    return outcome


@planted(
    op.FtraceSetFilterIp,
    rule="FILTER-5",
    origin=Origin(0, "aebfd12521d9", "x86/ibt,ftrace: Search for __fentry__ location"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo0
    """,
)
def endbr_before_the_site(original: Original, state: State, operation: op.FtraceSetFilterIp) -> None:
    """The address of a function that begins with endbr64 is not that of its site, and no record is found for it."""
    index = state.site(operation.function)
    if index >= 0 and site_offset(index) % FUNCTION_BYTES:
        state.refuse_if_dead()
        state.faults.stop_at("alloc")
        raise Refused("EINVAL")
    original(state, operation)


@planted(
    "cost.Bill.wait_dynamic",
    rule="OPS-8",
    origin=Origin(0, "0e792b89e680", "ftrace: Fix use-after-free for dynamic ftrace_ops"),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1 dynamic
    ftrace_set_notrace o1 *
    register_ftrace_function o1
    unregister_ftrace_function o1
    """,
)
def unpatched_ops_not_waited_for(original: Original, bill: Bill, *arguments: Any, **options: Any) -> None:
    """A dynamic ops is freed at once where no site changes as it leaves, though others may be calling it."""
    if bill.sites:
        original(bill, *arguments, **options)
