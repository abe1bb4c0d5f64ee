"""Runs one kernel against the model: seeds, directed runs and random runs. Each step is taken, or left for a reason."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

from impl import linux
from impl.linux.guest.guest import GuestDiedError
from impl.linux.guest.packages import Kernel
from impl.linux.observation import EmulatorLimitError
from impl.linux.system import Linux
from properties.hunt.findings import Found
from properties.hunt.search import Search
from properties.hunt.shrink import Shrunk, shrink_finding
from properties.kernels.coverage import Coverage
from properties.kernels.directed import linux_directed
from properties.kernels.evidence import Collected, Difference, Evidence
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.runs.corpus import FixedRun, interleaved, seeds
from properties.runs.directed import directed
from properties.systems.kernels import HOOK_MARKS, laboratory_of, like_a_kernel
from spec.border import bordered
from spec.errors import BadInputError
from spec.operations import LSM, BpfProgLoad
from spec.seeds import Seed, Step, print_operation
from spec.semantics import Semantics
from spec.system import System, SystemFactory
from spec.worlds import World

__all__ = ["RANDOM_SEED", "Conforming", "fixed_runs"]

RANDOM_SEED = 1


def fixed_runs(semantics: Semantics, lab: World) -> Iterator[FixedRun]:
    """Every fixed run: seeds and directed runs in their own worlds, then those of the laboratory.

    Where a world had to be changed for the kernel, the seed's expectations are dropped: they may not hold.
    """
    worlds: dict[str, World] = {}
    for run in sorted(
        (*seeds(semantics), *interleaved(semantics), *directed(semantics)), key=lambda run: run.world.name
    ):
        world = worlds.setdefault(run.world.name, like_a_kernel(run.world, semantics))
        pairs = zip(run.world.functions, world.functions, strict=True)
        lost = frozenset[str]().union(*(before.attributes - after.attributes for before, after in pairs))
        changed = lost - HOOK_MARKS or (lost and _has_hooks(run.seed))
        yield FixedRun(run.name, world, _drop_expectations(run.seed) if changed else run.seed)
    for run in linux_directed(semantics, lab):
        yield run if lab is laboratory_of(semantics) else replace(run, seed=_drop_expectations(run.seed))


def _has_hooks(seed: Seed) -> bool:
    """Whether it loads programs of LSM's hooks, which no module of ours has."""
    return any(isinstance(o := step.operation, BpfProgLoad) and o.kind == LSM for step in seed.steps)


def _drop_expectations(seed: Seed) -> Seed:
    return replace(seed, steps=tuple(replace(step, expected=None) for step in seed.steps))


