"""The tables of rules and kernels: what each kernel confirmed, as grids and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from properties.kernels.confirmed import known
from properties.kernels.evidence import Evidence
from properties.kernels.observable import NOT_OBSERVABLE, Knowledge, knowledge, standing
from properties.lockstep.coverage import lacking, rule_ids
from properties.report.grid import Column, Grid, Line
from properties.report.records import RuleRecord
from spec.semantics import PRESETS

__all__ = ["as_json", "known_rules", "reasons_table", "rule_table", "summary_table"]


def rule_table(evidences: Sequence[Evidence]) -> Grid:
    """A line for each rule, a column for each kernel; last, why a rule cannot be observed."""
    headings = ("rule", *(evidence.kernel for evidence in evidences), "why not")
    stands = [standing(evidence) for evidence in evidences]
    lines = (Line((rule, *(str(each[rule]) for each in stands), NOT_OBSERVABLE.get(rule, ""))) for rule in rule_ids())
    return Grid("rules that each kernel confirmed, and by how many steps", tuple(map(Column, headings)), tuple(lines))


def summary_table(evidences: Sequence[Evidence]) -> Grid:
    """A line for each kernel: how many rules stand how, and which were never reached."""
    columns = (
        Column("kernel", wrap="fold"),
        Column("release", wrap="fold"),
        *(Column(state.value, right=True) for state in Knowledge),
        Column("steps", right=True),
        Column("which were never reached"),
    )
    return Grid("rules", columns, tuple(map(_summarize, evidences)))


def _summarize(evidence: Evidence) -> Line:
    stands = standing(evidence)
    counts = Counter(each.state for each in stands.values())
    never = [rule for rule, each in stands.items() if each.state is Knowledge.NEVER]
    numbers = (str(counts[state]) for state in Knowledge)
    return Line((evidence.kernel, evidence.release, *numbers, f"{evidence.steps:,}", ", ".join(never) or "none"))


def reasons_table(evidence: Evidence) -> Grid:
    """Why the kernel was not asked, the most frequent reason first."""
    columns = (Column("times", right=True), Column(f"because {evidence.kernel}"))
    lines = (Line((f"{count:,}", reason)) for reason, count in _by_count(evidence.declined).items())
    return Grid(f"{evidence.kernel}: steps left out", columns, tuple(lines))


def known_rules() -> dict[str, dict[str, RuleRecord]]:
    """What the file of confirmed rules tells of every rule, by kernel; it does not tell by how many steps."""
    return {name: {rule: _know(name, rule, rule in rules) for rule in rule_ids()} for name, rules in known().items()}


def _know(kernel: str, rule: str, confirmed: bool) -> RuleRecord:
    state = knowledge(rule, confirmed=confirmed, absent=rule in lacking(PRESETS[kernel]))
    return RuleRecord(state.value, reason=NOT_OBSERVABLE.get(rule, ""))


def as_json(evidences: Sequence[Evidence]) -> dict[str, Any]:
    """All that the tables say, and by kernel what was done."""
    return {"rules": _rules(evidences), "kernels": {evidence.kernel: _kernel(evidence) for evidence in evidences}}


def _rules(evidences: Sequence[Evidence]) -> dict[str, dict[str, Any]]:
    columns = {evidence.kernel: standing(evidence) for evidence in evidences}
    return {
        rule: {
            kernel: {"state": each[rule].state.value, "steps": each[rule].steps, "reason": each[rule].reason}
            for kernel, each in columns.items()
        }
        for rule in rule_ids()
    }


def _kernel(evidence: Evidence) -> dict[str, Any]:
    outcomes: dict[str, dict[str, int]] = {}
    for (verb, outcome), count in sorted(evidence.outcomes.items()):
        outcomes.setdefault(verb, {})[outcome] = count
    return {
        "release": evidence.release,
        "semantics": evidence.semantics.name,
        "runs": evidence.runs,
        "examples": evidence.examples,
        "steps": evidence.steps,
        "calls": evidence.calls,
        "seconds": round(evidence.seconds, 1),
        "outcomes": outcomes,
        "declined": _by_count(evidence.declined),
        "left": list(evidence.left),
        "differences": [str(difference) for difference in evidence.differences],
    }


def _by_count(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
