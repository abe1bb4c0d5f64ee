"""What happened in one call: the marks of several recorders, in the order of time, are folded into a Trace."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from spec.traces import Event, NestedCall, Trace

__all__ = ["Begin", "End", "Mark", "Thing", "fold"]


@dataclass(frozen=True, slots=True)
class Begin:
    """A body or a program is about to call a function."""

    function: str


@dataclass(frozen=True, slots=True)
class End:
    """That call, or the outermost one, returned. value: as its caller sees it, from the return register."""

    value: Callable[[str], int]


Thing = Event | Begin | End | Callable[[str], Event]
"""What a recorder saw. An event that depends on the function that is being called is a callable of its name."""


@dataclass(frozen=True, slots=True)
class Mark:
    """Something that a recorder saw. time: by the monotonic clock, in ns. place: among the recorder's own marks."""

    time: int
    place: int
    thing: Thing


def fold(marks: Iterable[Mark], function: str) -> Trace:
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
