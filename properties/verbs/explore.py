"""The verb `explore`: searches for a divergence until a budget ends, and writes down the shrunk seed of the first."""

from __future__ import annotations

import argparse
import secrets
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from rich.console import Console

from properties.hunt.exploring import Explored, explore
from properties.hunt.findings import save, save_journal
from properties.hunt.units import SearchUnit, operations_for
from properties.report.show import Screen, print_line, rich_table
from properties.report.writing import make_directory
from properties.systems.kernels import setting_of
from properties.systems.naming import DEFAULT_SYSTEMS, INTERLEAVED_SYSTEMS, KERNELS, resolve, world_named
from properties.verbs.exhausting import run_exhaustive
from properties.verbs.options import SYSTEM_TIME_LIMIT, add_asking, add_crew_options, crew_of, length, seconds
from properties.verbs.own_kernel import add_own_kernel, find_semantics
from spec.border import MOST_TASKS
from spec.seeds import print_seed, read_seed
from spec.semantics import PRESETS

__all__ = ["FAILED", "FOUND", "add_arguments", "list_settings", "run", "save_all", "telling"]

FOUND, FAILED = 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `explore`."""
    option = parser.add_argument
    option("--system", action="append", metavar="S", help="a system under test; may be repeated (default: batched)")
    add_own_kernel(parser)
    worlds = "a world by name, or a population file (default: synthetic; of a kernel its laboratory)"
    option("--world", metavar="W", help=worlds)
    rules = "whose rules hold (default: all in turn; of a kernel its own)"
    option("--semantics", choices=tuple(PRESETS), help=rules)
    option("--budget", type=seconds, default=60.0, metavar="SECONDS", help="to search; shrinking has as much again")
    option("--random-seed", type=int, metavar="N", help="repeats a search (default: a new one, which is printed)")
    option("--save", type=Path, default=Path(), metavar="DIR", help="where the seed is written (default: here)")
    add_asking(parser)
    exhaustive = "try every sequence of a small world instead, where states are equal once; one process does it"
    option("--exhaustive", action="store_true", help=exhaustive)
    tasks = "tasks stand anywhere in calls, in every example; with --exhaustive so many at a time (default: 0)"
    option("--tasks", type=int, choices=range(MOST_TASKS + 1), default=0, help=tasks)
    option("--depth", type=length, default=4, metavar="N", help="operations of its longest sequence (default: 4)")
    add_crew_options(parser)


def run(arguments: argparse.Namespace) -> int:
    """0: nothing was found in the budget. 1: a divergence, and its seed is written. 2: no operation was executed."""
    console = Screen()
    if arguments.random_seed is None:
        arguments.random_seed = secrets.randbelow(1 << 32)
    settings = list_settings(arguments)
    if arguments.exhaustive:
        with telling(console) as tell:
            return run_exhaustive(arguments, [setting.semantics for setting in settings], console, tell)
    told = f"explore: world {arguments.world}, random seed {arguments.random_seed}, budget {arguments.budget:g} s"
    print_line(console, told)
    with crew_of(arguments) as crew, telling(console) as tell:
        explored = explore(settings, crew, arguments.budget, tell)
    if explored.first is not None:
        return _show_first(explored, explored.first, arguments, console)
    if not explored.steps:
        sys.stderr.write(f"no operation was executed within {arguments.budget:g} s: give more with --budget SECONDS\n")
        return FAILED
    for tally in explored.tallies.values():
        console.print(rich_table(tally.table()))
    print_line(console, f"no divergence in {explored.steps} operations of {explored.examples} examples")
    return 0


def list_settings(arguments: argparse.Namespace) -> list[SearchUnit]:
    """One search for each semantics. What was not given is filled in: a kernel has a world and semantics of its own."""
    arguments.system = arguments.system or list(INTERLEAVED_SYSTEMS if arguments.tasks else DEFAULT_SYSTEMS)
    given = arguments.semantics
    setting = setting_of(arguments.system, (lambda _: given) if given in KERNELS else find_semantics)
    world, semantics = setting or ("synthetic", None)
    arguments.world = arguments.world or world
    chosen = arguments.semantics or semantics
    # Mistakes are told before processes are started.
    world_named(arguments.world)
    for name in arguments.system:
        resolve(name, SYSTEM_TIME_LIMIT)
    make_directory(arguments.save)
    return [
        SearchUnit(
            tuple(arguments.system),
            arguments.world,
            name,
            arguments.random_seed,
            operations_for(arguments.system),
            shrink_seconds=arguments.budget,
            time_limit=SYSTEM_TIME_LIMIT,
            asked=tuple(arguments.ask),
            tasks=arguments.tasks > 0,
        )
        for name in ([chosen] if chosen else PRESETS)
    ]


@contextmanager
def telling(console: Console) -> Iterator[Callable[[int], None]]:
    """Give the function that tells on a terminal how many operations there were."""
    with console.status("exploring") if console.is_terminal else nullcontext() as status:

        def tell(steps: int) -> None:
            if status is not None:
                status.update(f"exploring: {steps:,} operations")

        yield tell


def save_all(explored: Explored, arguments: argparse.Namespace) -> dict[int, Path]:
    """Write the seed of every finding, equal ones once; the paths by the number of the unit."""
    places = {number: save(finding.found, arguments.save) for number, finding in explored.findings.items()}
    places |= {
        number: save_journal(lost.journal, lost.told, arguments.save)
        for number, lost in explored.lost.items()
        if lost.journal
    }
    return dict(sorted(places.items()))


def _show_first(explored: Explored, first: int, arguments: argparse.Namespace, console: Console) -> int:
    """A process that has ended is a finding, with the steps that it wrote down; what the harness raises is none."""
    lost = explored.lost.get(first)
    if lost is not None and not lost.journal:
        sys.stderr.write(f"the search has failed: {lost.told}\n")
        return FAILED
    only = Explored({}, {first: explored.findings[first]} if lost is None else {}, {first: lost} if lost else {})
    path = save_all(only, arguments)[first]
    told = f"the search was lost: {lost.told}" if lost else str(explored.findings[first].divergence)
    print_line(console, f"{told}\n\n{print_seed(read_seed(path))}\nwritten to {path}")
    return FOUND
