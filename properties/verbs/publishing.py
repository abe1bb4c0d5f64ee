"""What a verb does with its results at its end: a record, the HTML report, and the summary of a workflow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console

from properties.gallery.differences import draw_difference
from properties.report import show
from properties.report.markdown import append_summary, bench_summary, power_summary, run_summary
from properties.report.records import BenchRecord, PowerRecord, make_run
from properties.report.results import Finished
from properties.report.writing import write_record
from properties.verbs.report import BUILD, make
from spec.errors import BadInputError

__all__ = ["publish_figures", "publish_power", "publish_run"]


def publish_run(
    title: str,
    done: Sequence[Finished],
    path: Path,
    console: Console,
    *,
    notes: Sequence[str] = (),
    document: Mapping[str, object] | None = None,
) -> None:
    """Write the record of a run of checks, alone or as a member of a document, and the report beside it."""
    run = make_run(title, done, notes, draw_difference)
    write_record(run if document is None else {**document, "run": run}, path)
    append_summary(run_summary(run))
    _report(path.parent, console)


def publish_figures(figures: BenchRecord, path: Path, console: Console) -> None:
    """Write the report beside the figures; if they are in the current directory, they go with it into BUILD."""
    if path.parent == Path():
        path = BUILD / path.name
        BUILD.mkdir(exist_ok=True)
        write_record(figures, path)
    append_summary(bench_summary(figures))
    _report(path.parent, console)


def publish_power(power: PowerRecord, path: Path, console: Console) -> None:
    """Write which planted bugs were found, and the report beside it."""
    path.parent.mkdir(exist_ok=True)
    write_record(power, path)
    append_summary(power_summary(power))
    _report(path.parent, console)


def _report(directory: Path, console: Console) -> None:
    """Write the report. A record of another run that is damaged is told, and is no fault of this one."""
    try:
        show.print_line(console, f"For a browser: {make(directory)}")
    except BadInputError as error:
        show.print_line(console, f"There is no new report for a browser: {error}")
