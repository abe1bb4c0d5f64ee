"""What the runs of a kernel showed: the rules that it confirmed, what it declined, where it diverged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from properties.lockstep.coverage import Tally, rule_ids
from properties.lockstep.divergence import Divergence
from spec.operations import Operation
from spec.seeds import Seed, print_seed
from spec.semantics import Semantics

__all__ = ["Collected", "Difference", "Evidence"]


@dataclass(frozen=True, slots=True)
class Difference:
    """A divergence, the run that met it, and a seed that shows it."""

    run: str
    divergence: Divergence
    seed: Seed

    def __str__(self) -> str:
        return f"{self.run}: {self.divergence}\n\n{print_seed(self.seed)}"


@dataclass(frozen=True, slots=True)
class Evidence:
    """What all runs of one kernel showed.

    rules: by rule, the steps that confirmed it: the model cited it, and the kernel did the same. outcomes: by verb and
    answer. declined: why the kernel was not asked, and how often. left: the first step that each run had to leave out,
    with file and line. runs and examples: fixed ones and random ones.
    """

    kernel: str
    release: str
    semantics: Semantics
    rules: Mapping[str, int]
    outcomes: Mapping[tuple[str, str], int]
    declined: Mapping[str, int]
    left: tuple[str, ...]
    differences: tuple[Difference, ...]
    runs: int
    examples: int
    seconds: float

    @property
    def steps(self) -> int:
        """How many steps the kernel took: operations, calls and looks at a site."""
        return sum(self.outcomes.values())

    @property
    def calls(self) -> int:
        """How many of the steps are calls of functions."""
        return self.outcomes.get(("call", "observed"), 0)

    @property
    def confirmed(self) -> tuple[str, ...]:
        """The rules that a step confirmed, in the order of spec/README.md."""
        return tuple(rule for rule in rule_ids() if self.rules.get(rule))


@dataclass(slots=True)
class Collected:
    """Gathers evidence while runs go on: lockstep's witness, and its tally."""

    semantics: Semantics
    tally: Tally = field(init=False)
    rules: Counter[str] = field(default_factory=Counter)
    reasons: Counter[str] = field(default_factory=Counter)
    left: list[str] = field(default_factory=list)
    differences: list[Difference] = field(default_factory=list)
    runs: int = 0
    examples: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        self.tally = Tally(self.semantics)

    def agreed(self, _operation: Operation, _observed: str, rules: tuple[str, ...]) -> None:
        """The kernel did what the model says, so the rules that the model cited are confirmed."""
        self.rules.update(rules)

    def declined(self, _operation: Operation, reason: str) -> None:
        """The kernel was not given a step, for this reason."""
        self.reasons[reason] += 1

    def evidence(self, kernel: str, release: str) -> Evidence:
        """The evidence so far."""
        return Evidence(
            kernel,
            release,
            self.semantics,
            dict(self.rules),
            dict(self.tally.outcomes),
            dict(self.reasons),
            tuple(self.left),
            tuple(self.differences),
            self.runs,
            self.examples,
            self.seconds,
        )
