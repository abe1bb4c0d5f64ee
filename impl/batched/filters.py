"""Filters: a hash is a boolean array over functions, its last element the entry for address 0 (FILTER-*)."""

from __future__ import annotations

import numpy as np

from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.functions import Functions, Indices, Mask
from impl.batched.ops import find_ops
from impl.batched.state import Ops, State
from spec import operations as op
from spec.globs import without_bang

__all__ = ["empty_hash", "set_filter", "set_filter_ip", "set_filter_ips", "set_notrace"]


def empty_hash(functions: Functions) -> Mask:
    """A hash that holds nothing."""
    return np.zeros(functions.count + 1, np.bool_)


def set_filter_ip(state: State, operation: op.FtraceSetFilterIp) -> None:
    """ftrace_set_filter_ip()."""
    _set_ips(state, operation.ops, (operation.function,), remove=operation.remove, reset=operation.reset)


def set_filter_ips(state: State, operation: op.FtraceSetFilterIps) -> None:
    """ftrace_set_filter_ips()."""
    _set_ips(state, operation.ops, operation.functions, remove=operation.remove, reset=operation.reset)


def set_filter(state: State, operation: op.FtraceSetFilter) -> None:
    """ftrace_set_filter()."""
    ops = _editable(state, operation.ops)
    new = _edited_by_glob(state, ops.filter_hash, operation.glob, reset=operation.reset)
    _move(state, ops, new, ops.notrace_hash)


def set_notrace(state: State, operation: op.FtraceSetNotrace) -> None:
    """ftrace_set_notrace()."""
    ops = _editable(state, operation.ops)
    new = _edited_by_glob(state, ops.notrace_hash, operation.glob, reset=operation.reset)
    if ops.ipmodify:
        raise Refused("EINVAL")
    _move(state, ops, ops.filter_hash, new)


def _editable(state: State, name: str) -> Ops:
    ops = find_ops(state, name)
    if ops.enabled and ops.direct:
        raise Refused("EOPNOTSUPP")
    state.refuse_if_dead()
    state.faults.stop_at("alloc")
    return ops


def _set_ips(state: State, name: str, functions: tuple[str, ...], *, remove: bool, reset: bool) -> None:
    ops = _editable(state, name)
    new = empty_hash(state.functions) if reset else ops.filter_hash.copy()
    where = state.site_indices(functions)
    if remove:
        _refuse_removal(new, where)
    elif (where < 0).any():
        raise Refused("EINVAL")
    new[where] = not remove
    _move(state, ops, new, ops.notrace_hash)


def _refuse_removal(present: Mask, where: Indices) -> None:
    """The first function without a site, or that the hash does not hold (any more), decides (FILTER-5)."""
    again = np.ones(len(where), np.bool_)
    again[np.unique(where, return_index=True)[1]] = False
    wrong = np.flatnonzero((where < 0) | ~present[where] | again)
    if len(wrong):
        raise Refused("EINVAL" if where[wrong[0]] < 0 else "ENOENT")


def _edited_by_glob(state: State, present: Mask, glob: str, *, reset: bool) -> Mask:
    pattern, remove = without_bang(glob)
    found = state.functions.matching(pattern, state.sites.loaded)
    if not len(found):
        raise Refused("EINVAL")
    new = empty_hash(state.functions) if reset else present.copy()
    new[found] = not remove
    return new


def _move(state: State, ops: Ops, filter_hash: Mask, notrace_hash: Mask) -> None:
    """ftrace_hash_move_and_update_ops(): the new hashes take effect (FILTER-8, FILTER-9, IPMODIFY-3)."""
    if ops.enabled and ops.ipmodify and not (ops.filter_hash.any() and filter_hash.any()):
        raise Refused("EINVAL")
    bill = Bill()
    joined = left = np.empty(0, np.intp)
    if ops.enabled:
        before = state.sites.covered(ops.filter_hash, ops.notrace_hash)
        after = state.sites.covered(filter_hash, notrace_hash)
        joined, left = difference(state, after, before), difference(state, before, after)
        if ops.ipmodify:
            _refuse_newly_covered(state, joined)
        regs = ops.regs
        bill.patch(state.sites.joining(joined, regs=regs) + state.sites.leaving(left, regs=regs))
    state.faults.stop_at("filter")
    state.settle(bill)
    ops.filter_hash, ops.notrace_hash = filter_hash, notrace_hash
    state.sites.join(joined, ops.code, regs=ops.regs)
    state.sites.leave(left, ops.code, regs=ops.regs)
    if ops.ipmodify:
        state.sites.ipmodify[joined] = True
        state.sites.ipmodify[left] = False


def _refuse_newly_covered(state: State, joined: Indices) -> None:
    """An IPMODIFY user widens its filter over a site that another has, or a direct ops it cannot share with."""
    if state.sites.ipmodify[joined].any() or (not state.facts.share_ipmodify and state.sites.direct[joined].any()):
        raise Refused("EBUSY")


def difference(state: State, some: Indices, others: Indices) -> Indices:
    """Those of some sites that are not among the others."""
    mask = empty_hash(state.functions)
    mask[some] = True
    mask[others] = False
    return np.flatnonzero(mask)
