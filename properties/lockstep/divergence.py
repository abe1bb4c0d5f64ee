"""A divergence: one step at which a system and the model, or the model and a seed's expectation, do not agree."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from properties.report.results import ToldDivergence
from spec.costs import Cost
from spec.seeds import Seed, print_seed
from spec.sites import Site

__all__ = ["ASPECTS", "Divergence", "DivergenceError", "cost_lines", "site_lines"]

ASPECTS = (
    "outcome",
    "sites",
    "trace",
    "original",
    "link",
    "file",
    "cost",
    "images",
    "expectation",
    "undo",
    "leak",
    "crash",
)


@dataclass(frozen=True, slots=True)
class Divergence:
    """Where, in what, and what both sides say.

    index: of the step, from 0. line: of the seed file, 0 if made in memory. aspect: one of ASPECTS. system: who
    differs; the model, where it does not meet an expectation. expected: what the model says, or for the aspect
    `expectation` the seed. observed: what the system says. rules: those that the model cited in this step, the last one
    the most specific. place: the system's factory among those given, from 0; -1 for the model.
    """

    index: int
    line: int
    step: str
    aspect: str
    system: str
    expected: str
    observed: str
    rules: tuple[str, ...]
    place: int = -1

    def __str__(self) -> str:
        place = f"line {self.line}" if self.line else f"step {self.index + 1}"
        sayer = {"expectation": "the seed expects", "undo": "undoing must give"}.get(self.aspect, "the model says")
        rules = f"\n  rules reached: {', '.join(self.rules)}" if self.rules else ""
        return (
            f"{self.system} diverges in {self.aspect} at {place}: {self.step}\n"
            f"  {sayer}:{_block(self.expected)}\n  {self.system} says:{_block(self.observed)}{rules}"
        )

    def told(self, seed: Seed) -> ToldDivergence:
        """The divergence in words, with the seed that shows it."""
        sides = self.expected, self.observed
        return ToldDivergence(self.step, self.aspect, self.system, *sides, self.rules, print_seed(seed))


class DivergenceError(AssertionError):
    """Ends a Hypothesis example that found a divergence."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


def _block(text: str) -> str:
    if "\n" not in text:
        return f" {text}"
    return "".join(f"\n    {line}" for line in text.split("\n"))


def site_lines(sites: Mapping[str, Site], other: Mapping[str, Site]) -> str:
    """The lines of enabled_functions in which the other side differs; at most 12 of them."""
    names = sorted(name for name in {*sites, *other} if sites.get(name) != other.get(name))
    lines = [f"{name} {sites.get(name, 'nop')}" for name in names]
    more = [f"... and {len(lines) - 12} more"] if len(lines) > 12 else []
    return "\n".join(lines[:12] + more)


def cost_lines(cost: Cost, other: Cost, names: tuple[str, ...]) -> str:
    """The totals of these names in which the other side differs."""
    return ", ".join(
        f"{entry.name} {_total(getattr(cost, entry.name))}"
        for entry in fields(Cost)
        if entry.name in names and getattr(cost, entry.name) != getattr(other, entry.name)
    )


def _total(value: object) -> str:
    if isinstance(value, Mapping):
        return " ".join(f"{flavour}={count}" for flavour, count in sorted(value.items())) or "none"
    return str(value)
