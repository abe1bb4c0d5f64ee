"""SITE-6: the R that stays at a site, because the kernel asks who needs it before the new hash is in place.

__ftrace_hash_rec_update() counts the sites of an ops down, and where the ops saves regs it asks
test_rec_ops_needs_regs() whether another one still wants them. That function looks at the hashes of all enabled ops, so
it finds the ops that is leaving as well, as long as that has its old hash.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.rules import cite
from model.sites import covering, selected, shows_regs
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


def settle_regs(before: State, state: State) -> State:
    """R goes with the last ops that covers a site, if ftrace is on then (SYSCTL-4)."""
    if not (left := state.regs_left | _strand_regs(before, state)):
        return state
    return replace(state, regs_left=frozenset(name for name in left if _keeps_regs(before, state, name)))


def _strand_regs(before: State, state: State) -> frozenset[str]:
    """The last ops leaves a site while ftrace is off: nobody looks at the record, which so keeps its R (SYSCTL-4)."""
    if not state.off or (before.ops_list, before.ops, before.images) == (state.ops_list, state.ops, state.images):
        return frozenset()
    return frozenset(name for name in selected(before) if shows_regs(before, name) and not covering(state, name))


def _keeps_regs(before: State, state: State, function: str) -> bool:
    if covering(state, function):
        return True
    if not state.site(function) or (covering(before, function) and not state.off):
        return False
    cite("SYSCTL-4")
    return True
