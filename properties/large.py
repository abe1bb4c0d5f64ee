"""The large-world property: wildcard attaches on a real population, overlapping and detached in any order, in lockstep."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import HealthCheck, Phase, given, seed, settings

from properties.divergence import Divergence, DivergenceError
from properties.lockstep import Lockstep
from properties.tally import Tally
from properties.wildcards import plans
from spec.operations import Call, Operation
from spec.seeds import Seed, Step
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import World

__all__ = ["Surveyed", "survey"]

PLAN_LENGTH = 12


@dataclass(frozen=True, slots=True)
class Surveyed:
    """What a survey did: examples, steps and calls taken, and the divergence with its seed, if there was one."""

    examples: int
    steps: int
    calls: int
    divergence: Divergence | None = None
    seed: Seed | None = None


class _Survey:
    """Counts what the examples of one survey take, and keeps the last one that fell."""

    def __init__(
        self, world: World, semantics: Semantics, factories: Sequence[SystemFactory], tally: Tally | None
    ) -> None:
        self.setting = (world, semantics, factories)
        self.tally = tally
        self.examples = self.steps = self.calls = 0
        self.fallen: tuple[Divergence, Seed] | None = None

    def example(self, plan: Sequence[Operation]) -> None:
        """One plan in lockstep, then everything undone; DivergenceError if a system differs."""
        lockstep = Lockstep(*self.setting, tally=self.tally)
        found = lockstep.run(Step(operation) for operation in plan) or lockstep.undo()
        found = lockstep.close() or found
        self.examples += 1
        self.steps += len(lockstep.history)
        self.calls += sum(isinstance(step.operation, Call) for step in lockstep.history)
        if found:
            world, semantics, _ = self.setting
            self.fallen = found[0], Seed(world.name, semantics.name, tuple(lockstep.history))
            raise DivergenceError(found[0])


def survey(
    world: World,
    semantics: Semantics,
    factories: Sequence[SystemFactory],
    *,
    examples: int,
    random_seed: int,
    tally: Tally | None = None,
) -> Surveyed:
    """Examples of wildcard plans on a world; a plan that falls is shrunk."""
    kept = _Survey(world, semantics, factories, tally)

    @seed(random_seed)
    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        phases=(Phase.generate, Phase.shrink),
        suppress_health_check=list(HealthCheck),
    )
    @given(plan=plans(world, semantics, PLAN_LENGTH))
    def run(plan: tuple[Operation, ...]) -> None:
        kept.example(plan)

    try:
        run()
    except DivergenceError:
        assert kept.fallen is not None
        return Surveyed(kept.examples, kept.steps, kept.calls, *kept.fallen)
    return Surveyed(kept.examples, kept.steps, kept.calls)
