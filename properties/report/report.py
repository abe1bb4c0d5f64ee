"""Checks in order, and what is told of them: progress, one table, one sentence, a text report and JUnit XML.

A check that could not run is never reported as one that holds.
"""

from __future__ import annotations

import re
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from io import StringIO
from pathlib import Path
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from spec.errors import BadInputError

__all__ = ["Check", "CheckResult", "Finished", "Verdict", "exit_status", "run_checks", "summary", "write_reports"]

LOG_WIDTH = 120
TITLE = "massattach verify"
NOT_IN_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Verdict(Enum):
    """What became of a check; the values are the table's words."""

    HOLDS = "holds"
    FELL = "fell"
    NOT_RUN = "not run"


@dataclass(frozen=True, slots=True)
class CheckResult:
    """What a check found.

    cases: how many were tried, in `unit` (`examples`, `cases`, `seeds`). functions: for each world that was used, how
    many functions it has. steps: those taken in lockstep; calls: those among them that call a function. detail: the
    counterexample, or why the check did not run; its first line is a sentence. tally: what was reached, for the report;
    headline: it is shown as well.
    """

    verdict: Verdict
    cases: int
    unit: str = "cases"
    functions: Mapping[str, int] = field(default_factory=dict)
    steps: int = 0
    calls: int = 0
    detail: str = ""
    tally: Table | None = None
    headline: bool = False


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


def run_checks(checks: Sequence[Check], console: Console) -> list[Finished]:
    """Runs all checks, whatever becomes of each: a moving line on a terminal, one line per finished check elsewhere."""
    done: list[Finished] = []
    with _progress(len(checks), console) as begin:
        for check in checks:
            begin(check.name)
            done.append(_run(check))
            if not console.is_terminal or done[-1].result.verdict is not Verdict.HOLDS:
                console.print(_line(done[-1]), highlight=False, markup=False, soft_wrap=True)
    return done


def exit_status(done: Iterable[Finished]) -> int:
    """0 all hold, 1 one fell, 2 one could not run, or there was none."""
    verdicts = {finished.result.verdict for finished in done}
    if Verdict.FELL in verdicts:
        return 1
    return 0 if verdicts == {Verdict.HOLDS} else 2


def summary(done: Sequence[Finished]) -> str:
    """One sentence: how much was checked, and what came of it."""
    worlds: dict[str, int] = {}
    for finished in done:
        worlds.update(finished.result.functions)
    steps = sum(finished.result.steps for finished in done)
    calls = sum(finished.result.calls for finished in done)
    return (
        f"Checked {sum(worlds.values()):,} functions in {len(worlds)} worlds by {steps:,} steps and {calls:,} calls: "
        f"{_conclusion(done)}."
    )


def table(done: Iterable[Finished], title: str = TITLE) -> Table:
    """One row per check."""
    rows = Table(title=title, title_justify="left")
    rows.add_column("property")
    rows.add_column("checked", justify="right")
    rows.add_column("time", justify="right")
    rows.add_column("verdict")
    colour = {Verdict.HOLDS: "green", Verdict.FELL: "bold red", Verdict.NOT_RUN: "yellow"}
    for finished in done:
        verdict = finished.result.verdict
        checked = f"{finished.result.cases:,} {finished.result.unit}" if finished.result.cases else "nothing"
        rows.add_row(finished.name, checked, f"{finished.seconds:.1f} s", _verdict(finished), style=colour[verdict])
    return rows


def write_reports(
    done: Sequence[Finished],
    junit: Path,
    text: Path,
    *,
    title: str = TITLE,
    notes: Sequence[str] = (),
    tables: Sequence[Table] = (),
) -> None:
    """Writes JUnit XML and the text report: table, summary, notes, further tables, and the whole of every detail."""
    for path in (junit, text):
        path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(_junit(done, title)).write(junit, encoding="utf-8", xml_declaration=True)
    page = Console(file=StringIO(), width=LOG_WIDTH)
    page.print(table(done, title))
    for line in (f"\n{summary(done)}", *notes):
        page.print(line, highlight=False, markup=False, soft_wrap=True)
    for each in tables:
        page.print()
        page.print(each)
    for finished in done:
        if finished.result.detail:
            page.print(f"\n{_line(finished)}\n{finished.result.detail}", highlight=False, markup=False, soft_wrap=True)
        if finished.result.tally:
            page.print(f"\n{finished.name}", highlight=False, markup=False, soft_wrap=True)
            page.print(finished.result.tally)
    assert isinstance(page.file, StringIO)
    text.write_text(page.file.getvalue(), encoding="utf-8")


def _run(check: Check) -> Finished:
    start = time.monotonic()
    try:
        result = check.run()
    except BadInputError as error:
        result = CheckResult(Verdict.NOT_RUN, 0, detail=str(error))
    except Exception as error:  # noqa: BLE001  # a defect of the harness must not hide the other checks
        detail = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        result = CheckResult(Verdict.NOT_RUN, 0, detail=detail)
    return Finished(check.name, result, time.monotonic() - start)


@contextmanager
def _progress(total: int, console: Console) -> Iterator[Callable[[str], None]]:
    """Gives the function that tells which check begins."""
    columns = (SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, completed=-1)

        def begin(name: str) -> None:
            progress.update(task, description=name, advance=1)

        yield begin


def _line(finished: Finished) -> str:
    result = finished.result
    checked = f"{result.cases:,} {result.unit}, " if result.cases else ""
    return f"{finished.name}: {_verdict(finished)} ({checked}{finished.seconds:.1f} s)"


def _verdict(finished: Finished) -> str:
    reason = finished.result.detail.partition("\n")[0]
    return f"{finished.result.verdict.value}: {reason}" if reason else finished.result.verdict.value


def _conclusion(done: Sequence[Finished]) -> str:
    fell = sum(finished.result.verdict is Verdict.FELL for finished in done)
    not_run = sum(finished.result.verdict is Verdict.NOT_RUN for finished in done)
    if not (fell or not_run):
        return f"all {len(done)} properties hold" if done else "there was no property to check"
    parts = [f"{fell} of {len(done)} properties fell"] if fell else []
    return ", and ".join(parts + ([f"{not_run} of {len(done)} could not be checked"] if not_run else []))


def _junit(done: Sequence[Finished], title: str) -> ET.Element:
    counts = {
        "tests": str(len(done)),
        "failures": str(sum(finished.result.verdict is Verdict.FELL for finished in done)),
        "errors": str(sum(finished.result.verdict is Verdict.NOT_RUN for finished in done)),
        "time": f"{sum(finished.seconds for finished in done):.3f}",
    }
    suite = ET.Element("testsuite", {"name": title, **counts})
    for finished in done:
        case = ET.SubElement(
            suite,
            "testcase",
            {"classname": title.rpartition(" ")[2], "name": finished.name, "time": f"{finished.seconds:.3f}"},
        )
        if finished.result.verdict is not Verdict.HOLDS:
            tag = "failure" if finished.result.verdict is Verdict.FELL else "error"
            detail = NOT_IN_XML.sub("?", finished.result.detail)
            ET.SubElement(case, tag, {"message": detail.partition("\n")[0]}).text = detail
    root = ET.Element("testsuites", {"name": "massattach", **counts})
    root.append(suite)
    return root
