"""The verb `sweep`: a task at every instruction of every kind of image, while each operation changes it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from properties.hunt.findings import save_seed
from properties.kernels.needs import require_tools
from properties.parking.records import SweepRecord, exit_status, make_checks, summary, sweep_table
from properties.parking.running import run_rows
from properties.parking.scenarios import SweptRow, rows, rows_of
from properties.parking.subjects import BATCHED, release_of
from properties.report.show import Screen, log_width, print_line, rich_table
from properties.report.writing import make_directory, write_lines
from properties.systems.naming import KERNELS, OWN_KERNEL, semantics_named
from properties.verbs.options import add_crew_options, crew_of
from properties.verbs.own_kernel import add_own_kernel, find_semantics
from properties.verbs.publishing import publish_run
from spec.errors import BadInputError
from spec.seeds import parse_seed

__all__ = ["add_arguments", "run"]

DETAILS: Final = """
A task is led to one instruction of an image after the other; there it stands while an operation changes what it is in.
Which operations pend, which programs then run, and what sites show must be what the model says of the point as which
the instruction counts (TASK-2); the task comes home with its registers, nothing that was freed is run, and at the end
nothing is left.

What the kernels are known to do wrong stands in spec/DEFECTS.md: each such defect is shown once in a row, then the
kernel is not asked again, and it is counted as known.

Exit status: 0 all is as the model says, 1 there is a difference, 2 a row gave no verdict, the system cannot be run or
the input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `sweep`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--kernel", action="append", dest="system", choices=KERNELS, help="one of Debian's")
    add_own_kernel(parser)
    option("--system", action="append", metavar="S", help="one in a word: linux-*, bzimage:FILE, or batched")
    option("--semantics", choices=KERNELS, help="whose rules batched, or a kernel of your own, follows")
    option("--image", metavar="KIND", help="only this kind of image, such as 'two fexit' (default: all)")
    option("--operation", metavar="OP", help="only this operation, such as 'detach all' (default: all)")
    json = "where each place is written as a line of JSON; the record for the report beside it (default: %(default)s)"
    option("--json", type=Path, default=Path("build/sweep.jsonl"), metavar="FILE", help=json)
    option("--save", type=Path, metavar="DIR", help="where the seed of each difference is written (default: nowhere)")
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Park tasks, and return 0, 1 or 2 (`exit_status`)."""
    system, semantics = _check_options(arguments)
    run_record = _find_record(arguments.json)
    console = Screen(width=log_width())
    chosen = rows_of(rows(semantics_named(semantics)), arguments.image, arguments.operation)
    release = release_of(system)
    title = f"{system}, semantics {semantics}" if system == BATCHED else f"{system}, release {release}"
    records: list[SweepRecord] = []
    # A file or directory that cannot be written is told before the work.
    if arguments.save:
        make_directory(arguments.save)
    write_lines(records, arguments.json)
    print_line(console, f"{title}: {len(chosen)} rows, each an image and an operation")
    with crew_of(arguments) as crew:
        for done, (row, found) in enumerate(run_rows(system, release, semantics, chosen, crew), 1):
            records += found
            print_line(console, f"{done}/{len(chosen)} {_tell(row, found)}")
            write_lines(records, arguments.json)
    records = _in_order(records, chosen)
    write_lines(records, arguments.json)
    console.print(rich_table(sweep_table(title, records)))
    for record in _first_differences(records):
        path = _save(record, arguments.save) if arguments.save and record.seed else None
        print_line(console, f"{record}\n{f'written to {path}' if path else record.seed}")
    print_line(console, f"{title}: {summary(records)}\nEach place: {arguments.json}")
    publish_run(f"massattach sweep, {title}", make_checks(title, records), run_record, console)
    return exit_status(records)


def _check_options(arguments: argparse.Namespace) -> tuple[str, str]:
    """The system's name, and whose rules it follows; BadInputError for options that do not go together."""
    systems: Sequence[str] = arguments.system or ()
    if len(systems) != 1:
        raise BadInputError(f"one system is swept: write --bzimage FILE, --kernel {KERNELS[-1]}, or --system {BATCHED}")
    (system,) = systems
    if system == BATCHED:
        return system, arguments.semantics or KERNELS[-1]
    if system not in KERNELS and not system.startswith(OWN_KERNEL):
        raise BadInputError(
            f"'{system}' cannot be swept: write one of {', '.join(KERNELS)}, {OWN_KERNEL}FILE, {BATCHED}"
        )
    if arguments.semantics and system in KERNELS:
        raise BadInputError("--semantics is for batched and a kernel of your own: Debian's have theirs")
    require_tools()
    return system, system if system in KERNELS else arguments.semantics or find_semantics(system)


def _find_record(lines: Path) -> Path:
    """The record for the report goes beside the lines, by a name that the report takes for a sweep's."""
    name = f"{lines.stem}.json"
    record = lines.with_name(name if name.startswith("sweep") else f"sweep-{name}")
    if record == lines:
        raise BadInputError("is where the record for the report goes: call the lines of JSON .jsonl", str(lines))
    return record


def _tell(row: SweptRow, records: Sequence[SweepRecord]) -> str:
    first = records[0]
    if first.verdict in {"without", "lost"}:
        return f"{first.verdict}: {row}: {first.told.partition(chr(10))[0]}"
    return f"{row}: {summary(records)}, in {first.seconds:.1f} s"


def _in_order(records: Sequence[SweepRecord], chosen: Sequence[SweptRow]) -> list[SweepRecord]:
    """The records in the order of rows, whoever was done first."""
    places = {(row.image.name, row.operation): place for place, row in enumerate(chosen)}
    return sorted(records, key=lambda record: places[record.image, record.operation])


def _first_differences(records: Sequence[SweepRecord]) -> list[SweepRecord]:
    """The first difference of each row and aspect."""
    first: dict[tuple[str, str, str], SweepRecord] = {}
    for record in records:
        if record.verdict == "difference":
            first.setdefault((record.image, record.operation, record.aspect), record)
    return list(first.values())


def _save(record: SweepRecord, directory: Path) -> Path:
    place = f"sweep: the task stands at +{record.at:#x}, {record.text}" if record.at is not None else "sweep"
    return save_seed(parse_seed(record.seed, "a difference"), record.aspect, (record.told, place), directory)
