"""Checks whose work can be divided, done by a crew before the user's eyes."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from properties.report.results import CheckResult, CheckVerdict, Finished
from properties.report.show import print_line
from properties.work.crew import Crew
from properties.work.units import Done, Outcome, Unit

__all__ = ["Divided", "run_divided", "sole"]


@dataclass(frozen=True, slots=True)
class Divided:
    """A property, the units of work that check it, and what comes of all of them together.

    seconds: after so many of work no more units are taken, of which there may be any number.
    """

    name: str
    units: Iterable[Unit]
    conclude: Callable[[Sequence[Outcome]], CheckResult]
    seconds: float = math.inf


def sole(outcomes: Sequence[Outcome]) -> CheckResult:
    """What comes of a check of one unit, which gives its result."""
    (outcome,) = outcomes
    if isinstance(outcome, Done):
        result: CheckResult = outcome.value
        return result
    return CheckResult(CheckVerdict.NOT_RUN, 0, detail=outcome.told)


class _Running:
    """A check that is being done. State: its units that are out, those that have come back, and their seconds."""

    def __init__(self, check: Divided) -> None:
        self.check = check
        self.outcomes: list[Outcome] = []
        self.seconds = 0.0
        self._waiting = iter(check.units)
        self._next = next(self._waiting, None)
        self._out = 0

    def take(self) -> Unit | None:
        """The next unit; None if no more is wanted, or, until some come back, if those that are out may do."""
        unit = self._next
        if unit is None or (self.outcomes and self._foresee() >= self.check.seconds):
            return None
        self._next = next(self._waiting, None)
        self._out += 1
        return unit

    def give(self, outcome: Outcome) -> None:
        """Take a unit back."""
        self._out -= 1
        self.outcomes.append(outcome)
        if isinstance(outcome, Done):
            self.seconds += outcome.seconds
        else:
            self._next = None

    @property
    def is_over(self) -> bool:
        """Whether nothing more is to come."""
        return not self._out and (self._next is None or self.seconds >= self.check.seconds)

    def _foresee(self) -> float:
        """The seconds of all units that were taken, when those that are out have come back."""
        return self.seconds + self._out * self.seconds / len(self.outcomes)


def run_divided(checks: Sequence[Divided], crew: Crew, console: Console) -> list[Finished]:
    """Do all checks, whatever becomes of each; the order of the results is theirs.

    A terminal shows a moving line; elsewhere one line is printed for each check that is done.
    """
    running = [_Running(check) for check in checks]
    finished: dict[int, Finished] = {}
    columns = (SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=len(checks))
        for place, _, outcome in crew.outcomes(partial(_take, running)):
            each = running[place]
            each.give(outcome)
            if each.is_over:
                done = Finished(each.check.name, each.check.conclude(each.outcomes), each.seconds)
                finished[place] = done
                progress.update(task, completed=len(finished), description=each.check.name)
                if not console.is_terminal or done.result.verdict is not CheckVerdict.HOLDS:
                    print_line(console, done)
    return [finished[place] for place in range(len(checks))]


def _take(running: Sequence[_Running]) -> tuple[int, Unit] | None:
    """The next unit of the first check that wants one."""
    for place, each in enumerate(running):
        if (unit := each.take()) is not None:
            return place, unit
    return None
