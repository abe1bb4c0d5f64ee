"""Values of options that several verbs have."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Callable
from pathlib import Path

from properties.faults.known import DEFECTS
from properties.work.crew import Crew, processors

__all__ = [
    "SYSTEM_TIME_LIMIT",
    "add_asking",
    "add_crew_options",
    "count_of",
    "crew_of",
    "join_or_start",
    "length",
    "seconds",
]

SYSTEM_TIME_LIMIT = 10.0
"""Seconds that a plug-in may take for one answer."""

ASKABLE = sorted({*DEFECTS, "DEFECT-17", "DEFECT-27", "DEFECT-44"})
"""Kernels decline these by the defect's name."""


def seconds(text: str) -> float:
    """A time above 0."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds: write one above 0")
    return value


def add_asking(parser: argparse.ArgumentParser) -> None:
    """Declare --ask, of verbs whose kernels are not asked for what is known."""
    ask = "a known defect that a kernel is to show, of those that it is not asked for: one of %(choices)s"
    parser.add_argument("--ask", action="append", choices=ASKABLE, metavar="DEFECT", default=[], help=ask)


def add_crew_options(parser: argparse.ArgumentParser) -> None:
    """Declare who does the work."""
    jobs = "processes that work at the same time (default: one for each processor)"
    parser.add_argument("--jobs", type=count_of("processes"), default=processors(), metavar="N", help=jobs)
    scheduler = "have the work done by the cluster whose dask scheduler is there, such as tcp://host:8786"
    parser.add_argument("--scheduler", metavar="ADDRESS", help=scheduler)
    tls = "authority, certificate and key, as PEM files, of a cluster that speaks TLS"
    parser.add_argument("--tls", type=Path, nargs=3, metavar=("CA", "CERT", "KEY"), help=tls)
    parser.set_defaults(crew=None)


def crew_of(arguments: argparse.Namespace, niceness: int = 0) -> Crew:
    """The crew that the options ask for, unless a campaign has given one: processes of this machine, or a cluster."""
    if arguments.crew is not None:
        given: Crew = arguments.crew
        return given
    return _join(arguments, _warn) if arguments.scheduler else Crew.here(arguments.jobs, niceness)


def join_or_start(arguments: argparse.Namespace, tell: Callable[[str], None]) -> Crew:
    """The crew of a cluster: the one that the options name, or a new one of this machine."""
    # Dask is loaded where a cluster is wanted.
    from properties.work.cluster import start  # noqa: PLC0415

    return _join(arguments, tell) if arguments.scheduler else start(arguments.jobs, tell)


def _join(arguments: argparse.Namespace, tell: Callable[[str], None]) -> Crew:
    from properties.work.cluster import Tls, join  # noqa: PLC0415

    return join(arguments.scheduler, Tls(*arguments.tls) if arguments.tls else None, tell)


def _warn(sentence: str) -> None:
    sys.stderr.write(f"{sentence}\n")


def count_of(things: str) -> Callable[[str], int]:
    """A reader of numbers above 0; things: what is counted."""

    def read(text: str) -> int:
        if not (text.isdecimal() and int(text) > 0):
            raise argparse.ArgumentTypeError(f"'{text}' is no number of {things}: write one above 0")
        return int(text)

    return read


length = count_of("operations")
