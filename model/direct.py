"""direct_functions and the three APIs that change it: single, multi and hash (DIRECT-*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

from model.cost import patched_between, repointed, waited
from model.faults import Faults
from model.filters import named_ops
from model.registration import disable, enable
from model.regs import narrowed
from model.rules import Refused, cite
from model.sites import has_entry, ipmodify_user
from model.state import DIRECT_OPS, Entry, Ops, State
from spec import operations as op

__all__ = [
    "failed_registration",
    "grown",
    "modify",
    "modify_multi",
    "register",
    "register_multi",
    "unregister",
    "unregister_multi",
    "update_add",
    "update_del",
    "update_mod",
]

LEAST_ENTRIES = 32
MOST_BITS = 12


def grown(state: State, added: int) -> State:
    """DIRECT-13.

    Direct_functions makes room for so many entries more, and the operation waits if that took a new table.
    """
    if not state.semantics.growth_waits:
        return state
    entries, bits, exchanged = len(state.direct_functions) + len(state.images), state.table_bits, False
    for count in range(entries, entries + added):
        if count == 0 or count > 2 << bits:
            bits = min((max(LEAST_ENTRIES, count + 1 if count else 0) // 2).bit_length(), MOST_BITS)
            exchanged = True
    cite("DIRECT-13")
    return waited(replace(state, table_bits=bits), "rcu_tasks", int(exchanged))


def _with_entries(state: State, entries: Mapping[str, Entry]) -> State:
    return replace(state, direct_functions={**state.direct_functions, **entries})


def _without_entries(state: State, functions: Iterable[str]) -> State:
    gone = frozenset(functions)
    return replace(state, direct_functions={f: entry for f, entry in state.direct_functions.items() if f not in gone})


def _check_alive(state: State, rule: str) -> None:
    if state.dead:
        raise Refused("ENODEV", rule)


def _check_ipmodify(state: State, functions: Iterable[str], rule: str) -> None:
    if any(ipmodify_user(state, function) for function in functions):
        if not state.semantics.share_ipmodify:
            cite("IPMODIFY-3")
        raise Refused("EBUSY", rule)


def register(state: State, operation: op.RegisterFtraceDirect, faults: Faults) -> State:
    """DIRECT-2: the single API's register_ftrace_direct(ip, addr)."""
    function = operation.function
    if not state.loaded(function):
        raise Refused("ENODEV", "DIRECT-2")
    if has_entry(state, function):
        raise Refused("EBUSY", "DIRECT-2")
    faults.reach("alloc")
    _check_alive(state, "DIRECT-2")
    faults.reach("filter")
    _check_ipmodify(state, [function], "DIRECT-2")
    if not state.enabled(DIRECT_OPS):
        faults.reach("register")
    cite("DIRECT-1", "DIRECT-2", "DIRECT-14")
    after = _with_entries(grown(state, 1), {function: Entry(operation.tramp, DIRECT_OPS)})
    return _cover_single(state, after, function)


def _cover_single(state: State, after: State, function: str) -> State:
    """The function joins direct_ops, which is registered with its first site."""
    old = state.ops.get(DIRECT_OPS, Ops("direct_ops", save_regs=True, direct=True))
    after = after.with_ops(DIRECT_OPS, replace(old, filter_hash=old.filter_hash | {function}))
    if not state.enabled(DIRECT_OPS):
        return enable(after, DIRECT_OPS)
    return patched_between(state, after, [function])


def unregister(state: State, operation: op.UnregisterFtraceDirect, _faults: Faults) -> State:
    """DIRECT-3: the single API's unregister_ftrace_direct(ip, addr)."""
    function, entry = operation.function, state.direct_functions.get(operation.function)
    if not has_entry(state, function):
        raise Refused("ENODEV", "DIRECT-3")
    if entry != Entry(operation.tramp, DIRECT_OPS):
        raise Refused("EOPNOTSUPP", "DIRECT-3")
    _check_alive(state, "DIRECT-3")
    cite("DIRECT-3")
    after = _uncover_single(state, function)
    if entry in after.direct_functions.values():
        return after
    cite("DIRECT-4")
    return waited(after, "rcu_tasks")


