"""What operations cost (COST-*): grace periods waited for, text-poke rounds, sites patched, images built."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.rules import cite
from model.sites import covering, site_of
from model.state import State
from spec.costs import POKE_BATCH

__all__ = ["built", "patched", "patched_between", "repointed", "waited", "waited_dynamic"]


def waited(state: State, flavour: str, count: int = 1) -> State:
    """The operation waited for so many grace periods."""
    periods = dict(state.cost.grace_periods)
    periods[flavour] = periods.get(flavour, 0) + count
    return replace(state, cost=replace(state.cost, grace_periods=periods)) if count else state


def waited_dynamic(state: State, count: int = 1, *, direct: bool) -> State:
    """OPS-8: so many dynamic ops were unregistered, all of them direct or none."""
    cite("OPS-8")
    after = waited(state, "rcu_tasks", count)
    if state.semantics.rude_waits:
        after = waited(after, "rcu_tasks_rude", count)
    return after if direct else waited(after, "rcu", count)


def patched(state: State, count: int, passes: int = 1) -> State:
    """COST-2: passes over so many sites, each in rounds of at most 256."""
    cite("COST-2")
    rounds = passes * -(-count // POKE_BATCH)
    cost = state.cost
    return replace(
        state,
        cost=replace(cost, poke_rounds=cost.poke_rounds + rounds, sites_patched=cost.sites_patched + passes * count),
    )


def patched_between(old: State, new: State, functions: Iterable[str]) -> State:
    """The new state, with the cost of one pass over those of the sites whose instruction differs from the old one."""
    return patched(new, sum(_instruction(old, function) != _instruction(new, function) for function in set(functions)))


def repointed(state: State, functions: Iterable[str]) -> State:
    """COST-3: direct entries of these sites were changed in place, by way of a temporary ops."""
    cite("COST-3")
    return patched(state, sum(len(covering(state, function)) <= 1 for function in functions), passes=2)


def built(state: State, images: int) -> State:
    """COST-7: so many images were put in place."""
    cite("COST-7")
    return replace(state, cost=replace(state.cost, images_built=state.cost.images_built + images))


def _instruction(state: State, function: str) -> str:
    site = site_of(state, function)
    return site.target if site else "nop"
