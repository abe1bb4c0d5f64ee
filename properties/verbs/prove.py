"""The verb `prove`: proves image files, or prints counterexamples that have been executed."""

from __future__ import annotations

import argparse
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from properties.proofs.telling import BAD_INPUT, WORST, Told, told_of
from properties.prover.goal import READINGS
from properties.report.show import Screen
from properties.verbs.options import add_crew_options, crew_of
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

DETAILS = """
Each image is proved as it is and, if the kernel patches it to detach programs while tasks are in it, as it is then: for
a task at any instruction, with any of the jumps put in at any time. A counterexample tells the obligation that is
broken, what is wrong, where the task stood and which jumps were put in then, the values of registers and results that
matter, and the instructions executed: the one at which it shows, and the one at fault.

Image files come from `python -m properties dump`. The field `arch` of a file names its
architecture, by whose rules it is judged; without it this is x86-64.

Exit status: 0 all proved, 1 one refuted, 2 a file cannot be used or ends the prover, 3 one undecided; of several the
first of 2, 1, 3.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `prove`."""
    parser.epilog = DETAILS
    parser.add_argument(
        "images", nargs="+", type=Path, metavar="IMAGE", help="an image file, or a directory of image files (*.json)"
    )
    parser.add_argument(
        "--reading",
        choices=READINGS,
        default="width",
        help="compare the bytes that an argument has, or all of its words (default: %(default)s)",
    )
    parser.add_argument(
        "--thorough", action="store_true", help="let z3 decide every obligation, also where terms are the same"
    )
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Proves each file, as the image was built and while programs are detached, and returns the worst status."""
    console = Screen(highlight=False, markup=False, soft_wrap=True)
    counts: Counter[int] = Counter()
    paths = list(_find_files(arguments.images, counts))
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        crew_of(arguments) as crew,
        Progress(*columns, console=console, transient=True, disable=not _shows_progress(console, paths)) as progress,
    ):
        told = told_of(paths, arguments.reading, crew, thorough=arguments.thorough)
        for each in progress.track(told, len(paths)):
            _show(console, each)
            counts[each.status] += 1
    if counts.total() > 1:
        console.print(_summarize(counts))
    return next(status for status in WORST if counts[status])


def _show(console: Console, told: Told) -> None:
    for line in told.lines:
        console.print(_printable(line))
    if told.error:
        _print_error(told.error)


def _shows_progress(console: Console, paths: Sequence[Path]) -> bool:
    return console.is_terminal and len(paths) > 1


def _find_files(places: Iterable[Path], counts: Counter[int]) -> Iterator[Path]:
    """The files; in place of a directory, its image files, of which there must be some."""
    for place in places:
        try:
            found = sorted(place.glob("*.json")) if stat.S_ISDIR(place.stat().st_mode) else [place]
        except (OSError, ValueError) as error:
            _refuse(place, f"cannot be read: {getattr(error, 'strerror', None) or error}", counts)
            continue
        yield from found
        if not found:
            _refuse(place, "has no image files (*.json)", counts)


def _refuse(place: Path, reason: str, counts: Counter[int]) -> None:
    _print_error(str(BadInputError(reason, str(place))))
    counts[BAD_INPUT] += 1


def _print_error(text: str) -> None:
    sys.stdout.flush()
    sys.stderr.write(f"{text}\n")


def _printable(line: str) -> str:
    """A line without what the output has no spelling for, such as bytes of a file's name that are no text."""
    encoding = sys.stdout.encoding or "utf-8"
    return line.encode(encoding, "backslashreplace").decode(encoding)


def _summarize(counts: Mapping[int, int]) -> str:
    """`5 files: 3 proved, 1 refuted, 1 unusable`."""
    parts = [f"{counts[status]:,} {word}" for status, word in reversed(WORST.items()) if counts[status]]
    return f"{sum(counts.values()):,} files: {', '.join(parts)}"
