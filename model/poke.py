"""Patching text: the passes that an operation makes, what they cost, and what becomes of one that fails (DEAD-1)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.endings import Refused
from model.faults import fails
from model.rules import cite
from model.sites import covering, t_show
from model.state import Pass, State
from spec.costs import POKE_BATCH

__all__ = ["count_passes", "differs", "ftrace_run_update_code", "modified", "poke", "replaced"]


def replaced(old: State, new: State, functions: Iterable[str]) -> State:
    """COST-2 (ftrace_replace_code): one pass over those of the sites whose instruction the new state changes."""
    return _with_pass(new, Pass(frozenset(name for name in functions if differs(old, new, name))))


def modified(state: State, functions: Iterable[str]) -> State:
    """COST-3 (__modify_ftrace_direct): direct entries of these sites were changed in place.

    A temporary ops makes each site call ftrace_regs_caller meanwhile, and when it goes the site calls the new address.
    Where another ops covers the site it calls that caller anyway.
    """
    if state.off:
        return state
    cite("COST-3")
    return _with_pass(state, Pass(frozenset(name for name in functions if len(covering(state, name)) <= 1), times=2))


def ftrace_run_update_code(left: State, after: State, *rules: str) -> State:
    """DEAD-1: the passes of an operation are made, after all else that may fail.

    left: what stays if they cannot be made, by these rules as well.
    """
    after, died = poke(after)
    if died:
        raise Refused(replace(left, dead=True, armed=after.armed), "ENODEV", "DEAD-1", *rules, warn=True)
    return after


def poke(state: State) -> tuple[State, bool]:
    """Make the passes: the state in which they are counted, and whether ftrace has died of them (ftrace_bug)."""
    state, died = fails(state, "patch") if state.passes else (state, False)
    return count_passes(state), died


def count_passes(state: State) -> State:
    """COST-2: each pass over n sites patches n, in rounds of at most 256."""
    if not state.passes:
        return state
    rounds = sum(one.times * -(-len(one.sites) // POKE_BATCH) for one in state.passes)
    sites = sum(one.times * len(one.sites) for one in state.passes)
    cost = state.cost
    cost = replace(cost, poke_rounds=cost.poke_rounds + rounds, sites_patched=cost.sites_patched + sites)
    return replace(state, passes=(), patched=state.passes, cost=cost)


def _with_pass(state: State, one: Pass) -> State:
    cite("COST-2")
    return replace(state, passes=(*state.passes, one)) if one.sites else state


def differs(old: State, new: State, function: str) -> bool:
    """Whether the instruction of a site becomes another one."""
    return _read_instruction(old, function) != _read_instruction(new, function)


def _read_instruction(state: State, function: str) -> str:
    site = t_show(state, function)
    return site.target if site else "nop"
