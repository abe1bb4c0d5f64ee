"""Loading and unloading modules (MODULE-*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from model.endings import Refused
from model.graph import process_cached_mods
from model.poke import count_passes
from model.registration import klp_unpatch_func
from model.rules import cite
from model.sites import covering
from model.state import ADDRESS_ZERO, GraphUser, Ops, State, address_of, klp_ops
from spec import operations as op

__all__ = ["delete_module", "init_module"]


def init_module(state: State, operation: op.InitModule) -> State:
    """MODULE-1, MODULE-7: the module's sites join every enabled ops that covers them, and lines have waited for it."""
    if operation.module in state.modules:
        raise Refused(state, "EEXIST", "MODULE-1")
    if operation.module not in state.world.modules:
        raise Refused(state, "ENOENT", "MODULE-1")
    cite("MODULE-1", "COST-8")
    after = replace(state, modules=state.modules | {operation.module})
    if state.dead:
        cite("DEAD-2")
        after = replace(after, untraced=state.untraced | {operation.module})
    joined = sum(bool(covering(after, function)) for function in _list_functions(state, operation.module))
    # ftrace_module_enable() patches before the module runs, so that it needs no round (text_poke_early).
    after = replace(after, cost=replace(after.cost, sites_patched=after.cost.sites_patched + joined))
    return count_passes(process_cached_mods(after, operation.module))


def delete_module(state: State, operation: op.DeleteModule) -> State:
    """MODULE-2: the module goes, and with it its livepatches (MODULE-4)."""
    if operation.module not in state.modules:
        raise Refused(state, "ENOENT", "MODULE-2")
    functions = _list_functions(state, operation.module)
    if _is_in_use(state, operation.module, frozenset(functions)):
        raise Refused(state, "EAGAIN", "MODULE-3", "MODULE-2")
    cite("MODULE-2")
    for function in functions:
        if klp_ops(function) in state.ops:
            cite("MODULE-4")
            state = klp_unpatch_func(state, op.Unlivepatch(function))
    # DEAD-1 leaves modules out: what is patched here is counted, and does not reach `patch`.
    if state.dead:
        cite("DEAD-2")
    module = frozenset({operation.module})
    gone = replace(count_passes(state), modules=state.modules - module, untraced=state.untraced - module)
    return _forget_sites(gone, frozenset(functions))


def _list_functions(state: State, module: str) -> list[str]:
    return [function.name for function in state.world.functions if function.module == module]


def _is_in_use(state: State, module: str, functions: frozenset[str]) -> bool:
    """MODULE-3."""
    # Since Linux kernel commit 31bf1dbccfb0 ("bpf: Fix attaching fentry/fexit/fmod_ret/lsm to modules") (in v6.4) a
    # loaded program holds its target's module; before, an attached trampoline did.
    targets = [p.target for p in state.programs.values()] if state.semantics.prog_pins_module else []
    pinned = any(state.world.is_in(target, module) for target in targets)
    pinned = pinned or any(functions & kprobe.functions for kprobe in state.kprobes.values())
    return pinned or any(not functions.isdisjoint(link.cookies) for link in state.links.values())


def _forget_sites(state: State, gone: frozenset[str]) -> State:
    """MODULE-5: addresses of sites that have gone stay in hashes and in direct_functions, and select nothing."""
    cite("MODULE-5", "MODULE-6")
    unloads = state.unloads + 1
    kept = {name: address_of(name, unloads) for name in gone}
    return replace(
        state,
        unloads=unloads,
        ops={key: _move_hashes(ops, kept) for key, ops in state.ops.items()},
        graph_users={name: _clear_hashes(user, gone) for name, user in state.graph_users.items()},
        direct_functions={kept.get(name, name): entry for name, entry in state.direct_functions.items()},
    )


def _move_hashes(ops: Ops, kept: Mapping[str, str]) -> Ops:
    def move(hash_: frozenset[str]) -> frozenset[str]:
        return frozenset(kept.get(name, name) for name in hash_)

    return replace(ops, filter_hash=move(ops.filter_hash), notrace_hash=move(ops.notrace_hash))


def _clear_hashes(user: GraphUser, gone: frozenset[str]) -> GraphUser:
    """clear_mod_from_hashes(): the hashes of tracers, and no others, get address 0 in such places."""

    def clear(hash_: frozenset[str]) -> frozenset[str]:
        return (hash_ - gone) | {ADDRESS_ZERO} if hash_ & gone else hash_

    return replace(
        user,
        filter_hash=clear(user.filter_hash),
        notrace_hash=clear(user.notrace_hash),
        function=clear(user.function),
        notrace=clear(user.notrace),
    )
