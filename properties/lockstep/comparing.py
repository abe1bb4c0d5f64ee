"""Each aspect of what the model and a system answer and show is compared here, side by side."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from properties.lockstep.divergence import cost_lines, site_lines
from properties.lockstep.runners import Reference, Runner
from spec import capabilities
from spec.capabilities import HashSetting, Linking
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Ok, Outcome
from spec.seeds import Expectation
from spec.sites import Site
from spec.system import System
from spec.traces import Trace

__all__ = [
    "NOTHING",
    "Difference",
    "compare_costs",
    "compare_expected",
    "compare_hash_file",
    "compare_link_info",
    "compare_originals",
    "compare_outcomes",
    "compare_sites",
    "compare_totals",
    "describe",
    "find_leak",
    "tell_state",
]

WAITS = ("grace_periods", "poke_rounds", "sites_patched")
NOTHING_LEFT = "nothing is left over"
NOTHING = "every site is a nop, no image is alive"
Difference = tuple[str, str, str]
"""The aspect, what the model says, what the system says."""


def describe(value: object, other: object) -> tuple[str, str]:
    """Two observations as text, in full if the short texts are the same."""
    short = _short(value), _short(other)
    return short if short[0] != short[1] else (_full(value), _full(other))


def _short(value: object) -> str:
    return "nop" if value is None else str(value)


def _full(value: object) -> str:
    return "\n".join([str(value), *map(repr, value.events)]) if isinstance(value, Trace) else repr(value)


def compare_outcomes(expected: Outcome, outcome: Outcome, system: System) -> Difference | None:
    """Operations answer the same; a WARN that differs is told with the console's text."""
    if expected == outcome:
        return None
    console = capabilities.console(system) if outcome.warn else ""
    return "outcome", str(expected), f"{outcome}\n{console}".strip()


def compare_sites(expected: Mapping[str, Site], sites: Mapping[str, Site]) -> Difference | None:
    """The same sites are no plain nop, and show the same."""
    if expected == sites:
        return None
    return "sites", site_lines(expected, sites), site_lines(sites, expected)


def compare_originals(model: Reference, system: System, unsure: Collection[str]) -> Difference | None:
    """How images reach the original, where a system can tell; unsure: of which the rules say nothing (IPMODIFY-2)."""
    if not hasattr(system, "originals"):
        return None
    expected, seen = model.originals(), capabilities.originals(system)
    names = (expected.keys() | seen.keys()).difference(unsure)
    differing = sorted(name for name in names if expected.get(name) != seen.get(name))
    if not differing:
        return None
    said, shown = ("\n".join(f"{name} {ways.get(name)}" for name in differing) for ways in (expected, seen))
    return "original", said, shown


def compare_link_info(model: Reference, system: System, operation: Operation, outcome: Outcome) -> Difference | None:
    """A link that has just been made describes itself as the model says, where a system can tell."""
    if not isinstance(operation, Linking) or not isinstance(outcome, Ok) or not hasattr(system, "link_info"):
        return None
    expected, seen = model.link_info(operation), capabilities.link_info(system, operation)
    return ("link", expected, seen) if expected != seen else None


def compare_hash_file(model: Reference, system: System, operation: Operation, outcome: Outcome) -> Difference | None:
    """A file that has just been written shows what the model says, where a system can tell."""
    if not isinstance(operation, HashSetting) or not isinstance(outcome, Ok) or not hasattr(system, "hash_file"):
        return None
    expected, seen = model.hash_file(operation), capabilities.hash_file(system, operation)
    return ("file", expected, seen) if expected != seen else None


def compare_totals(model: Reference, runner: Runner, names: tuple[str, ...]) -> Difference | None:
    """The totals of these names, as far as the system counts them."""
    names = tuple(name for name in names if name in runner.counts)
    if not names:
        return None
    expected, cost = model.cost(), runner.system.cost()
    if all(getattr(expected, name) == getattr(cost, name) for name in names):
        return None
    return "cost", cost_lines(expected, cost, names), cost_lines(cost, expected, names)


def compare_costs(expected: Cost, runner: Runner, model: Reference) -> Difference | None:
    """The first difference among the costs that the system counts."""
    cost, level = runner.system.cost(), runner.level
    waits = tuple(name for name in WAITS if name in runner.counts)
    if any(getattr(expected, name) != getattr(cost, name) for name in waits):
        return "cost", cost_lines(expected, cost, waits), cost_lines(cost, expected, waits)
    alive = expected.images_alive if level == "per_function" else model.images(level)
    if "images_alive" in runner.counts and cost.images_alive != alive:
        return "images", f"{alive} images alive ({level})", f"{cost.images_alive} images alive"
    exact = level == "per_function"
    more, other = cost.images_built > expected.images_built, cost.images_built != expected.images_built
    if "images_built" in runner.counts and (more or (exact and other)):
        bound = "" if exact else "at most "
        return "images", f"{bound}{expected.images_built} images built ({level})", f"{cost.images_built} images built"
    return None


def compare_expected(expectation: Expectation | None, text: str) -> Difference | None:
    """The model says what the seed expects."""
    if expectation is None:
        return None
    wanted = expectation.words or tuple(str(expectation).split())
    words = text.split()
    if not any(word.startswith("direct:") for word in wanted) and len(words) > 1:
        words = [word for word in words if not word.startswith("direct:")]
    return None if list(wanted) == words else ("expectation", " ".join(wanted), text)


def find_leak(runner: Runner) -> Difference | None:
    """Nothing is left over at the end of a run, as far as the system can tell."""
    left = capabilities.left_over(runner.system)
    return ("leak", NOTHING_LEFT, left) if left else None


def tell_state(sites: Mapping[str, Site], cost: Cost) -> str:
    """Sites and images that are still there, or NOTHING."""
    lines = site_lines(sites, {})
    if cost.images_alive:
        lines += f"\n{cost.images_alive} images alive"
    return lines.strip() or NOTHING
