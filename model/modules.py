"""Loading and unloading modules (MODULE-*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from model.faults import Faults
from model.registration import remove
from model.rules import Refused, cite
from model.sites import covering
from model.state import ADDRESS_ZERO, GraphUser, Ops, State, address_of, klp_ops
from spec import operations as op

__all__ = ["delete", "init"]


def init(state: State, operation: op.InitModule, _faults: Faults) -> State:
    """MODULE-1: init_module."""
    if state.dead:
        raise Refused("EOPNOTSUPP", "NAME-7")
    if operation.module in state.modules:
        raise Refused("EEXIST", "MODULE-1")
    if operation.module not in state.world.modules:
        raise Refused("ENOENT", "MODULE-1")
    cite("MODULE-1", "COST-8")
    after = replace(state, modules=state.modules | {operation.module})
    joined = sum(bool(covering(after, function)) for function in _functions(state, operation.module))
    return replace(after, cost=replace(after.cost, sites_patched=after.cost.sites_patched + joined))


def delete(state: State, operation: op.DeleteModule, faults: Faults) -> State:
    """MODULE-2: delete_module."""
    if state.dead:
        raise Refused("EOPNOTSUPP", "NAME-7")
    if operation.module not in state.modules:
        raise Refused("ENOENT", "MODULE-2")
    functions = _functions(state, operation.module)
    if _in_use(state, frozenset(functions)):
        cite("MODULE-3")
        raise Refused("EAGAIN", "MODULE-2")
    cite("MODULE-2")
    for function in functions:
        key = klp_ops(function)
        if key in state.ops:
            cite("MODULE-4")
            state = remove(state, key, faults).without_ops([key])
    return _without_sites(replace(state, modules=state.modules - {operation.module}), frozenset(functions))


def _functions(state: State, module: str) -> list[str]:
    return [function.name for function in state.world.functions if function.module == module]


def _in_use(state: State, functions: frozenset[str]) -> bool:
    pinned = state.semantics.prog_pins_module and any(p.target in functions for p in state.programs.values())
    return pinned or any(not functions.isdisjoint(link.cookies) for link in state.links.values())


def _without_sites(state: State, gone: frozenset[str]) -> State:
    """MODULE-5: addresses of sites that have gone stay in hashes and in direct_functions, and select nothing."""
    cite("MODULE-5", "MODULE-6")
    unloads = state.unloads + 1
    kept = {name: address_of(name, unloads) for name in gone}
    lost = frozenset(name for name, program in state.programs.items() if program.target in gone)
    return replace(
        state,
        unloads=unloads,
        lost=state.lost | lost,
        ops={key: _ops_without(ops, kept) for key, ops in state.ops.items()},
        graph_users={name: _user_without(user, gone) for name, user in state.graph_users.items()},
        direct_functions={kept.get(name, name): entry for name, entry in state.direct_functions.items()},
    )


def _ops_without(ops: Ops, kept: Mapping[str, str]) -> Ops:
    filter_hash, notrace_hash = (
        frozenset(kept.get(name, name) for name in hash_) for hash_ in (ops.filter_hash, ops.notrace_hash)
    )
    return replace(ops, filter_hash=filter_hash, notrace_hash=notrace_hash)


def _user_without(user: GraphUser, gone: frozenset[str]) -> GraphUser:
    """The hashes of tracers, and no others, get address 0 in such places (clear_mod_from_hashes)."""
    sets = (None if one is None else _zeroed(one, gone) for one in (user.filter, user.function, user.notrace))
    filter_, function, notrace = sets
    return replace(user, filter=filter_, function=function, notrace=notrace)


def _zeroed(hash_: frozenset[str], gone: frozenset[str]) -> frozenset[str]:
    return (hash_ - gone) | {ADDRESS_ZERO} if hash_ & gone else hash_
