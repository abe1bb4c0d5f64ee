"""Rows handed out to a crew, and recorded as they come back."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from properties.parking.records import SweepRecord, make_records
from properties.parking.scenarios import SweptRow
from properties.parking.units import RowUnit
from properties.work.crew import Crew
from properties.work.units import Done

__all__ = ["run_rows"]

LIMIT_SECONDS = 1800.0
"""A row may take so long: one of a hundred places takes half a minute where the machine does nothing else."""


def run_rows(
    system: str, release: str, semantics: str, rows: Iterable[SweptRow], crew: Crew
) -> Iterator[tuple[SweptRow, tuple[SweepRecord, ...]]]:
    """Take rows; the records of each, as they are done."""
    waiting = iter(rows)

    def take() -> tuple[SweptRow, RowUnit] | None:
        row = next(waiting, None)
        return None if row is None else (row, RowUnit(system, semantics, row))

    for row, _, outcome in crew.outcomes(take, LIMIT_SECONDS):
        swept, seconds = (outcome.value, outcome.seconds) if isinstance(outcome, Done) else (outcome.told, 0.0)
        yield row, tuple(make_records(system, release, row, swept, seconds))
