"""Hypothesis machines: a prelude, a rule for each kernel concept, each step one of lockstep, and at the end undoing."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar, cast

from hypothesis import HealthCheck, Phase, Verbosity, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from properties.hunt.strategies import CONCEPTS, INTERLEAVED_CONCEPTS, Beginning, beginnings, drawn_for
from properties.hunt.strategies.drawing import Past
from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence, DivergenceError
from properties.lockstep.journal import Journal
from properties.lockstep.lockstep import Lockstep, Witness
from properties.lockstep.runners import Reference, reference
from spec.alphabet import INTERLEAVED
from spec.inventory import Inventory
from spec.operations import Call, ObserveSite, Operation
from spec.seeds import Step
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import World

__all__ = ["STEPS", "LockstepMachine", "generating", "machine_for"]

STEPS = 40
PASSED_OVER = INTERLEAVED | {Call, ObserveSite}


class LockstepMachine(RuleBasedStateMachine):
    """Runs lockstep; its subclasses, made by `machine_for`, have the setting and the rules.

    settles: at the end of the example it is looked what is left over. past: the strategies return to what was used
    last. fell: the last operation, if it failed: they probe what it may have left behind.
    """

    world: ClassVar[World]
    semantics: ClassVar[Semantics]
    factories: ClassVar[Sequence[SystemFactory]]
    model: ClassVar[Callable[[World, Semantics], Reference]]
    tally: ClassVar[Tally | None]
    journal: ClassVar[Journal | None]
    journal_world: ClassVar[str | None]
    witness: ClassVar[Witness | None]
    all_wide: ClassVar[bool | None]

    def __init__(self) -> None:
        super().__init__()
        if self.journal is not None:
            self.journal.begin(self.journal_world)
        self.lockstep = Lockstep(
            self.world,
            self.semantics,
            self.factories,
            model=type(self).model,
            tally=self.tally,
            journal=self.journal,
            witness=self.witness,
        )
        self.supports = self.lockstep.supports
        self.fails_nth = self.lockstep.fails_nth
        self.past = Past()
        self.wide = False
        self.failed = False
        self.settles = False
        self.fell: Operation | None = None

    @property
    def inventory(self) -> Inventory:
        """What exists now: the strategies draw from it."""
        return self.lockstep.inventory

    def execute(self, operations: tuple[Operation, ...]) -> None:
        """Take the steps that the systems support. A system that was interrupted is in no state to be undone."""
        try:
            for operation in operations:
                if self._is_lawful(operation):
                    taken = self.lockstep.step(Step(operation))
                    self.report(taken.divergences)
                    if type(operation) not in PASSED_OVER:
                        self.past = self.past.after(self.lockstep.history[-1].operation)
                    self.fell = operation if taken.fell else None
        except KeyboardInterrupt:
            self.failed = True
            raise

    def report(self, divergences: tuple[Divergence, ...]) -> None:
        """End the example with what was found, if anything was."""
        if divergences:
            self.failed = True
            raise DivergenceError(divergences[0])

    def teardown(self) -> None:
        """Undo everything, if all went well so far, and close the systems."""
        try:
            if not self.failed:
                self.report(self.lockstep.undo(settle=self.settles))
        finally:
            closed = self.lockstep.close()
        if not self.failed:
            self.report(closed)

    def _is_lawful(self, operation: Operation) -> bool:
        return not self.lockstep.declined(operation)


def machine_for(
    world: World,
    semantics: Semantics,
    factories: Sequence[SystemFactory],
    tally: Tally | None = None,
    *,
    journal: Journal | None = None,
    journal_world: str | None = None,
    model: Callable[[World, Semantics], Reference] = reference,
    witness: Witness | None = None,
    all_wide: bool | None = None,
    interleaved: bool = False,
) -> type[LockstepMachine]:
    """A machine class for one setting; its TestCase shrinks as Hypothesis does.

    journal_world: what the journal calls the world, if not as its other worlds. all_wide: whether all examples are
    wide, or none; without it some are. interleaved: operations meet tasks in the middle of their calls.
    """
    rules = INTERLEAVED_CONCEPTS if interleaved else (*CONCEPTS, "faults")
    concepts = [concept for concept in rules if concept != "batch" or semantics.tracing_multi]
    members: dict[str, Any] = {concept: _rule(concept) for concept in concepts}
    if not interleaved:
        members |= {"begin": initialize(beginning=beginnings())(_begin)}
    members |= {"world": world, "semantics": semantics, "factories": tuple(factories), "model": staticmethod(model)}
    members |= {"tally": tally, "journal": journal, "journal_world": journal_world, "witness": witness}
    members |= {"all_wide": all_wide}
    machine = cast("type[LockstepMachine]", type("Machine", (LockstepMachine,), members))
    machine.TestCase.settings = settings(
        deadline=None,
        stateful_step_count=STEPS,
        suppress_health_check=list(HealthCheck),
    )
    return machine


def generating(examples: int, steps: int = STEPS) -> settings:
    """Hypothesis only generates: so many examples, that are neither kept nor shrunk, and no word about them.

    steps: of a machine, of which each is one operation or more.
    """
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )


def _begin(machine: LockstepMachine, beginning: Beginning) -> None:
    machine.wide = beginning.wide
    machine.execute(beginning.operations)


def _rule(concept: str) -> object:
    return rule(operations=drawn_for(concept))(_taking(concept))


def _taking(name: str) -> Callable[[LockstepMachine, tuple[Operation, ...]], None]:
    """A method of this name, which takes the operations."""

    def take(machine: LockstepMachine, operations: tuple[Operation, ...]) -> None:
        machine.execute(operations)

    take.__name__ = take.__qualname__ = name
    return take
