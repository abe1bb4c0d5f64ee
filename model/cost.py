"""What operations wait for and build (COST-1, COST-5, COST-7, OPS-8); what they patch is in model.poke."""

from __future__ import annotations

from dataclasses import replace

from model.rules import cite
from model.state import State

__all__ = ["built", "waited", "waited_dynamic"]


def waited(state: State, flavour: str, count: int = 1) -> State:
    """The operation waited for so many grace periods."""
    if not count:
        return state
    periods = dict(state.cost.grace_periods)
    periods[flavour] = periods.get(flavour, 0) + count
    return replace(state, cost=replace(state.cost, grace_periods=periods))


def waited_dynamic(state: State, count: int = 1, *, direct: bool) -> State:
    """OPS-8: so many dynamic ops were unregistered, all of them direct or none."""
    cite("OPS-8")
    after = waited(state, "rcu_tasks", count)
    if state.semantics.rude_waits:
        after = waited(after, "rcu_tasks_rude", count)
    # An ops that is not direct has a trampoline of its own, and that leaves kallsyms.
    return after if direct else waited(after, "rcu", count)


def built(state: State, images: int) -> State:
    """COST-7: so many images were put in place."""
    cite("COST-7")
    return replace(state, cost=replace(state.cost, images_built=state.cost.images_built + images))
