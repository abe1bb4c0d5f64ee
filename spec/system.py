"""The contract of an implementation under test (design contract 3.2)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["System", "SystemFactory"]


class System(Protocol):
    """An implementation of mass attach. `apply` takes neither Call nor ObserveSite: those have methods of their own.

    What a system may have besides, `spec.capabilities` declares.
    """

    @property
    def name(self) -> str:
        """How reports call it."""

    @property
    def supports(self) -> frozenset[type[Operation]]:
        """The operations that it can carry out; the machines draw only from these."""

    def apply(self, operation: Operation) -> Outcome:
        """Carry one operation out, to its end."""

    def sites(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""

    def cost(self) -> Cost:
        """The totals so far."""

    def close(self) -> None:
        """Give everything back; nothing is called after it."""


class SystemFactory(Protocol):
    """What a plug-in provides."""

    def __call__(self, world: World, semantics: Semantics) -> System:
        """Make a System at the start of a run: nothing attached, every module of the world loaded."""
