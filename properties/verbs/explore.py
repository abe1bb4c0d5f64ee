"""The verb `explore`: searches for a divergence until a budget ends, and writes down the shrunk seed of the first."""

from __future__ import annotations

import argparse
import hashlib
import math
import os
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from pathlib import Path
from typing import NoReturn

import hypothesis
from hypothesis.errors import Flaky
from hypothesis.stateful import run_state_machine_as_test
from rich.console import Console

from properties.hunt.machines import LockstepMachine, generating, machine_for
from properties.hunt.shrink import Trial, shrink
from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence
from properties.lockstep.journal import Journal
from properties.lockstep.lockstep import Lockstep, Reference, Witness, reference
from properties.systems.kernels import made_for, setting_of
from properties.systems.naming import DEFAULT_SYSTEMS, resolve, semantics_named, world_named
from spec.errors import BadInputError
from spec.inventory import undo_operations
from spec.operations import ObserveSite, Operation
from spec.seeds import Expectation, Seed, Step, print_seed
from spec.semantics import PRESETS, Semantics
from spec.system import SystemFactory
from spec.worlds import World

__all__ = ["SUMMARY", "Found", "Search", "add_arguments", "keep", "run", "save", "search", "seconds"]

SUMMARY = "search for a divergence and write down the shrunk seed"
# From the eleventh example of a run on Hypothesis mutates; rounds of new examples find flaws in half the steps.
ROUND = 10
SYSTEM_TIME_LIMIT = 10.0


@dataclass(frozen=True, slots=True)
class Found:
    """What a search found.

    seed: shrunk. steps_to_find: operations executed, in examples, until it diverged first; seconds: until then, without
    shrinking. original: operations of the example that diverged, before shrinking.
    """

    seed: Seed
    divergence: Divergence
    steps_to_find: int
    examples: int
    seconds: float
    random_seed: int
    original: int


class _StopError(BaseException):
    """Leaves a Hypothesis run at once: the time is up, or there is a finding.

    No Exception, so that Hypothesis lets it pass.
    """


class Search:
    """Rounds of Hypothesis runs for one setting; the n-th round has the n-th derived seed.

    operations: after so many the last example is undone, and then no more are made.

    State: how many rounds, examples and seconds so far, the tally, and the finding that ended the last round.
    """

    def __init__(
        self,
        world: World,
        semantics: Semantics,
        factories: Sequence[SystemFactory],
        random_seed: int,
        *,
        journal: Journal | None = None,
        model: Callable[[World, Semantics], Reference] = reference,
        witness: Witness | None = None,
        operations: float = math.inf,
    ) -> None:
        self.tally = Tally(semantics)
        self.examples = 0
        self._setting = (world, semantics, tuple(factories), model)
        self._random_seed = random_seed
        self._rounds = 0
        self._seconds = 0.0
        self._stopped = False
        self._deadline = math.inf
        self._finding: tuple[Divergence, tuple[Operation, ...]] | None = None
        self._operations = operations
        machine = machine_for(world, semantics, factories, self.tally, journal=journal, model=model, witness=witness)
        self._machine = self._watched(machine)

    def round(self, deadline: float, shrink_seconds: float) -> Found | None:
        """One round of examples, left at the deadline, a time.monotonic(); a finding is shrunk within its own."""
        started = time.monotonic()
        self._deadline = deadline
        self._rounds += 1
        self._run(_derived(self._random_seed, self._setting[1].name, self._rounds))
        self._seconds += time.monotonic() - started
        return self._shrunk(time.monotonic() + shrink_seconds) if self._finding else None

    def _run(self, round_seed: int) -> None:
        self._stopped = False
        try:
            run_state_machine_as_test(hypothesis.seed(round_seed)(self._machine), settings=generating(ROUND))
        except (_StopError, Flaky):
            # An example left in the middle may look to Hypothesis as if it had changed its mind.
            if not self._stopped:
                raise

    def _watched(self, machine: type[LockstepMachine]) -> type[LockstepMachine]:
        """The machine, stopping when the time is up or something is found."""
        watch = self

        class Watched(machine):  # type: ignore[misc, valid-type]
            def __init__(self) -> None:
                super().__init__()
                watch.examples += 1

            def execute(self, operations: tuple[Operation, ...]) -> None:
                watch.check_time()
                super().execute(operations)

            def report(self, divergences: tuple[Divergence, ...]) -> None:
                if divergences:
                    self.failed = True
                    watch.keep(divergences[0], self.lockstep)

        return Watched

    def check_time(self) -> None:
        """Leave the run if its deadline is over, or its operations are done."""
        if time.monotonic() >= self._deadline or self.tally.steps >= self._operations:
            self._stop()

    def keep(self, divergence: Divergence, lockstep: Lockstep) -> None:
        """Remember a finding and leave the run."""
        end = lockstep.undone_from if divergence.aspect == "undo" else None
        steps = tuple(step.operation for step in lockstep.history[:end])
        self._finding = (divergence, steps)
        self._stop()

    def _stop(self) -> NoReturn:
        self._stopped = True
        raise _StopError

    def _shrunk(self, deadline: float) -> Found | None:
        assert self._finding is not None
        divergence, steps = self._finding
        world, semantics, factories, model = self._setting
        guilty = factories[divergence.place : divergence.place + 1] if divergence.place >= 0 else ()
        trial = Trial(world, semantics, guilty, divergence.aspect, lambda: time.monotonic() >= deadline, model)
        shrunk, last = shrink(trial, steps, divergence)
        return Found(
            Seed(world.name, semantics.name, tuple(map(Step, shrunk)) + _undone(trial, shrunk, last)),
            last,
            self.tally.steps,
            self.examples,
            self._seconds,
            self._random_seed,
            len(steps),
        )


