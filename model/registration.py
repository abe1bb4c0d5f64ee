"""Registering and unregistering ops (OPS-*), and the IPMODIFY users among them (IPMODIFY-*)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import patched_between, waited_dynamic
from model.faults import Faults
from model.filters import named_ops
from model.ipmodify import ask_direct_owners, tell_direct_owners
from model.regs import uncovered
from model.rules import Refused, cite
from model.sites import ipmodify_user, traced
from model.state import Ops, State, klp_ops
from spec import operations as op

__all__ = ["enable", "enable_ipmodify", "livepatch", "register", "remove", "unlivepatch", "unregister"]


def enable(state: State, key: str) -> State:
    """OPS-6: an ops goes to the head of ftrace_ops_list, and its sites are patched."""
    cite("OPS-6")
    after = replace(state, ops_list=(key, *state.ops_list))
    return patched_between(state, after, traced(state, state.ops[key]))


def disable(state: State, key: str) -> State:
    """OPS-7: an ops leaves ftrace_ops_list, and its sites are patched; a dynamic one is waited for."""
    cite("OPS-7")
    ops = state.ops[key]
    after = replace(state, ops_list=tuple(other for other in state.ops_list if other != key))
    covered = tuple(traced(state, ops))
    after = patched_between(state, uncovered(after, ops, covered), covered)
    return waited_dynamic(after, direct=ops.direct) if ops.dynamic else after


def register(state: State, operation: op.RegisterFtraceFunction, faults: Faults) -> State:
    """register_ftrace_function."""
    ops = named_ops(state, operation.ops)
    if ops.direct:
        raise Refused("EOPNOTSUPP", "NAME-3")
    if ops.ipmodify:
        return enable_ipmodify(state, operation.ops, replace(ops, func=True), faults)
    _check_startup(state, operation.ops)
    faults.reach("register")
    return enable(state.with_ops(operation.ops, replace(ops, func=True)), operation.ops)


def enable_ipmodify(state: State, key: str, ops: Ops, faults: Faults) -> State:
    """OPS-2 to OPS-6 for an IPMODIFY user: the handshake comes first, and is undone with a failure."""
    cite("OPS-2")
    asked = ask_direct_owners(state, ops, faults)
    _check_startup(asked, key)
    if not ops.filter_hash:
        raise Refused("EINVAL", "OPS-5")
    if any(ipmodify_user(state, function) for function in ops.filter_hash):
        cite("IPMODIFY-1")
        raise Refused("EBUSY", "OPS-5")
    faults.reach("register")
    return enable(asked.with_ops(key, ops), key)


def _check_startup(state: State, key: str) -> None:
    if state.dead:
        raise Refused("ENODEV", "OPS-3")
    if state.enabled(key):
        raise Refused("EBUSY", "OPS-4", warn=True)


def unregister(state: State, operation: op.UnregisterFtraceFunction, faults: Faults) -> State:
    """unregister_ftrace_function."""
    ops = named_ops(state, operation.ops)
    if ops.direct:
        raise Refused("EOPNOTSUPP", "NAME-3")
    if ops.ipmodify and not state.enabled(operation.ops):
        raise Refused("EOPNOTSUPP", "NAME-6")
    return remove(state, operation.ops, faults)


def remove(state: State, key: str, faults: Faults) -> State:
    """OPS-7: the checks of unregistering, the ops leaves, and what an IPMODIFY user leaves behind."""
    if state.dead:
        raise Refused("ENODEV", "OPS-7")
    if not state.enabled(key):
        raise Refused("EBUSY", "OPS-7", warn=True)
    after = disable(state, key)
    ops = state.ops[key]
    return tell_direct_owners(after, ops, faults) if ops.ipmodify else after


def livepatch(state: State, operation: op.Livepatch, faults: Faults) -> State:
    """IPMODIFY-7."""
    function, key = operation.function, klp_ops(operation.function)
    if not state.loaded(function):
        raise Refused("EINVAL", "IPMODIFY-7")
    if key in state.ops:
        raise Refused("EBUSY", "IPMODIFY-7")
    faults.reach("alloc")
    if state.dead:
        raise Refused("ENODEV", "IPMODIFY-7")
    faults.reach("filter")
    cite("IPMODIFY-7")
    ops = Ops("klp_ops", ipmodify=True, dynamic=True, filter_hash=frozenset({function}), func=True)
    return enable_ipmodify(state, key, ops, faults)


def unlivepatch(state: State, operation: op.Unlivepatch, faults: Faults) -> State:
    """IPMODIFY-8."""
    key = klp_ops(operation.function)
    if key not in state.ops:
        raise Refused("EINVAL", "IPMODIFY-8")
    cite("IPMODIFY-8")
    return remove(state, key, faults).without_ops([key])
