"""The proof matrix, and the table of rules and kernels, arranged for the page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from properties.report.records import LinuxRecord, Named, RuleRecord
from properties.report.results import ProofCell
from spec.documents import Rule

__all__ = ["Family", "KernelColumn", "RuleLine", "ShownMatrix", "columns", "families", "matrices"]

STATES = ("confirmed", "never reached", "not observable", "not in this kernel")


@dataclass(frozen=True, slots=True)
class ShownMatrix:
    """The proofs of an architecture at a sharing level. lines: arity, and a cell for each kind, None for none."""

    title: str
    kinds: tuple[str, ...]
    lines: tuple[tuple[str, tuple[ProofCell | None, ...]], ...]
    proved: int
    cells: int
    milliseconds: float


def matrices(cells: Sequence[ProofCell]) -> tuple[ShownMatrix, ...]:
    """A matrix for each architecture and level, in the order of the record."""
    groups: dict[tuple[str, str], list[ProofCell]] = {}
    for cell in cells:
        groups.setdefault((cell.architecture, cell.level), []).append(cell)
    return tuple(_arrange(f"{architecture}, {level}", group) for (architecture, level), group in groups.items())


def _arrange(title: str, cells: Sequence[ProofCell]) -> ShownMatrix:
    kinds = tuple(dict.fromkeys(cell.kind for cell in cells))
    arities = dict.fromkeys(cell.arity for cell in cells)
    found = {(cell.arity, cell.kind): cell for cell in cells}
    lines = tuple((arity, tuple(found.get((arity, kind)) for kind in kinds)) for arity in arities)
    proved = sum(cell.outcome == "proved" for cell in cells)
    return ShownMatrix(title, kinds, lines, proved, len(cells), sum(cell.milliseconds for cell in cells))


@dataclass(frozen=True, slots=True)
class KernelColumn:
    """A kernel. source: whether a run or the file of confirmed rules tells; rules: what is known of each."""

    name: str
    release: str
    source: str
    rules: Mapping[str, RuleRecord]
    counts: Mapping[str, int]


def columns(linux: Named[LinuxRecord], known: Mapping[str, Mapping[str, RuleRecord]]) -> tuple[KernelColumn, ...]:
    """A column for each kernel: by a run's record if there is one, else by what was confirmed before."""
    found: dict[str, KernelColumn] = {}
    for kernel, rules in known.items():
        found[kernel] = _make_column(kernel, "", "confirmed.json", rules)
    for name, record in linux:
        for kernel, done in record.kernels.items():
            rules = {rule: states[kernel] for rule, states in record.rules.items() if kernel in states}
            found[kernel] = _make_column(kernel, done.release, f"{name}.json", rules)
    return tuple(found.values())


def _make_column(kernel: str, release: str, source: str, rules: Mapping[str, RuleRecord]) -> KernelColumn:
    counted = Counter[str](rule.state for rule in rules.values())
    return KernelColumn(kernel, release, source, rules, {state: counted[state] for state in STATES})


@dataclass(frozen=True, slots=True)
class RuleLine:
    """A rule, what is known of it by kernel, and why it cannot be observed."""

    rule: Rule
    cells: tuple[RuleRecord | None, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Family:
    """The rules of a section. told: how many stand how, by the best that a kernel says of each."""

    heading: str
    lines: tuple[RuleLine, ...]
    told: str


def families(rules: Iterable[Rule], kernels: Sequence[KernelColumn]) -> tuple[Family, ...]:
    """The rules by section."""
    return tuple(
        _make_family(heading, [_make_line(rule, kernels) for rule in group])
        for heading, group in groupby(rules, key=lambda rule: rule.heading)
    )


def _make_line(rule: Rule, kernels: Sequence[KernelColumn]) -> RuleLine:
    cells = tuple(kernel.rules.get(rule.id) for kernel in kernels)
    return RuleLine(rule, cells, next((cell.reason for cell in cells if cell and cell.reason), ""))


def _make_family(heading: str, lines: Sequence[RuleLine]) -> Family:
    states = [{cell.state for cell in line.cells if cell} for line in lines]
    best = Counter(next((state for state in STATES if state in each), "unknown") for each in states)
    told = (f"{best[state]} {state}" for state in (*STATES, "unknown") if best[state])
    return Family(heading, tuple(lines), ", ".join(told))
