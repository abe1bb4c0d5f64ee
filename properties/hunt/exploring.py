"""Explores several settings by a crew: units of search in turn, until a budget ends or one of them finds something."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from properties.hunt.units import Finding, SearchUnit, SearchValue, search_units
from properties.lockstep.coverage import Tally
from properties.work.crew import Crew
from properties.work.units import Done, Lost, Outcome
from spec.errors import BadInputError
from spec.semantics import PRESETS

__all__ = ["Explored", "explore"]

GRACE_SECONDS = 10.0
"""For units that have begun when the budget ends."""


@dataclass(slots=True)
class Explored:
    """What the units of an exploration did.

    tallies: by semantics. findings: by the number of the unit, as are those lost whose process has ended. examples: of
    all units that have come to their ends.
    """

    tallies: dict[str, Tally]
    findings: dict[int, Finding] = field(default_factory=dict)
    lost: dict[int, Lost] = field(default_factory=dict)
    examples: int = 0

    @property
    def steps(self) -> int:
        """How many operations were executed."""
        return sum(tally.steps for tally in self.tallies.values())

    @property
    def first(self) -> int | None:
        """The number of the first unit that found something, or was lost."""
        return min((*self.findings, *self.lost), default=None)

    def add(self, number: int, unit: SearchUnit, outcome: Outcome) -> None:
        """Add a unit's value. BadInputError if it cannot be done at all."""
        if isinstance(outcome, Done):
            value: SearchValue = outcome.value
            self.tallies[unit.semantics].add(value.counts)
            self.examples += value.examples
            if value.finding is not None:
                self.findings[number] = value.finding
        elif outcome.reason == "refused":
            raise BadInputError(outcome.told)
        else:
            self.lost[number] = outcome


def explore(
    settings: Sequence[SearchUnit],
    crew: Crew,
    budget: float,
    tell: Callable[[int], None] = lambda _: None,
    *,
    stops: bool = True,
) -> Explored:
    """Search for so many seconds, and shrink for as many at most. tell: is given the number of operations so far.

    stops: once something is found no new unit begins, but those of a lower number come to their ends: which finding is
    the first one does not depend on how many work.
    """
    explored = Explored({unit.semantics: Tally(PRESETS[unit.semantics]) for unit in settings})
    units = enumerate(search_units(settings))
    deadline = time.monotonic() + budget
    ended: set[int] = set()
    begun = 0

    def take() -> tuple[int, SearchUnit] | None:
        nonlocal begun
        if (stops and explored.first is not None) or (begun and time.monotonic() >= deadline):
            return None
        begun += 1
        return next(units)

    for number, unit, outcome in crew.outcomes(take, math.inf, deadline + budget + GRACE_SECONDS):
        explored.add(number, unit, outcome)
        ended.add(number)
        tell(explored.steps)
        if stops and explored.first is not None and ended.issuperset(range(explored.first)):
            break
    return explored
