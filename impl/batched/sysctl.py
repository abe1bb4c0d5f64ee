"""The sysctl kernel.ftrace_enabled (SYSCTL-*)."""

from __future__ import annotations

import numpy as np

from impl.batched.cost import Bill
from impl.batched.direct_functions import BPF
from impl.batched.faults import Refused
from impl.batched.state import State
from spec import operations as op
from spec.outcomes import Ok

__all__ = ["has_ops", "may_find_records", "write"]


def write(state: State, operation: op.FtraceEnabled) -> Ok:
    """ftrace_enable_sysctl()."""
    state.refuse_if_dead()
    if not (operation.on or state.facts.sysctl_stops):
        raise Refused("EOPNOTSUPP")
    sites = state.sites
    if operation.on != sites.off:
        return Ok()
    if not operation.on and _has_permanent_ops(state):
        raise Refused("EBUSY")
    bill = Bill()
    bill.patch(int(np.count_nonzero(sites.count)))
    before, sites.off = sites.off, False
    try:
        state.settle(bill)
    except Refused:
        sites.off = before
        return Ok(warn=True)
    sites.off = not operation.on
    return Ok()


def _has_permanent_ops(state: State) -> bool:
    declared = any(ops.enabled and ops.permanent for ops in state.ops.values())
    return declared or state.direct.single_enabled or bool(state.livepatched.any())


def may_find_records(state: State) -> bool:
    """Whether ftrace dies when its last ops leaves, because a site without ops has R (SYSCTL-5)."""
    return state.sites.strands_regs() and not (state.sites.off or state.dead) and has_ops(state)


def has_ops(state: State) -> bool:
    """Whether ftrace_ops_list has an ops."""
    enabled = any(ops.enabled for ops in state.ops.values()) or bool(state.graph.users or state.kprobes)
    return enabled or state.direct.single_enabled or bool(state.livepatched.any() or (state.direct.entry == BPF).any())
