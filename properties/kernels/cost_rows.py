"""The rows of the costs measured on real kernels: what agrees with the model, as a grid and as JSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from impl.linux.instruments.grace import FLAVOURS
from impl.linux.instruments.measure import Measured
from properties.report.grid import Column, Grid, Line
from properties.report.results import CheckVerdict

__all__ = ["Costs", "Prediction", "Row"]

NAMED = 8
"""So many functions of a difference are named."""

STYLES = {CheckVerdict.HOLDS: "", CheckVerdict.FELL: "bold red", CheckVerdict.NOT_RUN: "yellow"}


@dataclass(frozen=True, slots=True)
class Prediction:
    """What the model says: grace periods of attach and detach, functions with a site that calls, and errnos.

    refused: as in Measured.
    """

    attach: Mapping[str, int]
    detach: Mapping[str, int]
    attached: frozenset[str]
    refused: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def nothing(cls) -> Prediction:
        """The prediction for what the kernel lacks."""
        return cls({}, {}, frozenset(), {"": "EOPNOTSUPP"})


@dataclass(frozen=True, slots=True)
class Row:
    """One attach and detach. measured: None if it failed, for the reason in trouble. The rest is as in Case."""

    kernel: str
    what: str
    count: int
    measured: Measured | None
    expected: Prediction
    group: str = ""
    chosen: bool = False
    trouble: str = ""

    @property
    def differences(self) -> tuple[str, ...]:
        """What the kernel did otherwise than the model says, a sentence each."""
        return tuple(self._differences(self.measured)) if self.measured else ()

    def _differences(self, measured: Measured) -> Iterator[str]:
        phases = (("attach", measured.attach, self.expected.attach), ("detach", measured.detach, self.expected.detach))
        for name, phase, expected in phases:
            if dict(phase.waits.waited) != dict(expected):
                callers = ", ".join(f"{caller}: {count}" for caller, count in phase.waits.callers.items())
                yield f"{name} waited for {periods(phase.waits.waited)}, the model says {periods(expected)} ({callers})"
            for flavour in phase.waits.impossible:
                yield f"{name} waited for more grace periods of {flavour} than there were"
        yield from _compare_sites("are attached", measured.attached, self.expected.attached)
        yield from _compare_sites("stay attached", measured.left, frozenset())
        if not self.chosen and dict(measured.refused) != dict(self.expected.refused):
            differing = sorted(set(measured.refused.items()) ^ set(self.expected.refused.items()))
            yield f"refusals differ: {_list_some([' '.join(pair) for pair in differing])}"

    @property
    def verdict(self) -> CheckVerdict:
        """Whether the kernel did what the model says."""
        if self.measured is None:
            return CheckVerdict.NOT_RUN
        return CheckVerdict.FELL if self.differences else CheckVerdict.HOLDS

    @property
    def lacking(self) -> bool:
        """Whether the kernel has nothing of this kind."""
        return self.measured is not None and self.verdict is CheckVerdict.HOLDS and "" in self.measured.refused

    def __str__(self) -> str:
        return f"{self.kernel}, {self.what}, {self.count:,}: {self._tell()}"

    def _tell(self) -> str:
        if self.measured is None:
            return f"not run: {self.trouble}"
        if self.lacking:
            return "this kernel has none"
        seconds = f"attach {self.measured.attach.seconds:.3f} s, detach {self.measured.detach.seconds:.3f} s"
        return "; ".join((seconds, *self.differences))

    def json(self) -> dict[str, Any]:
        """Everything but the names of the functions."""
        return {
            "kernel": self.kernel,
            "what": self.what,
            "functions": self.count,
            "verdict": self.verdict.value,
            "attach": asdict(self.measured.attach) if self.measured else None,
            "detach": asdict(self.measured.detach) if self.measured else None,
            "attached": len(self.measured.attached) if self.measured else 0,
            "refused": dict(self.measured.refused) if self.measured else {},
            "model": {
                "attach": dict(self.expected.attach),
                "detach": dict(self.expected.detach),
                "attached": len(self.expected.attached),
            },
            "differences": list(self.differences),
            "trouble": self.trouble,
        }


@dataclass(frozen=True, slots=True)
class Costs:
    """All rows, and the seconds that measuring took."""

    rows: tuple[Row, ...]
    seconds: float

    @property
    def verdict(self) -> CheckVerdict:
        """Fell if one row did; holds if all do."""
        verdicts = [row.verdict for row in self.rows]
        if CheckVerdict.FELL in verdicts:
            return CheckVerdict.FELL
        return CheckVerdict.NOT_RUN if CheckVerdict.NOT_RUN in verdicts or not verdicts else CheckVerdict.HOLDS

    @property
    def details(self) -> tuple[str, ...]:
        """A line for each row that does not hold."""
        return tuple(str(row) for row in self.rows if row.verdict is not CheckVerdict.HOLDS)

    def table(self) -> Grid:
        """One line per row; what the model says stands in brackets where the kernel differs."""
        columns = (
            *map(Column, ("kernel", "how")),
            *(Column(heading, right=True) for heading in ("functions", "attach", "detach")),
            *map(Column, ("attach waits for", "detach waits for")),
            Column("against one by one", right=True),
            Column("verdict"),
        )
        kernels = ["", *(row.kernel for row in self.rows)]
        lines = (
            Line(self._cells(row), STYLES[row.verdict], new_section=before not in {"", row.kernel})
            for before, row in zip(kernels, self.rows, strict=False)
        )
        return Grid("what attaching costs", columns, tuple(lines))

    def _cells(self, row: Row) -> tuple[str, ...]:
        head = (row.kernel, row.what)
        if row.measured is None or row.lacking:
            return (*head, "", "", "", "", "", "", "not there" if row.lacking else row.trouble)
        attach, detach = row.measured.attach, row.measured.detach
        return (
            *head,
            f"{len(row.measured.attached):,}",
            f"{attach.seconds:.3f} s",
            f"{detach.seconds:.3f} s",
            _show_waits(attach.waits.waited, row.expected.attach),
            _show_waits(detach.waits.waited, row.expected.detach),
            self._ratio(row),
            row.verdict.value,
        )

    def _ratio(self, row: Row) -> str:
        """How many times faster than links one by one on the same functions: attach, detach."""
        group = (one for one in self.rows if row.group and (one.kernel, one.group) == (row.kernel, row.group))
        yardstick = next(group, row)
        if yardstick is row or row.measured is None or yardstick.measured is None:
            return ""
        pairs = (
            (yardstick.measured.attach.seconds, row.measured.attach.seconds),
            (yardstick.measured.detach.seconds, row.measured.detach.seconds),
        )
        return ", ".join(f"{slow / fast:.3g}x" if fast else "-" for slow, fast in pairs)

    def json(self) -> list[dict[str, Any]]:
        """All rows."""
        return [row.json() for row in self.rows]


def periods(counts: Mapping[str, int]) -> str:
    """`200 rcu_tasks, 200 rcu_tasks_rude`, or a dash."""
    return ", ".join(f"{counts[flavour]} {flavour}" for flavour in FLAVOURS if counts.get(flavour)) or "-"


def _show_waits(measured: Mapping[str, int], expected: Mapping[str, int]) -> str:
    shown = periods(measured)
    return shown if dict(measured) == dict(expected) else f"{shown} (model: {periods(expected)})"


def _compare_sites(what: str, measured: frozenset[str], expected: frozenset[str]) -> Iterator[str]:
    if more := measured - expected:
        yield f"{len(more)} functions {what} against the model: {_list_some(sorted(more))}"
    if fewer := expected - measured:
        yield f"{len(fewer)} functions are not attached: {_list_some(sorted(fewer))}"


def _list_some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMED]) + (", ..." if len(names) > NAMED else "")
