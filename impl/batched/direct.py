"""The direct-call API: one site at a time, an ops with its filter, and pairs of sites and trampolines (DIRECT-*)."""

from __future__ import annotations

import numpy as np

from impl.batched.cost import Bill
from impl.batched.direct_functions import NO_ENTRY, NOWHERE, Addresses
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.sites import DIRECT
from impl.batched.state import Ops, State
from spec import operations as op

__all__ = [
    "bill_growth",
    "modify_direct",
    "modify_direct_multi",
    "register_direct",
    "register_direct_multi",
    "shutdown",
    "unregister_direct",
    "unregister_direct_multi",
    "update_direct_add",
    "update_direct_del",
    "update_direct_mod",
]


def bill_growth(state: State, added: int, bill: Bill) -> None:
    """Adding entries may exchange the table; where growth waits, a grace period follows (DIRECT-13)."""
    if state.facts.growth_waits and state.direct.growth(added):
        bill.wait("rcu_tasks")


def register_direct(state: State, operation: op.RegisterFtraceDirect) -> None:
    """register_ftrace_direct(ip, addr) (DIRECT-2)."""
    index = state.site(operation.function)
    if index < 0:
        raise Refused("ENODEV")
    direct, where = state.direct, np.array([index])
    if direct.entry[index] != NO_ENTRY:
        raise Refused("EBUSY")
    state.faults.stop_at("alloc")
    state.refuse_if_dead()
    state.faults.stop_at("filter")
    if not direct.single_enabled:
        state.refuse_permanent()
    if state.sites.ipmodify[index]:
        raise Refused("EBUSY")
    if not direct.single_enabled:
        state.faults.stop_at("register")
    bill = Bill()
    bill.patch(state.sites.joining(where, regs=True))
    bill_growth(state, 1, bill)
    state.settle(bill)
    direct.single_enabled = True
    direct.single[index] = True
    direct.add(where, direct.number(operation.tramp))
    state.sites.join(where, DIRECT, regs=True)


def unregister_direct(state: State, operation: op.UnregisterFtraceDirect) -> None:
    """unregister_ftrace_direct(ip, addr) (DIRECT-3, DIRECT-4)."""
    index = _find_entered(state, operation.function)
    direct, where = state.direct, np.array([index])
    tramp = direct.number(operation.tramp)
    state.refuse_if_dead()
    bill = Bill()
    others = bool(np.count_nonzero(direct.single) > 1)
    bill.patch(state.sites.leaving(where, regs=True, narrowed=others))
    uses = np.concatenate([direct.entry[direct.single], direct.gone_entry[direct.gone_single]])
    if np.count_nonzero(uses == tramp) == 1:
        bill.wait("rcu_tasks")
    state.settle(bill)
    direct.remove(where)
    direct.single[index] = False
    direct.single_enabled = others
    state.sites.leave(where, DIRECT, regs=True, narrowed=others)


def modify_direct(state: State, operation: op.ModifyFtraceDirect) -> None:
    """modify_ftrace_direct(ip, old, new) (DIRECT-5)."""
    index = _find_entered(state, operation.function)
    direct, where = state.direct, np.array([index])
    if direct.entry[index] != direct.number(operation.old):
        raise Refused("EINVAL")
    state.faults.stop_at("alloc")
    patched = state.sites.alone(where)
    if len(patched):
        state.refuse_if_dead()
    bill = Bill()
    bill.change_entries(len(patched))
    state.settle(bill)
    direct.rewrite(where, direct.number(operation.new), patched)


def _find_entered(state: State, function: str) -> int:
    index = state.site(function)
    if index < 0 or state.direct.entry[index] == NO_ENTRY:
        raise Refused("ENODEV")
    return index


def register_direct_multi(state: State, operation: op.RegisterFtraceDirectMulti) -> None:
    """register_ftrace_direct(ops, addr) (DIRECT-6): its filter's sites, and addresses that have stayed in it."""
    ops = state.ops[operation.ops]
    if ops.func_set or not ops.filter_hash.any():
        raise Refused("EINVAL")
    where, gone, tramp = ops.sites(), ops.addresses(), state.direct.number(operation.tramp)
    if len(state.direct.entries(where, gone)):
        raise Refused("EBUSY")
    state.faults.stop_at("alloc")
    _begin_direct(state, ops)
    state.refuse_if_dead()
    _register(state, ops, where, np.full(len(where), tramp, np.int32), gone)
    state.direct.add_gone(gone, tramp)


def _begin_direct(state: State, ops: Ops) -> None:
    """From here on the ops is a direct one, and a failure may leave its func set (NAME-3, DIRECT-7)."""
    ops.direct, ops.permanent = True, False
    ops.func_set |= not state.facts.failed_direct_reusable


def _register(state: State, ops: Ops, where: Indices, entries: Indices, gone: Addresses = NOWHERE) -> None:
    """These sites get entries and join the ops' filter; covered ones are patched. gone: addresses to enter later."""
    if state.sites.ipmodify[where].any():
        raise Refused("EBUSY")
    state.faults.stop_at("register")
    sites = state.sites
    covered = where[sites.loaded[where] & ~ops.notrace_hash[where]]
    bill = Bill()
    bill.patch(sites.joining(covered, regs=True))
    bill_growth(state, len(where) + len(gone), bill)
    state.settle(bill)
    ops.filter_hash = ops.filter_hash.copy()
    ops.filter_hash[where] = True
    ops.func_set = ops.enabled = True
    state.direct.add(where, NO_ENTRY)
    state.direct.entry[where] = entries
    sites.join(covered, DIRECT, regs=True)


