"""Delta debugging over the steps of a divergence: drop steps, shorten lists, simplify words, until nothing helps.

It runs lockstep directly, against the one system that diverged, so it is fast; and it is deterministic. Hypothesis'
shrinker, which also has to draw again what it tries, needs a hundred times as long.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import Field, dataclass, field, fields, replace
from itertools import combinations, permutations
from typing import Any

from properties.hunt.exchanges import Steps, fewer
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.lockstep.runners import Reference, reference
from properties.lockstep.supported import UnsupportedError
from spec import operations as op
from spec.names import Name, names_of, renamed
from spec.operations import Call, ObserveSite, Operation
from spec.seeds import Expectation, Seed, Step
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.undoing import undo_operations
from spec.worlds import World

__all__ = ["Shrunk", "Trial", "shrink", "shrink_finding"]

FUNCTIONS = ("foo1", "foo2", "bar1")
MOST_FOR_PAIRS = 24
MOST_FOR_EXCHANGES = 12
MOST_FOR_MOVES = 9
"""Most that is found has no more steps; the trials of exchanges are the square of their number, of moves the cube."""

MERGED = frozenset({"ops", "prog", "link"})
LETTERS = {"ops": "o", "prog": "p", "link": "l", "user": "g", "tramp": "T", "task": "t"}
FUNCTION_SPACES = frozenset({"function", "glob"})
ENDS = (
    *(op.BpfLinkDetach, op.Unlivepatch, op.UnregisterFtraceFunction, op.UnregisterFtraceGraph),
    *(op.UnregisterFtraceDirect, op.UnregisterFtraceDirectMulti),
)
BEGIN_NOTHING = (*ENDS, op.Task, op.Step, op.Finish, op.Await, op.GracePeriod, op.PokeStep, op.Fail, Call, ObserveSite)

KIN = {"images": "cost"}
"""Aspects that show one and the same flaw: images are a cost."""

AT_THE_END = frozenset({"undo", "leak"})
"""Aspects that show when everything is undone."""


@dataclass(frozen=True)
class Trial:
    """Runs candidate sequences against the system that diverged; against none where it is the model that cannot undo.

    aspect: what a candidate must diverge in to count. expired: says when to give up. failed: candidates that did not
    count, which are not run again.
    """

    world: World
    semantics: Semantics
    factories: tuple[SystemFactory, ...]
    aspect: str
    expired: Callable[[], bool]
    model: Callable[[World, Semantics], Reference] = reference
    failed: set[Steps] = field(default_factory=set)

    def diverges(self, steps: Steps) -> tuple[Steps, Divergence] | None:
        """The steps up to the divergence of our aspect, and it; None if the candidate has none, or is unlawful."""
        if self.expired() or steps in self.failed:
            return None
        found = self._try(steps)
        if found is None:
            self.failed.add(steps)
        return found

    def _try(self, steps: Steps) -> tuple[Steps, Divergence] | None:
        lockstep = Lockstep(self.world, self.semantics, self.factories, model=self.model)
        try:
            found = self._run(lockstep, steps)
        except UnsupportedError:
            return None
        finally:
            left = lockstep.close()
        divergence = next(iter(found or left), None)
        if divergence is None or KIN.get(divergence.aspect, divergence.aspect) != KIN.get(self.aspect, self.aspect):
            return None
        return (steps if self.aspect in AT_THE_END else steps[: divergence.index + 1]), divergence

    def _run(self, lockstep: Lockstep, steps: Steps) -> tuple[Divergence, ...]:
        for operation in steps:
            if found := lockstep.step(Step(operation)).divergences:
                return found
        return lockstep.undo(settle=self.aspect == "leak") if self.aspect in AT_THE_END else ()


@dataclass(frozen=True, slots=True)
class Shrunk:
    """A seed that diverges by itself, and in what. original: the operations there were before shrinking."""

    seed: Seed
    divergence: Divergence
    original: int


def shrink_finding(
    divergence: Divergence,
    lockstep: Lockstep,
    factories: Sequence[SystemFactory],
    deadline: float,
    model: Callable[[World, Semantics], Reference] = reference,
) -> Shrunk:
    """Shrink the history of a lockstep that diverged, against the guilty one of its systems alone.

    deadline: a time.monotonic(), at which the shortest sequence so far is taken.
    """
    guilty = tuple(factories[divergence.place : divergence.place + 1]) if divergence.place >= 0 else ()
    end = lockstep.undone_from if divergence.aspect in AT_THE_END else divergence.index + 1
    steps = tuple(step.operation for step in lockstep.history[:end])
    world, semantics = lockstep.world, lockstep.semantics
    trial = Trial(world, semantics, guilty, divergence.aspect, lambda: time.monotonic() >= deadline, model)
    shrunk, last = shrink(trial, steps, divergence)
    seed = Seed(world.name, semantics.name, (*map(Step, shrunk), *_steps_of_undoing(trial, shrunk, last)))
    return Shrunk(seed, last, len(steps))


def _steps_of_undoing(trial: Trial, steps: Steps, divergence: Divergence) -> tuple[Step, ...]:
    """The steps that turn what shows only once all is undone into a seed that fails by itself."""
    if divergence.aspect not in AT_THE_END:
        return ()
    lockstep = Lockstep(trial.world, trial.semantics, (), model=trial.model)
    lockstep.run(map(Step, steps))
    if divergence.aspect == "leak":
        return (*map(Step, undo_operations(lockstep.inventory)), Step(op.Settle()))
    left = [line.split()[0] for line in divergence.observed.split("\n")]
    sites = [Step(ObserveSite(name), Expectation(words=("nop",))) for name in left if name in trial.world.by_name]
    return (*map(Step, undo_operations(lockstep.inventory)), *sites)


def shrink(trial: Trial, steps: Sequence[Operation], divergence: Divergence) -> tuple[Steps, Divergence]:
    """A sequence that diverges in the same aspect, from which no step can be dropped and no word simplified."""
    best = trial.diverges(tuple(steps)) or (tuple(steps), divergence)
    moved: Best | None = best
    while moved and not trial.expired():
        best = _shrink_in_place(trial, moved)
        moved = _move_and_drop(trial, best)
    return best


def _shrink_in_place(trial: Trial, best: Best) -> Best:
    """Shrink as far as it goes while steps stay in their order."""
    size = -1
    while size != _weigh(best[0]) and not trial.expired():
        size = _weigh(best[0])
        best = _drop_steps(trial, best)
        best = _drop_pairs(trial, best)
        best = _merge_names(trial, best)
        best = _exchange_kinds(trial, best)
        best = _exchange_steps(trial, best)
        best = _simplify(trial, best)
        best = _rename(trial, best)
    return best


def _weigh(steps: Steps) -> int:
    """The length of the text, which must fall for another round to make sense."""
    return sum(len(repr(operation)) for operation in steps)


Best = tuple[Steps, Divergence]


def _drop_steps(trial: Trial, best: Best) -> Best:
    """Leave out stretches, long ones first, and from the end on, because only later steps need earlier ones."""
    length = max(len(best[0]) // 2, 1)
    while length:
        end = len(best[0])
        while end > 0:
            start = max(end - length, 0)
            shorter = trial.diverges(best[0][:start] + best[0][end:])
            best = shorter or best
            end = min(start, len(best[0]))
        length //= 2
    return best


def _drop_pairs(trial: Trial, best: Best) -> Best:
    """Leave out any two steps at once, such as a failure and the operation that meets it."""
    accepted: Best | None = best
    while accepted and len(best[0]) <= MOST_FOR_PAIRS:
        best = accepted
        pairs = combinations(range(len(best[0])), 2)
        without = (tuple(step for at, step in enumerate(best[0]) if at not in pair) for pair in pairs)
        accepted = next(filter(None, map(trial.diverges, without)), None)
    return best


def _move_and_drop(trial: Trial, best: Best) -> Best | None:
    """Leave out a step where another one stands elsewhere; None if that does not help, or there are too many steps."""
    steps = best[0]
    if len(steps) > MOST_FOR_MOVES:
        return None
    orders = (_moved(steps, start, end) for start, end in permutations(range(len(steps)), 2))
    without = (order[:at] + order[at + 1 :] for order in orders for at in range(len(order)))
    return next(filter(None, map(trial.diverges, dict.fromkeys(without))), None)


def _moved(steps: Steps, start: int, end: int) -> Steps:
    """The steps with one of them moved from its place to another."""
    others = steps[:start] + steps[start + 1 :]
    return (*others[:end], steps[start], *others[end:])


def _merge_names(trial: Trial, best: Best) -> Best:
    """Let one program, link or ops do what two did: one of them is not made, and the other one stands for it."""
    accepted: Best | None = best
    while accepted and len(best[0]) <= MOST_FOR_EXCHANGES:
        best = accepted
        makers = ((at, name) for at, step in enumerate(best[0]) for name in names_of(step, "makes"))
        pairs = ((one, two) for one, two in permutations(makers, 2) if one[1].space == two[1].space in MERGED)
        merged = (_merge(best[0], at, gone, kept) for (at, gone), (_, kept) in pairs)
        accepted = next(filter(None, map(trial.diverges, merged)), None)
    return best


def _exchange_kinds(trial: Trial, best: Best) -> Best:
    """Make all programs of one kind, if that takes fewer steps: two fentry programs fill what one session does."""
    for kind in op.KINDS:
        alike = tuple(replace(step, kind=kind) if isinstance(step, op.BpfProgLoad) else step for step in best[0])
        accepted = trial.diverges(alike) if alike != best[0] else None
        shorter = _drop_steps(trial, accepted) if accepted else best
        best = shorter if len(shorter[0]) < len(best[0]) else best
    return best


def _exchange_steps(trial: Trial, best: Best) -> Best:
    """Do the same with fewer steps, as long as a way is accepted."""
    accepted: Best | None = best
    while accepted and len(best[0]) <= MOST_FOR_EXCHANGES:
        best = accepted
        tried = filter(None, map(trial.diverges, fewer(best[0])))
        accepted = next((shorter for shorter in tried if len(shorter[0]) < len(best[0])), None)
    return best


def _merge(steps: Steps, maker: int, gone: Name, kept: Name) -> Steps:
    """The steps without that which makes a name, and another one in its places."""
    others = steps[:maker] + steps[maker + 1 :]
    replaced = gone.space, gone.text
    return tuple(renamed(step, lambda *name: kept.text if name == replaced else name[1]) for step in others)


def _simplify(trial: Trial, best: Best) -> Best:
    """Put simpler operations in the places of the steps, as long as one is accepted."""
    place = 0
    while place < len(best[0]):
        for simpler in (*_propose_simpler(best[0][place]), *_propose_ends(trial, best[0], place)):
            accepted = trial.diverges((*best[0][:place], simpler, *best[0][place + 1 :]))
            if accepted:
                best = accepted
                break
        else:
            place += 1
    return best


def _propose_ends(trial: Trial, steps: Steps, place: int) -> Iterator[Operation]:
    """In place of a step that begins something, the ends of what has begun before: they need nothing new."""
    if len(steps) > MOST_FOR_EXCHANGES or isinstance(steps[place], BEGIN_NOTHING):
        return
    lockstep = Lockstep(trial.world, trial.semantics, (), model=trial.model)
    lockstep.run(map(Step, steps[:place]))
    yield from (end for end in undo_operations(lockstep.inventory) if isinstance(end, ENDS))
    lockstep.close()


def _propose_simpler(operation: Operation) -> Iterator[Operation]:
    """Operations that are simpler by one word, that name one function instead of many, or that do not stop."""
    match operation:
        case op.Poke(inner):
            yield inner
            yield from map(op.Poke, _propose_simpler(inner))
            return
        case op.Step():
            yield from _propose_stops(operation)
        case op.BpfProgLoad(kind=kind) if kind in op.KINDS:
            yield from (replace(operation, kind=simpler) for simpler in op.KINDS[: op.KINDS.index(kind)])
        case op.FtraceSetFilterIps(ops, (function,), remove, reset):
            yield op.FtraceSetFilterIp(ops, function, remove, reset)
        case op.FtraceSetFilter(ops, glob, reset) if not glob.startswith("!"):
            yield from (op.FtraceSetFilterIp(ops, function, reset=reset) for function in FUNCTIONS)
        case op.BpfLinkCreate(link, prog, ((function, cookie),)):
            yield op.BpfRawTracepointOpen(link, prog, function, cookie)
    for entry in fields(operation):
        for value in _propose_values(entry, getattr(operation, entry.name)):
            yield replace(operation, **{entry.name: value})


def _propose_stops(step: op.Step) -> Iterator[Operation]:
    """A task that goes on to its end, or stops where no program is needed."""
    yield op.Finish(step.task)
    if step.to != "body":
        yield replace(step, to="body")
    if step.to and ":" in step.to:
        yield replace(step, to="image")


def _propose_values(entry: Field[Any], value: Any) -> Iterator[Any]:
    match entry.metadata["form"]:
        case "flag" | "option":
            if value != entry.default:
                yield entry.default
        case "number":
            yield from range(1, value)
        case "words" | "pairs" | "targets":
            yield from (value[:at] + value[at + 1 :] for at in range(len(value)) if len(value) > 1)
            if entry.metadata["form"] == "targets":
                plain = ((function, None) for function, _ in value)
                yield from ((*value[:at], one, *value[at + 1 :]) for at, one in enumerate(plain) if one != value[at])
        case "integers":
            yield from ((*value[:at], at + 1, *value[at + 1 :]) for at in range(len(value)) if value[at] != at + 1)
        case "word" if value is not None and entry.default is None:
            yield None


def _rename(trial: Trial, best: Best) -> Best:
    """Number the names of each kind in the order of their appearance; then exchange functions for the simplest."""
    best = trial.diverges(_number_names(best[0])) or best
    for name in _functions(best[0], trial.world):
        for simpler in FUNCTIONS:
            if simpler == name:
                break
            accepted = trial.diverges(tuple(_substitute(operation, name, simpler) for operation in best[0]))
            if accepted:
                best = accepted
                break
    return best


def _number_names(steps: Steps) -> Steps:
    """The names of ops, programs, links, users and trampolines, numbered as they appear."""
    numbers: dict[tuple[str, str], str] = {}
    for name in (name for operation in steps for name in names_of(operation)):
        if letter := LETTERS.get(name.space):
            count = sum(space == name.space for space, _ in numbers)
            numbers.setdefault((name.space, name.text), f"{letter}{count + 1}")
    return tuple(renamed(operation, lambda space, text: numbers.get((space, text), text)) for operation in steps)


def _functions(steps: Steps, world: World) -> list[str]:
    found = (name.text for operation in steps for name in names_of(operation) if name.space in FUNCTION_SPACES)
    return [text for text in dict.fromkeys(found) if text in world.by_name]


def _substitute(operation: Operation, function: str, simpler: str) -> Operation:
    """The operation on another function; a call then has the words that foo1, foo2 and bar1 take."""
    if isinstance(operation, Call | op.Task):
        words = tuple(range(1, int(simpler[-1]) + 1))
        same = operation.function == function
        return replace(operation, function=simpler, arguments=words) if same else operation
    return renamed(operation, lambda space, text: simpler if space in FUNCTION_SPACES and text == function else text)
