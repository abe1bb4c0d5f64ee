"""A second process is measured by the time that two take for some units of work, against that of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import StringIO
from itertools import islice
from statistics import median
from typing import Final

from rich.console import Console

from properties.benchmarks.figures import Figure, Measure
from properties.hunt.units import SearchUnit, search_units
from properties.report.dividing import Divided, run_divided
from properties.report.results import CheckResult, CheckVerdict
from properties.systems.naming import DEFAULT_SYSTEMS
from properties.work.crew import Crew
from properties.work.units import Done, Outcome

__all__ = ["measures"]

ROUNDS: Final = 3
SEMANTICS: Final = ("linux-6.1", "linux-6.12", "linux-7.3")
UNITS: Final = 12
"""In a round; the same for one process and for two, since what a unit draws decides what an operation costs."""

Timed = Callable[[Crew, list[SearchUnit]], float]
"""The seconds that a crew takes for units."""


def measures() -> list[Measure]:
    """The figures of two processes."""
    return [exploring, verifying]


def exploring() -> Figure:
    """Searches that explore would make, by two processes and by one."""
    ratios = [one / two for one, two in _compare(_time_exploring)]
    return Figure("explore by two processes, operations a second of one's", median(ratios), 1.8, "higher", "times")


def verifying() -> Figure:
    """Searching checks as verify divides them, by two processes and by one."""
    ratios = [two / one for one, two in _compare(_time_verifying)]
    return Figure("verify by two processes, time of one's", median(ratios), 0.6, "lower", "times")


def _compare(timed: Timed) -> Iterator[tuple[float, float]]:
    """The seconds of one process and of two, which take turns."""
    with _crews() as (one, two):
        for seed in range(ROUNDS):
            units = _list_units(seed)
            yield timed(one, units), timed(two, units)


@contextmanager
def _crews() -> Iterator[tuple[Crew, Crew]]:
    """One process and two, which have imported what they need."""
    with Crew.here(1) as one, Crew.here(2) as two:
        for crew in one, two:
            _time_exploring(crew, _list_units(0)[: crew.width])
        yield one, two


def _list_units(seed: int) -> list[SearchUnit]:
    settings = [SearchUnit(DEFAULT_SYSTEMS, "synthetic", name, seed) for name in SEMANTICS]
    return list(islice(search_units(settings), UNITS))


def _time_exploring(crew: Crew, units: list[SearchUnit]) -> float:
    take = partial(next, iter([(None, unit) for unit in units]), None)
    start = time.perf_counter()
    for _, _, outcome in crew.outcomes(take):
        _count(outcome)
    return time.perf_counter() - start


def _time_verifying(crew: Crew, units: list[SearchUnit]) -> float:
    checks = [Divided(name, [unit for unit in units if unit.semantics == name], _conclude) for name in SEMANTICS]
    start = time.perf_counter()
    run_divided(checks, crew, Console(file=StringIO()))
    return time.perf_counter() - start


def _conclude(outcomes: Sequence[Outcome]) -> CheckResult:
    return CheckResult(CheckVerdict.HOLDS, len(outcomes), "units", steps=sum(map(_count, outcomes)))


def _count(outcome: Outcome) -> int:
    """The operations of a search. One that is lost would make its process look quick."""
    assert isinstance(outcome, Done), outcome
    return sum(times for _, _, times in outcome.value.counts.outcomes)
