"""Registering and unregistering ops, and livepatches, whose ops the kernel makes itself (OPS-*, IPMODIFY-7, -8)."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from impl.batched import ipmodify
from impl.batched.cost import Bill
from impl.batched.direct import shutdown
from impl.batched.faults import Refused
from impl.batched.sites import KLP
from impl.batched.state import State
from spec import operations as op

__all__ = ["livepatch", "register", "unlivepatch", "unpatch", "unregister"]


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
    if ops.permanent:
        state.refuse_permanent()
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


def livepatch(state: State, operation: op.Livepatch) -> None:
    """klp_patch_func() (IPMODIFY-7)."""
    index = state.site(operation.function)
    if index < 0 or state.livepatched[index]:
        raise Refused("EINVAL" if index < 0 else "EBUSY")
    state.faults.stop_at("alloc")
    state.refuse_if_dead()
    state.faults.stop_at("filter")
    bill = Bill()
    where = np.array([index])
    peers = ipmodify.prepare(state, where, bill)
    state.refuse_permanent()
    if state.sites.ipmodify[index]:
        raise Refused("EBUSY")
    state.faults.stop_at("register")
    bill.patch(state.sites.joining(where, regs=False))
    state.settle(bill)
    state.livepatched[index] = state.sites.ipmodify[index] = True
    state.sites.join(where, KLP)
    ipmodify.commit(state, peers, share=True)


def unlivepatch(state: State, operation: op.Unlivepatch) -> None:
    """klp_unpatch_func() (IPMODIFY-8)."""
    index = state.functions.index(operation.function)
    if index < 0 or not state.livepatched[index]:
        raise Refused("EINVAL")
    state.refuse_if_dead()
    unpatch(state, index, state.settle)


def unpatch(state: State, index: int, pay: Callable[[Bill], None]) -> None:
    """Take a livepatch away; `pay` gets the bill before anything changes."""
    where = np.array([index])
    bill = Bill()
    bill.patch(state.sites.leaving(where, regs=False))
    bill.wait_dynamic(state.facts)
    peers = ipmodify.cleanup(state, where, bill)
    pay(bill)
    state.livepatched[index] = state.sites.ipmodify[index] = False
    state.sites.leave(where, KLP)
    ipmodify.commit(state, peers, share=False)
