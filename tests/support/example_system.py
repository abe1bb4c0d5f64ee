"""An example of a plug-in: `--system tests/support/example_system.py:system`. Nothing else has to know of it.

A factory takes a world and semantics and returns an object with the members of spec.system.System. This one hands all
of it to `batched`; `forgetful` does so with a bug, which `explore` finds and shrinks to three steps:

    python -m properties explore --system tests/support/example_system.py:forgetful --semantics linux-7.3
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from impl import batched
from spec.costs import Cost
from spec.operations import BpfLinkCreate, Operation
from spec.outcomes import Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.system import System
from spec.traces import Trace
from spec.worlds import World


class Example:
    """A System around another one."""

    name = "example"

    def __init__(self, inner: System) -> None:
        self._inner = inner
        self.supports = inner.supports

    def apply(self, operation: Operation) -> Outcome:
        """One operation, to its end."""
        return self._inner.apply(operation)

    def sites(self) -> Mapping[str, Site]:
        """What enabled_functions would show."""
        return self._inner.sites()

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """The events of one call."""
        return self._inner.call(function, arguments)

    def cost(self) -> Cost:
        """The totals so far."""
        return self._inner.cost()

    def close(self) -> None:
        """The end."""
        self._inner.close()


class Forgetful(Example):
    """A batch attach that loses its cookies."""

    name = "forgetful"

    def apply(self, operation: Operation) -> Outcome:
        """One operation, without the cookies of a batch."""
        if isinstance(operation, BpfLinkCreate):
            operation = replace(operation, targets=tuple((function, None) for function, _ in operation.targets))
        return super().apply(operation)


def system(world: World, semantics: Semantics) -> System:
    """The factory that `--system` names."""
    return Example(batched.system(world, semantics))


def forgetful(world: World, semantics: Semantics) -> System:
    """A factory of systems with a bug."""
    return Forgetful(batched.system(world, semantics))
