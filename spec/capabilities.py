"""Capabilities: members that a System may have besides those of `spec.system.System`, and what holds without them.

Whoever wraps a system, or carries it to another process, hands on all of VALUES and METHODS.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Annotated, Any, Final, Protocol

from spec.costs import Cost
from spec.operations import Operation
from spec.reading import one_of
from spec.sharing import LEVELS
from spec.system import System

__all__ = [
    "METHODS",
    "VALUES",
    "Console",
    "CountedCosts",
    "Counts",
    "Declines",
    "Level",
    "Sharing",
    "console",
    "counts",
    "declines",
    "sharing",
]


CountedCosts = frozenset[Annotated[str, one_of(entry.name for entry in fields(Cost))]]
Level = Annotated[str, one_of(LEVELS)]


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


class Sharing(Protocol):
    """A system that shares images between functions, and whose name does not end in the level."""

    @property
    def sharing(self) -> Level:
        """One of spec.sharing.LEVELS."""


VALUES: Final[Mapping[str, Any]] = {"counts": CountedCosts, "sharing": Level}
"""The types of members that stay the same from the start."""

METHODS: Final[Mapping[str, Any]] = {"declines": str, "console": str}
"""The types of what methods answer. One takes at most an operation."""


def declines(system: System, operation: Operation) -> str:
    """As Declines; a system without it declines nothing."""
    answer: str = getattr(system, "declines", lambda _: "")(operation)
    return answer


def console(system: System) -> str:
    """As Console; a system without it prints nothing."""
    answer: str = getattr(system, "console", str)()
    return answer


def counts(system: System) -> frozenset[str]:
    """As Counts; a system without it counts everything but the runs that were missed, which are younger than it."""
    usual = (entry.name for entry in fields(Cost) if entry.name != "missed")
    return frozenset(getattr(system, "counts", usual))


def sharing(system: System) -> str:
    """As Sharing; a system without it shares none."""
    level: str = getattr(system, "sharing", LEVELS[0])
    return level
