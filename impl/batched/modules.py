"""Modules come and go (MODULE-*)."""

from __future__ import annotations

import numpy as np

from impl.batched import graph, registration
from impl.batched.faults import Refused
from impl.batched.functions import Indices, Mask
from impl.batched.sites import GRAPH
from impl.batched.state import Ops, State
from spec import operations as op

__all__ = ["delete_module", "init_module"]


def init_module(state: State, operation: op.InitModule) -> None:
    """ftrace_module_enable(): the sites join the ops that cover everything, if ftrace lives (MODULE-1, DEAD-2).

    Then lines that waited for the module have their effect (MODULE-7).
    """
    if operation.module in state.modules:
        raise Refused("EEXIST")
    where = _find_functions(state, operation.module)
    where = where[state.functions.has_site[where]]
    sites = state.sites
    sites.come(where, traced=not state.dead)
    for entry in state.ops_list if not state.dead else ():
        if isinstance(entry, Ops):
            if not entry.ipmodify and not entry.filter_hash.any():
                sites.join(where, entry.code, regs=entry.regs)
        elif not entry.filter_hash.any():
            sites.join(where[~entry.notrace_hash[where]], GRAPH)
    number = state.functions.modules[operation.module]
    state.modules.add(operation.module)
    state.present[number] = True
    state.traced[number] = not state.dead
    state.ledger.sites += int(np.count_nonzero(sites.count[where]))
    state.version += 1
    graph.process_waiting(state, operation.module)


def delete_module(state: State, operation: op.DeleteModule) -> None:
    """The module's sites and everything on them go (MODULE-2..6)."""
    if operation.module not in state.modules:
        raise Refused("ENOENT")
    where = _find_functions(state, operation.module)
    if _is_in_use(state, operation.module, where):
        raise Refused("EAGAIN")
    for index in where[state.livepatched[where]].tolist():
        registration.unpatch(state, index, state.ledger.add)
    addresses = state.unload(operation.module, where)
    for ops in state.ops.values():
        ops.keep_addresses(where, addresses)
    for user in state.graph.users:
        user.zero |= bool(user.filter_hash[where].any())
        for mask in user.hashes():
            _keep_an_address(mask, where)
    for mask in (state.graph.filter_hash, state.graph.notrace_hash):
        _keep_an_address(mask, where)
    state.direct.keep_addresses(where, addresses)
    state.sites.forget(where)
    state.version += 1


def _find_functions(state: State, module: str) -> Indices:
    if module not in state.functions.modules:
        raise Refused("ENOENT")
    functions = state.functions
    return np.flatnonzero(functions.module == functions.modules[module])


def _is_in_use(state: State, module: str, where: Indices) -> bool:
    """A program is attached there, or holds its target (MODULE-3)."""
    trampolines = state.trampolines
    if trampolines.has_programs(where).any() or trampolines.extended[where].any():
        return True
    if any(np.isin(kprobe.where, where).any() for kprobe in state.kprobes.values()):
        return True
    if not state.facts.prog_pins_module:
        return False
    targets = [program.target for program in state.programs.values() if program.target >= 0]
    return bool((state.functions.named.module[targets] == state.functions.modules[module]).any())


def _keep_an_address(mask: Mask, where: Indices) -> None:
    """A tracer's entries stay, for address 0 or one where nothing is any more, which match nothing (MODULE-5)."""
    if mask[where].any():
        mask[where] = False
        mask[-1] = True
