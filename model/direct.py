"""direct_functions and the three APIs that change it: single, multi and hash (DIRECT-*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from model.cost import waited
from model.endings import Refused, check_alive
from model.faults import reach
from model.poke import ftrace_run_update_code, modified, replaced
from model.registration import add_ftrace_ops, check_permanent, remove_ftrace_ops
from model.regs import keep_regs
from model.rules import cite
from model.sites import covering, has_entry, has_ipmodify_user
from model.state import DIRECT_OPS, Entry, Ops, State
from spec import operations as op

__all__ = [
    "grown",
    "modify_ftrace_direct",
    "modify_ftrace_direct_multi",
    "register_ftrace_direct",
    "register_ftrace_direct_multi",
    "unregister_ftrace_direct",
    "unregister_ftrace_direct_multi",
    "update_ftrace_direct_add",
    "update_ftrace_direct_del",
    "update_ftrace_direct_mod",
]

DIRECT = Ops("direct_ops", save_regs=True, direct=True, permanent=True)
SMALLEST_TABLE = 32
MOST_BUCKETS = 1 << 12


def grown(state: State, added: int) -> State:
    """DIRECT-13: direct_functions makes room for so many entries more, and the operation waits for a new table."""
    # Since Linux kernel commit d05cb470663a ("ftrace: Fix modification of direct_function hash while in use") (in v6.7)
    # the old table is freed by call_rcu_tasks(), and nobody waits.
    if not state.semantics.growth_waits:
        return state
    cite("DIRECT-13")
    buckets, exchanged = state.buckets, False
    first = len(state.direct_functions) + len(state.images)
    for entries in range(first, first + added):
        if entries == 0 or entries > 2 * buckets:
            buckets, exchanged = _dup_hash(entries + 1), True
    return waited(replace(state, buckets=buckets), "rcu_tasks", int(exchanged))


def _dup_hash(entries: int) -> int:
    """The buckets of a new table for so many entries: 2^fls(n / 2) for n of them, and never fewer than 32."""
    return min(1 << (max(SMALLEST_TABLE, entries) // 2).bit_length(), MOST_BUCKETS)


def _with_entries(state: State, entries: Mapping[str, Entry]) -> State:
    return replace(state, direct_functions={**state.direct_functions, **entries})


def _without_entries(state: State, functions: Iterable[str]) -> State:
    gone = frozenset(functions)
    return replace(state, direct_functions={f: entry for f, entry in state.direct_functions.items() if f not in gone})


def _check_ipmodify(state: State, functions: Iterable[str], *rules: str) -> None:
    if any(has_ipmodify_user(state, function) for function in functions):
        also = () if state.semantics.share_ipmodify else ("IPMODIFY-3",)
        raise Refused(state, "EBUSY", *also, *rules)


def register_ftrace_direct(state: State, operation: op.RegisterFtraceDirect) -> State:
    """DIRECT-2: one site gets a direct call, in the single API."""
    function = operation.function
    if not state.site(function):
        raise Refused(state, "ENODEV", "DIRECT-2")
    if has_entry(state, function):
        raise Refused(state, "EBUSY", "DIRECT-2")
    state = reach(state, "alloc")
    check_alive(state, "DIRECT-2")
    state = reach(state, "filter")
    if not state.enabled(DIRECT_OPS):
        check_permanent(state, DIRECT)
    _check_ipmodify(state, [function], "DIRECT-2")
    if not state.enabled(DIRECT_OPS):
        state = reach(state, "register")
    cite("DIRECT-1", "DIRECT-2", "DIRECT-14")
    after = _with_entries(grown(state, 1), {function: Entry(operation.tramp, DIRECT_OPS)})
    return _join_direct_ops(state, after, function)


def _join_direct_ops(state: State, after: State, function: str) -> State:
    """The function joins direct_ops, which is registered with its first site."""
    ops = state.ops.get(DIRECT_OPS, DIRECT)
    after = after.with_ops(DIRECT_OPS, replace(ops, filter_hash=ops.filter_hash | {function}))
    if not state.enabled(DIRECT_OPS):
        return add_ftrace_ops(after, DIRECT_OPS)
    return replaced(state, after, [function])


def unregister_ftrace_direct(state: State, operation: op.UnregisterFtraceDirect) -> State:
    """DIRECT-3: one site loses its direct call, in the single API."""
    function, entry = operation.function, state.direct_functions.get(operation.function)
    if not has_entry(state, function):
        raise Refused(state, "ENODEV", "DIRECT-3")
    check_alive(state, "DIRECT-3")
    cite("DIRECT-3")
    after = _leave_direct_ops(state, function)
    # An address that several sites have is described once, with a count of its users; the last one is waited for.
    if entry in after.direct_functions.values():
        return after
    cite("DIRECT-4")
    return waited(after, "rcu_tasks")


def _leave_direct_ops(state: State, function: str) -> State:
    """The function leaves direct_ops, which is unregistered with its last site: without filter it would trace all."""
    ops = state.ops[DIRECT_OPS]
    left = replace(ops, filter_hash=ops.filter_hash - {function})
    if left.filter_hash:
        after = _without_entries(state.with_ops(DIRECT_OPS, left), [function])
        return replaced(state, keep_regs(after, ops, [function]), [function])
    return _without_entries(remove_ftrace_ops(state, DIRECT_OPS), [function]).without_ops(DIRECT_OPS)


def modify_ftrace_direct(state: State, operation: op.ModifyFtraceDirect) -> State:
    """DIRECT-5: one site calls another address, in the single API."""
    function, entry = operation.function, state.direct_functions.get(operation.function)
    if not has_entry(state, function):
        raise Refused(state, "ENODEV", "DIRECT-5")
    if entry is None or entry.tramp != operation.old:
        raise Refused(state, "EINVAL", "DIRECT-5")
    state = reach(state, "alloc")
    if len(covering(state, function)) <= 1:
        check_alive(state, "DIRECT-5")
    cite("DIRECT-5")
    return modified(_with_entries(state, {function: Entry(operation.new, DIRECT_OPS)}), [function])


def register_ftrace_direct_multi(state: State, operation: op.RegisterFtraceDirectMulti) -> State:
    """DIRECT-6: all sites of an ops get a direct call to one address."""
    ops = state.ops[operation.ops]
    if ops.func:
        raise Refused(state, "EINVAL", "DIRECT-7", "DIRECT-6")
    if not ops.filter_hash:
        raise Refused(state, "EINVAL", "DIRECT-6")
    if any(has_entry(state, function) for function in ops.filter_hash):
        raise Refused(state, "EBUSY", "DIRECT-6")
    begun = _begin_direct(reach(state, "alloc"), operation.ops)
    check_alive(begun, "DIRECT-6", "DIRECT-7")
    _check_ipmodify(begun, ops.filter_hash, "DIRECT-6", "DIRECT-7")
    begun = reach(begun, "register", "DIRECT-7")
    cite("DIRECT-6", "DIRECT-14")
    entries = dict.fromkeys(ops.filter_hash, Entry(operation.tramp, operation.ops))
    after = _with_entries(grown(begun, len(entries)), entries)
    after = after.with_ops(operation.ops, replace(begun.ops[operation.ops], func=True))
    return ftrace_run_update_code(begun, add_ftrace_ops(after, operation.ops), "DIRECT-7")


def _begin_direct(state: State, name: str) -> State:
    """DIRECT-7: the ops has MULTI_FLAGS from here on, and func and trampoline, whatever comes of the registration."""
    # Since Linux kernel commit 56b3c85e153b ("ftrace: Fix BPF fexit with livepatch") (in 6.12.117) a registration that
    # fails resets func and trampoline.
    func = not state.semantics.failed_direct_reusable
    return state.with_ops(name, replace(state.ops[name], func=func, direct=True, save_regs=True, permanent=False))


def _check_direct_multi(state: State, name: str, rule: str) -> Ops:
    """An ops with MULTI_FLAGS that is enabled."""
    ops = state.ops[name]
    if not ops.direct or not state.enabled(name):
        raise Refused(state, "EINVAL", rule)
    return ops


def unregister_ftrace_direct_multi(state: State, operation: op.UnregisterFtraceDirectMulti) -> State:
    """DIRECT-8: an ops gives its direct calls up."""
    ops = _check_direct_multi(state, operation.ops, "DIRECT-8")
    check_alive(state, "DIRECT-8")
    cite("DIRECT-8")
    after = _remove_direct_functions_hash(remove_ftrace_ops(state, operation.ops), ops.filter_hash, operation.tramp)
    # Since Linux kernel commit 59495740f795 ("ftrace: Let unregister_ftrace_direct_multi() call ftrace_free_filter()")
    # (in v6.4) the call has its third argument.
    if operation.free and state.semantics.free_filters:
        cite("NAME-5")
        return after.without_ops(operation.ops)
    # Since Linux kernel commit fea3ffa48c6d ("ftrace: Add cleanup to unregister_ftrace_direct_multi") the ops can be
    # registered again.
    return after.with_ops(operation.ops, replace(ops, func=False))


def _remove_direct_functions_hash(state: State, hash_: frozenset[str], tramp: str) -> State:
    """The entries of a hash go that have this address; others stay, though nobody uses them any more."""
    return _without_entries(state, [f for f in hash_ if _find_direct(state, f) == tramp])


def _find_direct(state: State, function: str) -> str | None:
    entry = state.direct_functions.get(function)
    return entry.tramp if entry else None


def modify_ftrace_direct_multi(state: State, operation: op.ModifyFtraceDirectMulti) -> State:
    """DIRECT-9: all sites of an ops call another address."""
    ops = _check_direct_multi(state, operation.ops, "DIRECT-9")
    check_alive(state, "DIRECT-9")
    state = reach(state, "register")
    cite("DIRECT-9")
    entry = Entry(operation.tramp, operation.ops)
    entries = {function: entry for function in ops.filter_hash if function in state.direct_functions}
    return modified(_with_entries(state, entries), [f for f in ops.filter_hash if state.site(f)])


def update_ftrace_direct_add(state: State, operation: op.UpdateFtraceDirectAdd) -> State:
    """DIRECT-10: these functions join the ops, which is registered with its first ones."""
    ops, enabled, added = state.ops[operation.ops], state.enabled(operation.ops), dict(operation.entries)
    if any(has_entry(state, function) for function in added):
        raise Refused(state, "EINVAL", "DIRECT-10")
    if not ops.filter_hash and (ops.func or enabled):
        raise Refused(state, "EINVAL", "DIRECT-10")
    state = reach(state, "alloc")
    begun, leaves = (state, ()) if enabled else (_begin_direct(state, operation.ops), ("DIRECT-7",))
    check_alive(begun, "DIRECT-10", *leaves)
    _check_ipmodify(begun, added, "DIRECT-10", *leaves)
    begun = reach(begun, "register", *leaves)
    cite("DIRECT-1", "DIRECT-10", "DIRECT-14")
    after = _with_entries(begun, {function: Entry(tramp, operation.ops) for function, tramp in added.items()})
    joined = replace(begun.ops[operation.ops], func=True, filter_hash=ops.filter_hash | added.keys())
    after = after.with_ops(operation.ops, joined)
    after = replaced(begun, after, added) if enabled else add_ftrace_ops(after, operation.ops)
    return ftrace_run_update_code(begun, after, *leaves)


def update_ftrace_direct_del(state: State, operation: op.UpdateFtraceDirectDel) -> State:
    """DIRECT-11: these functions leave the ops, which is unregistered with its last ones."""
    deleted = dict(operation.entries)
    ops = _check_direct_multi(state, operation.ops, "DIRECT-11")
    if any(_find_direct(state, function) != tramp for function, tramp in deleted.items()):
        raise Refused(state, "EINVAL", "DIRECT-11")
    state = reach(state, "alloc")
    check_alive(state, "DIRECT-11")
    cite("DIRECT-11")
    left = replace(ops, filter_hash=ops.filter_hash - deleted.keys())
    if left.filter_hash:
        after = _without_entries(state.with_ops(operation.ops, left), deleted)
        return replaced(state, keep_regs(after, ops, filter(ops.covers, deleted)), deleted)
    after = _without_entries(remove_ftrace_ops(state, operation.ops), deleted)
    return after.with_ops(operation.ops, replace(left, func=False, notrace_hash=frozenset()))


def update_ftrace_direct_mod(state: State, operation: op.UpdateFtraceDirectMod) -> State:
    """DIRECT-12: these functions of the ops have other entries; one without entry is passed over."""
    changed = dict(operation.entries)
    _check_direct_multi(state, operation.ops, "DIRECT-12")
    check_alive(state, "DIRECT-12")
    state = reach(state, "register")
    cite("DIRECT-12")
    entries = {f: Entry(tramp, operation.ops) for f, tramp in changed.items() if f in state.direct_functions}
    return modified(_with_entries(state, entries), changed)
