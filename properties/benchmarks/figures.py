"""Figures and their bounds: how they are timed, shown as a table, and written as JSON."""

from __future__ import annotations

import gc
import operator
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from rich.table import Table

from properties.report.records import FigureRecord
from properties.report.writing import write_record

__all__ = ["Figure", "Measure", "NotMeasuredError", "seconds", "table", "taking_turns", "worked", "write"]

COMPARE = {"higher": operator.ge, "lower": operator.le}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its bound. better: `higher`, it must reach the bound, or `lower`, it must not exceed it."""

    figure: str
    value: float
    bound: float
    better: Literal["higher", "lower"]
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the bound."""
        return bool(COMPARE[self.better](self.value, self.bound))

    def record(self) -> FigureRecord:
        """The figure as it stands in bench.json."""
        return FigureRecord(self.figure, self.value, self.bound, self.better, self.holds, self.unit)


Measure = Callable[[], Figure]


class NotMeasuredError(Exception):
    """What is measured does not do as the model says, so that its figure means nothing."""


def table(figures: Sequence[Figure]) -> Table:
    """One row per figure."""
    rows = Table(title="massattach bench", title_justify="left")
    rows.add_column("figure")
    rows.add_column("measured", justify="right")
    rows.add_column("must be", justify="right")
    rows.add_column("holds")
    for figure in figures:
        bound = f"{'≥' if figure.better == 'higher' else '≤'} {figure.bound:g}"
        style = "green" if figure.holds else "bold red"
        rows.add_row(figure.figure, f"{figure.value:.3g} {figure.unit}", bound, str(figure.holds), style=style)
    return rows


def write(figures: Sequence[Figure], path: Path) -> None:
    """Writes the figures as JSON; BadInputError if the file cannot be written."""
    write_record(tuple(figure.record() for figure in figures), path)


def seconds(action: Callable[[], object]) -> float:
    """The time that one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def worked(action: Callable[[], object]) -> float:
    """The processor's time that one call takes: what other processes do meanwhile does not count."""
    start = time.process_time()
    action()
    return time.process_time() - start


def taking_turns(times: int, *actions: Callable[[], float]) -> list[float]:
    """The median of what each action returns, each called in turn this many times, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        rounds = [[action() for action in actions] for _ in range(times)]
    finally:
        gc.enable()
    return [median(values) for values in zip(*rounds, strict=True)]
