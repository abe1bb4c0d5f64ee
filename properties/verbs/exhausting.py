"""`explore --exhaustive`: every sequence of a small world up to a length, instead of a search."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console

from properties.hunt.exhaustive import Exhausted, Exhaustion
from properties.hunt.findings import save_seed
from properties.hunt.shrink import Trial, shrink
from properties.report.show import print_line
from properties.systems.naming import resolve
from properties.verbs.options import SYSTEM_TIME_LIMIT
from spec.errors import BadInputError
from spec.seeds import Seed, Step, print_seed, read_seed
from spec.semantics import PRESETS
from spec.system import SystemFactory
from spec.worlds import synthetic

__all__ = ["run_exhaustive"]

FOUND = 1


def run_exhaustive(
    arguments: argparse.Namespace, semantics: list[str], console: Console, tell: Callable[[int], None]
) -> int:
    """0: no sequence diverges. 1: one does, and its seed is written. tell: is given the operations so far."""
    if arguments.world != synthetic().name:
        raise BadInputError(f"explore --exhaustive: its small world is part of synthetic, and not of {arguments.world}")
    factories = tuple(resolve(name, SYSTEM_TIME_LIMIT) for name in arguments.system)
    for name in semantics:
        started = time.monotonic()
        search = Exhaustion(
            PRESETS[name],
            factories,
            arguments.depth,
            lambda _, operations: tell(operations),
            tasks=arguments.tasks,
        )
        done = search.search()
        told = f"{done.states:,} states, {done.transitions:,} transitions by {done.operations:,} operations"
        seconds = time.monotonic() - started
        if done.divergence is not None:
            path = _save(done, name, factories, arguments)
            print_line(console, f"{name}: diverges at depth {done.depth}, after {told}, {seconds:.1f} s")
            print_line(console, f"{done.divergence}\n\n{print_seed(read_seed(path))}\nwritten to {path}")
            return FOUND
        print_line(console, f"{name}: no divergence up to depth {done.depth}: {told}, {seconds:.1f} s")
    return 0


def _save(done: Exhausted, semantics: str, factories: tuple[SystemFactory, ...], arguments: argparse.Namespace) -> Path:
    """Write the seed of a divergence: of the shortest way to it if that diverges, or else of the run, and shrunk."""
    assert done.divergence is not None
    deadline = time.monotonic() + arguments.budget
    place = done.divergence.place
    guilty = factories[place : place + 1] if place >= 0 else ()
    trial = Trial(synthetic(), PRESETS[semantics], guilty, done.divergence.aspect, lambda: time.monotonic() >= deadline)
    steps = done.shortest if trial.diverges(done.shortest) else done.steps
    shrunk, last = shrink(trial, steps, done.divergence)
    seed = Seed(synthetic().name, semantics, tuple(map(Step, shrunk)))
    comments = (str(last), f"explore --exhaustive, at depth {done.depth}, after {done.operations} operations")
    return save_seed(seed, last.aspect, comments, arguments.save)
