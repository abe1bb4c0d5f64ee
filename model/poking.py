"""An operation that stops while it patches text, and what a call does meanwhile (POKE-*)."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass, replace

from model.poke import differs
from model.rules import cite
from model.sites import covering, has_direct_ops
from model.state import State
from spec.costs import POKE_BATCH
from spec.operations import Operation
from spec.outcomes import Ok, Outcome

__all__ = ["Poker"]

PHASES = 3
"""int3, the other bytes, the first byte."""

Names = frozenset[str]


@dataclass(frozen=True)
class Poking:
    """What is under way.

    former: the state before it. stops: for this one and those to come, the functions of which calls do as before.
    """

    operation: Operation
    outcome: Outcome
    former: State
    stops: tuple[Names, ...]


class Poker:
    """The operation that stands between two writes to text, if one does."""

    def __init__(self) -> None:
        self._poking: Poking | None = None

    def __bool__(self) -> bool:
        return self._poking is not None

    def begin(self, before: State, after: State, operation: Operation, outcome: Outcome) -> tuple[State, bool]:
        """POKE-1: the state at its first stop, if it has one; what has failed, or patches nothing, has none."""
        cite("POKE-1")
        stops = tuple(_list_stops(before, after)) if outcome == Ok() else ()
        if not stops:
            return after, False
        self._poking = Poking(operation, outcome, before, stops)
        return self._show(after), True

    def go_on(self, state: State, *, to_end: bool) -> tuple[State, Poking | None]:
        """POKE-1: to the next stop, or past all of them, where it tells what is over."""
        cite("POKE-1")
        assert self._poking is not None
        stops = () if to_end else self._poking.stops[1:]
        if stops:
            self._poking = replace(self._poking, stops=stops)
            return self._show(state), None
        over, self._poking = self._poking, None
        return replace(state, former={}), over

    def value(self) -> Hashable:
        """All that what comes depends on, but for the state."""
        poking = self._poking
        return poking and (poking.operation, poking.outcome, poking.former.value(), poking.stops)

    def _show(self, state: State) -> State:
        """POKE-2: the state in which calls of some functions still do as before."""
        cite("POKE-2")
        assert self._poking is not None
        return replace(state, former=dict.fromkeys(self._poking.stops[0], self._poking.former))


def _list_stops(before: State, after: State) -> Iterator[Names]:
    """POKE-1 to POKE-3: for each stop the functions whose calls do as before it."""
    differing = [name for name in after.world.by_name if differs(before, after, name)]
    written = frozenset[str]().union(*(one.sites for one in after.patched if one.times > 1))
    single = [name for name in differing if name not in written]
    changed = [name for name in after.world.by_name if name in written]
    late = frozenset(name for name in after.world.by_name if _changes_entry(before, after, name))
    if late:
        cite("POKE-3")
    yield from _stop_in(single, lambda left: late.union(name for name in left if len(covering(before, name)) <= 1))
    yield from _stop_in(changed, lambda _: late)
    yield from _stop_in(changed, lambda _: frozenset())


def _stop_in(sites: list[str], former: Callable[[list[str]], Names]) -> Iterator[Names]:
    """The stops of one pass: three for each batch of sites; former: by those that it has yet to come to."""
    for start in range(0, len(sites), POKE_BATCH):
        yield from [former(sites[start + POKE_BATCH :])] * PHASES


def _changes_entry(before: State, after: State, function: str) -> bool:
    """Whether a direct call is changed in place."""
    if not (has_direct_ops(before, function) and has_direct_ops(after, function)):
        return False
    return any(
        getattr(before, table).get(function) != getattr(after, table).get(function)
        for table in ("images", "direct_functions")
    )
