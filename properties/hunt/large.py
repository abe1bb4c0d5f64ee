"""The large-world property: wildcard attaches on a real population that overlap and go in any order, in lockstep."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import given, seed

from properties.hunt.machines import generating
from properties.hunt.shrink import Trial, shrink
from properties.hunt.strategies import plans
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.verbs.explore import Found
from spec.operations import Call, Operation
from spec.seeds import Seed, Step
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import World

__all__ = ["Surveyed", "survey"]

PLAN_LENGTH = 12
SHRINK_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a survey did: examples, steps and calls taken, and what it found."""

    examples: int
    steps: int
    calls: int
    found: Found | None = None


class _FoundError(BaseException):
    """Leaves a Hypothesis run at the first divergence; no Exception, so that the example is not run again."""


class _Survey:
    """Counts what the examples of one survey take, and keeps the divergence that ended it, with its steps."""

    def __init__(self, world: World, semantics: Semantics, factories: Sequence[SystemFactory]) -> None:
        self.world, self.semantics, self.factories = world, semantics, tuple(factories)
        self.examples = self.steps = self.calls = 0
        self.divergence: Divergence | None = None
        self.history: tuple[Operation, ...] = ()
        self.started = time.monotonic()

    def example(self, plan: Sequence[Operation]) -> None:
        """One plan in lockstep, then everything undone."""
        lockstep = Lockstep(self.world, self.semantics, self.factories)
        found = lockstep.run(Step(operation) for operation in plan) or lockstep.undo()
        found += lockstep.close()
        self.examples += 1
        self.steps += len(lockstep.history)
        self.calls += sum(isinstance(step.operation, Call) for step in lockstep.history)
        if found:
            self.divergence = found[0]
            self.history = tuple(step.operation for step in lockstep.history)
            raise _FoundError

    def found(self, random_seed: int) -> Found | None:
        """The divergence with its shrunk seed."""
        if self.divergence is None:
            return None
        seconds, place = time.monotonic() - self.started, self.divergence.place
        guilty = self.factories[place : place + 1] if place >= 0 else ()
        deadline = time.monotonic() + SHRINK_SECONDS
        trial = Trial(self.world, self.semantics, guilty, self.divergence.aspect, lambda: time.monotonic() >= deadline)
        steps, last = shrink(trial, self.history, self.divergence)
        shrunk = Seed(self.world.name, self.semantics.name, tuple(map(Step, steps)))
        return Found(shrunk, last, self.steps, self.examples, seconds, random_seed, len(self.history))


def survey(
    world: World,
    semantics: Semantics,
    factories: Sequence[SystemFactory],
    *,
    examples: int,
    random_seed: int,
) -> Surveyed:
    """Examples of wildcard plans on a world; the first that falls ends the survey, and is shrunk."""
    kept = _Survey(world, semantics, factories)

    @seed(random_seed)
    @generating(examples)
    @given(plan=plans(world, semantics, PLAN_LENGTH))
    def run(plan: tuple[Operation, ...]) -> None:
        kept.example(plan)

    try:
        run()
    except _FoundError:
        return Surveyed(kept.examples, kept.steps, kept.calls, kept.found(random_seed))
    return Surveyed(kept.examples, kept.steps, kept.calls)
