"""Filters (FILTER-*), and declaring and freeing the ops that have them.

A hash is a boolean array over functions; its last element is the entry for address 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.functions import Functions, Indices, Mask
from impl.batched.state import Ops, State
from spec import operations as op
from spec.globs import record_index, without_bang
from spec.outcomes import Ok

__all__ = [
    "declare",
    "difference",
    "empty_hash",
    "free_filter",
    "select",
    "set_filter",
    "set_filter_ips",
    "set_notrace",
]


def empty_hash(functions: Functions) -> Mask:
    """A hash that holds nothing."""
    return np.zeros(functions.count + 1, np.bool_)


def declare(state: State, operation: op.FtraceOps) -> None:
    """A struct ftrace_ops of the caller's (OPS-1)."""
    state.ops[operation.ops] = Ops(
        operation.ops,
        state.next_code,
        empty_hash(state.functions),
        empty_hash(state.functions),
        save_regs=operation.save_regs,
        ipmodify=operation.ipmodify,
        dynamic=operation.dynamic,
        permanent=operation.permanent,
    )
    state.next_code += 1


def free_filter(state: State, operation: op.FtraceFreeFilter) -> Ok:
    """ftrace_free_filter(): the ops is gone, and its name free; a warning says that it is enabled (NAME-5)."""
    if state.ops[operation.ops].enabled:
        return Ok(warn=True)
    del state.ops[operation.ops]
    return Ok()


def select(state: State, pattern: str, within: str | None = None) -> Indices:
    """The records of loaded functions that a pattern without ! selects, by number or by symbol (GLOB-4).

    within: MODULE of GLOB:mod:MODULE; a number does not look at it (GLOB-7).
    """
    number = record_index(pattern, lenient=state.facts.lenient_index)
    if number is not None:
        return state.functions.record(number, state.modules)
    if within is None:
        return state.functions.matching(pattern, state.sites.loaded)
    return state.functions.matching(pattern or "*", state.sites.loaded & state.functions.within(within))


def set_filter_ips(state: State, operation: op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> None:
    """ftrace_set_filter_ip() and ftrace_set_filter_ips()."""
    functions = (operation.function,) if isinstance(operation, op.FtraceSetFilterIp) else operation.functions
    ops = _begin_setting(state, operation.ops)
    new = empty_hash(state.functions) if operation.reset else ops.filter_hash.copy()
    where = state.site_indices(functions)
    if operation.remove:
        _refuse_removal(new, where)
    elif (where < 0).any():
        raise Refused("EINVAL")
    new[where] = not operation.remove
    _move(state, ops, new, ops.notrace_hash)


def set_filter(state: State, operation: op.FtraceSetFilter) -> None:
    """ftrace_set_filter()."""
    _refuse_command(state, operation.glob)
    ops = _begin_setting(state, operation.ops)
    new = _edit_by_glob(state, ops.filter_hash, operation.glob, reset=operation.reset)
    _move(state, ops, new, ops.notrace_hash)


def set_notrace(state: State, operation: op.FtraceSetNotrace) -> None:
    """ftrace_set_notrace()."""
    _refuse_command(state, operation.glob)
    ops = _begin_setting(state, operation.ops)
    new = _edit_by_glob(state, ops.notrace_hash, operation.glob, reset=operation.reset)
    if ops.ipmodify:
        raise Refused("EINVAL")
    _move(state, ops, ops.filter_hash, new)


def _refuse_command(state: State, glob: str) -> None:
    """A colon is for the ops of tracers (FILTER-14)."""
    if ":" in glob and state.facts.set_filter_splits:
        raise Refused("EINVAL")


def _begin_setting(state: State, name: str) -> Ops:
    state.refuse_if_dead()
    state.faults.stop_at("alloc")
    return state.ops[name]


def _refuse_removal(present: Mask, where: Indices) -> None:
    """The first function that has no site, or that the hash does not hold (any more), decides the errno (FILTER-5)."""
    again = np.ones(len(where), np.bool_)
    again[np.unique(where, return_index=True)[1]] = False
    wrong = np.flatnonzero((where < 0) | ~present[where] | again)
    if len(wrong):
        raise Refused("EINVAL" if where[wrong[0]] < 0 else "ENOENT")


def _edit_by_glob(state: State, present: Mask, glob: str, *, reset: bool) -> Mask:
    pattern, remove = without_bang(glob)
    found = select(state, pattern)
    if not len(found):
        raise Refused("EINVAL")
    new = empty_hash(state.functions) if reset else present.copy()
    new[found] = not remove
    return new


def _move(state: State, ops: Ops, filter_hash: Mask, notrace_hash: Mask) -> None:
    """ftrace_hash_move_and_update_ops(): the new hashes take effect (FILTER-8, FILTER-9, IPMODIFY-3)."""
    if ops.enabled and ops.ipmodify and not (ops.filter_hash.any() and filter_hash.any()):
        raise Refused("EINVAL")
    bill, sites, regs = Bill(), state.sites, ops.regs
    narrowed = state.facts.notrace_leaves_regs or notrace_hash is ops.notrace_hash
    joined, left, silent = _find_moved(state, ops, filter_hash, notrace_hash)
    if ops.ipmodify:
        _refuse_newly_covered(state, joined)
    if narrowed or not regs:
        silent = silent[:0]
    changed = sites.joining(joined, regs=regs) + sites.leaving(left, regs=regs, narrowed=narrowed)
    bill.patch(changed + sites.settling(silent))
    state.faults.stop_at("filter")
    state.settle(bill)
    ops.filter_hash, ops.notrace_hash = filter_hash, notrace_hash
    sites.join(joined, ops.code, regs=regs)
    sites.leave(left, ops.code, regs=regs, narrowed=narrowed)
    sites.settle(silent)
    if ops.ipmodify:
        sites.ipmodify[joined] = True
        sites.ipmodify[left] = False


class _Moved(NamedTuple):
    """Sites that an enabled ops joins, that it leaves, and that its notrace hash keeps from it before and after."""

    joined: Indices
    left: Indices
    silent: Indices


def _find_moved(state: State, ops: Ops, filter_hash: Mask, notrace_hash: Mask) -> _Moved:
    if not ops.enabled:
        nothing = np.empty(0, np.intp)
        return _Moved(nothing, nothing, nothing)
    before = state.sites.covered(ops.filter_hash, ops.notrace_hash)
    after = state.sites.covered(filter_hash, notrace_hash)
    silent = state.sites.covered(filter_hash, ~notrace_hash)
    left = difference(state, before, after)
    return _Moved(difference(state, after, before), left, difference(state, silent, left))


def _refuse_newly_covered(state: State, joined: Indices) -> None:
    """An IPMODIFY user widens its filter over sites with a direct ops, or with another such user."""
    if not state.facts.share_ipmodify and state.sites.direct[joined].any():
        raise Refused("EBUSY")
    if state.sites.ipmodify[joined].any():
        raise Refused("EBUSY")


def difference(state: State, some: Indices, others: Indices) -> Indices:
    """The sites among `some` that are not among `others`."""
    mask = empty_hash(state.functions)
    mask[some] = True
    mask[others] = False
    return np.flatnonzero(mask)
