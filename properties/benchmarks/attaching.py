"""Attaching to the whole population: against the model, against numpy, over many links, and in memory.

Alone among the properties, it looks inside `batched`: bookkeeping without text is a figure of its own.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Sequence
from functools import partial
from statistics import median

import numpy as np

from impl.batched.functions import Indices
from impl.batched.sets import LISTS, ProgramSets
from properties.benchmarks.figures import Figure, Measure, seconds, taking_turns
from properties.systems.naming import resolve, semantics_named, world_named
from spec.operations import BpfLinkCreate, BpfProgLoad
from spec.outcomes import Ok
from spec.system import System, SystemFactory
from spec.worlds import World

__all__ = ["measures"]

SEMANTICS = "linux-7.3"
POPULATION = "linux-7.3"
ATTACH = BpfLinkCreate("l1", "p1", (("attachable(*)", None),))
WILDCARDS = (
    "* __* *get* *set* *init* *dev* *alloc* *free* *read* *write* *lock* *add* *remove* *show* *store* *str* *map* "
    "*page* *net* *tcp* *bpf* *sys* *update* *check* *acpi* *pci* *put* *del* *start* *stop* *ops* *_*"
).split()
RANDOM_SEED = 7


def measures() -> list[Measure]:
    """The figures, on one real population."""
    world = world_named(POPULATION)
    return [
        partial(attach_against_model, world),
        partial(attach_against_numpy, world),
        partial(growth_on_wildcards, world),
        partial(growth_on_halves, world, count=10, bound=4),
        partial(growth_on_halves, world, count=20, bound=15),
        partial(memory, world),
    ]


def attach_against_model(world: World) -> Figure:
    """One batch attach of the whole population, by `batched` and by the model, each over a world it has not seen."""
    slow, fast = taking_turns(3, partial(_attach_time, world, "model"), partial(_attach_time, world, "batched"))
    return Figure("batch attach of the population, faster than the model", slow / fast, 100, "higher", "times")


def attach_against_numpy(world: World) -> Figure:
    """The bookkeeping of the same attach, against one gather and one scatter over the same indices."""
    indices = _find_attached(world)
    source = np.arange(len(world.functions), dtype=np.int32)
    target = np.zeros_like(source)

    def copy() -> None:
        target[indices] = source[indices]

    own, numpy = taking_turns(100, lambda: Bookkeeping(world).attach(indices), partial(seconds, copy))
    return Figure("bookkeeping of the same attach, slower than a numpy copy", own / numpy, 5, "lower", "times")


def growth_on_wildcards(world: World) -> Figure:
    """Links on overlapping wildcards: time per function of the last against the first."""
    places = {function.name: index for index, function in enumerate(world.functions)}
    links = [np.array([places[function.name] for function in world.matching(glob)], np.intp) for glob in WILDCARDS]
    return Figure(f"growth over {len(links)} overlapping wildcards", _growth(world, links), 3, "lower", "times")


def growth_on_halves(world: World, count: int, bound: float) -> Figure:
    """Links on random halves of the population: time per function of the last against the first."""
    random = np.random.default_rng(RANDOM_SEED)
    size = len(world.functions)
    links = [np.flatnonzero(random.integers(0, 2, size)) for _ in range(count)]
    return Figure(f"growth over {count} random halves", _growth(world, links), bound, "lower", "times")


def memory(world: World) -> Figure:
    """What a `batched` system holds after an attach, without the tables of names, which all systems share."""
    _make_system(world, "batched").apply(ATTACH)
    gc.collect()
    tracemalloc.start()
    try:
        system = _make_system(world, "batched")
        outcome = system.apply(ATTACH)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert outcome == Ok()
    attached = system.cost().sites_patched
    system.close()
    return Figure("memory of an attached function", size / attached, 64, "lower", "bytes")


class Bookkeeping:
    """The core of `batched` alone, which knows the programs of each function."""

    def __init__(self, world: World) -> None:
        self._sets = ProgramSets(len(world.functions))
        self._programs = 0

    def attach(self, indices: Indices) -> float:
        """Attaches one more program; returns the seconds that it took."""
        self._programs += 1
        node = int(self._sets.new_nodes(self._programs, LISTS["fentry"])[0])
        return seconds(lambda: self._sets.attach(indices, node))


def _growth(world: World, links: Sequence[Indices]) -> float:
    """Time per function of the last link against the first. Each run has a new bookkeeping."""

    def once() -> list[float]:
        bookkeeping = Bookkeeping(world)
        return [bookkeeping.attach(indices) / len(indices) for indices in links]

    runs = [once() for _ in range(15)]
    return median(run[-1] for run in runs) / median(run[0] for run in runs)


def _make_system(world: World, name: str) -> System:
    """A system, after the load of the program that ATTACH attaches."""
    factory: SystemFactory = resolve(name)
    system = factory(world, semantics_named(SEMANTICS))
    assert system.apply(BpfProgLoad("p1", "fentry", multi=True)) == Ok()
    return system


def _attach_time(world: World, name: str) -> float:
    # A world of its own, so that no pattern has been matched before.
    system = _make_system(World(world.name, world.functions), name)
    taken = seconds(lambda: system.apply(ATTACH))
    assert system.cost().sites_patched > len(world.functions) // 2
    system.close()
    return taken


def _find_attached(world: World) -> Indices:
    """Indices of the functions that the attach of the whole population reaches."""
    system = _make_system(world, "batched")
    system.apply(ATTACH)
    reached = system.sites()
    system.close()
    return np.flatnonzero([function.name in reached for function in world.functions])
