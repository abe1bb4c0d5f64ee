"""Line charts laid out: costs by the number of functions on two logarithmic axes, and figures over runs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from properties.report.records import Curve, FigureRecord

__all__ = ["Chart", "ChartLine", "Tick", "Trend", "cost_charts", "trend"]

WIDTH, HEIGHT = 440, 270
LEFT, RIGHT, TOP, BOTTOM = 58, 16, 16, 44
MARKS: Final = ("circle", "square", "triangle", "diamond")
MOST_WAYS: Final = 8
"""So many colours there are; marks of the second four are hollow."""

MOST_POINTS: Final = 60
TREND_WIDTH, TREND_HEIGHT, TREND_MARGIN = 300, 96, 10


@dataclass(frozen=True, slots=True)
class Tick:
    """A line of the grid with its label."""

    at: float
    label: str


@dataclass(frozen=True, slots=True)
class ChartLine:
    """A curve: its points in pixels, and its marks. number: of its colour, the same in all charts of a group."""

    name: str
    number: int
    mark: str
    hollow: bool
    path: str
    points: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Chart:
    """A chart that is laid out. text: what it shows, in words; nothing: every value is 0."""

    title: str
    text: str
    unit: str
    nothing: bool
    across: tuple[Tick, ...]
    down: tuple[Tick, ...]
    lines: tuple[ChartLine, ...]
    width: float = WIDTH
    height: float = HEIGHT
    left: float = LEFT
    right: float = WIDTH - RIGHT
    top: float = TOP
    bottom: float = HEIGHT - BOTTOM


@dataclass(frozen=True, slots=True)
class _Axis:
    """A logarithmic axis from a power of ten to another; what is 0 has a place of its own before the first."""

    low: int
    high: int
    zero: bool
    start: float
    end: float

    def place(self, value: float) -> float:
        room = self.high - self.low + self.zero
        exponent = -1.0 if value <= 0 else math.log10(value) - self.low
        return self.start + (self.end - self.start) * (exponent + self.zero) / room

    def ticks(self) -> tuple[Tick, ...]:
        zero = (Tick(self.place(0), "0"),) if self.zero else ()
        step = max(1, (self.high - self.low) // 8)
        powers = range(self.low, self.high + 1, step)
        return (*zero, *(Tick(self.place(10.0**power), short(10.0**power)) for power in powers))


def _axis(values: Sequence[float], start: float, end: float) -> _Axis:
    positive = [value for value in values if value > 0]
    low = math.floor(math.log10(min(positive))) if positive else 0
    high = math.ceil(math.log10(max(positive))) if positive else 1
    return _Axis(low, max(high, low + 1), len(positive) < len(values), start, end)


def short(value: float) -> str:
    """A number for an axis: 0.01, 10, 1k, 100k, 1M."""
    for bound, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= bound:
            return f"{value / bound:.3g}{letter}"
    return f"{value:.3g}"


def cost_charts(unit: str, named: Sequence[tuple[str, Sequence[Curve]]]) -> list[Chart]:
    """Charts of curves over the number of functions, by their titles; axes and colours are the same in all."""
    ways = list(dict.fromkeys(curve.name for _, curves in named for curve in curves if curve.points))
    numbers = {way: number for number, way in enumerate(ways[:MOST_WAYS])}
    shown = {title: [_shorten(curve) for curve in curves if curve.name in numbers] for title, curves in named}
    points = [point for curves in shown.values() for curve in curves for point in curve.points]
    across = _axis([x for x, _ in points], LEFT, WIDTH - RIGHT - 8)
    down = _axis([y for _, y in points], HEIGHT - BOTTOM, TOP + 6)
    return [
        Chart(
            title,
            _describe(unit, curves),
            unit,
            not any(y for curve in curves for _, y in curve.points),
            across.ticks(),
            down.ticks(),
            tuple(_draw(numbers[curve.name], curve, across, down) for curve in curves),
        )
        for title, curves in shown.items()
        if curves
    ]


def _shorten(curve: Curve) -> Curve:
    return Curve(curve.name, tuple(sorted(curve.points))[:MOST_POINTS])


def _draw(number: int, curve: Curve, across: _Axis, down: _Axis) -> ChartLine:
    places = tuple((round(across.place(x), 1), round(down.place(y), 1)) for x, y in curve.points)
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    return ChartLine(curve.name, number, MARKS[number % len(MARKS)], number >= len(MARKS), path, places)


def _describe(unit: str, curves: Sequence[Curve]) -> str:
    return "; ".join(
        f"{curve.name}: " + ", ".join(f"{short(y)} {unit} for {x:,} functions" for x, y in curve.points)
        for curve in curves
    )


@dataclass(frozen=True, slots=True)
class Trend:
    """A figure over runs, oldest first. now: the last value and its bound; bound: the height of its line."""

    title: str
    now: str
    text: str
    path: str
    points: tuple[tuple[float, float, bool], ...]
    bound: float
    width: float = TREND_WIDTH
    height: float = TREND_HEIGHT


def trend(title: str, names: Sequence[str], figures: Sequence[FigureRecord]) -> Trend:
    """A figure's values in as many runs, and its last bound, from 0 up."""
    last, values = figures[-1], [figure.value for figure in figures]
    bound, told_bound = last.bound, f"{'≥' if last.better == 'higher' else '≤'} {last.bound:g}"
    most = max(*values, bound, 0.0) or 1.0
    room = TREND_HEIGHT - 2 * TREND_MARGIN

    def height(value: float) -> float:
        return round(TREND_HEIGHT - TREND_MARGIN - room * (max(value, 0.0) / most), 1)

    step = (TREND_WIDTH - 2 * TREND_MARGIN) / max(1, len(values) - 1)
    places = [(round(TREND_MARGIN + step * number, 1), height(value)) for number, value in enumerate(values)]
    told = ", ".join(f"{name} {value:.3g}" for name, value in zip(names, values, strict=True))
    points = tuple((x, y, figure.holds) for (x, y), figure in zip(places, figures, strict=True))
    path = "M" + "L".join(f"{x} {y}" for x, y in places)
    now = f"{last.value:.3g} {last.unit}, must be {told_bound}"
    return Trend(title, now, f"{told}; the bound is {bound:g}", path, points, height(bound))
