"""Plans as a record for the report."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from properties.plan.planning import Plan
from properties.plan.probes import Probe
from properties.report.records import PlannedKernel, PlannedProbe, PlannedRefusal, PlannedSet, PlanRecord
from spec.costs import Cost
from spec.sharing import LEVELS
from spec.worlds import Function, World

__all__ = ["make_record"]

EXAMPLES: Final = 3


def make_record(world: World, probes: Sequence[Probe], plans: Sequence[Plan]) -> PlanRecord:
    """The plans of these probes by each kernel's rules."""
    told = tuple(PlannedProbe(probe.name, probe.kind, probe.pattern, len(probe.matched)) for probe in probes)
    return PlanRecord(world.name, len(world.functions), told, tuple(_record(each, probes) for each in plans))


def _record(each: Plan, probes: Sequence[Probe]) -> PlannedKernel:
    names = [probe.name for probe in probes]
    attached = dict(zip(names, map(len, each.attached), strict=True))
    sets = tuple(
        PlannedSet(
            tuple(names[number] for number in numbers),
            len(functions),
            {level: each.images(level, numbers) for level in LEVELS},
            _examples(functions),
        )
        for numbers, functions in each.sets.items()
    )
    costs = {way: None if cost is None else _count(cost) for way, cost in each.costs.items()}
    return PlannedKernel(each.semantics.name, attached, tuple(_refusals(each, names)), sets, costs)


def _refusals(each: Plan, names: Sequence[str]) -> Iterator[PlannedRefusal]:
    for name, refused in zip(names, each.refused, strict=True):
        for reason, functions in refused.items():
            yield PlannedRefusal(name, reason.rule, reason.text, len(functions), _examples(functions))


def _examples(functions: Sequence[Function]) -> tuple[str, ...]:
    return tuple(function.name for function in functions[:EXAMPLES])


def _count(cost: Cost) -> dict[str, int]:
    """Everything that a cost counts, but for the images that are alive."""
    waits = {f"waits_for_{flavour}": count for flavour, count in cost.grace_periods.items()}
    counted = {"text-poke_rounds": cost.poke_rounds, "sites_patched": cost.sites_patched}
    return {**counted, **waits, "images_built": cost.images_built}
