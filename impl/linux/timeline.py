"""What happened in one call, from several recorders: their marks in the order of time, folded into a Trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from spec.traces import Event, NestedCall, Trace

__all__ = ["Begin", "End", "Mark", "folded"]


@dataclass(frozen=True, slots=True)
class Begin:
    """A body or a program is about to call a function."""

    function: str


@dataclass(frozen=True, slots=True)
class End:
    """That call, or the outermost one, returned. value: as its caller sees it, from the return register."""

    value: Callable[[str], int]


Thing = Event | Begin | End | Callable[[str], Event]
"""What a recorder saw; an event that can only be told by the function in whose call it stands is a callable of that."""


@dataclass(frozen=True, slots=True)
class Mark:
    """time: of the kernel's monotonic clock, in ns; place: among the marks of its recorder, which are in order."""

    time: int
    place: int
    thing: Thing


def folded(marks: Iterable[Mark], function: str) -> Trace:
    """The trace of a function's call, whose End is the last mark; a call without its End has no value."""
    ordered = sorted(marks, key=lambda mark: (mark.time, mark.place))
    return _fold(iter([mark.thing for mark in ordered]), function)


def _fold(things: Iterator[Thing], function: str) -> Trace:
    events: list[Event] = []
    for thing in things:
        if isinstance(thing, End):
            return Trace(tuple(events), thing.value(function))
        if isinstance(thing, Begin):
            events.append(NestedCall(thing.function, _fold(things, thing.function)))
        else:
            events.append(thing(function) if callable(thing) else thing)
    return Trace(tuple(events), None)
