"""How values are shown: a grid as a table of rich or as text, results as a table, a text report, JUnit XML."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Final
from xml.etree import ElementTree as ET

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from properties.report.grid import Column, Grid, Line
from properties.report.results import CheckVerdict, Finished, summary
from properties.report.writing import make_directory

__all__ = [
    "LOG_WIDTH",
    "Screen",
    "log_width",
    "print_line",
    "rich_table",
    "table",
    "text_of",
    "write_reports",
]

LOG_WIDTH: Final = 120
TITLE: Final = "massattach verify"
STYLES: Final = {CheckVerdict.HOLDS: "green", CheckVerdict.FELL: "bold red", CheckVerdict.NOT_RUN: "yellow"}
NOT_IN_XML: Final = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


class Screen(Console):
    """Standard output as rich prints to it. If nobody reads it any more the verb ends as `properties.__main__` says."""

    def on_broken_pipe(self) -> None:
        """Raise BrokenPipeError, where rich would exit with 1."""
        raise BrokenPipeError


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
        make_directory(path.parent)
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
        "failures": str(sum(finished.result.verdict is CheckVerdict.FELL for finished in done)),
        "errors": str(sum(finished.result.verdict is CheckVerdict.NOT_RUN for finished in done)),
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
    if finished.result.verdict is not CheckVerdict.HOLDS:
        tag = "failure" if finished.result.verdict is CheckVerdict.FELL else "error"
        detail = NOT_IN_XML.sub("?", finished.result.detail)
        ET.SubElement(case, tag, {"message": detail.partition("\n")[0]}).text = detail
