"""The steps of an image, in order, made from a goal alone: which address control goes to, when, and under what name."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from properties.prover.goal import Goal, Program, Run

__all__ = ["BODY", "CALLER", "COUNT", "DETACHED", "FUNCTION", "RETURNED_EARLY", "Step", "Target", "skipped", "steps"]

What = Literal["lookup", "lookup_ip", "tramp_enter", "enter", "program", "exit", "original", "tramp_exit", "leave"]
Target = int | str | None
"""An address; the name of a symbol that is one; or None, where the address of a helper is not known."""

CALLER = "the caller's return address"
BODY = "the body's address"
COUNT = "the number of slots"
FUNCTION = "the function's address"
RETURNED_EARLY = "patched: jump behind the fexit programs"
DETACHED = "patched: jump over "


def skipped(run: Run) -> str:
    """The symbol that is 1 if a run has been patched out."""
    return f"{DETACHED}{run.place}"


@dataclass(frozen=True, slots=True)
class Step:
    """What control leaves the image for. targets: any of them will do; name: of what is called."""

    what: What
    place: str
    targets: tuple[Target, ...]
    name: str
    run: Run | None = None

    @property
    def text(self) -> str:
        """The step's name in obligations and symbols; no two of a goal have the same."""
        return self.place if self.place == self.what else f"{self.place}: {self.what}"


def steps(goal: Goal) -> tuple[Step, ...]:
    """All steps, each of which may be left out only where its guard is false."""
    return tuple(_list_steps(goal))


def _list_steps(goal: Goal) -> Iterator[Step]:
    if goal.lookup is not None:
        yield Step("lookup", "lookup", (goal.lookup,), "the lookup of the number of slots")
    if goal.lookup_ip is not None:
        yield Step("lookup_ip", "lookup_ip", (goal.lookup_ip,), "the lookup of the function's address")
    if goal.calls_original:
        yield _call_helper(goal, "tramp_enter", "__bpf_tramp_enter")
    for run in (*goal.fentry, *goal.fmod_ret):
        yield from _list_run(goal, run)
    if goal.calls_original:
        target: Target = BODY if goal.shares_ipmodify else goal.body
        yield Step("original", "original", (target,), "the original")
        for run in goal.fexit:
            yield from _list_run(goal, run)
        yield _call_helper(goal, "tramp_exit", "__bpf_tramp_exit")
        yield Step("leave", "leave", (CALLER,), "the caller")
    else:
        yield Step("leave", "leave", (BODY if goal.shares_ipmodify else goal.body,), "the body")


def _call_helper(goal: Goal, what: What, symbol: str) -> Step:
    return Step(what, what, (goal.helpers.get(symbol),), symbol)


def _list_run(goal: Goal, run: Run) -> Iterator[Step]:
    program = goal.programs[run.program]
    yield _call_gate(goal, run, "enter")
    yield Step("program", run.place, (program.code,), f"the program at {program.code:#x}", run)
    yield _call_gate(goal, run, "exit")


def _call_gate(goal: Goal, run: Run, what: Literal["enter", "exit"]) -> Step:
    symbols = _name_gates(goal.programs[run.program], what)
    return Step(what, run.place, tuple(goal.helpers.get(symbol) for symbol in symbols), " or ".join(symbols), run)


def _name_gates(program: Program, what: str) -> tuple[str, ...]:
    """The helper before and after a program: whether it sleeps, and whether recursion is checked (not for lsm)."""
    recursion = "" if program.kind == "lsm" else "_recur"
    sleepable = f"__bpf_prog_{what}_sleepable{recursion}"
    other = f"__bpf_prog_{what}{recursion}"
    if program.sleepable is None:
        return other, sleepable
    return (sleepable if program.sleepable else other,)