def _uncover_single(state: State, function: str) -> State:
    ops = state.ops[DIRECT_OPS]
    left = replace(ops, filter_hash=ops.filter_hash - {function})
    if left.filter_hash:
        after = _without_entries(state.with_ops(DIRECT_OPS, left), [function])
        return patched_between(state, narrowed(after, ops, [function]), [function])
    return _without_entries(disable(state, DIRECT_OPS), [function]).without_ops([DIRECT_OPS])


def modify(state: State, operation: op.ModifyFtraceDirect, faults: Faults) -> State:
    """DIRECT-5: the single API's modify_ftrace_direct(ip, old_addr, new_addr)."""
    function, entry = operation.function, state.direct_functions.get(operation.function)
    if not has_entry(state, function):
        raise Refused("ENODEV", "DIRECT-5")
    if entry is None or entry.tramp != operation.old:
        raise Refused("EINVAL", "DIRECT-5")
    if entry.owner != DIRECT_OPS:
        raise Refused("EOPNOTSUPP", "DIRECT-5")
    faults.reach("alloc")
    _check_alive(state, "DIRECT-5")
    cite("DIRECT-5")
    return repointed(_with_entries(state, {function: Entry(operation.new, DIRECT_OPS)}), [function])


def _directable(state: State, name: str) -> Ops:
    ops = named_ops(state, name)
    if ops.ipmodify:
        raise Refused("EOPNOTSUPP", "NAME-3")
    return ops


def register_multi(state: State, operation: op.RegisterFtraceDirectMulti, faults: Faults) -> State:
    """DIRECT-6: register_ftrace_direct(ops, addr)."""
    ops = _directable(state, operation.ops)
    if ops.func:
        cite("DIRECT-7")
    if ops.func or not ops.filter_hash:
        raise Refused("EINVAL", "DIRECT-6")
    if any(has_entry(state, function) for function in ops.filter_hash):
        raise Refused("EBUSY", "DIRECT-6")
    faults.reach("alloc")
    _check_alive(state, "DIRECT-6")
    _check_ipmodify(state, ops.filter_hash, "DIRECT-6")
    faults.reach("register")
    cite("DIRECT-6", "DIRECT-14")
    entry = Entry(operation.tramp, operation.ops)
    after = _with_entries(grown(state, len(ops.filter_hash)), dict.fromkeys(ops.filter_hash, entry))
    return enable(after.with_ops(operation.ops, _as_direct(ops)), operation.ops)


def _as_direct(ops: Ops) -> Ops:
    """The ops with MULTI_FLAGS, and func and trampoline set."""
    return replace(ops, func=True, direct=True, save_regs=True)


def failed_registration(
    state: State,
    operation: op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd,
    errno: str,
) -> State:
    """DIRECT-7: what a direct registration that failed behind `alloc` leaves of the ops."""
    ops = state.ops.get(operation.ops)
    if ops is None or errno in {"EINVAL", "ENOMEM", "EOPNOTSUPP"} or state.enabled(operation.ops):
        return state
    if isinstance(operation, op.RegisterFtraceDirectMulti) and _clashes(state, ops):
        return state
    cite("DIRECT-7")
    return state.with_ops(operation.ops, replace(_as_direct(ops), func=not state.semantics.failed_direct_reusable))


def _clashes(state: State, ops: Ops) -> bool:
    return any(has_entry(state, function) for function in ops.filter_hash)


def _enabled_direct(state: State, name: str, rule: str) -> Ops:
    ops = _directable(state, name)
    if not ops.direct or not state.enabled(name):
        raise Refused("EINVAL", rule)
    return ops


def unregister_multi(state: State, operation: op.UnregisterFtraceDirectMulti, _faults: Faults) -> State:
    """DIRECT-8: unregister_ftrace_direct(ops, addr, free_filters)."""
    ops = _enabled_direct(state, operation.ops, "DIRECT-8")
    entries = [state.direct_functions[f] for f in ops.filter_hash if f in state.direct_functions]
    if any(entry.tramp != operation.tramp for entry in entries):
        raise Refused("EOPNOTSUPP", "DIRECT-8")
    _check_alive(state, "DIRECT-8")
    cite("DIRECT-8")
    after = _without_entries(disable(state, operation.ops), ops.filter_hash)
    if operation.free and state.semantics.free_filters:
        cite("NAME-5")
        return after.without_ops([operation.ops])
    return after.with_ops(operation.ops, replace(ops, func=False))


