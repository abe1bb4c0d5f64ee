"""Explains a counterexample: which of its values matter, and where a wrong value comes from."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from properties.prover.architecture import Architecture
from properties.prover.confirm import confirm
from properties.prover.goal import Bindings, Goal
from properties.prover.image import Image
from properties.prover.machine import ONLY_GENERAL
from properties.prover.steps import CALLER, steps
from properties.prover.unknowns import Unknowns, defaults, register_name
from properties.prover.verdicts import Counterexample

__all__ = ["essential", "origin"]

MOST_VALUES = 64
"""Each costs two executions, of a few milliseconds."""

MOST_INSTRUCTIONS = 1 << 16
"""That all these executions may have; of a longer counterexample all values are told."""

TELLING = 1 << 16
"""Smaller values occur by chance."""


def essential(
    found: Counterexample, image: Image, goal: Goal, architecture: Architecture, bindings: Bindings
) -> Counterexample:
    """The same counterexample, executed with as few values as it needs; the others are made up.

    A made-up value is unlike any other, so that it tells where a wrong value comes from.
    """
    suspect = found.at if found.obligation == ONLY_GENERAL else None
    # Twice, since a value may be needed only until another is made up.
    most = min(MOST_VALUES, MOST_INSTRUCTIONS // (2 * len(found.path) + 1))
    for name in 2 * sorted(found.values)[:most]:
        fewer = {other: value for other, value in found.values.items() if other != name}
        executed = confirm(image, goal, architecture, bindings, fewer, suspect=suspect)
        if isinstance(executed, Counterexample) and _agree(executed, found):
            found = replace(executed, values=fewer)
    return found


def _agree(one: Counterexample, other: Counterexample) -> bool:
    return (one.obligation, one.at) == (other.obligation, other.at)


def origin(value: int, found: Counterexample, goal: Goal, architecture: Architecture) -> str | None:
    """Which unknown has this value, or has it in its low bytes; None if none does, or if any might."""
    if value < TELLING:
        return None
    unknowns = Unknowns(found.values, defaults(architecture))
    names = _list_unknowns(goal, architecture)
    for mask in (0xFFFFFFFFFFFFFFFF, 0xFFFFFFFF):
        if value <= mask:
            named = next((name for name in names if unknowns.value(name, 64) & mask == value), None)
            if named is not None:
                return named
    return None


def _list_unknowns(goal: Goal, architecture: Architecture) -> list[str]:
    """Lists unknowns that an image may mistake for each other: those at the beginning, and what callees leave."""
    return [*_list_first(goal, architecture), *_list_left(goal, architecture)]


def _list_first(goal: Goal, architecture: Architecture) -> Iterator[str]:
    yield from architecture.general
    yield CALLER
    yield from (f"stack argument {slot.stack}" for slot in goal.prototype.slots if slot.stack is not None)


def _list_left(goal: Goal, architecture: Architecture) -> Iterator[str]:
    yield "the original returned"
    for step in steps(goal)[:-1]:
        yield f"{step.text} returned"
        yield f"{step.text} saved"
        yield from (register_name(register, (step.text,)) for register in architecture.general)
