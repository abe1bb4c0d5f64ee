"""Lockstep: applies each step to the model and to every system, and compares what they answer and show.

This is the heart of the harness; what it finds is a `Divergence`. A system that diverged takes no further step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from properties.lockstep.comparing import (
    NOTHING,
    Difference,
    compare_costs,
    compare_expected,
    compare_hash_file,
    compare_link_info,
    compare_originals,
    compare_outcomes,
    compare_sites,
    compare_totals,
    describe,
    find_leak,
    tell_state,
)
from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence
from properties.lockstep.journal import Journal
from properties.lockstep.runners import Crashed, Reference, Runner, level_of, reference
from properties.lockstep.supported import UnsupportedError, check_step
from spec import capabilities
from spec.alphabet import INTERLEAVED, STOPPING, alphabet
from spec.border import resolved
from spec.errors import BadInputError
from spec.following import follow
from spec.inventory import Inventory
from spec.operations import Await, Call, Finish, ObserveSite, Operation, Poke, PokeStep, Settle
from spec.operations import Step as TaskStep
from spec.outcomes import Ok
from spec.seeds import Step, print_operation
from spec.semantics import Semantics
from spec.sites import Site
from spec.system import System, SystemFactory
from spec.traces import Trace
from spec.undoing import undo_operations
from spec.worlds import World

__all__ = ["Lockstep", "Taken", "Witness"]

START = "the start"
STOPS = "POKE-"
USE_AFTER_FREE = "does not survive a call of an image from which a program could not be taken: a use after free"


class Witness(Protocol):
    """Somebody who hears of each step that was taken or declined."""

    def agreed(self, operation: Operation, observed: str, rules: tuple[str, ...], /) -> None:
        """Every system did what the model says, which cited these rules; observed as in Taken.

        After operations and calls that the systems themselves answered: where the harness answered in the place of one,
        nothing was learned of it, and a site that is looked at was compared before.
        """

    def declined(self, operation: Operation, reason: str, /) -> None:
        """A system would not carry the operation out."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: what the model observed, as a seed would expect it, and who differed.

    harness: the rule by which the harness answered in the place of the model or of a system; empty if all answered.
    """

    observed: str
    divergences: tuple[Divergence, ...]
    harness: str = ""

    @property
    def fell(self) -> bool:
        """Whether the operation failed, by the answer of those that were asked."""
        return self.observed.startswith("-") and not self.harness


class Lockstep:
    """The model and some systems, one step after another.

    history: the steps so far. inventory: what exists by the model's answers. Bad input raises UnsupportedError before
    anything is executed.
    """

    def __init__(
        self,
        world: World,
        semantics: Semantics,
        factories: Sequence[SystemFactory],
        *,
        model: Callable[[World, Semantics], Reference] = reference,
        tally: Tally | None = None,
        journal: Journal | None = None,
        witness: Witness | None = None,
    ) -> None:
        self.world, self.semantics = world, semantics
        self.history: list[Step] = []
        self.inventory = Inventory.at_start(world, semantics)
        self._model = model(world, semantics)
        self._tally, self._journal, self._witness = tally, journal, witness
        self._running = [self._start(place, factory) for place, factory in enumerate(factories)]
        self._diverged: list[System] = []
        self._harness = ""
        supported = (runner.system.supports for runner in self._running)
        self.supports = (alphabet(semantics) | STOPPING).intersection(*supported)
        self.undone_from: int | None = None

    def _start(self, place: int, factory: SystemFactory) -> Runner:
        try:
            system = factory(self.world, self.semantics)
        except BadInputError:
            raise
        except Exception as error:  # noqa: BLE001  # a finding, told at the first step
            system = Crashed(error)
        return Runner(system, system.name, level_of(system), place, capabilities.counts(system))

    @property
    def names(self) -> tuple[str, ...]:
        """The systems that have not diverged."""
        return tuple(runner.name for runner in self._running)

    @property
    def fails_nth(self) -> bool:
        """Whether each allocation of an operation can be made to fail in one of the systems."""
        return any(capabilities.fails_nth(runner.system) for runner in self._running)

    @property
    def able(self) -> tuple[int, ...]:
        """The places of the systems, of those that have not diverged, that have tasks which stand in calls."""
        return tuple(runner.place for runner in self._running if runner.system.supports >= INTERLEAVED)

    def value(self) -> Hashable:
        """The model's state; see Reference."""
        return self._model.value()

    def check(self, step: Step) -> None:
        """UnsupportedError if the step cannot be taken in this world, by these semantics and systems."""
        check_step(step, self.world, self.semantics)
        if reason := self.declined(step.operation):
            raise UnsupportedError(reason)

    def declined(self, operation: Operation) -> str:
        """Why a system will not carry the operation out now, a sentence; empty if all will."""
        reasons = ((f"the system {runner.name}", self._decline(runner, operation)) for runner in tuple(self._running))
        name, reason = next((each for each in (self._refuse(operation), *reasons) if each[1]), ("", ""))
        if reason and self._witness is not None:
            self._witness.declined(operation, reason)
        return f"{name} {reason}" if reason else ""

    def _refuse(self, operation: Operation) -> tuple[str, str]:
        """What no system is asked to do: a call that follows no rule (IMAGE-2)."""
        unsafe = isinstance(operation, Call) and not self.inventory.may_call(operation.function)
        return (self.semantics.name, USE_AFTER_FREE) if unsafe else ("", "")

    def _decline(self, runner: Runner, operation: Operation) -> str:
        """Why one system will not carry the operation out. One that fails to tell has crashed, at the step to come."""
        try:
            return runner.declines(operation)
        except BadInputError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a system raises is a finding
            self._running[self._running.index(runner)] = replace(runner, system=Crashed(error))
            self._diverged.append(runner.system)
            return ""

    def step(self, step: Step) -> Taken:
        """Take one step with the model and every system that has not diverged."""
        operation = resolved(step.operation, self.world)
        if operation is not step.operation:
            step = replace(step, operation=operation)
            if self._tally is not None:
                self._tally.add_rules({"NAME-11": 1})
        self.check(step)
        if self._journal is not None:
            self._journal.write(step)
        self.history.append(step)
        operation = step.operation
        if isinstance(operation, ObserveSite):
            return self._observe(step, lambda system: _see_site(system, operation))
        if isinstance(operation, Call):
            taken = self._observe(step, lambda system: _see_trace(system, operation), ("missed",))
        elif isinstance(operation, TaskStep):
            taken = self._observe(step, lambda system: (capabilities.step(system, operation),) * 2)
        elif isinstance(operation, Finish):
            taken = self._observe(step, lambda system: _see_rest(system, operation), ("missed",))
            self.inventory = follow(self.inventory, operation, Ok())
        else:
            taken = self._apply(step)
        if self._witness is not None and not taken.divergences and not taken.harness:
            self._witness.agreed(operation, taken.observed, self._confirmed(operation))
        return taken

    def _confirmed(self, operation: Operation) -> tuple[str, ...]:
        """The rules that a step was seen to follow; at a stop where nobody can look those of stops alone."""
        rules = self._model.cited()
        stops = isinstance(operation, Poke | PokeStep | Await)
        if stops and any(capabilities.unseen(runner.system) for runner in self._running):
            return tuple(rule for rule in rules if rule.startswith(STOPS))
        return rules

    def run(self, steps: Iterable[Step]) -> tuple[Divergence, ...]:
        """Take steps until one diverges."""
        for step in steps:
            if found := self.step(step).divergences:
                return found
        return ()

    @property
    def tells_leaks(self) -> bool:
        """Whether a system can be asked what is left over."""
        return any(hasattr(runner.system, "left_over") for runner in self._running)

    def undo(self, *, settle: bool = False) -> tuple[Divergence, ...]:
        """Undo everything in lockstep; then no site and no image may be left.

        Systems that still agree have the model's sites and images, so the model's alone are looked at. settle: at the
        end settle, too, so that `close` looks what is left over in the memory of those that can tell.
        """
        self.undone_from = len(self.history)
        operations = [*undo_operations(self.inventory), *([Settle()] if settle and self.tells_leaks else [])]
        skipped = False
        for operation in operations:
            if self.declined(operation):
                skipped = True
            elif found := self.step(Step(operation)).divergences:
                return found
        if self.inventory.dead or self.inventory.unclean or skipped or not operations:
            return ()
        left = tell_state(self._model.sites(), self._model.cost())
        return (self._divergence(self.history[-1], None, ("undo", NOTHING, left)),) if left != NOTHING else ()

    def close(self) -> tuple[Divergence, ...]:
        """Close the model and the systems; a system that cannot be closed has crashed.

        Where everything is undone and settled, those that can tell are asked before what is left over (SETTLE-1).
        """
        if self._tally is not None:
            self._tally.add_rules(self._model.reached())
        step = Step(self.history[-1].operation) if self.history else None
        settled = step is not None and isinstance(step.operation, Settle) and self.inventory.undone
        leaks = self._each(step, find_leak) if settled else ()
        self._model.close()
        for system in self._diverged:
            # It is a finding already; that it cannot be closed either adds nothing.
            with suppress(Exception):
                system.close()
        return leaks + self._each(step, lambda runner: runner.system.close())

    def _apply(self, step: Step) -> Taken:
        outcome = self._model.apply(step.operation)
        if self._tally is not None:
            self._tally.count(step.operation, str(outcome))
            self._tally.add_rules({outcome.harness: 1} if outcome.harness else {})
        self._harness = outcome.harness
        self.inventory = follow(self.inventory, step.operation, outcome)
        sites, cost = self._model.sites(), self._model.cost()
        model, unsure = self._model, self.inventory.unsure

        def judge(runner: Runner) -> Difference | None:
            answer = runner.system.apply(step.operation)
            self._harness = self._harness or answer.harness
            if difference := compare_outcomes(outcome, answer, runner.system):
                return difference
            if capabilities.unseen(runner.system):
                return compare_expected(step.expected, str(outcome))
            return (
                compare_sites(sites, runner.system.sites())
                or compare_originals(model, runner.system, unsure)
                or compare_link_info(model, runner.system, step.operation, outcome)
                or compare_hash_file(model, runner.system, step.operation, outcome)
                or compare_costs(cost, runner, model)
                or compare_expected(step.expected, str(outcome))
            )

        divergences = self._each(step, judge)
        return Taken(str(outcome), self._against_seed(step, str(outcome)) + divergences, self._harness)

    def _observe(self, step: Step, see: Callable[[System], tuple[str, object]], totals: tuple[str, ...] = ()) -> Taken:
        """Compare what is seen; then those of the costs that looking may change."""
        self._harness = ""
        text, value = see(self._model)
        if self._tally is not None:
            self._tally.count(step.operation, "observed")
        aspect = "sites" if isinstance(step.operation, ObserveSite) else "trace"

        def judge(runner: Runner) -> Difference | None:
            seen, other = see(runner.system)
            if value != other:
                return aspect, *describe(value, other)
            return compare_totals(self._model, runner, totals) or compare_expected(step.expected, seen)

        divergences = self._each(step, judge)
        return Taken(text, self._against_seed(step, text) + divergences)

    def _against_seed(self, step: Step, text: str) -> tuple[Divergence, ...]:
        difference = compare_expected(step.expected, text)
        return (self._divergence(step, None, difference),) if difference else ()

    def _each(self, step: Step | None, judge: Callable[[Runner], Difference | None]) -> tuple[Divergence, ...]:
        """Ask every system, and take those that differ out of the run."""
        found: list[Divergence] = []
        for runner in tuple(self._running):
            try:
                difference = judge(runner)
            except BadInputError:
                raise
            except Exception as error:  # noqa: BLE001  # whatever a system raises is a finding
                difference = ("crash", "no crash", f"{type(error).__name__}: {error}")
            if difference is not None:
                found.append(self._divergence(step, runner, difference))
                self._running.remove(runner)
                self._diverged.append(runner.system)
        return tuple(found)

    def _divergence(self, step: Step | None, runner: Runner | None, difference: Difference) -> Divergence:
        return Divergence(
            index=max(len(self.history) - 1, 0),
            line=step.line if step else 0,
            step=print_operation(step.operation) if step else START,
            aspect=difference[0],
            system=runner.name if runner else self._model.name,
            expected=difference[1],
            observed=difference[2],
            rules=(self._harness,) if self._harness else self._model.cited(),
            place=runner.place if runner else -1,
        )


def _see_trace(system: System, call: Call) -> tuple[str, Trace]:
    trace = system.call(call.function, call.arguments)
    return str(trace), trace


def _see_rest(system: System, finish: Finish) -> tuple[str, Trace]:
    trace = capabilities.finish(system, finish)
    return str(trace), trace


def _see_site(system: System, observed: ObserveSite) -> tuple[str, Site | None]:
    site = system.sites().get(observed.function)
    return ("nop" if site is None else site.target), site
