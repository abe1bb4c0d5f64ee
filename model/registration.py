"""Registering and unregistering ops (OPS-*), and the IPMODIFY users among them (IPMODIFY-*)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import waited_dynamic
from model.endings import Refused, check_alive
from model.faults import reach
from model.ipmodify import cleanup_direct_functions_after_ipmodify, prepare_direct_functions_for_ipmodify
from model.poke import replaced
from model.regs import drop_regs
from model.rules import cite
from model.sites import has_ipmodify_user, traced
from model.state import Ops, State, klp_ops
from spec import operations as op

__all__ = [
    "add_ftrace_ops",
    "check_permanent",
    "klp_patch_func",
    "klp_unpatch_func",
    "register_ftrace_function",
    "remove_ftrace_ops",
    "unregister_ftrace_function",
]


def add_ftrace_ops(state: State, key: str) -> State:
    """OPS-6: the ops goes to the head of ftrace_ops_list, and its sites are patched."""
    cite("OPS-6")
    after = replace(state, ops_list=(key, *state.ops_list))
    return replaced(state, after, traced(state, state.ops[key]))


def remove_ftrace_ops(state: State, key: str) -> State:
    """OPS-7: the ops leaves ftrace_ops_list, and its sites are patched; a dynamic one is waited for."""
    cite("OPS-7")
    ops = state.ops[key]
    covered = tuple(traced(state, ops))
    after = replace(state, ops_list=tuple(other for other in state.ops_list if other != key))
    after = replaced(state, drop_regs(after, ops, covered), covered)
    # It is waited for even where no site had to be patched: a task may still be in the list function.
    return waited_dynamic(after, direct=ops.direct) if ops.dynamic else after


def register_ftrace_function(state: State, operation: op.RegisterFtraceFunction) -> State:
    """OPS-2 to OPS-6: register_ftrace_function."""
    return _register(state, operation.ops, replace(state.ops[operation.ops], func=True))


def _register(state: State, key: str, ops: Ops) -> State:
    """The handshake of an IPMODIFY user comes first, and is undone with a failure."""
    if not ops.ipmodify:
        return _ftrace_startup(state, key, ops)
    cite("OPS-2")
    try:
        return _ftrace_startup(prepare_direct_functions_for_ipmodify(state, ops), key, ops)
    except Refused as refused:
        raise refused.undone(state) from None


def _ftrace_startup(state: State, key: str, ops: Ops) -> State:
    """OPS-3 to OPS-6."""
    check_alive(state, "OPS-3")
    if state.enabled(key):
        raise Refused(state, "EBUSY", "OPS-4", warn=True)
    check_permanent(state, ops)
    if ops.ipmodify:
        _ftrace_hash_ipmodify_enable(state, ops)
    state = reach(state, "register")
    return add_ftrace_ops(state.with_ops(key, ops), key)


def check_permanent(state: State, ops: Ops) -> None:
    """SYSCTL-3: a permanent ops is refused while ftrace is off."""
    if ops.permanent and state.off:
        raise Refused(state, "EBUSY", "SYSCTL-3")


def _ftrace_hash_ipmodify_enable(state: State, ops: Ops) -> None:
    """OPS-5: an IPMODIFY user may not trace everything, and takes no site from another one."""
    if not ops.filter_hash:
        raise Refused(state, "EINVAL", "OPS-5")
    if any(has_ipmodify_user(state, function) for function in ops.filter_hash):
        raise Refused(state, "EBUSY", "IPMODIFY-1", "OPS-5")


def unregister_ftrace_function(state: State, operation: op.UnregisterFtraceFunction) -> State:
    """OPS-7: unregister_ftrace_function."""
    return _unregister(state, operation.ops)


def _unregister(state: State, key: str) -> State:
    """OPS-7, IPMODIFY-4: the ops leaves, and where it was an IPMODIFY user those who shared with it are told."""
    check_alive(state, "OPS-7")
    if not state.enabled(key):
        raise Refused(state, "EBUSY", "OPS-7", warn=True)
    ops, after = state.ops[key], remove_ftrace_ops(state, key)
    return cleanup_direct_functions_after_ipmodify(after, ops) if ops.ipmodify else after


def klp_patch_func(state: State, operation: op.Livepatch) -> State:
    """IPMODIFY-7: livepatch a function."""
    function, key = operation.function, klp_ops(operation.function)
    if not state.site(function):
        raise Refused(state, "EINVAL", "IPMODIFY-7")
    if key in state.ops:
        raise Refused(state, "EBUSY", "IPMODIFY-7")
    state = reach(state, "alloc")
    check_alive(state, "IPMODIFY-7")
    state = reach(state, "filter")
    cite("IPMODIFY-7")
    filter_hash = frozenset({function})
    ops = Ops("klp_ops", ipmodify=True, dynamic=True, filter_hash=filter_hash, func=True, permanent=True)
    return _register(state, key, ops)


def klp_unpatch_func(state: State, operation: op.Unlivepatch) -> State:
    """IPMODIFY-8: take the livepatch of a function away."""
    key = klp_ops(operation.function)
    if key not in state.ops:
        raise Refused(state, "EINVAL", "IPMODIFY-8")
    cite("IPMODIFY-8")
    return _unregister(state, key).without_ops(key)
