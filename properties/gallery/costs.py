"""What attaching costs by the rules, as curves: one function a call against one call for all, on each kernel."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final

from properties.plan.planning import BATCH, DIRECT_MULTI, ONE_BY_ONE, plan
from properties.plan.probes import Probe
from properties.plan.selecting import NameGlob, Selection
from properties.report.records import Curve, CurveRecord
from spec.costs import Cost
from spec.prototypes import Prototype, Type
from spec.semantics import PRESETS
from spec.worlds import Function

__all__ = ["SIZES", "draw_costs"]

SIZES: Final = (1, 10, 100, 1_000, 10_000, 47_382)
"""The last is the number of functions of Debian's 7.3."""

LONG: Final = Type("long", "INT", 8)
NAMES: Final = {ONE_BY_ONE: "one by one", BATCH: "one batch", DIRECT_MULTI: "one raw direct_multi"}
COUNTED: Final[Mapping[str, Callable[[Cost], int]]] = {
    "grace periods waited for, attach and detach": lambda cost: sum(cost.grace_periods.values()),
    "text-poke rounds, attach and detach": lambda cost: cost.poke_rounds,
}


def draw_costs(sizes: tuple[int, ...] = SIZES) -> Iterator[CurveRecord]:
    """For each kernel's rules the grace periods, and the text-poke rounds, by the number of functions."""
    for semantics in PRESETS.values():
        counted = {size: plan([_make_probe(size)], semantics).costs for size in sizes}
        for title, count in COUNTED.items():
            curves = (Curve(name, tuple(_points(counted, way, count))) for way, name in NAMES.items())
            unit, _, _ = title.partition(",")
            yield CurveRecord(semantics.name, title, unit, tuple(curve for curve in curves if curve.points))


def _points(
    counted: Mapping[int, Mapping[str, Cost | None]], way: str, count: Callable[[Cost], int]
) -> Iterator[tuple[int, int]]:
    """What attaching and detaching take together; nothing where the kernel has no such way."""
    for size, costs in counted.items():
        attach, detach = costs[f"attach, {way}"], costs[f"detach, {way}"]
        if attach is not None and detach is not None:
            yield size, count(attach) + count(detach)


def _make_probe(size: int) -> Probe:
    """A fentry program on so many functions, all alike."""
    prototype = Prototype((LONG,), LONG)
    functions = tuple(Function(f"function{number}", prototype, number + 1) for number in range(size))
    return Probe("P1", "fentry", "*", functions, Selection((NameGlob("*"),)))
