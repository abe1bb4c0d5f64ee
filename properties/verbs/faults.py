"""The verb `faults`: each operation of a real kernel while each of its allocations fails."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from properties.faults.records import FaultRecord, exit_status, faults_table, summary
from properties.faults.running import run_scenarios
from properties.faults.scenarios import Scenario, scenarios, scenarios_of
from properties.hunt.findings import save_seed
from properties.kernels.needs import require_tools
from properties.mutants.subject import Subject
from properties.report.show import Screen, log_width, print_line, rich_table
from properties.report.writing import make_directory, write_lines
from properties.systems.naming import KERNELS, OWN_KERNEL
from properties.verbs.options import add_crew_options, crew_of
from properties.verbs.own_kernel import add_own_kernel, find_semantics
from spec.errors import BadInputError
from spec.seeds import parse_seed

__all__ = ["add_arguments", "run"]

DETAILS: Final = """
Each operation is carried out once for each allocation that it makes, while that one fails: all or nothing, the next
operations behave, nothing is left behind, and the kernel says nothing. It takes a kernel with /proc/self/fail-nth, as
`linux --config debug` configures it. One without is given what can be made to fail in any: the charge for JIT memory,
and the first allocation, the filter, the registration and the patching of an operation.

What the kernels are known to do wrong stands in spec/DEFECTS.md, and is counted as known.

Exit status: 0 every fault is explained, 1 there is a finding, 2 one gave no verdict, the kernel cannot be run or the
input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `faults`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--kernel", action="append", dest="system", choices=KERNELS, help="one of Debian's")
    add_own_kernel(parser)
    option("--system", action="append", metavar="S", help="either of them in one word: linux-*, or bzimage:FILE")
    option("--semantics", choices=KERNELS, help="whose rules the kernel of your own follows")
    option("--operation", metavar="OP", help="only this one, such as bpf_link_detach (default: all)")
    json = "where each operation and fault is written as a line of JSON (default: %(default)s)"
    option("--json", type=Path, default=Path("build/faults.jsonl"), metavar="FILE", help=json)
    option("--save", type=Path, metavar="DIR", help="where the seed of each finding is written (default: nowhere)")
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make allocations fail, and return 0, 1 or 2 (`exit_status`)."""
    system = _check_options(arguments)
    require_tools()
    console = Screen(width=log_width())
    given = arguments.semantics
    subject = Subject(system, system if system in KERNELS else given or find_semantics(system))
    chosen = scenarios_of(scenarios(subject.rules), arguments.operation)
    title = f"{subject.kernel.name}, release {subject.kernel.release}"
    records: list[FaultRecord] = []
    # A file or directory that cannot be written is told before the work.
    if arguments.save:
        make_directory(arguments.save)
    write_lines(records, arguments.json)
    print_line(console, f"{title}: {len(chosen)} scenarios, each without a fault and then with every one")
    with crew_of(arguments) as crew:
        for done, (scenario, found) in enumerate(run_scenarios(subject, chosen, crew), 1):
            records += found
            print_line(console, f"{done}/{len(chosen)} {_tell(scenario, found)}")
            write_lines(records, arguments.json)
    console.print(rich_table(faults_table(title, records)))
    for path, record in _save_findings(records, arguments.save):
        print_line(console, f"{record}\n{f'written to {path}' if path else record.seed}")
    print_line(console, f"{title}: {summary(records)}\nEach fault: {arguments.json}")
    return exit_status(records)


def _check_options(arguments: argparse.Namespace) -> str:
    """The system's name; BadInputError for options that do not go together."""
    systems: Sequence[str] = arguments.system or ()
    if len(systems) != 1:
        raise BadInputError(f"the faults of one kernel are tried: write --bzimage FILE, or --kernel {KERNELS[-1]}")
    (system,) = systems
    if system not in KERNELS and not system.startswith(OWN_KERNEL):
        raise BadInputError(f"'{system}' is no kernel: write one of {', '.join(KERNELS)}, or {OWN_KERNEL}FILE")
    if arguments.semantics and system in KERNELS:
        raise BadInputError("--semantics is for a kernel of your own: Debian's have theirs")
    return system


def _tell(scenario: Scenario, records: Sequence[FaultRecord]) -> str:
    first = records[0]
    if first.verdict in {"declined", "lost"}:
        return f"{first.verdict}: {scenario}: {first.told.partition(chr(10))[0]}"
    faults = sum(bool(record.fault) for record in records)
    found = sum(record.verdict == "finding" for record in records)
    return f"{faults} faults, {found} findings in {first.seconds:.1f} s: {scenario}"


def _save_findings(records: Sequence[FaultRecord], directory: Path | None) -> list[tuple[Path | None, FaultRecord]]:
    """The first finding of each scenario and aspect, and where its seed was written."""
    first: dict[tuple[str, tuple[str, ...], str], FaultRecord] = {}
    for record in records:
        if record.verdict == "finding":
            first.setdefault((record.operation, record.before, record.aspect), record)
    return [(_save(record, directory) if directory else None, record) for record in first.values()]


def _save(record: FaultRecord, directory: Path) -> Path:
    comments = (record.told, f"faults, fail {record.fault}: {record.place}" if record.fault else "faults, without one")
    return save_seed(parse_seed(record.seed, "a finding"), record.aspect, comments, directory)
