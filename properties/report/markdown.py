"""Results as Markdown, for the page that GitHub shows of a workflow's run."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final

from properties.report.records import BenchRecord, ChecksRecord, PowerRecord
from properties.report.results import CheckVerdict

__all__ = ["append_summary", "bench_summary", "power_summary", "run_summary"]

VARIABLE: Final = "GITHUB_STEP_SUMMARY"
SIGNS: Final = {CheckVerdict.HOLDS: "✅", CheckVerdict.FELL: "❌", CheckVerdict.NOT_RUN: "⚠️"}
MEANING: Final = re.compile(r"([\\`*_{}\[\]<>()#+.!|~&-])")
MOST_LETTERS: Final = 4_000


def append_summary(text: str) -> None:
    """Append to the file that the workflow names, if it names one."""
    if path := os.environ.get(VARIABLE):
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(text)


def run_summary(run: ChecksRecord) -> str:
    """A line for each check, and the whole of what fell."""
    rows = (
        (SIGNS[c.verdict], c.name, f"{c.cases:,} {c.unit}", f"{c.seconds:.1f} s", c.verdict.value) for c in run.checks
    )
    table = _table(("", "property", "checked", "time", "verdict"), rows)
    details = (_fence(check.detail) for check in run.checks if check.verdict is not CheckVerdict.HOLDS and check.detail)
    return "\n".join((f"## {_escape(run.title)}\n", f"{_escape(run.summary)}\n", table, *details, ""))


def bench_summary(figures: BenchRecord) -> str:
    """A line for each figure."""
    rows = (
        (
            "✅" if each.holds else "❌",
            each.figure,
            f"{each.value:.3g} {each.unit}",
            f"{'≥' if each.better == 'higher' else '≤'} {each.bound:g}",
        )
        for each in figures
    )
    return f"## massattach bench\n\n{_table(('', 'figure', 'measured', 'must be'), rows)}\n"


def power_summary(power: PowerRecord) -> str:
    """A line for each planted bug."""
    rows = (
        (
            "❌" if bug.aspect is None else "✅",
            bug.bug,
            bug.aspect or "not found",
            f"{bug.steps:,}",
            f"{bug.seconds:.1f} s",
            str(bug.shrunk),
            str(bug.shortest),
            ", ".join(bug.kernels),
        )
        for bug in power.bugs
    )
    headings = ("", "bug", "found in", "operations", "time", "shrunk to", "shortest", "killed in")
    return f"## Planted bugs\n\n{_table(headings, rows)}\n"


def _table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(_lines(headings, rows)) + "\n"


def _lines(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield f"| {' | '.join(headings)} |"
    yield f"|{' --- |' * len(headings)}"
    for row in rows:
        yield f"| {' | '.join(map(_escape, row))} |"


def _escape(text: str) -> str:
    """The text as Markdown shows it literally, on one line."""
    return MEANING.sub(r"\\\1", " ".join(text.split()))


def _fence(text: str) -> str:
    """A block of code, whose fence is longer than any in it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text[:MOST_LETTERS]}\n{fence}\n"
