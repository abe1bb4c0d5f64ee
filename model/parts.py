"""The proposal of 2021, whose trampolines serve sets of functions, called parts (LINK-11, PROG-4, COST-5).

Everything that differs for it is here, and is asked for by `Semantics.has_parts`.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import groupby

from model.endings import Refused
from model.rules import cite
from model.state import Program, State
from spec.prototypes import Prototype

__all__ = ["check_parts", "check_unlinked", "cut", "end", "takes"]

MOST_SLOTS = 6


def takes(prototype: Prototype) -> bool:
    """PROG-4: whether a trampoline of the proposal has room for the arguments."""
    return len(prototype.slots) <= MOST_SLOTS


def check_unlinked(state: State, program: Program) -> None:
    """LINK-11: a program is in one link at a time."""
    if any(link.program == program for link in state.links.values()):
        raise Refused(state, "EBUSY", "LINK-11")


def check_parts(state: State, functions: frozenset[str]) -> None:
    """LINK-11: a link's functions meet only so many parts."""
    limit = state.semantics.parts_limit
    if limit is not None and sum(not part.isdisjoint(functions) for part in state.parts) > limit:
        raise Refused(state, "EBUSY", "LINK-11")


def cut(state: State, functions: frozenset[str]) -> State:
    """LINK-11: an attach cuts the parts that it meets; what is in none becomes one for each number of arguments."""
    cite("LINK-11")
    pieces = [piece for part in state.parts for piece in (part & functions, part - functions)]
    rest = sorted(functions.difference(*state.parts), key=lambda name: _count_arguments(state, name))
    new = [frozenset(names) for _, names in groupby(rest, key=lambda name: _count_arguments(state, name))]
    return replace(state, parts=frozenset(piece for piece in (*pieces, *new) if piece))


def end(state: State, functions: list[str]) -> tuple[State, int]:
    """Parts without programs end, and their ops are unregistered: how many (COST-5)."""
    left = frozenset(part for part in state.parts if part.isdisjoint(functions))
    return replace(state, parts=left), len(state.parts) - len(left)


def _count_arguments(state: State, name: str) -> int:
    prototype = state.world.by_name[name].prototype
    return len(prototype.arguments) if prototype else 0
