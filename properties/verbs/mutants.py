"""The verb `mutants`: small changes of a kernel's own machine code, and whether the harness sees each of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from properties.kernels.needs import require_tools
from properties.mutants.named import find_named, named_like
from properties.mutants.records import MutantRecord, exit_status, mutants_table, summary
from properties.mutants.running import FIXED_SECONDS, Chosen, run_mutants
from properties.mutants.sampling import eligible, in_function, sample
from properties.mutants.subject import Subject
from properties.mutants.survey import MutantSurvey, make_survey
from properties.report.show import Screen, log_width, print_line, rich_table
from properties.report.writing import write_lines
from properties.systems.naming import KERNELS, OWN_KERNEL
from properties.verbs.options import add_crew_options, count_of, crew_of, seconds
from properties.verbs.own_kernel import add_own_kernel, find_semantics
from spec.errors import BadInputError

__all__ = ["add_arguments", "run"]

SAMPLE: Final = 150
BUDGET: Final = 30.0
RANDOM_SEED: Final = 1
DETAILS = """
A mutant is one instruction of a function that implements mass attach: a conditional jump that goes the other way, or
always one, a call or a store left out, another constant in a comparison, another errno or none. It is poked into a
guest's memory before each run; no kernel is built. It is judged by the fixed runs in which it may make a difference,
those first that differ most from each other, then by random search. What the fixed runs execute is measured once, and
kept in the cache.

Survivors that nothing can see stand in properties/mutants/accepted.json, each with its reason. With --named the
mutants are bugs that the kernel once had, found in its code by what stands there.

Exit status: 0 every survivor is accepted, 1 one is not, 2 a mutant gave no verdict, the kernel cannot be run or the
input is bad.
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `mutants`."""
    parser.epilog = DETAILS
    option = parser.add_argument
    option("--kernel", action="append", dest="system", choices=KERNELS, help="one of Debian's")
    add_own_kernel(parser)
    option("--system", action="append", metavar="S", help="either of them in one word: linux-*, or bzimage:FILE")
    option("--semantics", choices=KERNELS, help="whose rules the kernel of your own follows")
    option(
        "--sample",
        type=count_of("mutants"),
        default=SAMPLE,
        metavar="N",
        help="mutants that are made (default: %(default)d)",
    )
    option("--random-seed", type=int, default=RANDOM_SEED, metavar="S", help="which ones (default: %(default)d)")
    option("--function", metavar="F", help="only of functions whose names match, as *direct*")
    named = "instead of a sample, the bugs whose names match (default: all)"
    option("--named", nargs="?", const="*", metavar="NAME", help=named)
    budget = "to search for each that no fixed run has killed (default: %(default)g)"
    option("--budget", type=seconds, default=BUDGET, metavar="SECONDS", help=budget)
    search = "leave the fixed runs out: what search finds by itself"
    option("--only-search", action="store_true", help=search)
    json = "where each mutant is written as a line of JSON (default: %(default)s)"
    option("--json", type=Path, default=Path("build/mutants.jsonl"), metavar="FILE", help=json)
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """Make mutants, and return 0, 1 or 2 (`exit_status`)."""
    system = _check_options(arguments)
    require_tools()
    console = Screen(width=log_width())
    given = arguments.semantics
    subject = Subject(system, system if system in KERNELS else given or find_semantics(system))
    kernel = subject.kernel
    title = f"{kernel.name}, release {kernel.release}"
    records: list[MutantRecord] = []
    # A file that cannot be written is told before the work.
    write_lines(records, arguments.json)

    def tell(sentence: object) -> None:
        print_line(console, f"{title}: {sentence}")

    with crew_of(arguments) as crew:
        survey = make_survey(subject, crew, tell)
        chosen = _choose(arguments, survey, tell)

        budgets = {"budget": arguments.budget, "fixed_seconds": 0.0 if arguments.only_search else FIXED_SECONDS}
        for record in run_mutants(subject, survey, chosen, crew, random_seed=arguments.random_seed, **budgets):
            records.append(record)
            print_line(console, f"{len(records)}/{len(chosen)} {record}")
            write_lines(records, arguments.json)
    console.print(rich_table(mutants_table(title, records)))
    for record in records:
        if record.verdict != "killed":
            print_line(console, record)
    print_line(console, f"{title}: {summary(records)}\nEach mutant: {arguments.json}")
    return exit_status(records)


def _check_options(arguments: argparse.Namespace) -> str:
    """The system's name; BadInputError for options that do not go together."""
    systems: Sequence[str] = arguments.system or ()
    if len(systems) != 1:
        raise BadInputError(f"one kernel is mutated: write --kernel {KERNELS[-1]}, another one, or --bzimage FILE")
    (system,) = systems
    if system not in KERNELS and not system.startswith(OWN_KERNEL):
        raise BadInputError(f"'{system}' is no kernel: write one of {', '.join(KERNELS)}, or {OWN_KERNEL}FILE")
    if arguments.semantics and system in KERNELS:
        raise BadInputError("--semantics is for a kernel of your own: Debian's have theirs")
    if arguments.named and arguments.function:
        raise BadInputError("--named and --function both say which mutants are made: leave one out")
    if arguments.named:
        named_like(arguments.named)
    return system


def _choose(arguments: argparse.Namespace, survey: MutantSurvey, tell: Callable[[object], None]) -> list[Chosen]:
    """The mutants that are made, in their order."""
    candidates = survey.candidates
    tell(
        f"{len(candidates.mutants):,} mutants, and {candidates.patched:,} instructions left alone, "
        "which the kernel has patched since it was linked"
    )
    for run in survey.runs:
        if run.falls:
            tell(f"{run.name} judges no mutant, as the kernel itself falls in it: {run.falls.partition(chr(10))[0]}")
    if arguments.named:
        return _choose_named(arguments.named, survey, tell)
    mutants = eligible(candidates.mutants, survey.executed)
    if arguments.function:
        mutants = in_function(mutants, arguments.function)
    tell(f"{min(arguments.sample, len(mutants))} of {len(mutants):,} in instructions that are executed are made")
    return [Chosen(mutant) for mutant in sample(mutants, arguments.sample, arguments.random_seed)]


def _choose_named(pattern: str, survey: MutantSurvey, tell: Callable[[object], None]) -> list[Chosen]:
    chosen = []
    for bug in named_like(pattern):
        found = find_named(bug, survey.candidates.mutants)
        if found is None:
            tell(f"{bug.name} has no place of its own in this kernel's code: {bug.subject}")
        else:
            chosen.append(Chosen(found, bug.name))
    return chosen
