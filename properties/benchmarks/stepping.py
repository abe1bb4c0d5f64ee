"""What a lockstep step costs."""

from __future__ import annotations

from functools import partial

from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test

from properties.benchmarks.figures import Figure, Measure, seconds, taking_turns
from properties.hunt.machines import LockstepMachine, generating, machine_for
from properties.systems.naming import resolve, semantics_named, world_named
from spec.operations import Operation

__all__ = ["measures"]

SEMANTICS = "linux-7.3"
RANDOM_SEED = 7
EXAMPLES = 20


def measures() -> list[Measure]:
    """The figure of a step."""
    return [lockstep_step]


def lockstep_step() -> Figure:
    """A step of model, `batched` and comparison in a Hypothesis machine, against one of a machine that only draws it.

    A step is an operation; those that undo an example at its end are steps too.
    """
    machine = machine_for(world_named("synthetic"), semantics_named(SEMANTICS), [resolve("batched")])

    class Busy(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def teardown(self) -> None:
            super().teardown()
            Busy.steps += len(self.lockstep.history)

    class Idle(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def execute(self, operations: tuple[Operation, ...]) -> None:
            Idle.steps += len(operations)

    busy, idle = taking_turns(7, partial(_machine_time, Busy), partial(_machine_time, Idle))
    ratio = (busy / Busy.steps) / (idle / Idle.steps)
    return Figure("a lockstep step, slower than an empty machine's", ratio, 2, "lower", "times")


def _machine_time(machine: type[LockstepMachine]) -> float:
    """The time of a run; all runs have the same examples."""
    return seconds(lambda: run_state_machine_as_test(seed(RANDOM_SEED)(machine), settings=generating(EXAMPLES)))
