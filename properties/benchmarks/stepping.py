"""What a lockstep step costs."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from properties.benchmarks.figures import Figure, Measure, NotMeasuredError, seconds, taking_turns
from properties.hunt.findings import save_seed
from properties.hunt.machines import LockstepMachine, generating, machine_for
from properties.lockstep.divergence import Divergence
from properties.systems.naming import resolve, semantics_named, world_named
from spec.operations import Operation
from spec.seeds import Seed

__all__ = ["measures"]

WORLD = "synthetic"
SEMANTICS = "linux-7.3"
FINDINGS = Path("build/seeds")
RANDOM_SEED = 7
EXAMPLES = 20


def measures() -> list[Measure]:
    """The figures of a step."""
    return [lockstep_step, interleaved_step]


def lockstep_step() -> Figure:
    """A step of model, `batched` and comparison in a Hypothesis machine, against one of a machine that only draws it.

    A step is an operation; those that undo an example at its end are steps too.
    """
    machine = _machine()
    counting = _counting(machine)

    class Idle(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def execute(self, operations: tuple[Operation, ...]) -> None:
            Idle.steps += len(operations)

    busy, idle = taking_turns(7, partial(_machine_time, counting), partial(_machine_time, Idle))
    ratio = (busy / counting.steps) / (idle / Idle.steps)
    return Figure("a lockstep step, slower than an empty machine's", ratio, 2, "lower", "times")


def interleaved_step() -> Figure:
    """A step where tasks stand in calls and operations stop while they patch text, against one where all run through.

    Both with the drawing of it.
    """
    apart, through = _counting(_machine(interleaved=True)), _counting(_machine())
    interleaved, sequential = taking_turns(7, partial(_machine_time, apart), partial(_machine_time, through))
    ratio = (interleaved / apart.steps) / (sequential / through.steps)
    return Figure("an interleaved step, slower than a sequential one", ratio, 4, "lower", "times")


def _machine(*, interleaved: bool = False) -> type[LockstepMachine]:
    """A machine of `batched`, which keeps what it finds: no search has its examples."""
    world, semantics = world_named(WORLD), semantics_named(SEMANTICS)
    machine = machine_for(world, semantics, [resolve("batched")], interleaved=interleaved)

    class Keeping(machine):  # type: ignore[misc, valid-type]
        def report(self, divergences: tuple[Divergence, ...]) -> None:
            if divergences:
                self.failed = True
                found = Seed(WORLD, SEMANTICS, tuple(self.lockstep.history))
                path = save_seed(found, divergences[0].aspect, (), FINDINGS)
                raise NotMeasuredError(f"{divergences[0]}\nNothing was measured. The seed: {path}")

    return Keeping


def _counting(machine: type[LockstepMachine]) -> Any:
    """The machine, whose `steps` are those of all its examples."""

    class Counting(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def teardown(self) -> None:
            super().teardown()
            Counting.steps += len(self.lockstep.history)

    return Counting


def _machine_time(machine: type[LockstepMachine]) -> float:
    """The time of a run; all runs have the same examples."""
    return seconds(lambda: run_state_machine_as_test(seed(RANDOM_SEED)(machine), settings=generating(EXAMPLES)))
