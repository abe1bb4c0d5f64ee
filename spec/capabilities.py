"""Capabilities: members that a System may have besides those of `spec.system.System`, and what holds without them.

Whoever wraps a system, or carries it to another process, hands on all of VALUES and METHODS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Protocol

from spec.costs import Cost
from spec.operations import (
    BpfLinkCreate,
    BpfRawTracepointOpen,
    Finish,
    Operation,
    SetFtraceFilter,
    SetFtraceNotrace,
    Step,
)
from spec.reading import one_of
from spec.sharing import LEVELS
from spec.system import System
from spec.traces import Trace

__all__ = [
    "METHODS",
    "VALUES",
    "Console",
    "CountedCosts",
    "Counts",
    "Declines",
    "FailsNth",
    "HashFile",
    "HashSetting",
    "LeftOver",
    "Level",
    "LinkInfo",
    "Linking",
    "Originals",
    "Sharing",
    "Tasks",
    "Unseen",
    "console",
    "counts",
    "declines",
    "fails_nth",
    "finish",
    "hash_file",
    "left_over",
    "link_info",
    "originals",
    "sharing",
    "step",
    "unseen",
]


CountedCosts = frozenset[Annotated[str, one_of(entry.name for entry in fields(Cost))]]
Level = Annotated[str, one_of(LEVELS)]
Linking = BpfRawTracepointOpen | BpfLinkCreate
HashSetting = SetFtraceFilter | SetFtraceNotrace


class Declines(Protocol):
    """A system that cannot carry out every operation in every state."""

    def declines(self, operation: Operation) -> str:
        """Why it will not carry the operation out now, in words that follow its name; empty if it will."""


class Console(Protocol):
    """A system that prints."""

    def console(self) -> str:
        """What a kernel printed in the last operation."""


class Counts(Protocol):
    """A system that cannot count all costs, or that counts the runs that were missed too."""

    @property
    def counts(self) -> CountedCosts:
        """Names of the fields of Cost that it counts."""


class Tasks(Protocol):
    """A system that supports the operations of spec.alphabet.INTERLEAVED; `apply` takes neither Step nor Finish."""

    def step(self, operation: Step) -> str:
        """Where the task then stands, as a point; `done` at the end of its call, `absent` if there is no such task."""

    def finish(self, operation: Finish) -> Trace:
        """The trace of the task's call; without events and value if there is no such task."""


class Sharing(Protocol):
    """A system that shares images between functions, and whose name does not end in the level."""

    @property
    def sharing(self) -> Level:
        """One of spec.sharing.LEVELS."""


class FailsNth(Protocol):
    """A system in which any allocation of an operation can be made to fail (FAIL-4)."""

    @property
    def fails_nth(self) -> bool:
        """Whether it can here."""


class Originals(Protocol):
    """A system whose images can be looked into."""

    def originals(self) -> Mapping[str, str]:
        """How each image that a site shows reaches the original, if it does: `address` or `stack` (IMAGE-3)."""


class Unseen(Protocol):
    """A system that stops where nobody can look into it (POKE-1)."""

    def unseen(self) -> str:
        """Why neither sites nor images can be looked at now, in words that follow its name; empty if they can."""


class LeftOver(Protocol):
    """A system whose memory can be looked at."""

    def left_over(self) -> str:
        """What is there at the end of a run, and was not at its start; empty if nothing is (SETTLE-1).

        It is asked once everything is undone and settled, and nothing but close() is asked after it.
        """


class LinkInfo(Protocol):
    """A system whose links can be asked what they are."""

    def link_info(self, operation: Linking) -> str:
        """Describe the link that an operation has just made, as it does: kind, functions and cookies (LINK-18)."""


class HashFile(Protocol):
    """A system whose files of the graph tracer's users can be read."""

    def hash_file(self, operation: HashSetting) -> str:
        """What the file shows that an operation has just written: symbols, and lines that wait (GRAPH-10)."""


VALUES: Final[Mapping[str, Any]] = {"counts": CountedCosts, "sharing": Level, "fails_nth": bool}
"""The types of members that stay the same from the start."""

METHODS: Final[Mapping[str, Any]] = {
    "declines": str,
    "console": str,
    "originals": dict[str, str],
    "unseen": str,
    "left_over": str,
    "link_info": str,
    "hash_file": str,
    "step": str,
    "finish": Trace,
}
"""The types of what methods answer. One takes at most an operation."""


def declines(system: System, operation: Operation) -> str:
    """As Declines; a system without it declines nothing."""
    answer: str = getattr(system, "declines", lambda _: "")(operation)
    return answer


def console(system: System) -> str:
    """As Console; a system without it prints nothing."""
    answer: str = getattr(system, "console", str)()
    return answer


def step(system: System, operation: Step) -> str:
    """As Tasks; no system without it is asked."""
    answer: str = getattr(system, "step")(operation)  # noqa: B009  # no member of a System
    return answer


def finish(system: System, operation: Finish) -> Trace:
    """As Tasks; no system without it is asked."""
    answer: Trace = getattr(system, "finish")(operation)  # noqa: B009  # no member of a System
    return answer


def counts(system: System) -> frozenset[str]:
    """As Counts; a system without it counts everything but the runs that were missed, which are younger than it."""
    usual = (entry.name for entry in fields(Cost) if entry.name != "missed")
    return frozenset(getattr(system, "counts", usual))


def sharing(system: System) -> str:
    """As Sharing; a system without it shares none."""
    level: str = getattr(system, "sharing", LEVELS[0])
    return level


def originals(system: System) -> Mapping[str, str]:
    """As Originals; a system without it shows none."""
    answer: Mapping[str, str] = getattr(system, "originals", dict)()
    return answer


def unseen(system: System) -> str:
    """As Unseen; a system without it can be looked into always."""
    answer: str = getattr(system, "unseen", str)()
    return answer


def left_over(system: System) -> str:
    """As LeftOver; a system without it leaves nothing."""
    answer: str = getattr(system, "left_over", str)()
    return answer


def link_info(system: System, operation: Linking) -> str:
    """As LinkInfo; no system without it is asked."""
    answer: str = getattr(system, "link_info")(operation)  # noqa: B009  # no member of a System
    return answer


def hash_file(system: System, operation: HashSetting) -> str:
    """As HashFile; no system without it is asked."""
    answer: str = getattr(system, "hash_file")(operation)  # noqa: B009  # no member of a System
    return answer


def fails_nth(system: System) -> bool:
    """As FailsNth; a system without it has no allocations."""
    answer: bool = getattr(system, "fails_nth", False)
    return answer
