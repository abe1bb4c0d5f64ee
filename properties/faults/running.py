"""Scenarios handed out to a crew, and recorded as they come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from properties.faults.records import FaultRecord, make_records
from properties.faults.scenarios import Scenario
from properties.faults.units import FaultsUnit
from properties.mutants.subject import Subject
from properties.work.crew import Crew
from properties.work.units import Done

__all__ = ["run_scenarios"]

LIMIT_SECONDS = 1800.0
"""A scenario may take so long: one of a hundred allocations takes some minutes where the kernel has sanitizers."""


def run_scenarios(
    subject: Subject, scenarios: Iterable[Scenario], crew: Crew
) -> Iterator[tuple[Scenario, tuple[FaultRecord, ...]]]:
    """Take scenarios; the records of each, as they are done."""
    waiting = iter(scenarios)

    def take() -> tuple[Scenario, FaultsUnit] | None:
        each = next(waiting, None)
        return None if each is None else (each, FaultsUnit(subject, each))

    kernel = subject.kernel
    for each, _, outcome in crew.outcomes(take, LIMIT_SECONDS):
        faulted, seconds = (outcome.value, outcome.seconds) if isinstance(outcome, Done) else (outcome.told, 0.0)
        yield each, tuple(make_records(kernel.name, kernel.release, each, faulted, seconds))
