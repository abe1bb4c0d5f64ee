"""Bugs of sites, filters and modules."""

from __future__ import annotations

from typing import Any

import numpy as np

from impl.batched.direct_functions import Addresses
from impl.batched.functions import Indices, Mask
from impl.batched.sites import CALLER, REGS_CALLER, Sites
from impl.batched.state import Ops, State
from impl.planted.planting import Original, planted
from spec import operations as op


@planted(
    "sites.Sites.leave",
    rule="SITE-3",
    origin="#1 a124692b698b",
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
    origin="#4",
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
    origin="7162431dcf72",
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
    origin="#6 2a5bfe47624b",
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
