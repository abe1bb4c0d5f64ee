"""The verb `verify`, the main job: every check of `checks`, one table, a report, an exit status for CI."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.console import Console

from properties.report import report
from properties.systems.naming import world_named
from properties.verbs import checks
from spec.errors import BadInputError

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "check every property on the real populations, then a summary and a report"
DETAILS = """
Exit status: 0 every property holds, 1 a property fell, 2 a check could not run or the input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `verify`."""
    parser.epilog = DETAILS
    parser.add_argument(
        "--world",
        action="append",
        metavar="W",
        help=f"check on this world: a built-in name, or the path of a population file; may be repeated, "
        f"default: {' '.join(checks.WORLDS)}, and the real kernels that are in the cache",
    )
    parser.add_argument(
        "--budget",
        type=float,
        default=checks.BUDGET,
        metavar="SECONDS",
        help="seconds that the searching checks share; the others take what they need (default: %(default)g)",
    )
    parser.add_argument(
        "--junit",
        type=Path,
        default=Path("build/verify.xml"),
        metavar="FILE",
        help="where to write JUnit XML; the text report goes beside it, as .txt (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Runs the checks and returns 0, 1 or 2 (`report.exit_status`)."""
    if arguments.budget <= 0:
        raise BadInputError(f"--budget {arguments.budget:g} is no time: write a number of seconds above 0")
    worlds = tuple(world_named(name) for name in arguments.world or checks.WORLDS)
    text = arguments.junit.with_suffix(".txt")
    console = Console(width=None if sys.stdout.isatty() else report.LOG_WIDTH)
    kernels, notes = ([], []) if arguments.world else checks.kernels()
    for note in notes:
        console.print(note, highlight=False, markup=False, soft_wrap=True)
    wanted = [*checks.proofs(), *checks.checks(worlds, arguments.budget), *kernels]
    done = report.run_checks(wanted, console)
    for finished in done:
        if finished.result.headline and finished.result.tally:
            console.print(finished.result.tally)
    console.print(report.table(done))
    console.print(report.summary(done), highlight=False, soft_wrap=True)
    report.write_reports(done, arguments.junit, text, notes=notes)
    console.print(f"Reports: {text} and {arguments.junit}", highlight=False, soft_wrap=True)
    return report.exit_status(done)
