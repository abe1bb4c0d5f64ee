"""What runs reached: outcomes of operations, and rules; and what of the semantics they did not reach."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

import spec
from properties.report.grid import Column, Grid, Line
from spec.alphabet import alphabet
from spec.operations import OPERATIONS, Operation
from spec.semantics import Semantics

__all__ = ["Tallied", "Tally", "lacking", "rule_ids"]

LACKING: tuple[tuple[Callable[[Semantics], bool], str], ...] = (
    (lambda s: not s.set_filter_splits, "FILTER-14"),
    (lambda s: not s.single_direct, "DIRECT-2 DIRECT-3 DIRECT-4 DIRECT-5"),
    (lambda s: not s.hash_direct, "DIRECT-10 DIRECT-11 DIRECT-12"),
    (lambda s: not s.growth_waits, "DIRECT-13 COST-6"),
    (lambda s: not s.share_ipmodify, "IPMODIFY-2 IPMODIFY-4 IPMODIFY-5 IPMODIFY-6 IMAGE-4 NAME-6"),
    (lambda s: s.share_ipmodify, "IPMODIFY-3"),
    (lambda s: not s.tracing_multi, "GLOB-6 IPMODIFY-6 LINK-6 LINK-7 LINK-8 LINK-9 LINK-10 LINK-15 LINK-17"),
    (lambda s: not (s.single_direct or s.hash_direct), "DIRECT-1"),
    (lambda s: not s.has_parts, "LINK-11 PROG-4"),
    (lambda s: s.prog_pins_module, "NAME-10"),
    (lambda s: not s.fmod_ret, "TRAMP-3 GRAPH-9"),
    (lambda s: not s.lsm, "LSM-1 LSM-2 LSM-3 LSM-4 LSM-5 LSM-6"),
    (lambda s: not s.lsm_return_checked, "LSM-3"),
    (lambda s: not s.fsession, "TRAMP-6"),
    (lambda s: not s.freplace, "LINK-5 TRACE-6"),
    (lambda s: not s.cookies, "LINK-15"),
    (lambda s: not s.skips_detached, "TASK-4"),
    (lambda s: not s.image_put_skips_fexit, "TASK-5"),
    (lambda s: not s.sysctl_stops, "NAME-13 SYSCTL-2 SYSCTL-3 SYSCTL-4 SYSCTL-5"),
    (lambda s: not s.fprobes, "KPROBE-3 KPROBE-4 KPROBE-6 KPROBE-7 KPROBE-8 KPROBE-9 KPROBE-10"),
    (lambda s: not s.fprobes_shared, "KPROBE-5"),
    (lambda s: s.graph_users == 1, "GRAPH-3 GRAPH-8 GRAPH-13"),
)
"""The rules that semantics of such a fact cannot reach."""


@cache
def rule_ids() -> tuple[str, ...]:
    """Every rule of spec/README.md, in its order."""
    text = (Path(spec.__file__).parent / "README.md").read_text(encoding="utf-8")
    return tuple(re.findall(r"^- \*\*([A-Z]+-\d+)\*\*", text, re.MULTILINE))


def lacking(semantics: Semantics) -> frozenset[str]:
    """The rules that these semantics cannot reach, by their facts."""
    return frozenset(rule for lacks, rules in LACKING if lacks(semantics) for rule in rules.split())


@dataclass(frozen=True, slots=True)
class Tallied:
    """A tally as a value. outcomes: (verb, outcome, how often); rules: how often each was cited."""

    outcomes: tuple[tuple[str, str, int], ...]
    rules: Mapping[str, int]


class Tally:
    """Tallied of one semantics' runs: (verb, outcome) and rules."""

    def __init__(self, semantics: Semantics) -> None:
        self.semantics = semantics
        self.outcomes: Counter[tuple[str, str]] = Counter()
        self.rules: Counter[str] = Counter()

    def count(self, operation: Operation, outcome: str) -> None:
        """Count an operation with its outcome; that of calls and sites is `observed`."""
        self.outcomes[operation.verb, outcome] += 1

    def add_rules(self, reached: Mapping[str, int]) -> None:
        """Add the rules that one run of the model cited."""
        self.rules.update(reached)

    def add(self, counts: Tallied) -> None:
        """Add what another tally of the same semantics has counted."""
        self.outcomes.update({(verb, outcome): count for verb, outcome, count in counts.outcomes})
        self.rules.update(counts.rules)

    @property
    def counts(self) -> Tallied:
        """What it has counted, in an order that does not tell in which it came."""
        outcomes = ((verb, outcome, count) for (verb, outcome), count in sorted(self.outcomes.items()))
        return Tallied(tuple(outcomes), dict(sorted(self.rules.items())))

    @property
    def steps(self) -> int:
        """How many operations were executed."""
        return self.outcomes.total()

    def rules_at_zero(self) -> tuple[str, ...]:
        """Rules that these semantics have and no run cited."""
        exempt = lacking(self.semantics)
        return tuple(rule for rule in rule_ids() if not self.rules[rule] and rule not in exempt)

    def verbs_at_zero(self) -> tuple[str, ...]:
        """Operations that these semantics have and that never succeeded."""
        done = {verb for verb, outcome in self.outcomes if not outcome.startswith("-")}
        return tuple(verb for verb, kind in OPERATIONS.items() if kind in alphabet(self.semantics) and verb not in done)

    def table(self) -> Grid:
        """How often each operation gave each answer, and each rule was cited; then what stayed at zero."""
        title = f"{self.semantics.name}: {self.steps} operations, {len(self.rules)} rules reached"
        zeros = (
            Line(("never succeeded", ", ".join(self.verbs_at_zero()) or "none"), "bold"),
            Line(("rules not reached", ", ".join(self.rules_at_zero()) or "none"), "bold"),
        )
        lines = (*self._lines_of_operations(), *self._lines_of_rules(), *zeros)
        return Grid(title, (Column("operation"), Column("outcomes")), lines, centred=True)

    def _lines_of_operations(self) -> Iterator[Line]:
        for verb in sorted({verb for verb, _ in self.outcomes}):
            counts = sorted((count, outcome) for (name, outcome), count in self.outcomes.items() if name == verb)
            yield Line((verb, ", ".join(f"{outcome}: {count}" for count, outcome in reversed(counts))))

    def _lines_of_rules(self) -> Iterator[Line]:
        for family, rules in groupby(rule_ids(), key=lambda rule: rule.partition("-")[0]):
            counts = [f"{rule.partition('-')[2]}: {self.rules[rule]}" for rule in rules if self.rules[rule]]
            yield Line((f"rules {family}-", ", ".join(counts)))
