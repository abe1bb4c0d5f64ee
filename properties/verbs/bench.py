"""The verb `bench`: measures the performance figures of the design, as ratios within one run, against their bounds.

Times are medians of repeated runs, and actions that are compared take turns.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from rich.progress import track

from properties.benchmarks import against_angr, attaching, calling, dividing, proving, stepping
from properties.benchmarks.figures import Figure, Measure, NotMeasuredError, table, write
from properties.report.show import Screen
from properties.verbs.publishing import publish_figures

__all__ = ["add_arguments", "run"]

WITHOUT_ANGR = "Two more figures compare the prover with angr, which has an environment of its own: tox -e bench-angr"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `bench`."""
    parser.epilog = (
        "Exit status: 0 every figure holds, 1 one does not, or what is measured diverges from the model, "
        "2 the input is bad or a tool is missing."
    )
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="where to write the figures, as a list of objects (default: %(default)s)",
    )
    parser.add_argument(
        "--angr",
        metavar="PYTHON",
        help="measure the prover against angr alone; PYTHON is an interpreter that has angr",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measure every figure, print a table, write JSON, and return 0 if all hold, else 1; also if a system diverges."""
    console = Screen()
    wanted = against_angr.measures(arguments.angr) if arguments.angr else measures()
    try:
        figures = [
            measure()
            for measure in track(wanted, "measuring", console=console, transient=True, disable=not console.is_terminal)
        ]
    except NotMeasuredError as error:
        print(error, file=sys.stderr)
        return 1
    console.print(table(figures))
    if not arguments.angr:
        console.print(WITHOUT_ANGR, highlight=False, soft_wrap=True)
    write(figures, arguments.json)
    publish_figures(tuple(map(Figure.record, figures)), arguments.json, console)
    return 0 if all(figure.holds for figure in figures) else 1


def measures() -> list[Measure]:
    """The figures that need nothing but what the project depends on."""
    modules = attaching, stepping, calling, proving, dividing
    return [measure for module in modules for measure in module.measures()]