def search(
    world: World,
    semantics: Semantics,
    factories: Sequence[SystemFactory],
    budget: float,
    random_seed: int = 0,
    *,
    model: Callable[[World, Semantics], Reference] = reference,
) -> Found | None:
    """Search one setting for at most `budget` seconds, and as long again for shrinking; None if nothing was found."""
    deadline = time.monotonic() + budget
    searching = Search(world, semantics, factories, random_seed, model=model)
    while time.monotonic() < deadline:
        if found := searching.round(deadline, budget):
            return found
    return None


def save(found: Found, directory: Path) -> Path:
    """Write the seed under a name that tells what it is, by a rename, so that it is there whole or not at all."""
    return keep(found.seed, found.divergence.aspect, _comments(found), directory)


def keep(seed: Seed, aspect: str, comments: Sequence[str], directory: Path) -> Path:
    """Write any seed in the same way; aspect: of its divergence."""
    text = print_seed(seed, comments)
    digest = hashlib.sha256(print_seed(seed).encode()).hexdigest()[:8]
    path = directory / f"{seed.semantics}-{aspect}-{digest}.seed"
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(f".{os.getpid()}.tmp")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.rename(path)
    return path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `explore`."""
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
    random_seed = secrets.randbelow(1 << 32) if arguments.random_seed is None else arguments.random_seed
    _complete(arguments)
    world = world_named(arguments.world)
    factories = [resolve(name, SYSTEM_TIME_LIMIT) for name in arguments.system]
    chosen = [semantics_named(arguments.semantics)] if arguments.semantics else list(PRESETS.values())
    print_line = partial(console.print, highlight=False, markup=False, soft_wrap=True)
    print_line(f"explore: world {arguments.world}, random seed {random_seed}, budget {arguments.budget:g} s")
    arguments.save.mkdir(parents=True, exist_ok=True)
    paths = [_journal_path(arguments, semantics) for semantics in chosen]
    journals: list[Journal] = []
    searches: list[Search] = []
    try:
        for semantics, path in zip(chosen, paths, strict=True):
            journals.append(Journal(path, _world_text(arguments), semantics.name))
            made = made_for(arguments.system, world, semantics)
            searches.append(Search(made, semantics, factories, random_seed, journal=journals[-1]))
        found = _in_turn(searches, arguments.budget, console)
    except (KeyboardInterrupt, BadInputError):
        _remove(journals, paths)
        raise
    _remove(journals, paths)
    if found is None:
        for searching in searches:
            console.print(searching.tally.table())
        print_line(f"no divergence in {sum(searching.tally.steps for searching in searches)} operations")
        return 0
    found = replace(found, seed=replace(found.seed, world=_world_text(arguments)))
    path = save(found, arguments.save)
    print_line(f"{found.divergence}\n\n{print_seed(found.seed)}\nwritten to {path}")
    return 1


def _complete(arguments: argparse.Namespace) -> None:
    """What was not given: a kernel has a world and semantics of its own."""
    arguments.system = arguments.system or list(DEFAULT_SYSTEMS)
    if arguments.world and arguments.semantics:
        return
    world, semantics = setting_of(arguments.system) or ("synthetic", None)
    arguments.world = arguments.world or world
    arguments.semantics = arguments.semantics or semantics


def _journal_path(arguments: argparse.Namespace, semantics: Semantics) -> Path:
    return Path(arguments.save) / f"journal-{semantics.name}.seed"


def _remove(journals: Iterable[Journal], paths: Iterable[Path]) -> None:
    """Nothing died, so nothing need be kept: neither journals nor a file that was to become one."""
    for journal in journals:
        journal.remove()
    for path in paths:
        path.unlink(missing_ok=True)


def _in_turn(searches: Sequence[Search], budget: float, console: Console) -> Found | None:
    """Rounds of each search in turn, until the budget ends or one finds something."""
    deadline = time.monotonic() + budget
    with console.status("exploring") if console.is_terminal else nullcontext() as status:
        for searching in cycle(searches):
            if time.monotonic() >= deadline:
                return None
            if found := searching.round(deadline, budget):
                return found
            if status is not None:
                status.update(f"exploring: {sum(one.tally.steps for one in searches)} operations")
    return None


def _undone(trial: Trial, steps: tuple[Operation, ...], divergence: Divergence) -> tuple[Step, ...]:
    """What turns steps that cannot be undone into a seed that fails by itself."""
    if divergence.aspect != "undo":
        return ()
    lockstep = Lockstep(trial.world, trial.semantics, (), model=trial.model)
    lockstep.run(map(Step, steps))
    left = [line.split()[0] for line in divergence.observed.split("\n")]
    sites = [Step(ObserveSite(name), Expectation(words=("nop",))) for name in left if name in trial.world.by_name]
    return (*map(Step, undo_operations(lockstep.inventory)), *sites)


def _world_text(arguments: argparse.Namespace) -> str:
    """The world as a seed in the directory of saving names it: a path is relative to the seed."""
    path = Path(arguments.world)
    return os.path.relpath(path, arguments.save) if path.is_file() else str(arguments.world)


def _comments(found: Found) -> list[str]:
    return [
        str(found.divergence),
        f"explore, random seed {found.random_seed}, {found.steps_to_find} operations in {found.examples} examples",
        f"{found.original} operations before shrinking",
    ]


def _derived(random_seed: int, semantics: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(f"{random_seed} {semantics} {number}".encode()).digest()[:8])


def seconds(text: str) -> float:
    """An option's value: a time."""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (math.isfinite(value) and value > 0):
        raise argparse.ArgumentTypeError(f"'{text}' is no number of seconds: write one above 0")
    return value
