"""Lockstep: applies each step to the model and to every system, and compares what they answer and show.

This is the heart of the harness; what it finds is a `Divergence`. A system that diverged takes no further step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Protocol

from properties.lockstep.coverage import Tally
from properties.lockstep.divergence import Divergence, cost_lines, site_lines
from properties.lockstep.journal import Journal
from spec import capabilities
from spec.alphabet import INTERLEAVED, STOPPING, alphabet
from spec.border import resolved
from spec.capabilities import Linking
from spec.costs import Cost
from spec.errors import BadInputError
from spec.inventory import Inventory, undo_operations
from spec.operations import OPERATIONS, Call, Finish, ObserveSite, Operation, Poke, Settle, Task
from spec.operations import Step as TaskStep
from spec.outcomes import Ok, Outcome
from spec.seeds import Expectation, Step, print_operation
from spec.semantics import Semantics
from spec.sharing import LEVELS
from spec.sites import Site
from spec.system import System, SystemFactory
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Lockstep", "Reference", "Taken", "UnsupportedError", "Witness", "check_step", "reference"]

WAITS = ("grace_periods", "poke_rounds", "sites_patched")
MOST_WORDS_WITHOUT_PROTOTYPE = 6
START = "the start"
USE_AFTER_FREE = "does not survive a call of an image from which a program could not be taken: a use after free"


class UnsupportedError(BadInputError):
    """A step that the semantics or the system do not have, or whose function or arguments the world does not have."""


class Reference(System, capabilities.Tasks, Protocol):
    """The model: a System that also tells its rules, and what sharing must cost."""

    def reached(self) -> Mapping[str, int]:
        """How often each rule was cited so far."""

    def cited(self) -> tuple[str, ...]:
        """The rules that the last operation cited, in order."""

    def images(self, level: str) -> int:
        """Images that a sharing level has alive (COST-7)."""

    def originals(self) -> Mapping[str, str]:
        """As spec.capabilities.Originals."""

    def link_info(self, operation: Linking) -> str:
        """As spec.capabilities.LinkInfo."""

    def value(self) -> Hashable:
        """The state as a value: where two are equal, the same operations do the same, costs aside."""


class Witness(Protocol):
    """Somebody who hears of each step that was taken or declined."""

    def agreed(self, operation: Operation, observed: str, rules: tuple[str, ...], /) -> None:
        """Every system did what the model says, which cited these rules; observed as in Taken.

        After operations and calls that the systems themselves answered: where the harness answered in the place of one,
        nothing was learned of it, and a site that is looked at was compared before.
        """

    def declined(self, operation: Operation, reason: str, /) -> None:
        """A system would not carry the operation out."""


Difference = tuple[str, str, str]
"""The aspect, what the model says, what the system says."""


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


class _Crashed:
    """Stands for a system whose factory raised: whatever it is asked raises the same."""

    name = "the system"
    supports = frozenset(OPERATIONS.values())

    def __init__(self, error: Exception) -> None:
        self._error = error

    def apply(self, _operation: Operation, /) -> Outcome:
        raise self._error

    def sites(self) -> Mapping[str, Site]:
        raise self._error

    def call(self, _function: str, _arguments: tuple[int, ...], /) -> Trace:
        raise self._error

    def cost(self) -> Cost:
        raise self._error

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass(frozen=True, slots=True, eq=False)
class _Runner:
    """A system in the run. place: the place of its factory among those given."""

    system: System
    name: str
    level: str
    place: int
    counts: frozenset[str]

    def declines(self, operation: Operation) -> str:
        """Why the system will not carry the operation out now, empty if it will."""
        if type(operation) not in self.system.supports:
            runs = ": it runs every call to its end" if type(operation) in INTERLEAVED else ""
            return f"does not support '{operation.verb}'{runs}"
        if isinstance(operation, Poke):
            return self.declines(operation.operation)
        return capabilities.declines(self.system, operation)


def reference(world: World, semantics: Semantics) -> Reference:
    """A new model."""
    from model import system  # noqa: PLC0415  # lockstep can be used with another reference

    return system(world, semantics)


def level_of(system: System) -> str:
    """The level at which a system shares images: its name's end, or its attribute `sharing`, or not at all."""
    level = system.name.rpartition(":")[2]
    return level if level in LEVELS else capabilities.sharing(system)


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

    def _start(self, place: int, factory: SystemFactory) -> _Runner:
        try:
            system = factory(self.world, self.semantics)
        except BadInputError:
            raise
        except Exception as error:  # noqa: BLE001  # a finding, told at the first step
            system = _Crashed(error)
        return _Runner(system, system.name, level_of(system), place, capabilities.counts(system))

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

    def _decline(self, runner: _Runner, operation: Operation) -> str:
        """Why one system will not carry the operation out. One that fails to tell has crashed, at the step to come."""
        try:
            return runner.declines(operation)
        except BadInputError:
            raise
        except Exception as error:  # noqa: BLE001  # whatever a system raises is a finding
            self._running[self._running.index(runner)] = replace(runner, system=_Crashed(error))
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
            self.inventory = self.inventory.after(operation, Ok())
        else:
            taken = self._apply(step)
        if self._witness is not None and not taken.divergences and not taken.harness:
            self._witness.agreed(operation, taken.observed, self._model.cited())
        return taken

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
        left = _state(self._model.sites(), self._model.cost())
        return (self._divergence(self.history[-1], None, ("undo", NOTHING, left)),) if left != NOTHING else ()

    def close(self) -> tuple[Divergence, ...]:
        """Close the model and the systems; a system that cannot be closed has crashed.

        Where everything is undone and settled, those that can tell are asked before what is left over (SETTLE-1).
        """
        if self._tally is not None:
            self._tally.add_rules(self._model.reached())
        step = Step(self.history[-1].operation) if self.history else None
        settled = step is not None and isinstance(step.operation, Settle) and self.inventory.undone
        leaks = self._each(step, _find_leak) if settled else ()
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
        self.inventory = self.inventory.after(step.operation, outcome)
        sites, cost = self._model.sites(), self._model.cost()
        model, unsure = self._model, self.inventory.unsure

        def judge(runner: _Runner) -> Difference | None:
            answer = runner.system.apply(step.operation)
            self._harness = self._harness or answer.harness
            return (
                _compare_outcomes(outcome, answer, runner.system)
                or _compare_sites(sites, runner.system.sites())
                or _compare_originals(model, runner.system, unsure)
                or _compare_link_info(model, runner.system, step.operation, outcome)
                or _compare_costs(cost, runner, model)
                or _compare_expected(step.expected, str(outcome))
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

        def judge(runner: _Runner) -> Difference | None:
            seen, other = see(runner.system)
            if value != other:
                return aspect, *_describe(value, other)
            return _compare_totals(self._model, runner, totals) or _compare_expected(step.expected, seen)

        divergences = self._each(step, judge)
        return Taken(text, self._against_seed(step, text) + divergences)

    def _against_seed(self, step: Step, text: str) -> tuple[Divergence, ...]:
        difference = _compare_expected(step.expected, text)
        return (self._divergence(step, None, difference),) if difference else ()

    def _each(self, step: Step | None, judge: Callable[[_Runner], Difference | None]) -> tuple[Divergence, ...]:
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

    def _divergence(self, step: Step | None, runner: _Runner | None, difference: Difference) -> Divergence:
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


def check_step(step: Step, world: World, semantics: Semantics) -> None:
    """UnsupportedError if these semantics lack the operation, or the world what it observes."""
    operation = step.operation
    if isinstance(operation, Poke):
        check_step(Step(operation.operation), world, semantics)
    elif type(operation) not in STOPPING and type(operation) not in alphabet(semantics):
        raise UnsupportedError(f"'{operation.verb}' does not exist in the semantics {semantics.name}")
    if isinstance(operation, TaskStep) and (operation.to is None or operation.count > 1):
        raise UnsupportedError("'step': only points mean the same everywhere: write to=POINT, and no number")
    if isinstance(operation, Call | Task | ObserveSite) and operation.function not in world.by_name:
        raise UnsupportedError(f"'{operation.verb}': the world {world.name} has no function '{operation.function}'")
    if isinstance(operation, Call | Task):
        _check_arguments(operation, world)


def _check_arguments(call: Call | Task, world: World) -> None:
    prototype, given = world.by_name[call.function].prototype, len(call.arguments)
    if prototype is None and given > MOST_WORDS_WITHOUT_PROTOTYPE:
        raise UnsupportedError(
            f"'{call.verb}': {call.function} has no prototype, and takes at most 6 words, not {given}"
        )
    if prototype is not None and given != len(prototype.slots):
        wanted = f"{len(prototype.slots)} words, one for each 8 bytes of each argument"
        raise UnsupportedError(f"'{call.verb}': {call.function} takes {wanted}, not {given}")


def _see_trace(system: System, call: Call) -> tuple[str, Trace]:
    trace = system.call(call.function, call.arguments)
    return str(trace), trace


def _see_rest(system: System, finish: Finish) -> tuple[str, Trace]:
    trace = capabilities.finish(system, finish)
    return str(trace), trace


def _see_site(system: System, observed: ObserveSite) -> tuple[str, Site | None]:
    site = system.sites().get(observed.function)
    return ("nop" if site is None else site.target), site


def _describe(value: object, other: object) -> tuple[str, str]:
    """Two observations as text, in full if the short texts are the same."""
    short = _short(value), _short(other)
    return short if short[0] != short[1] else (_full(value), _full(other))


def _short(value: object) -> str:
    return "nop" if value is None else str(value)


def _full(value: object) -> str:
    return "\n".join([str(value), *map(repr, value.events)]) if isinstance(value, Trace) else repr(value)


def _compare_outcomes(expected: Outcome, outcome: Outcome, system: System) -> Difference | None:
    if expected == outcome:
        return None
    console = capabilities.console(system) if outcome.warn else ""
    return "outcome", str(expected), f"{outcome}\n{console}".strip()


def _compare_sites(expected: Mapping[str, Site], sites: Mapping[str, Site]) -> Difference | None:
    if expected == sites:
        return None
    return "sites", site_lines(expected, sites), site_lines(sites, expected)


def _compare_originals(model: Reference, system: System, unsure: Collection[str]) -> Difference | None:
    """How images reach the original, where a system can tell; unsure: of which the rules say nothing (IPMODIFY-2)."""
    if not hasattr(system, "originals"):
        return None
    expected, seen = model.originals(), capabilities.originals(system)
    names = (expected.keys() | seen.keys()).difference(unsure)
    differing = sorted(name for name in names if expected.get(name) != seen.get(name))
    if not differing:
        return None
    said, shown = ("\n".join(f"{name} {ways.get(name)}" for name in differing) for ways in (expected, seen))
    return "original", said, shown


def _compare_link_info(model: Reference, system: System, operation: Operation, outcome: Outcome) -> Difference | None:
    """A link that has just been made describes itself as the model says, where a system can tell."""
    if not isinstance(operation, Linking) or not isinstance(outcome, Ok) or not hasattr(system, "link_info"):
        return None
    expected, seen = model.link_info(operation), capabilities.link_info(system, operation)
    return ("link", expected, seen) if expected != seen else None


def _find_leak(runner: _Runner) -> Difference | None:
    left = capabilities.left_over(runner.system)
    return ("leak", NOTHING_LEFT, left) if left else None


def _compare_totals(model: Reference, runner: _Runner, names: tuple[str, ...]) -> Difference | None:
    """The totals of these names, as far as the system counts them."""
    names = tuple(name for name in names if name in runner.counts)
    if not names:
        return None
    expected, cost = model.cost(), runner.system.cost()
    if all(getattr(expected, name) == getattr(cost, name) for name in names):
        return None
    return "cost", cost_lines(expected, cost, names), cost_lines(cost, expected, names)


def _compare_costs(expected: Cost, runner: _Runner, model: Reference) -> Difference | None:
    """The first difference among the costs that the system counts."""
    cost, level = runner.system.cost(), runner.level
    waits = tuple(name for name in WAITS if name in runner.counts)
    if any(getattr(expected, name) != getattr(cost, name) for name in waits):
        return "cost", cost_lines(expected, cost, waits), cost_lines(cost, expected, waits)
    alive = expected.images_alive if level == "per_function" else model.images(level)
    if "images_alive" in runner.counts and cost.images_alive != alive:
        return "images", f"{alive} images alive ({level})", f"{cost.images_alive} images alive"
    exact = level == "per_function"
    more, other = cost.images_built > expected.images_built, cost.images_built != expected.images_built
    if "images_built" in runner.counts and (more or (exact and other)):
        bound = "" if exact else "at most "
        return "images", f"{bound}{expected.images_built} images built ({level})", f"{cost.images_built} images built"
    return None


def _compare_expected(expectation: Expectation | None, text: str) -> Difference | None:
    if expectation is None:
        return None
    wanted = expectation.words or tuple(str(expectation).split())
    words = text.split()
    if not any(word.startswith("direct:") for word in wanted) and len(words) > 1:
        words = [word for word in words if not word.startswith("direct:")]
    return None if list(wanted) == words else ("expectation", " ".join(wanted), text)


NOTHING_LEFT = "nothing is left over"
NOTHING = "every site is a nop, no image is alive"


def _state(sites: Mapping[str, Site], cost: Cost) -> str:
    lines = site_lines(sites, {})
    if cost.images_alive:
        lines += f"\n{cost.images_alive} images alive"
    return lines.strip() or NOTHING
