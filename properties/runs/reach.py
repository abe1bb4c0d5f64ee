"""What the fixed runs reach: directed runs, sweep and seeds together reach every answer and rule of a preset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.runs.corpus import interleaved, seeds
from properties.runs.directed import directed
from properties.runs.hooks import hooks, hooks_world
from properties.runs.sweep import sweep
from properties.runs.unsited import unsited, unsited_world
from spec.answers import answers
from spec.operations import Call
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import World, synthetic

__all__ = ["Reached", "reach"]


@dataclass(frozen=True, slots=True)
class Reached:
    """What the fixed runs of one preset did.

    runs, calls: how many. unseen: (verb, answer) that the rules allow and no run saw. forbidden: the other way round.
    rules: those that no run cited. divergence: the first, with the run's name.
    """

    tally: Tally
    runs: int
    calls: int
    unseen: tuple[tuple[str, str], ...]
    forbidden: tuple[tuple[str, str], ...]
    rules: tuple[str, ...]
    divergence: tuple[str, Divergence] | None

    @property
    def holds(self) -> bool:
        """Whether nothing diverged, everything was reached, and no answer came that no rule allows."""
        return not (self.divergence or self.unseen or self.forbidden or self.rules)

    def __str__(self) -> str:
        if self.divergence:
            return f"{self.divergence[0]}: {self.divergence[1]}"
        lists = {
            "answers never seen": [f"{verb} -> {answer}" for verb, answer in self.unseen],
            "answers that no rule allows": [f"{verb} -> {answer}" for verb, answer in self.forbidden],
            "rules not reached": self.rules,
        }
        return "; ".join(f"{title}: {', '.join(items)}" for title, items in lists.items() if items)


def reach(semantics: Semantics, factories: Sequence[SystemFactory]) -> Reached:
    """Every fixed run of these semantics in lockstep, each undone at its end where nothing forbids it.

    Runs of tasks are taken with those of the systems that support them.
    """
    tally = Tally(semantics)
    runs = calls = 0
    whole = [(run, factories) for make in (directed, unsited, hooks, sweep, seeds) for run in make(semantics)]
    able = [factory for factory in factories if _interleaves(factory, semantics)]
    for run, systems in (*whole, *((run, able) for run in interleaved(semantics))):
        lockstep = Lockstep(run.world, semantics, systems, tally=tally)
        found = lockstep.run(run.seed.steps) or lockstep.undo()
        found += lockstep.close()
        runs += 1
        calls += sum(isinstance(step.operation, Call) for step in lockstep.history)
        if found:
            return _summarize(tally, runs, calls, (run.name, found[0]))
    return _summarize(tally, runs, calls, None)


def _interleaves(factory: SystemFactory, semantics: Semantics) -> bool:
    """Whether the systems of a factory have tasks that stand in calls."""
    lockstep = Lockstep(synthetic(), semantics, [factory])
    lockstep.close()
    return bool(lockstep.able)


def _summarize(tally: Tally, runs: int, calls: int, divergence: tuple[str, Divergence] | None) -> Reached:
    allowed = {
        (verb, answer)
        for world in _worlds()
        for verb, each in answers(tally.semantics, world).items()
        for answer in each
    }
    seen = {item for item in tally.outcomes if item[1] != "observed"}
    unseen, forbidden = sorted(allowed - seen), sorted(seen - allowed)
    return Reached(tally, runs, calls, tuple(unseen), tuple(forbidden), tally.rules_at_zero(), divergence)


@cache
def _worlds() -> tuple[World, ...]:
    return synthetic(), unsited_world(), hooks_world()
