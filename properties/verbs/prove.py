"""The verb `prove`: proves image files, or prints counterexamples that have been executed."""

from __future__ import annotations

import argparse
import stat
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from properties.proofs.image_files import Dump, read_image
from properties.proofs.isolation import FailedError, Isolated
from properties.proofs.judging import DETACHING, NO_PLACE, Variant, lacks_place, variants
from properties.prover.explaining import essential
from properties.prover.goal import READINGS, Reading
from properties.prover.show import counterexample_lines, summary
from properties.prover.verdicts import Verdict
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

DETAILS = """
Each image is proved as it is and, if the kernel patches it to detach programs while tasks are in it, as it is then. A
counterexample tells the obligation that is broken, what is wrong, the values of registers and results that matter, and
the instructions executed: the one at which it shows, and the one at fault.

Image files come from `python -m properties dump`. The field `arch` of a file names its
architecture, by whose rules it is judged; without it this is x86-64.

Exit status: 0 all proved, 1 one refuted, 2 a file cannot be used or ends the prover, 3 one undecided; of several the
first of 2, 1, 3.
"""
SECONDS: Final = 120.0
"""The limit for one file."""

PROVED, REFUTED, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
STATUS: Final = {"proved": PROVED, "refuted": REFUTED, "undecided": UNDECIDED}
WORST: Final = {BAD_INPUT: "unusable", REFUTED: "refuted", UNDECIDED: "undecided", PROVED: "proved"}
"""What the summary calls the files of a status; the worst comes first."""


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


def run(arguments: argparse.Namespace) -> int:
    """Proves each file, as the image was built and while programs are detached, and returns the worst status."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    counts: Counter[int] = Counter()
    paths = list(_find_files(arguments.images, counts))
    columns = (TextColumn("images"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with (
        Isolated(SECONDS) as process,
        Progress(*columns, console=console, transient=True, disable=not _shows_progress(console, paths)) as progress,
    ):
        for path in progress.track(paths):
            counts[_show_file(console, process, path, arguments)] += 1
    if counts.total() > 1:
        console.print(_summarize(counts))
    return next(status for status in WORST if counts[status])


def _show_file(console: Console, process: Isolated, path: Path, arguments: argparse.Namespace) -> int:
    """Has a file proved in a process of its own, and prints what there is to tell. The status is the file's."""
    try:
        told = process.run(_tell, path, arguments.reading, arguments.thorough)
    except FailedError as error:
        told = _Told(BAD_INPUT, (), str(BadInputError(str(error), str(path))))
    for line in told.lines:
        console.print(_printable(line))
    if told.error:
        _print_error(told.error)
    return told.status


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


@dataclass(frozen=True, slots=True)
class _Told:
    """What there is to tell of a file. error: why it cannot be used."""

    status: int
    lines: tuple[str, ...]
    error: str = ""


def _tell(path: Path, reading: Reading, thorough: bool) -> _Told:
    """Tells of one file: the status is the worst of its variants'. Where one is refuted, the next is not tried."""
    try:
        dump = read_image(path)
    except BadInputError as error:
        return _Told(BAD_INPUT, (), str(error))
    found = variants(dump, reading)
    lines: list[str] = []
    statuses = {PROVED}
    for variant in found:
        title = f"{dump.file}: {variant.name}" if variant.name else _describe(dump)
        verdict = variant.prove(thorough=thorough)
        lines += _describe_verdict(title, variant, verdict)
        statuses.add(STATUS[verdict.outcome])
        if REFUTED in statuses:
            break
    if statuses == {PROVED} and lacks_place(found):
        lines.append(f"{dump.file}: {DETACHING}: {NO_PLACE}")
        statuses.add(UNDECIDED)
    return _Told(next(status for status in WORST if status in statuses), tuple(lines))


def _describe(dump: Dump) -> str:
    return f"{dump.file}: {dump.function} of {dump.kernel}, {' '.join(dump.attached)}"


def _describe_verdict(title: str, variant: Variant, verdict: Verdict) -> Iterator[str]:
    yield f"{title}: {summary(verdict)}"
    if verdict.counterexample is not None:
        image, goal, architecture = variant.image, variant.goal, variant.architecture
        found = essential(verdict.counterexample, image, goal, architecture, verdict.bindings)
        yield from (f"  {line}" for line in counterexample_lines(found, image, goal, architecture))
