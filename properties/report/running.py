"""Runs checks one after another, before the user's eyes."""

from __future__ import annotations

import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from properties.report.results import Check, CheckResult, CheckVerdict, Finished
from properties.report.show import print_line
from spec.errors import BadInputError

__all__ = ["run_checks"]


def run_checks(checks: Sequence[Check], console: Console) -> list[Finished]:
    """Run all checks, whatever becomes of each: a moving line on a terminal, one line per finished check elsewhere."""
    done: list[Finished] = []
    with _progress(len(checks), console) as begin:
        for check in checks:
            begin(check.name)
            done.append(_run(check))
            if not console.is_terminal or done[-1].result.verdict is not CheckVerdict.HOLDS:
                print_line(console, done[-1])
    return done


def _run(check: Check) -> Finished:
    start = time.monotonic()
    try:
        result = check.run()
    except BadInputError as error:
        result = CheckResult(CheckVerdict.NOT_RUN, 0, detail=str(error))
    except Exception as error:  # noqa: BLE001  # a defect of the harness must not hide the other checks
        detail = f"{type(error).__name__}: {error}\n{traceback.format_exc()}"
        result = CheckResult(CheckVerdict.NOT_RUN, 0, detail=detail)
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
