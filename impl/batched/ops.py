"""Declaring, registering and unregistering plain ops (OPS-*)."""

from __future__ import annotations

import numpy as np

from impl.batched import ipmodify
from impl.batched.cost import Bill
from impl.batched.direct import shutdown
from impl.batched.faults import Refused
from impl.batched.state import Ops, State
from spec import operations as op
from spec.outcomes import Ok

__all__ = ["declare", "free_filter", "register", "unregister"]


def declare(state: State, operation: op.FtraceOps) -> None:
    """A struct ftrace_ops of the caller's (OPS-1)."""
    size = state.functions.count + 1
    state.ops[operation.ops] = Ops(
        operation.ops,
        state.next_code,
        np.zeros(size, np.bool_),
        np.zeros(size, np.bool_),
        save_regs=operation.save_regs,
        ipmodify=operation.ipmodify,
        dynamic=operation.dynamic,
    )
    state.next_code += 1


def free_filter(state: State, operation: op.FtraceFreeFilter) -> Ok:
    """ftrace_free_filter(): the ops is gone, and its name free; a warning says that it is enabled (NAME-5)."""
    if state.ops[operation.ops].enabled:
        return Ok(warn=True)
    del state.ops[operation.ops]
    return Ok()


def register(state: State, operation: op.RegisterFtraceFunction) -> None:
    """register_ftrace_function()."""
    ops = state.ops[operation.ops]
    bill = Bill()
    covered = state.sites.covered(ops.filter_hash, ops.notrace_hash)
    peers = ipmodify.NOBODY
    if ops.ipmodify:
        peers = ipmodify.prepare(state, np.flatnonzero(ops.filter_hash & state.sites.loaded), bill)
    state.refuse_if_dead()
    if ops.enabled:
        raise Refused("EBUSY", warn=True)
    if ops.ipmodify:
        if not ops.filter_hash.any():
            raise Refused("EINVAL")
        if state.sites.ipmodify[covered].any():
            raise Refused("EBUSY")
    state.faults.stop_at("register")
    bill.patch(state.sites.joining(covered, regs=ops.regs))
    state.settle(bill)
    ops.enabled = ops.func_set = True
    state.ops_list.insert(0, ops)
    state.sites.join(covered, ops.code, regs=ops.regs)
    if ops.ipmodify:
        state.sites.ipmodify[covered] = True
        ipmodify.commit(state, peers, share=True)


def unregister(state: State, operation: op.UnregisterFtraceFunction) -> None:
    """unregister_ftrace_function() (OPS-7, OPS-8)."""
    ops = state.ops[operation.ops]
    state.refuse_if_dead()
    if not ops.enabled:
        raise Refused("EBUSY", warn=True)
    if ops.direct:
        shutdown(state, ops)
        return
    bill = Bill()
    covered = state.sites.covered(ops.filter_hash, ops.notrace_hash)
    bill.patch(state.sites.leaving(covered, regs=ops.regs))
    if ops.dynamic:
        bill.wait_dynamic(state.facts)
    peers = ipmodify.cleanup(state, covered, bill) if ops.ipmodify else ipmodify.NOBODY
    state.settle(bill)
    ops.enabled = False
    state.ops_list.remove(ops)
    state.sites.leave(covered, ops.code, regs=ops.regs)
    if ops.ipmodify:
        state.sites.ipmodify[covered] = False
        ipmodify.commit(state, peers, share=False)
