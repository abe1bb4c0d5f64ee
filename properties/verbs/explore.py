"""The verb `explore`: searches for a divergence until a budget ends, and writes down the shrunk seed of the first."""

from __future__ import annotations

import argparse
import os
import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from functools import partial
from pathlib import Path

from rich.console import Console

from properties.hunt.findings import Found, save
from properties.hunt.search import Search, search_in_turn
from properties.lockstep.journal import Journal
from properties.report.show import rich_table
from properties.systems.kernels import made_for, setting_of
from properties.systems.naming import DEFAULT_SYSTEMS, resolve, semantics_named, world_named
from properties.verbs.options import SYSTEM_TIME_LIMIT, seconds
from spec.errors import BadInputError
from spec.seeds import print_seed
from spec.semantics import PRESETS, Semantics

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `explore`."""
    option = parser.add_argument
    option("--system", action="append", metavar="S", help="a system under test; may be repeated (default: batched)")
    worlds = "a world by name, or a population file (default: synthetic; of a kernel its laboratory)"
    option("--world", metavar="W", help=worlds)
    rules = "whose rules hold (default: all in turn; of a kernel its own)"
    option("--semantics", choices=tuple(PRESETS), help=rules)
    option("--budget", type=seconds, default=60.0, metavar="SECONDS", help="to search; shrinking has as much again")
    option("--random-seed", type=int, metavar="N", help="repeats a search (default: a new one, which is printed)")
    option("--save", type=Path, default=Path(), metavar="DIR", help="where the seed is written (default: here)")


def run(arguments: argparse.Namespace) -> int:
    """0: nothing was found in the budget, and the tallies are printed. 1: a divergence, its seed is written."""
    console = Console()
    print_line = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    random_seed = secrets.randbelow(1 << 32) if arguments.random_seed is None else arguments.random_seed
    _complete(arguments)
    world = world_named(arguments.world)
    factories = [resolve(name, SYSTEM_TIME_LIMIT) for name in arguments.system]
    chosen = [semantics_named(arguments.semantics)] if arguments.semantics else list(PRESETS.values())
    print_line(f"explore: world {arguments.world}, random seed {random_seed}, budget {arguments.budget:g} s")
    with _journals(arguments, chosen) as journals:
        searches = [
            Search(made_for(arguments.system, world, semantics), semantics, factories, random_seed, journal=journal)
            for semantics, journal in zip(chosen, journals, strict=True)
        ]
        found = _search(searches, arguments.budget, console)
    if found is None:
        for each in searches:
            console.print(rich_table(each.tally.table()))
        print_line(f"no divergence in {sum(each.tally.steps for each in searches)} operations")
        return 0
    found = replace(found, seed=replace(found.seed, world=_world_text(arguments)))
    path = save(found, arguments.save)
    print_line(f"{found.divergence}\n\n{print_seed(found.seed)}\nwritten to {path}")
    return 1


def _complete(arguments: argparse.Namespace) -> None:
    """Fill in what was not given: a kernel has a world and semantics of its own."""
    arguments.system = arguments.system or list(DEFAULT_SYSTEMS)
    if arguments.world and arguments.semantics:
        return
    world, semantics = setting_of(arguments.system) or ("synthetic", None)
    arguments.world = arguments.world or world
    arguments.semantics = arguments.semantics or semantics


@contextmanager
def _journals(arguments: argparse.Namespace, chosen: Sequence[Semantics]) -> Iterator[list[Journal]]:
    """A journal for each semantics. They stay only where the process dies, or the harness fails."""
    arguments.save.mkdir(parents=True, exist_ok=True)
    paths = [arguments.save / f"journal-{semantics.name}.seed" for semantics in chosen]
    journals: list[Journal] = []
    try:
        for semantics, path in zip(chosen, paths, strict=True):
            journals.append(Journal(path, _world_text(arguments), semantics.name))
        yield journals
    except (KeyboardInterrupt, BadInputError):
        _remove(journals, paths)
        raise
    _remove(journals, paths)


def _remove(journals: Sequence[Journal], paths: Sequence[Path]) -> None:
    """Delete the journals, and a file that was to become one when the search was interrupted."""
    for journal in journals:
        journal.remove()
    for path in paths:
        path.unlink(missing_ok=True)


def _search(searches: Sequence[Search], budget: float, console: Console) -> Found | None:
    """Search each setting in turn; a terminal shows how far it is."""
    with console.status("exploring") if console.is_terminal else nullcontext() as status:

        def tell() -> None:
            if status is not None:
                status.update(f"exploring: {sum(each.tally.steps for each in searches)} operations")

        return search_in_turn(searches, budget, tell)


def _world_text(arguments: argparse.Namespace) -> str:
    """The world as a seed in the directory of saving names it: a path is relative to the seed."""
    path = Path(arguments.world)
    return os.path.relpath(path, arguments.save) if path.is_file() else str(arguments.world)