@dataclass(slots=True)
class Conforming:
    """The runs of one kernel, and what they showed. One guest runs at a time.

    lab: the world of the random runs. coverage: what the kernel executed, or None if that is not asked for.
    """

    kernel: Kernel
    semantics: Semantics
    lab: World
    coverage: Coverage | None = None
    collected: Collected = field(init=False)
    _world: str | None = None

    def __post_init__(self) -> None:
        self.collected = Collected(self.semantics)

    @property
    def evidence(self) -> Evidence:
        """What the runs have shown so far."""
        return self.collected.evidence(self.kernel.name, self.kernel.release)

    def fixed(
        self,
        runs: Iterable[FixedRun],
        tell: Callable[[str], None] = lambda _: None,
        shrink_seconds: float = 60.0,
    ) -> None:
        """Take these runs, of one world after the other; `tell` gets the name of each before it begins.

        shrink_seconds: what shrinking may take, of all that diverge together.
        """
        with self._measure_time():
            for run in runs:
                tell(run.name)
                shrink_seconds -= self._take(run, self.prepare(run.world), shrink_seconds)
                self._note(f"{run.world.name}: {run.name}", run.world)

    def random(
        self,
        operations: float,
        budget: float,
        random_seed: int = RANDOM_SEED,
        tell: Callable[[str], None] = lambda _: None,
        shrink_seconds: float | None = None,
    ) -> Found | None:
        """Take random runs until there were so many operations, the budget in seconds ends, or something is found.

        `tell` gets a line before each round. shrink_seconds: the most that shrinking a finding may take; without it, as
        long as the budget.
        """
        with self._measure_time():
            factory = self.prepare(self.lab)
            search = Search(
                self.lab,
                self.semantics,
                [factory],
                random_seed,
                witness=self.collected,
                operations=operations,
            )
            found, deadline = None, time.monotonic() + budget
            while found is None and search.tally.steps < operations and time.monotonic() < deadline:
                tell(f"{search.tally.steps:,} random operations")
                found = search.round(deadline, budget if shrink_seconds is None else shrink_seconds)
            self._note(f"{self.lab.name}: random seed {random_seed}", self.lab)
            self.collected.tally.outcomes.update(search.tally.outcomes)
            self.collected.examples += search.examples
            if found is not None:
                name = f"random seed {random_seed}, {found.steps_to_find} operations"
                self.collected.differences.append(Difference(name, found.divergence, found.seed))
            return found

    @contextmanager
    def _measure_time(self) -> Iterator[None]:
        started = time.monotonic()
        try:
            yield
        finally:
            self.collected.seconds += time.monotonic() - started

    def prepare(self, world: World) -> SystemFactory:
        """Boot a guest for this world, and end that of another one; the factory of systems that run in it."""
        if self._world is not None and self._world != world.name:
            linux.close()
        try:
            station = linux.station_of(self.kernel, world)
        except GuestDiedError as error:
            raise BadInputError(f"{self.kernel.name} does not come up: {error.reason}") from error
        if self.coverage and self._world != world.name:
            self.coverage.watch(station)
        self._world = world.name

        def make(world: World, semantics: Semantics) -> System:
            return bordered(Linux(linux.station_of(self.kernel, world), world, semantics), world, semantics)

        return make

    def _note(self, run: str, world: World) -> None:
        if self.coverage:
            self.coverage.note(run, linux.station_of(self.kernel, world))

    def _take(self, run: FixedRun, factory: SystemFactory, shrink_seconds: float) -> float:
        """Take one run from the snapshot on, and undo it at its end; the seconds that shrinking a finding took."""
        collected = self.collected
        collected.runs += 1
        lockstep = Lockstep(run.world, self.semantics, [factory], tally=collected.tally, witness=collected)
        try:
            found = self._take_steps(run, lockstep) or lockstep.undo(settle=True)
            found += lockstep.close()
        except EmulatorLimitError as error:
            collected.left.append(f"{run.name}: {error}")
            return 0.0
        if not found:
            return 0.0
        started = time.monotonic()
        shrunk = _shrink(found[0], lockstep, factory, started + shrink_seconds)
        collected.differences.append(Difference(run.name, shrunk.divergence, shrunk.seed))
        return time.monotonic() - started

    def _take_steps(self, run: FixedRun, lockstep: Lockstep) -> tuple[Divergence, ...]:
        """Take every step that is not declined. The seed's expectations count only until the first one that is."""
        whole = True
        for step in run.seed.steps:
            operation = step.operation
            reason = lockstep.declined(operation)
            if reason and whole:
                self.collected.left.append(f"{run.name}, line {step.line}, {print_operation(operation)}: {reason}")
            whole = whole and not reason
            if reason:
                continue
            if found := lockstep.step(step if whole else Step(operation)).divergences:
                return found
        return ()


def _shrink(divergence: Divergence, lockstep: Lockstep, factory: SystemFactory, deadline: float) -> Shrunk:
    """The finding as short as it becomes until then; as it is, where the emulator comes to its limit meanwhile."""
    try:
        return shrink_finding(divergence, lockstep, [factory], deadline)
    except EmulatorLimitError:
        return shrink_finding(divergence, lockstep, [factory], -math.inf)
