"""Fixed runs, and the corpus: fixed runs that are seed files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from spec.alphabet import STOPPING, alphabet
from spec.seeds import Seed, parse_seed, read_seed
from spec.semantics import Semantics
from spec.worlds import World, synthetic

__all__ = [
    "DEFECTS",
    "EVERY",
    "SEEDS",
    "TASKS",
    "FixedRun",
    "fixed_run",
    "interleaved",
    "seeds",
    "seeds_under_every_preset",
]

SEEDS = Path(__file__).with_name("seeds")
EVERY = SEEDS / "every"
"""Seeds that expect the same of every preset: the one in their header stands for all."""

DEFECTS = SEEDS / "defects"
"""Seeds of what a kernel does against the rules: model and `batched` agree on them, and the kernel does not."""


TASKS = SEEDS / "tasks"
"""Seeds of tasks that stand in the middle of a call, and in its folder `every` those that hold under every preset."""


@dataclass(frozen=True)
class FixedRun:
    """A named run that is not drawn: its world, and its seed."""

    name: str
    world: World
    seed: Seed


def fixed_run(name: str, world: World, semantics: Semantics, steps: Iterable[str]) -> FixedRun:
    """A run whose steps are given as the lines of a seed."""
    text = "\n".join([f"world {world.name}", f"semantics {semantics.name}", "---", *steps])
    return FixedRun(name, world, parse_seed(text, name))


def seeds(semantics: Semantics) -> Iterator[FixedRun]:
    """The seeds of the synthetic world that speak of these semantics."""
    world = synthetic()
    for path in sorted(SEEDS.glob("*.seed")):
        seed = read_seed(path)
        if (seed.world, seed.semantics) == (world.name, semantics.name):
            yield FixedRun(path.stem, world, seed)
    yield from seeds_under_every_preset(EVERY, world, semantics)


def interleaved(semantics: Semantics) -> Iterator[FixedRun]:
    """The seeds of tasks that speak of these semantics; not every system can take them."""
    world = synthetic()
    for path in sorted(TASKS.glob("*.seed")):
        if (seed := read_seed(path)).semantics == semantics.name:
            yield FixedRun(path.stem, world, seed)
    yield from seeds_under_every_preset(TASKS / "every", world, semantics)


def seeds_under_every_preset(folder: Path, world: World, semantics: Semantics) -> Iterator[FixedRun]:
    """The seeds of a folder in this world under these semantics, as far as these have their operations."""
    supported = alphabet(semantics) | STOPPING
    for path in sorted(folder.glob("*.seed")):
        seed = replace(read_seed(path), world=world.name, semantics=semantics.name)
        if all(type(step.operation) in supported for step in seed.steps):
            yield FixedRun(path.stem, world, seed)
