"""The steps of an image, in order, made from a goal alone: which address control goes to, when, and under what name."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Literal, NamedTuple

from properties.prover.goal import Goal, Kind, Run

__all__ = [
    "BODY",
    "CALLER",
    "COUNT",
    "DETACHED",
    "FUNCTION",
    "PATCHED",
    "RETURNED_EARLY",
    "ImageStep",
    "Target",
    "skipped",
    "steps",
]

What = Literal["lookup", "lookup_ip", "tramp_enter", "enter", "program", "exit", "original", "tramp_exit", "leave"]
Target = int | str | None
"""An address; the name of a symbol that is one; or None, where the address of a helper is not known."""

CALLER = "the caller's return address"
BODY = "the body's address"
COUNT = "the number of slots"
FUNCTION = "the function's address"
PATCHED = "patched: "
"""Symbols that begin so are 1 if the kernel has patched a place when control comes to it."""

RETURNED_EARLY = f"{PATCHED}jump behind the fexit programs"
DETACHED = f"{PATCHED}jump over "


def skipped(run: Run) -> str:
    """The symbol that is 1 if a run has been patched out."""
    return f"{DETACHED}{run.place}"


class ImageStep(NamedTuple):
    """What control leaves the image for. targets: any of them will do; name: of what is called.

    place, text: names in obligations and symbols. The three steps of a run have one place; no two of a goal one text.
    """

    what: What
    place: str
    text: str
    targets: tuple[Target, ...]
    name: str
    run: Run | None = None


def steps(goal: Goal) -> tuple[ImageStep, ...]:
    """All steps, each of which may be left out only where its guard is false."""
    return tuple(_list_steps(goal))


def _list_steps(goal: Goal) -> Iterator[ImageStep]:
    if goal.lookup is not None:
        yield _step("lookup", (goal.lookup,), "the lookup of the number of slots")
    if goal.lookup_ip is not None:
        yield _step("lookup_ip", (goal.lookup_ip,), "the lookup of the function's address")
    if goal.calls_original:
        yield _call_helper(goal, "tramp_enter", "__bpf_tramp_enter")
    for run in (*goal.fentry, *goal.fmod_ret):
        yield from _list_run(goal, run)
    if goal.calls_original:
        target: Target = BODY if goal.shares_ipmodify else goal.body
        yield _step("original", (target,), "the original")
        for run in goal.fexit:
            yield from _list_run(goal, run)
        yield _call_helper(goal, "tramp_exit", "__bpf_tramp_exit")
        yield _step("leave", (CALLER,), "the caller")
    else:
        yield _step("leave", (BODY if goal.shares_ipmodify else goal.body,), "the body")


def _step(what: What, targets: tuple[Target, ...], name: str) -> ImageStep:
    """Makes a step that belongs to no run."""
    return ImageStep(what, what, what, targets, name)


def _call_helper(goal: Goal, what: What, symbol: str) -> ImageStep:
    return _step(what, (goal.helpers.get(symbol),), symbol)


def _list_run(goal: Goal, run: Run) -> Iterator[ImageStep]:
    program = goal.programs[run.program]
    yield _call_gate(goal, run, "enter")
    name = f"the program at {program.code:#x}"
    yield ImageStep("program", run.place, f"{run.place}: program", (program.code,), name, run)
    yield _call_gate(goal, run, "exit")


def _call_gate(goal: Goal, run: Run, what: Literal["enter", "exit"]) -> ImageStep:
    program = goal.programs[run.program]
    symbols = _name_gates(program.kind, program.sleepable, what)
    targets = tuple(goal.helpers.get(symbol) for symbol in symbols)
    return ImageStep(what, run.place, f"{run.place}: {what}", targets, " or ".join(symbols), run)


@cache
def _name_gates(kind: Kind, sleepable: bool | None, what: str) -> tuple[str, ...]:
    """Names the helpers before or after a program, by whether it sleeps and recursion is checked (not for lsm)."""
    recursion = "" if kind == "lsm" else "_recur"
    sleeping = f"__bpf_prog_{what}_sleepable{recursion}"
    other = f"__bpf_prog_{what}{recursion}"
    if sleepable is None:
        return other, sleeping
    return (sleeping if sleepable else other,)
