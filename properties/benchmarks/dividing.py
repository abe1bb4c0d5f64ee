"""What a second process is worth: the operations a second of two against those of one."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from io import StringIO
from itertools import count
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

ROUNDS: Final = 5
SEMANTICS: Final = ("linux-6.1", "linux-6.12", "linux-7.3")
UNITS: Final = 6
"""Of one process in a round; two have twice as many."""

Rate = Callable[[Crew], float]


def measures() -> list[Measure]:
    """The figures of two processes."""
    return [exploring, verifying]


def exploring() -> Figure:
    """Searches that explore would make, by two processes and by one."""
    seeds = count()
    value = _compare(lambda crew: _explore_rate(crew, next(seeds)))
    return Figure("explore by two processes, operations a second of one's", value, 1.8, "higher", "times")


def verifying() -> Figure:
    """Searching checks as verify divides them, by two processes and by one."""
    seeds = count()
    value = _compare(lambda crew: _verify_rate(crew, next(seeds)))
    return Figure("verify by two processes, operations a second of one's", value, 1.8, "higher", "times")


def _compare(rate: Rate) -> float:
    """The median of the rates of two against one, which take turns."""
    with _crews() as (one, two):
        return median(rate(two) / rate(one) for _ in range(ROUNDS))


@contextmanager
def _crews() -> Iterator[tuple[Crew, Crew]]:
    """One process and two, which have imported what they need."""
    with Crew.here(1) as one, Crew.here(2) as two:
        for crew in one, two:
            _explore_rate(crew, 0)
        yield one, two


def _list_units(crew: Crew, seed: int) -> list[SearchUnit]:
    settings = [SearchUnit(DEFAULT_SYSTEMS, "synthetic", name, seed) for name in SEMANTICS]
    units = search_units(settings)
    return [next(units) for _ in range(UNITS * crew.width)]


def _explore_rate(crew: Crew, seed: int) -> float:
    take = partial(next, iter([(None, unit) for unit in _list_units(crew, seed)]), None)
    start = time.perf_counter()
    done = sum(_count(outcome) for _, _, outcome in crew.outcomes(take))
    return done / (time.perf_counter() - start)


def _verify_rate(crew: Crew, seed: int) -> float:
    units = _list_units(crew, seed)
    checks = [Divided(name, [unit for unit in units if unit.semantics == name], _conclude) for name in SEMANTICS]
    start = time.perf_counter()
    done = run_divided(checks, crew, Console(file=StringIO()))
    return sum(each.result.steps for each in done) / (time.perf_counter() - start)


def _conclude(outcomes: Sequence[Outcome]) -> CheckResult:
    return CheckResult(CheckVerdict.HOLDS, len(outcomes), "units", steps=sum(map(_count, outcomes)))


def _count(outcome: Outcome) -> int:
    """The operations of a search. One that is lost would make its process look quick."""
    assert isinstance(outcome, Done), outcome
    return sum(times for _, _, times in outcome.value.counts.outcomes)