def modify_multi(state: State, operation: op.ModifyFtraceDirectMulti, faults: Faults) -> State:
    """DIRECT-9: modify_ftrace_direct(ops, addr)."""
    ops = _enabled_direct(state, operation.ops, "DIRECT-9")
    _check_alive(state, "DIRECT-9")
    faults.reach("register")
    cite("DIRECT-9")
    entries = {
        function: replace(state.direct_functions[function], tramp=operation.tramp)
        for function in ops.filter_hash
        if function in state.direct_functions
    }
    return repointed(_with_entries(state, entries), [f for f in ops.filter_hash if state.loaded(f)])


def _pairs(state: State, pairs: tuple[tuple[str, str], ...], rule: str) -> dict[str, str]:
    """The hash that a hash call is given."""
    if len(dict(pairs)) < len(pairs) or not all(state.loaded(function) for function, _ in pairs):
        raise Refused("EINVAL", rule)
    return dict(pairs)


def update_add(state: State, operation: op.UpdateFtraceDirectAdd, faults: Faults) -> State:
    """DIRECT-10: update_ftrace_direct_add."""
    ops = _directable(state, operation.ops)
    pairs = _pairs(state, operation.entries, "DIRECT-10")
    enabled = state.enabled(operation.ops)
    if any(has_entry(state, function) for function in pairs):
        raise Refused("EINVAL", "DIRECT-10")
    if not ops.filter_hash and (ops.func or enabled):
        raise Refused("EINVAL", "DIRECT-10")
    if ops.filter_hash and not (enabled and ops.direct):
        raise Refused("EOPNOTSUPP", "DIRECT-10")
    faults.reach("alloc")
    _check_alive(state, "DIRECT-10")
    _check_ipmodify(state, pairs, "DIRECT-10")
    faults.reach("register")
    cite("DIRECT-1", "DIRECT-10", "DIRECT-14")
    entries = {function: Entry(tramp, operation.ops) for function, tramp in pairs.items()}
    joined = replace(_as_direct(ops), filter_hash=ops.filter_hash | pairs.keys())
    after = _with_entries(state, entries).with_ops(operation.ops, joined)
    return patched_between(state, after, pairs) if enabled else enable(after, operation.ops)


def update_del(state: State, operation: op.UpdateFtraceDirectDel, faults: Faults) -> State:
    """DIRECT-11: update_ftrace_direct_del."""
    ops = _directable(state, operation.ops)
    pairs = _pairs(state, operation.entries, "DIRECT-11")
    _enabled_direct(state, operation.ops, "DIRECT-11")
    if any(_tramp(state, function) != tramp for function, tramp in pairs.items()):
        raise Refused("EINVAL", "DIRECT-11")
    if not pairs.keys() <= ops.filter_hash:
        raise Refused("EOPNOTSUPP", "DIRECT-11")
    faults.reach("alloc")
    _check_alive(state, "DIRECT-11")
    cite("DIRECT-11")
    left = replace(ops, filter_hash=ops.filter_hash - pairs.keys())
    if left.filter_hash:
        after = _without_entries(state.with_ops(operation.ops, left), pairs)
        return patched_between(state, narrowed(after, ops, filter(ops.covers, pairs)), pairs)
    after = _without_entries(disable(state, operation.ops), pairs)
    return after.with_ops(operation.ops, replace(left, func=False, notrace_hash=frozenset()))


def _tramp(state: State, function: str) -> str | None:
    entry = state.direct_functions.get(function)
    return entry.tramp if entry else None


def update_mod(state: State, operation: op.UpdateFtraceDirectMod, faults: Faults) -> State:
    """DIRECT-12: update_ftrace_direct_mod."""
    ops = _directable(state, operation.ops)
    pairs = _pairs(state, operation.entries, "DIRECT-12")
    _enabled_direct(state, operation.ops, "DIRECT-12")
    if any(has_entry(state, function) and function not in ops.filter_hash for function in pairs):
        raise Refused("EOPNOTSUPP", "DIRECT-12")
    _check_alive(state, "DIRECT-12")
    faults.reach("register")
    cite("DIRECT-12")
    entries = {f: Entry(tramp, operation.ops) for f, tramp in pairs.items() if f in state.direct_functions}
    return repointed(_with_entries(state, entries), pairs)
