"""The table of rules and kernels: what each kernel confirmed, as rich tables and as JSON."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from properties.kernels.evidence import Evidence
from properties.kernels.observable import NOT_OBSERVABLE, State, standing
from properties.lockstep.coverage import rule_ids

__all__ = ["as_json", "reasons_table", "rule_table", "summary_table"]

STYLES = {State.NEVER: "yellow", State.CONFIRMED: "", State.NOT_OBSERVABLE: "dim", State.LACKING: "dim"}


def rule_table(evidences: Sequence[Evidence]) -> Table:
    """A row for each rule, a column for each kernel; last, why a rule cannot be observed."""
    table = Table(title="rules that each kernel confirmed, and by how many steps", title_justify="left")
    table.add_column("rule")
    for evidence in evidences:
        table.add_column(evidence.kernel)
    table.add_column("why not")
    columns = [standing(evidence) for evidence in evidences]
    for rule in rule_ids():
        each = [column[rule] for column in columns]
        cells = [f"[{STYLES[one.state]}]{one}[/]" if STYLES[one.state] else str(one) for one in each]
        table.add_row(rule, *cells, NOT_OBSERVABLE.get(rule, ""))
    return table


def summary_table(evidences: Sequence[Evidence]) -> Table:
    """A row for each kernel: how many rules stand how, and which were never reached."""
    table = Table(title="rules", title_justify="left")
    table.add_column("kernel", overflow="fold")
    table.add_column("release", overflow="fold")
    for state in State:
        table.add_column(state.value, justify="right")
    table.add_column("steps", justify="right")
    table.add_column("which were never reached")
    for evidence in evidences:
        stands = standing(evidence)
        counts = Counter(each.state for each in stands.values())
        never = [rule for rule, each in stands.items() if each.state is State.NEVER]
        numbers = [str(counts[state]) for state in State]
        table.add_row(evidence.kernel, evidence.release, *numbers, f"{evidence.steps:,}", ", ".join(never) or "none")
    return table


def reasons_table(evidence: Evidence) -> Table:
    """Why the kernel was not asked, the most frequent reason first."""
    table = Table(title=f"{evidence.kernel}: steps left out", title_justify="left")
    table.add_column("times", justify="right")
    table.add_column(f"because {evidence.kernel}")
    for reason, count in sorted(evidence.declined.items(), key=lambda item: (-item[1], item[0])):
        table.add_row(f"{count:,}", reason)
    return table


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
