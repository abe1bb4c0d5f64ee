"""How checks are run before the user's eyes, and how results are shown: tables, a text report, JUnit XML."""

from __future__ import annotations

import re
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from io import StringIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from properties.report.grid import Column, Grid, Line
from properties.report.results import Check, CheckResult, Finished, Verdict, summary
from spec.errors import BadInputError

__all__ = [
    "LOG_WIDTH",
    "STYLES",
    "log_width",
    "print_line",
    "rich_table",
    "run_checks",
    "table",
    "text_of",
    "write_reports",
]

LOG_WIDTH: Final = 120
TITLE: Final = "massattach verify"
STYLES: Final = {Verdict.HOLDS: "green", Verdict.FELL: "bold red", Verdict.NOT_RUN: "yellow"}
NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


def log_width(width: int = LOG_WIDTH) -> int | None:
    """The width of standard output: of a terminal as it is, of a log always the same."""
    return None if sys.stdout.isatty() else width


def print_line(console: Console, line: object) -> None:
    """Print a line as it is, without colours or breaks."""
    console.print(str(line), highlight=False, markup=False, soft_wrap=True)


def rich_table(grid: Grid) -> Table:
    """The table as rich prints it."""
    shown = Table(title=grid.title, title_justify="center" if grid.centred else "left")
    for column in grid.columns:
        shown.add_column(
            column.heading,
            justify="right" if column.right else "left",
            overflow="fold" if column.wrap == "fold" else "ellipsis",
            no_wrap=column.wrap == "never",
        )
    for line in grid.lines:
        if line.new_section:
            shown.add_section()
        shown.add_row(*map(escape, line.cells), style=line.style)
    return shown


def text_of(grid: Grid, width: int) -> str:
    """The table as text without colours."""
    page = Console(file=StringIO(), width=width)
    page.print(rich_table(grid))
    assert isinstance(page.file, StringIO)
    return page.file.getvalue()


def run_checks(checks: Sequence[Check], console: Console) -> list[Finished]:
    """Run all checks, whatever becomes of each: a moving line on a terminal, one line per finished check elsewhere."""
    done: list[Finished] = []
    with _progress(len(checks), console) as begin:
        for check in checks:
            begin(check.name)
            done.append(_run(check))
            if not console.is_terminal or done[-1].result.verdict is not Verdict.HOLDS:
                print_line(console, done[-1])
    return done


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
    """Give the function that tells which check begins."""
    columns = (SpinnerColumn(), TextColumn("{task.completed}/{task.total} {task.description}"), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task("", total=total, completed=-1)

        def begin(name: str) -> None:
            progress.update(task, description=name, advance=1)

        yield begin


def table(done: Iterable[Finished], title: str = TITLE) -> Grid:
    """One line per check."""
    columns = (Column("property"), Column("checked", right=True), Column("time", right=True), Column("verdict"))
    return Grid(title, columns, tuple(map(_line, done)))


def _line(finished: Finished) -> Line:
    result = finished.result
    checked = f"{result.cases:,} {result.unit}" if result.cases else "nothing"
    cells = (finished.name, checked, f"{finished.seconds:.1f} s", finished.told_verdict)
    return Line(cells, STYLES[result.verdict])


def write_reports(
    done: Sequence[Finished],
    junit: Path,
    text: Path,
    *,
    title: str = TITLE,
    notes: Sequence[str] = (),
    tables: Sequence[Grid] = (),
) -> None:
    """Write JUnit XML and the text report: table, summary, notes, further tables, and the whole of every detail."""
    for path in (junit, text):
        path.parent.mkdir(parents=True, exist_ok=True)
    ET.ElementTree(_junit(done, title)).write(junit, encoding="utf-8", xml_declaration=True)
    with text.open("w", encoding="utf-8") as file:
        page = Console(file=file, width=LOG_WIDTH)
        page.print(rich_table(table(done, title)))
        for line in (f"\n{summary(done)}", *notes):
            print_line(page, line)
        for each in tables:
            page.print()
            page.print(rich_table(each))
        for finished in done:
            _print_details(page, finished)


def _print_details(page: Console, finished: Finished) -> None:
    if finished.result.detail:
        print_line(page, f"\n{finished}\n{finished.result.detail}")
    if finished.result.tally:
        print_line(page, f"\n{finished.name}")
        page.print(rich_table(finished.result.tally))


def _junit(done: Sequence[Finished], title: str) -> ET.Element:
    counts = {
        "tests": str(len(done)),
        "failures": str(sum(finished.result.verdict is Verdict.FELL for finished in done)),
        "errors": str(sum(finished.result.verdict is Verdict.NOT_RUN for finished in done)),
        "time": f"{sum(finished.seconds for finished in done):.3f}",
    }
    root = ET.Element("testsuites", {"name": "massattach", **counts})
    suite = ET.SubElement(root, "testsuite", {"name": title, **counts})
    for finished in done:
        _add_case(suite, finished, title.rpartition(" ")[2])
    return root


def _add_case(suite: ET.Element, finished: Finished, classname: str) -> None:
    times = {"classname": classname, "name": finished.name, "time": f"{finished.seconds:.3f}"}
    case = ET.SubElement(suite, "testcase", times)
    if finished.result.verdict is not Verdict.HOLDS:
        tag = "failure" if finished.result.verdict is Verdict.FELL else "error"
        detail = NOT_IN_XML.sub("?", finished.result.detail)
        ET.SubElement(case, tag, {"message": detail.partition("\n")[0]}).text = detail
