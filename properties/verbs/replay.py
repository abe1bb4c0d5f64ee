"""The verb `replay`: runs seeds against the model and systems, and prints each step, both sides where they differ."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from properties.faults.known import DEFECTS
from properties.lockstep.lockstep import Lockstep, Taken
from properties.lockstep.supported import UnsupportedError
from properties.report.show import Screen
from properties.systems.kernels import made_for
from properties.systems.naming import DEFAULT_SYSTEMS, INTERLEAVED_SYSTEMS, resolve, semantics_named, world_named
from properties.verbs.options import SYSTEM_TIME_LIMIT, add_asking
from properties.verbs.own_kernel import add_own_kernel
from spec.alphabet import STOPPING
from spec.errors import BadInputError
from spec.seeds import Seed, Step, read_seed
from spec.system import SystemFactory

__all__ = ["add_arguments", "replay", "run"]

AGREE, DIVERGE, BAD_INPUT = 0, 1, 2


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options of `replay`."""
    parser.add_argument("files", nargs="+", type=Path, metavar="FILE", help="a seed file")
    parser.add_argument(
        "--system",
        action="append",
        metavar="S",
        help="a system under test; may be given again (default: batched, all levels that can take the seed)",
    )
    add_own_kernel(parser)
    add_asking(parser)


def run(arguments: argparse.Namespace) -> int:
    """0: all sides agree in all files. 1: one diverges. 2: a file cannot be used, but the others are replayed."""
    console = Screen(highlight=False, markup=False, soft_wrap=True)
    systems = _resolve_all(arguments.system or (), (*DEFECTS, *arguments.ask))
    worst = AGREE
    for path in arguments.files:
        try:
            verdict = replay(path, systems, console)
        except BadInputError as error:
            sys.stderr.write(f"{error}\n")
            verdict = BAD_INPUT
        worst = max(worst, verdict)
    return worst


def replay(path: Path, systems: Mapping[str, SystemFactory], console: Console) -> int:
    """Replay one file on systems by their names, or on those by default, and print it.

    BadInputError if it cannot be used, before anything is executed, unless a system declines a step only in the state
    that it has by then.
    """
    seed = read_seed(path)
    systems = systems or _resolve_all(_list_defaults(seed), ())
    lockstep = _start(seed, path, systems)
    console.print(f"{path}: world {seed.world}, semantics {seed.semantics}, {', '.join(lockstep.names)}")
    diverged = 0
    for step in seed.steps:
        taken = _take(lockstep, step, path)
        console.print(f"{step.line:>6}  {_drop_expectation(step)} -> {taken.observed}")
        for divergence in taken.divergences:
            console.print(str(divergence))
        diverged += len(taken.divergences)
    for divergence in lockstep.close():
        console.print(str(divergence))
        diverged += 1
    verdict = f"{diverged} divergence{'s' if diverged != 1 else ''}" if diverged else "all agree"
    console.print(f"{path}: {len(seed.steps)} steps, {verdict}")
    return DIVERGE if diverged else AGREE


def _resolve_all(names: Iterable[str], asked: Collection[str]) -> dict[str, SystemFactory]:
    """Resolve them; a kernel shows what a seed of `faults` found, too, which a search does not ask it for."""
    return {name: resolve(name, SYSTEM_TIME_LIMIT, asked=asked) for name in names}


def _list_defaults(seed: Seed) -> tuple[str, ...]:
    """Name all systems that are emulated; in images that functions share not all can stop that does in others."""
    stops = any(type(step.operation) in STOPPING for step in seed.steps)
    return INTERLEAVED_SYSTEMS if stops else DEFAULT_SYSTEMS


def _start(seed: Seed, path: Path, systems: Mapping[str, SystemFactory]) -> Lockstep:
    """Start lockstep, and check every step before the first is taken."""
    try:
        semantics = semantics_named(seed.semantics)
        world = made_for(systems, world_named(seed.world, path.parent), semantics)
        lockstep = Lockstep(world, semantics, list(systems.values()))
    except BadInputError as error:
        raise BadInputError(str(error), str(path)) from error
    for step in seed.steps:
        with _locate(path, step):
            lockstep.check(step)
    return lockstep


def _take(lockstep: Lockstep, step: Step, path: Path) -> Taken:
    try:
        with _locate(path, step):
            return lockstep.step(step)
    except BadInputError:
        lockstep.close()
        raise


@contextmanager
def _locate(path: Path, step: Step) -> Iterator[None]:
    """Add file and line to the complaint about a step that cannot be taken."""
    try:
        yield
    except UnsupportedError as error:
        raise BadInputError(str(error), str(path), step.line) from error


def _drop_expectation(step: Step) -> Step:
    return Step(step.operation)
