"""Checks and what became of them, as values; a check that could not run is never one that holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Literal

from properties.report.grid import Grid

__all__ = [
    "Check",
    "CheckResult",
    "CheckVerdict",
    "Finished",
    "ProofCell",
    "ToldDivergence",
    "exit_status",
    "summary",
]


class CheckVerdict(Enum):
    """What became of a check; the values are the table's words."""

    HOLDS = "holds"
    FELL = "fell"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class ToldDivergence:
    """A divergence in words: the members of lockstep's Divergence. seed: the text of one that shows it."""

    step: str
    aspect: str
    system: str
    expected: str
    observed: str
    rules: tuple[str, ...]
    seed: str


@dataclass(frozen=True, slots=True)
class ProofCell:
    """A proof of the matrix. arity: the arguments of the functions that the image serves; kind: of its programs."""

    architecture: str
    level: str
    arity: str
    kind: str
    outcome: Literal["proved", "refuted", "undecided"]
    milliseconds: float


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    cases: how many were tried, in `unit` (`examples`, `cases`, `seeds`). functions: for each world that was used, how
    many functions it has. steps: those taken in lockstep; calls: those among them that call a function. detail: the
    counterexample, or why the check did not run; its first line is a sentence. tally: what was reached, for the report;
    headline: it is shown as well. differences: the divergences that detail tells; proofs: those of the matrix.
    """

    verdict: CheckVerdict
    cases: int
    unit: str = "cases"
    functions: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    calls: int = 0
    detail: str = ""
    tally: Grid | None = None
    headline: bool = False
    differences: tuple[ToldDivergence, ...] = ()
    proofs: tuple[ProofCell, ...] = ()


@dataclass(frozen=True, slots=True)
class Check:
    """A property, and the function that checks it. It may raise BadInputError: then it could not run."""

    name: str
    run: Callable[[], CheckResult]


@dataclass(frozen=True, slots=True)
class Finished:
    """A check that was run. seconds: the time it took."""

    name: str
    result: CheckResult
    seconds: float

    @property
    def told_verdict(self) -> str:
        """The verdict, and why where there is a reason."""
        reason = self.result.detail.partition("\n")[0]
        return f"{self.result.verdict.value}: {reason}" if reason else self.result.verdict.value

    def __str__(self) -> str:
        checked = f"{self.result.cases:,} {self.result.unit}, " if self.result.cases else ""
        return f"{self.name}: {self.told_verdict} ({checked}{self.seconds:.1f} s)"


def exit_status(done: Iterable[Finished]) -> int:
    """0 all hold, 1 one fell, 2 one could not run, or there was none."""
    verdicts = {finished.result.verdict for finished in done}
    if CheckVerdict.FELL in verdicts:
        return 1
    return 0 if verdicts == {CheckVerdict.HOLDS} else 2


def summary(done: Sequence[Finished]) -> str:
    """One sentence: how much was checked, and what came of it."""
    worlds: dict[str, int] = {}
    for finished in done:
        worlds.update(finished.result.functions)
    steps = sum(finished.result.steps for finished in done)
    calls = sum(finished.result.calls for finished in done)
    return (
        f"Checked {sum(worlds.values()):,} functions in {len(worlds)} worlds by {steps:,} steps and {calls:,} calls: "
        f"{_conclude(done)}."
    )


def _conclude(done: Sequence[Finished]) -> str:
    fell = sum(finished.result.verdict is CheckVerdict.FELL for finished in done)
    not_run = sum(finished.result.verdict is CheckVerdict.NOT_RUN for finished in done)
    if not (fell or not_run):
        return f"all {len(done)} properties hold" if done else "there was no property to check"
    parts = [f"{fell} of {len(done)} properties fell"] if fell else []
    return ", and ".join(parts + ([f"{not_run} of {len(done)} could not be checked"] if not_run else []))
