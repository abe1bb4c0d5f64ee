"""SITE-6: the R that stays at a site, because the kernel asks who needs it before the new hash is in place.

__ftrace_hash_rec_update() counts the sites of an ops down, and where the ops saves regs it asks
test_rec_ops_needs_regs() whether another one still wants them. That function looks at the hashes of all enabled ops, so
it finds the ops that is leaving as well, as long as that has its old hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.rules import cite
from model.sites import covering
from model.state import Ops, State

__all__ = ["drop_regs", "keep_regs", "settle_regs"]


def keep_regs(state: State, ops: Ops, functions: Iterable[str]) -> State:
    """An ops that stays enabled no longer covers these functions: R stays where others cover them."""
    if not ops.save_regs:
        return state
    shared = frozenset(function for function in functions if covering(state, function))
    if not shared:
        return state
    cite("SITE-6")
    return replace(state, regs_left=state.regs_left | shared)


def drop_regs(state: State, ops: Ops, functions: Iterable[str]) -> State:
    """The kernel asks for these functions when the ops no longer covers them, and finds nobody who needs R."""
    if not ops.save_regs or state.regs_left.isdisjoint(gone := frozenset(functions)):
        return state
    cite("SITE-6")
    return replace(state, regs_left=state.regs_left - gone)


def settle_regs(state: State) -> State:
    """R goes with the last ops that covers a site."""
    if not state.regs_left:
        return state
    return replace(state, regs_left=frozenset(name for name in state.regs_left if covering(state, name)))