def _find_registered(state: State, name: str) -> Ops:
    ops = state.ops[name]
    if not (ops.direct and ops.enabled):
        raise Refused("EINVAL")
    return ops


def unregister_direct_multi(state: State, operation: op.UnregisterFtraceDirectMulti) -> None:
    """unregister_ftrace_direct(ops, addr) (DIRECT-8)."""
    ops = _find_registered(state, operation.ops)
    state.refuse_if_dead()
    # remove_direct_functions_hash() compares addresses: entries that differ stay behind, and nobody calls them.
    direct, where, tramp = state.direct, ops.sites(), state.direct.number(operation.tramp)
    shutdown(state, ops)
    direct.remove(where[direct.entry[where] == tramp])
    direct.remove_gone(direct.gone[np.isin(direct.gone, ops.addresses()) & (direct.gone_entry == tramp)])
    ops.func_set = False
    if operation.free and state.facts.free_filters:
        del state.ops[ops.name]


def shutdown(state: State, ops: Ops) -> None:
    """ftrace_shutdown() of a direct ops: it leaves the list, and its entries are not looked at (OPS-7)."""
    sites = state.sites
    covered = sites.covered(ops.filter_hash, ops.notrace_hash)
    bill = Bill()
    bill.patch(sites.leaving(covered, regs=True))
    if ops.dynamic:
        bill.wait_dynamic(state.facts, direct=True)
    state.settle(bill)
    ops.enabled = False
    sites.leave(covered, DIRECT, regs=True)


def modify_direct_multi(state: State, operation: op.ModifyFtraceDirectMulti) -> None:
    """modify_ftrace_direct(ops, addr) (DIRECT-9)."""
    ops = _find_registered(state, operation.ops)
    where, direct, tramp = ops.sites(), state.direct, state.direct.number(operation.tramp)
    _modify(state, where, np.full(len(where), tramp, np.int32))
    direct.gone_entry[np.isin(direct.gone, ops.addresses())] = tramp


def _modify(state: State, where: Indices, entries: Indices) -> None:
    """Entries that are there change in place; the sites are patched whether they have one or not (COST-3)."""
    state.refuse_if_dead()
    state.faults.stop_at("register")
    patched = state.sites.alone(where[state.sites.loaded[where]])
    bill = Bill()
    bill.change_entries(len(patched))
    state.settle(bill)
    present = state.direct.entry[where] != NO_ENTRY
    state.direct.rewrite(where[present], entries[present], patched)


def update_direct_add(state: State, operation: op.UpdateFtraceDirectAdd) -> None:
    """update_ftrace_direct_add() (DIRECT-10)."""
    ops = state.ops[operation.ops]
    where, entries = _read_pairs(state, operation.entries)
    taken = (state.direct.entry[where] != NO_ENTRY).any()
    if taken or (not ops.filter_hash.any() and (ops.func_set or ops.enabled)):
        raise Refused("EINVAL")
    state.faults.stop_at("alloc")
    _begin_direct(state, ops)
    state.refuse_if_dead()
    _register(state, ops, where, entries)


def update_direct_del(state: State, operation: op.UpdateFtraceDirectDel) -> None:
    """update_ftrace_direct_del() (DIRECT-11)."""
    ops = _find_registered(state, operation.ops)
    where, entries = _read_pairs(state, operation.entries)
    if (state.direct.entry[where] != entries).any():
        raise Refused("EINVAL")
    state.faults.stop_at("alloc")
    state.refuse_if_dead()
    rest = ops.filter_hash.copy()
    rest[where] = False
    if rest.any():
        _shrink(state, ops, where)
    else:
        shutdown(state, ops)
        state.direct.remove(where)
        ops.func_set, ops.notrace_hash = False, np.zeros_like(rest)
    ops.filter_hash = rest


def _shrink(state: State, ops: Ops, where: Indices) -> None:
    covered = where[~ops.notrace_hash[where]]
    bill = Bill()
    bill.patch(state.sites.leaving(covered, regs=True, narrowed=True))
    state.settle(bill)
    state.direct.remove(where)
    state.sites.leave(covered, DIRECT, regs=True, narrowed=True)


def update_direct_mod(state: State, operation: op.UpdateFtraceDirectMod) -> None:
    """update_ftrace_direct_mod() (DIRECT-12)."""
    _find_registered(state, operation.ops)
    where, entries = _read_pairs(state, operation.entries)
    _modify(state, where, entries)


def _read_pairs(state: State, pairs: tuple[tuple[str, str], ...]) -> tuple[Indices, Indices]:
    """Sites and the numbers of their trampolines."""
    functions, tramps = zip(*pairs, strict=True)
    where = state.site_indices(functions)
    numbers = {tramp: state.direct.number(tramp) for tramp in set(tramps)}
    return where, np.fromiter(map(numbers.__getitem__, tramps), np.intp, len(tramps))
