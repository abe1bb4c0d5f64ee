"""Planting a bug: a function of `batched` is replaced while a system with the bug carries something out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from inspect import cleandoc, getdoc
from pkgutil import resolve_name
from typing import Any, Final, Literal
from unittest.mock import patch

from impl.batched import Batched
from impl.batched.system import HANDLERS
from spec import operations as op
from spec.border import bordered
from spec.capabilities import Linking
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Outcome
from spec.semantics import Semantics
from spec.sharing import LEVELS
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["LARGE", "Origin", "Original", "Planted", "planted"]

Original = Callable[..., Any]
Breach = Literal["rule", "range"]
SMALL: Final = "synthetic"
LARGE: Final = "synthetic-1500"


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a historical bug comes from.

    number: the one that the fact sheet's section F gives it, 0 for one that is not there. commit, subject: of what
    mended it upstream; both are empty for a contract of the kernel's that no known commit broke.
    """

    number: int = 0
    commit: str = ""
    subject: str = ""

    def __str__(self) -> str:
        """The number and the commit, as far as there are."""
        return " ".join([f"#{self.number}"] * bool(self.number) + [self.commit] * bool(self.commit))


@dataclass(frozen=True, slots=True)
class Planted:
    """A factory of systems with one bug. The docstring of its flaw is a paragraph that says what is wrong.

    rule: the one that is broken. origin: of a historical bug; `rule` for a mere breach of one; `range` for one that
    only values, functions or numbers show that are few among all. semantics: where it matters. minimal: the shortest
    lines of a seed that show it, in the world of this name. target: the function of impl.batched that `flaw` replaces,
    which gets it as its first argument; or the operation whose handler it replaces.
    """

    name: str
    rule: str
    origin: Origin | Breach
    semantics: str
    sharing: str
    minimal: tuple[str, ...]
    target: str | type[Operation] = field(repr=False)
    flaw: Original = field(repr=False)
    world: str = SMALL

    @property
    def about(self) -> str:
        """What is wrong, in a paragraph."""
        return getdoc(self.flaw) or ""

    @property
    def mended(self) -> Origin | None:
        """The origin of a historical bug that a commit mended."""
        return self.origin if isinstance(self.origin, Origin) and self.origin.commit else None

    def __call__(self, world: World, semantics: Semantics) -> PlantedSystem:
        """A System with the bug, behind the border."""
        return bordered(PlantedSystem(self, world, semantics), world, semantics)

    def in_place(self) -> AbstractContextManager[Any]:
        """A context in which `batched` has the bug."""
        original, flaw = self.present(), self.flaw

        def flawed(*arguments: Any, **options: Any) -> Any:
            return flaw(original, *arguments, **options)

        if not isinstance(self.target, str):
            replaced: AbstractContextManager[Any] = patch.dict(HANDLERS, {self.target: flawed})
            return replaced
        owner, name = self._place(self.target)
        return patch.object(owner, name, flawed)

    def present(self) -> Original:
        """Returns the function at the target now."""
        if not isinstance(self.target, str):
            return HANDLERS[self.target]
        owner, name = self._place(self.target)
        found: Original = vars(owner)[name]
        return found

    @staticmethod
    def _place(target: str) -> tuple[Any, str]:
        owner, _, name = target.rpartition(".")
        return resolve_name(f"impl.batched.{owner}"), name


class PlantedSystem(Batched):
    """`batched` with a bug: the override is in place during each of its methods."""

    def __init__(self, bug: Planted, world: World, semantics: Semantics) -> None:
        self._bug = bug
        with bug.in_place():
            super().__init__(world, semantics, bug.sharing)
        self.name = f"{bug.name}:{bug.sharing}"

    def apply(self, operation: Operation) -> Outcome:
        """Carry one operation out."""
        with self._bug.in_place():
            return super().apply(operation)

    def sites(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""
        with self._bug.in_place():
            return super().sites()

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""
        with self._bug.in_place():
            return super().call(function, arguments)

    def step(self, operation: op.Step) -> str:
        """Let a task run to a point."""
        with self._bug.in_place():
            return super().step(operation)

    def finish(self, operation: op.Finish) -> Trace:
        """Let a task run to its end."""
        with self._bug.in_place():
            return super().finish(operation)

    def link_info(self, operation: Linking) -> str:
        """Describe the link that an operation has just made, as the link itself does."""
        with self._bug.in_place():
            return super().link_info(operation)

    def cost(self) -> Cost:
        """The totals so far."""
        with self._bug.in_place():
            return super().cost()


def planted(
    target: str | type[Operation],
    *,
    rule: str,
    semantics: str,
    minimal: str,
    origin: Origin | Breach = "rule",
    sharing: str = LEVELS[0],
    world: str = SMALL,
) -> Callable[[Original], Planted]:
    """Make a bug of a function that takes the original and then its arguments; minimal: one operation a line."""
    lines = tuple(cleandoc(minimal).split("\n"))

    def make(flaw: Original) -> Planted:
        name = flaw.__name__.replace("_", "-")
        return Planted(name, rule, origin, semantics, sharing, lines, target, flaw, world)

    return make
