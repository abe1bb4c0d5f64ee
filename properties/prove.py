"""The verb `prove`: proves image files, or prints a counterexample that has been executed."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from properties.proofs.detaching import while_detaching
from properties.proofs.dumps import Dump, read_image
from properties.proofs.goal import READINGS, Goal
from properties.proofs.image import Image
from properties.proofs.prove import prove
from properties.proofs.show import counterexample_lines, summary
from properties.proofs.x86_64 import X86_64
from spec.errors import BadInputError

__all__ = ["SUMMARY", "add_arguments", "run"]

SUMMARY = "prove trampoline images, or show a counterexample that has been executed"
PROVED, REFUTED, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
WORST: Final = (BAD_INPUT, REFUTED, UNDECIDED, PROVED)
STATUS: Final = {"proved": PROVED, "refuted": REFUTED, "undecided": UNDECIDED}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `prove`."""
    parser.epilog = "Exit status: 0 all proved, 1 one refuted, 2 a file cannot be used, 3 one undecided."
    parser.add_argument("files", nargs="+", type=Path, metavar="IMAGE", help="an image file (JSON, one image a file)")
    parser.add_argument(
        "--reading",
        choices=READINGS,
        default="width",
        help="compare an argument's bytes, or all of its words (default: %(default)s)",
    )
    parser.add_argument("--thorough", action="store_true", help="let z3 decide what is plain as well")


def run(arguments: argparse.Namespace) -> int:
    """Proves each file, as the image is and as it is while programs are detached, and returns the worst status."""
    console = Console(highlight=False, markup=False, soft_wrap=True)
    statuses = {PROVED}
    for path in arguments.files:
        try:
            dump = read_image(path)
        except BadInputError as error:
            sys.stderr.write(f"{error}\n")
            statuses.add(BAD_INPUT)
            continue
        goal = dump.goal.read(arguments.reading)
        status = _prove(console, _title(dump), dump.image, goal, thorough=arguments.thorough)
        patched = while_detaching(dump.image, goal, X86_64)
        if patched is not None and status != REFUTED:
            statuses.add(status)
            title = f"{path}: while programs are detached"
            status = _prove(console, title, *patched, thorough=arguments.thorough)
        statuses.add(status)
    return next(status for status in WORST if status in statuses)


def _title(dump: Dump) -> str:
    return f"{dump.file}: {dump.function} of {dump.kernel}, {' '.join(dump.attached)}"


def _prove(console: Console, title: str, image: Image, goal: Goal, *, thorough: bool) -> int:
    verdict = prove(image, goal, thorough=thorough)
    console.print(f"{title}: {summary(verdict)}")
    if verdict.counterexample is not None:
        for line in counterexample_lines(verdict.counterexample, image, goal, X86_64):
            console.print(f"  {line}")
    return STATUS[verdict.outcome]
