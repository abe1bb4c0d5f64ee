"""The verb `verify`, the main job: every check of `checks`, one table, a report, an exit status for CI."""

from __future__ import annotations

import argparse
from pathlib import Path

from properties.report import show
from properties.report.dividing import run_divided
from properties.report.results import exit_status, summary
from properties.verbs import checks
from properties.verbs.options import add_crew_options, crew_of
from properties.verbs.publishing import publish_run
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

DETAILS = """
Exit status: 0 every property holds, 1 a property fell, 2 a check could not run or the input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `verify`."""
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
        help="seconds of work that the searching checks share; the others take what they need (default: %(default)g)",
    )
    add_crew_options(parser)
    parser.add_argument(
        "--junit",
        type=Path,
        default=Path("build/verify.xml"),
        metavar="FILE",
        help="where to write JUnit XML; the text report goes beside it, as .txt (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and return 0, 1 or 2 (`exit_status`)."""
    if arguments.budget <= 0:
        raise BadInputError(f"--budget {arguments.budget:g} is no time: write a number of seconds above 0")
    text = arguments.junit.with_suffix(".txt")
    console = show.Screen(width=show.log_width())
    kernels, notes = ([], []) if arguments.world else checks.kernels()
    for note in notes:
        show.print_line(console, note)
    wanted = [*checks.proofs(), *checks.checks(arguments.world or checks.WORLDS, arguments.budget), *kernels]
    with crew_of(arguments) as crew:
        done = run_divided(wanted, crew, console)
    for finished in done:
        if finished.result.headline and finished.result.tally:
            console.print(show.rich_table(finished.result.tally))
    console.print(show.rich_table(show.table(done)))
    show.print_line(console, summary(done))
    show.write_reports(done, arguments.junit, text, notes=notes)
    show.print_line(console, f"Reports: {text} and {arguments.junit}")
    publish_run(show.TITLE, done, arguments.junit.with_suffix(".json"), console, notes=notes)
    return exit_status(done)
