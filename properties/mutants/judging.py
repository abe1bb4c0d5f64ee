"""What of a run kills a mutant: a difference from the model, or that the harness cannot go on with the kernel."""

from __future__ import annotations

from dataclasses import dataclass

from impl.linux.guest.guest import GuestDiedError
from impl.linux.observation import EmulatorLimitError, KernelComplaintError
from properties.lockstep.divergence import Divergence

__all__ = ["DOUBTFUL", "Kill", "kill_of_difference", "kill_of_error"]

HANG, CRASH, WARN, UNREADABLE = "hang", "crash", "warn", "unreadable"
DOUBTFUL = frozenset({HANG, UNREADABLE})
"""Aspects that may be the machine's or the harness's fault: the same run without the mutation tells."""

WARNS = " WARN"
TOLD = 600
"""Characters of what was seen that are kept."""


@dataclass(frozen=True, slots=True)
class Kill:
    """How a mutant was seen. aspect: of the divergence, or warn, hang, unreadable; told: what was seen."""

    aspect: str
    told: str


def kill_of_difference(divergence: Divergence) -> Kill:
    """The kill that a divergence from the model is."""
    told = f"{divergence.step}: expected {divergence.expected}, observed {divergence.observed}"[:TOLD]
    first = divergence.observed.partition("\n")[0]
    if divergence.aspect == "outcome" and first.removesuffix(WARNS) == divergence.expected.removesuffix(WARNS):
        return Kill(WARN, told)
    if divergence.aspect != "crash":
        return Kill(divergence.aspect, told)
    kind, _, text = first.partition(": ")
    return Kill(_judge_crash(kind, text), told)


def kill_of_error(error: Exception) -> Kill:
    """The kill that an error is, by which the harness could not go on with a run."""
    told = f"{type(error).__name__}: {error}"[:TOLD]
    if isinstance(error, GuestDiedError | KernelComplaintError):
        return Kill(_judge_crash(type(error).__name__, str(error)), told)
    return Kill(HANG if isinstance(error, EmulatorLimitError) else UNREADABLE, told)


def _judge_crash(kind: str, text: str) -> str:
    if kind == GuestDiedError.__name__:
        return HANG if text.startswith("no answer within") else CRASH
    if kind == KernelComplaintError.__name__:
        return WARN if text.startswith("the kernel warned") else CRASH
    return UNREADABLE
