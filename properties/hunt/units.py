"""Searches as units of work: some thousand operations of one setting, and what they reached and found."""

from __future__ import annotations

import hashlib
import importlib
import math
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import count
from pathlib import Path
from typing import Final, Literal

from properties.hunt.findings import Found
from properties.hunt.search import Search, WildcardSearch, beside
from properties.lockstep.coverage import Tallied
from properties.lockstep.divergence import Divergence
from properties.lockstep.journal import Journal
from properties.systems.kernels import made_for
from properties.systems.naming import BUILT_IN, KERNELS, resolve, semantics_named, world_named
from properties.work.units import WINGS
from spec.seeds import parse_seed, print_seed
from spec.worlds import World

__all__ = ["Finding", "SearchUnit", "SearchValue", "import_all", "operations_for", "search_units"]

OPERATIONS: Final = 1_000
"""Of one unit: a second or two."""

FEW: Final = 200

ELSEWHERE: Final = "properties.benchmarks.angr"
"""What another interpreter imports."""

KINDS: Final[Mapping[str, type[Search]]] = {"sequences": Search, "wildcards": WildcardSearch}


@dataclass(frozen=True, slots=True)
class Finding:
    """A Found with its seed as text. See there."""

    seed: str
    divergence: Divergence
    steps_to_find: int
    examples: int
    seconds: float
    random_seed: int
    original: int

    @property
    def found(self) -> Found:
        """The same with the seed as a value."""
        return Found(
            parse_seed(self.seed, "a finding"),
            self.divergence,
            self.steps_to_find,
            self.examples,
            self.seconds,
            self.random_seed,
            self.original,
        )


@dataclass(frozen=True, slots=True)
class SearchValue:
    """What a search did. functions: how many its world has. calls: of functions, among the operations."""

    counts: Tallied
    examples: int
    calls: int
    world: str
    functions: int
    finding: Finding | None = None


@dataclass(frozen=True, slots=True)
class SearchUnit:
    """A search by names: systems, world and semantics. It ends after so many operations, or with a finding.

    kind: of sequences, or of plans of wildcard attaches, which is one round, however many operations these are.
    shrink_seconds: the most that shrinking a finding may take; time_limit: that one answer of a plug-in may. before:
    the operations that earlier units of the setting have had; rounds_before: so many rounds at least, as a unit has too
    few operations for a turn of its own to interleave them with tasks. asked: known defects that a kernel is to show.
    tasks: every example interleaves.
    """

    systems: tuple[str, ...]
    world: str
    semantics: str
    random_seed: int
    operations: int = OPERATIONS
    kind: Literal["sequences", "wildcards"] = "sequences"
    shrink_seconds: float = 60.0
    time_limit: float = 10.0
    before: int = 0
    asked: tuple[str, ...] = ()
    rounds_before: int = 0
    tasks: bool = False

    def work(self, journal: Path) -> SearchValue:
        """Search; the journal has the steps of the example."""
        import_all()
        semantics = semantics_named(self.semantics)
        world = made_for(self.systems, world_named(self.world), semantics)
        known = set(self.systems).isdisjoint(KERNELS)
        written = Journal(journal, self.world, self.semantics) if self.kind == "sequences" else None
        search = KINDS[self.kind](
            world,
            semantics,
            [resolve(name, self.time_limit, asked=self.asked) for name in self.systems],
            self.random_seed,
            journal=written,
            operations=self.operations,
            # A kernel is given the functions that its module has.
            large=beside(world) if known else None,
            before=self.before,
            rounds_before=self.rounds_before,
            tasks=self.tasks,
        )
        found = search.round(math.inf, self.shrink_seconds)
        while found is None and self.kind == "sequences" and search.tally.steps < self.operations:
            found = search.round(math.inf, self.shrink_seconds)
        if written is not None:
            written.close()
        finding = self._note(found, world) if found is not None else None
        return SearchValue(
            search.tally.counts, search.examples, search.calls, world.name, len(world.functions), finding
        )

    def _note(self, found: Found, world: World) -> Finding:
        seed = replace(found.seed, world=self.world) if found.seed.world == world.name else found.seed
        return Finding(
            print_seed(seed),
            found.divergence,
            found.steps_to_find,
            found.examples,
            found.seconds,
            found.random_seed,
            found.original,
        )


def operations_for(systems: Sequence[str]) -> int:
    """Of a unit with these systems, by their names: others than the built-in ones may be slow."""
    return OPERATIONS if set(systems) <= BUILT_IN.keys() else FEW


def search_units(settings: Sequence[SearchUnit]) -> Iterator[SearchUnit]:
    """Units of each of these settings in turn, without end; the n-th has the n-th derived random seed."""
    for number in count():
        unit = settings[number % len(settings)]
        turn = number // len(settings)
        derived = hashlib.sha256(f"{unit.random_seed} {turn}".encode()).digest()
        random_seed = int.from_bytes(derived[:4])
        # One has a round or two, so that by itself none would come to the turn of tasks.
        yield replace(unit, random_seed=random_seed, before=turn * unit.operations, rounds_before=turn)


@cache
def import_all() -> None:
    """Import the whole project: Hypothesis draws numbers that stand in modules, as far as these are imported."""
    for wing in WINGS:
        package = importlib.import_module(wing)
        for found in pkgutil.walk_packages(package.__path__, f"{wing}."):
            if not (found.name.startswith(ELSEWHERE) or found.name.endswith("__main__")):
                importlib.import_module(found.name)
