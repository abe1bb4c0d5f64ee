"""Lines GLOB:mod:MODULE of filter files, which wait for their modules (FILTER-12, MODULE-7)."""

from __future__ import annotations

from impl.batched.faults import Refused
from impl.batched.filters import empty_hash, select
from impl.batched.functions import Mask
from impl.batched.state import Lines, State
from spec.globs import FilterLine, filter_line

__all__ = ["begin_with", "end_waiting", "take_line"]


def begin_with(state: State, text: str | None) -> tuple[Mask, Lines]:
    """The filter that a user of the graph tracer begins with, and a line of it that waits (GRAPH-1)."""
    if text is not None and filter_line(text).removes:
        raise Refused("EINVAL")
    return take_line(state, empty_hash(state.functions), (), text)


def take_line(state: State, present: Mask, lines: Lines, text: str | None) -> tuple[Mask, Lines]:
    """The hash with what a line selects, or without it, and the lines that wait; without a line both are empty."""
    if text is None:
        return empty_hash(state.functions), ()
    line = filter_line(text)
    found = select(state, line.glob, line.module)
    if not len(found):
        return present, _keep(state, lines, line)
    new = present.copy()
    new[found] = not line.removes
    return new, lines


def _keep(state: State, lines: Lines, line: FilterLine) -> Lines:
    """A line that selects nothing waits, unless its module is there; one with ! ends the waiting of others."""
    if line.module is None:
        raise Refused("EINVAL")
    if not line.removes:
        if line.awaits in state.modules:
            raise Refused("EINVAL")
        return (*lines, (line.glob, line.awaits))
    left = tuple((glob, module) for glob, module in lines if module != line.awaits or line.glob not in {glob, "*"})
    if len(left) == len(lines):
        raise Refused("EINVAL")
    return left


def end_waiting(state: State, present: Mask, lines: Lines, module: str) -> tuple[Mask, Lines]:
    """A module has come: its lines have their effect on a copy of the hash, once, and the others go on waiting."""
    new = present.copy()
    for glob, wanted in lines:
        if wanted == module:
            new[select(state, glob, module)] = True
    return new, tuple(line for line in lines if line[1] != module)
