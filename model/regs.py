"""SITE-6: the R that stays at a site, since the kernel asks for the ops that need it before it knows the new hash."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.rules import cite
from model.sites import covering
from model.state import Ops, State

__all__ = ["narrowed", "settled", "uncovered"]


def narrowed(state: State, ops: Ops, functions: Iterable[str]) -> State:
    """An ops that stays enabled no longer covers these functions."""
    if not ops.save_regs:
        return state
    shared = frozenset(function for function in functions if covering(state, function))
    if shared:
        cite("SITE-6")
    return replace(state, regs_left=state.regs_left | shared)


def uncovered(state: State, ops: Ops, functions: Iterable[str]) -> State:
    """An ops that was unregistered covered these functions: the kernel asks again."""
    return replace(state, regs_left=state.regs_left - frozenset(functions)) if ops.save_regs else state


def settled(state: State) -> State:
    """A site that no ops covers any more has nothing left."""
    if not state.regs_left:
        return state
    return replace(state, regs_left=frozenset(name for name in state.regs_left if covering(state, name)))
