"""A run has the model, and the systems that are compared with it."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Protocol

from spec import capabilities
from spec.alphabet import INTERLEAVED
from spec.capabilities import HashSetting, Linking
from spec.costs import Cost
from spec.operations import OPERATIONS, Operation, Poke
from spec.outcomes import Outcome
from spec.semantics import Semantics
from spec.sharing import LEVELS
from spec.sites import Site
from spec.system import System
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Crashed", "Reference", "Runner", "level_of", "reference"]


class Reference(System, capabilities.Tasks, Protocol):
    """The model: a System that also tells its rules, and what sharing must cost."""

    def reached(self) -> Mapping[str, int]:
        """How often each rule was cited so far."""

    def cited(self) -> tuple[str, ...]:
        """The rules that the last operation cited, in order."""

    def images(self, level: str) -> int:
        """Images that a sharing level has alive (COST-7)."""

    def originals(self) -> Mapping[str, str]:
        """As spec.capabilities.Originals."""

    def link_info(self, operation: Linking) -> str:
        """As spec.capabilities.LinkInfo."""

    def hash_file(self, operation: HashSetting) -> str:
        """As spec.capabilities.HashFile."""

    def value(self) -> Hashable:
        """The state as a value: where two are equal, the same operations do the same, costs aside."""


def reference(world: World, semantics: Semantics) -> Reference:
    """A new model."""
    from model import system  # noqa: PLC0415  # lockstep can be used with another reference

    return system(world, semantics)


class Crashed:
    """Stands for a system whose factory raised: whatever it is asked raises the same."""

    name = "the system"
    supports = frozenset(OPERATIONS.values())

    def __init__(self, error: Exception) -> None:
        self._error = error

    def apply(self, _operation: Operation, /) -> Outcome:
        """Raises."""
        raise self._error

    def sites(self) -> Mapping[str, Site]:
        """Raises."""
        raise self._error

    def call(self, _function: str, _arguments: tuple[int, ...], /) -> Trace:
        """Raises."""
        raise self._error

    def cost(self) -> Cost:
        """Raises."""
        raise self._error

    def close(self) -> None:
        """There is nothing to give back."""


@dataclass(frozen=True, slots=True, eq=False)
class Runner:
    """A system in the run. place: the place of its factory among those given."""

    system: System
    name: str
    level: str
    place: int
    counts: frozenset[str]

    def declines(self, operation: Operation) -> str:
        """Why the system will not carry the operation out now, empty if it will."""
        if type(operation) not in self.system.supports:
            runs = ": it runs every call to its end" if type(operation) in INTERLEAVED else ""
            return f"does not support '{operation.verb}'{runs}"
        if isinstance(operation, Poke):
            return self.declines(operation.operation) or capabilities.declines(self.system, operation)
        return capabilities.declines(self.system, operation)


def level_of(system: System) -> str:
    """The level at which a system shares images: its name's end, or its attribute `sharing`, or not at all."""
    level = system.name.rpartition(":")[2]
    return level if level in LEVELS else capabilities.sharing(system)
