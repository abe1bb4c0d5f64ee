"""The verb `bench`: the performance figures of the design, as ratios within one run, held against their bounds.

Times are medians of repeated runs, and what is compared takes turns. Alone among the properties, it looks inside
`batched`: bookkeeping without text is a figure of its own.
"""

from __future__ import annotations

import argparse
import gc
import json
import operator
import time
import tracemalloc
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median

import numpy as np
from hypothesis import seed
from hypothesis.stateful import run_state_machine_as_test
from rich.console import Console
from rich.progress import track
from rich.table import Table

from impl.batched.functions import Indices
from impl.batched.sets import LISTS, ProgramSets
from properties.machines import LockstepMachine, generating, machine_for
from properties.systems import resolve, semantics_named, world_named
from spec.errors import BadInputError
from spec.operations import BpfLinkCreate, BpfProgLoad, Operation
from spec.outcomes import Ok
from spec.system import System, SystemFactory
from spec.worlds import World

__all__ = ["SUMMARY", "Figure", "add_arguments", "run"]

SUMMARY = "measure the performance figures, as ratios within one run, against their bounds"
SEMANTICS = "linux-7.3"
POPULATION = "linux-7.3"
ATTACH = BpfLinkCreate("l1", "p1", (("*", None),))
WILDCARDS = (
    "* __* *get* *set* *init* *dev* *alloc* *free* *read* *write* *lock* *add* *remove* *show* *store* *str* *map* "
    "*page* *net* *tcp* *bpf* *sys* *update* *check* *acpi* *pci* *put* *del* *start* *stop* *ops* *_*"
).split()
RANDOM_SEED = 7
EXAMPLES = 20
COMPARE = {"higher": operator.ge, "lower": operator.le}


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value and its bound. better: `higher`, it must reach the bound, or `lower`, it must not exceed it."""

    figure: str
    value: float
    bound: float
    better: str
    unit: str

    @property
    def holds(self) -> bool:
        """Whether the value is on the right side of the bound."""
        return bool(COMPARE[self.better](self.value, self.bound))


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the options of `bench`."""
    parser.epilog = "Exit status: 0 every figure holds, 1 one does not."
    parser.add_argument(
        "--json",
        type=Path,
        default=Path("bench.json"),
        metavar="FILE",
        help="where to write the figures, as a list of objects (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Measures every figure, prints a table, writes JSON, and returns 0 if all hold, else 1."""
    console = Console()
    world = world_named(POPULATION)
    figures = [
        measure(world)
        for measure in track(MEASURES, "measuring", console=console, transient=True, disable=not console.is_terminal)
    ]
    console.print(table(figures))
    write(figures, arguments.json)
    return 0 if all(figure.holds for figure in figures) else 1


def table(figures: Sequence[Figure]) -> Table:
    """One row per figure."""
    rows = Table(title="massattach bench", title_justify="left")
    rows.add_column("figure")
    rows.add_column("measured", justify="right")
    rows.add_column("must be", justify="right")
    rows.add_column("holds")
    for figure in figures:
        bound = f"{'≥' if figure.better == 'higher' else '≤'} {figure.bound:g}"
        style = "green" if figure.holds else "bold red"
        rows.add_row(figure.figure, f"{figure.value:.3g} {figure.unit}", bound, str(figure.holds), style=style)
    return rows


def write(figures: Sequence[Figure], path: Path) -> None:
    """Writes the figures as JSON; BadInputError if the file cannot be written."""
    names = ("figure", "value", "bound", "better", "holds", "unit")
    rows = [{name: getattr(figure, name) for name in names} for figure in figures]
    try:
        path.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", str(path)) from error


def attach_against_model(world: World) -> Figure:
    """One batch attach of the whole population, by `batched` and by the model, each over a world it has not seen."""
    slow, fast = taking_turns(3, partial(_attach_time, world, "model"), partial(_attach_time, world, "batched"))
    return Figure("batch attach of the population, faster than the model", slow / fast, 100, "higher", "times")


def attach_against_numpy(world: World) -> Figure:
    """The bookkeeping of the same attach, against one gather and one scatter over the same indices."""
    indices = _attached(world)
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
    """What a `batched` system holds at the end of an attach; the tables of names that all systems share are text."""
    _prepared(world, "batched").apply(ATTACH)
    gc.collect()
    tracemalloc.start()
    try:
        system = _prepared(world, "batched")
        outcome = system.apply(ATTACH)
        gc.collect()
        size = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert outcome == Ok()
    attached = system.cost().sites_patched
    system.close()
    return Figure("memory of an attached function", size / attached, 64, "lower", "bytes")


def lockstep_step(_: World) -> Figure:
    """A step of model, `batched` and comparison in a Hypothesis machine, against one of a machine that only draws it.

    A step is an operation; those that undo an example at its end are steps too.
    """
    machine = machine_for(world_named("synthetic"), semantics_named(SEMANTICS), [resolve("batched")])

    class Busy(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def teardown(self) -> None:
            super().teardown()
            Busy.steps += len(self.lockstep.history)

    class Idle(machine):  # type: ignore[misc, valid-type]
        steps = 0

        def execute(self, operations: tuple[Operation, ...]) -> None:
            Idle.steps += len(operations)

    busy, idle = taking_turns(7, partial(_machine_time, Busy), partial(_machine_time, Idle))
    ratio = (busy / Busy.steps) / (idle / Idle.steps)
    return Figure("a lockstep step, slower than an empty machine's", ratio, 2, "lower", "times")


MEASURES: tuple[Callable[[World], Figure], ...] = (
    attach_against_model,
    attach_against_numpy,
    growth_on_wildcards,
    partial(growth_on_halves, count=10, bound=4),
    partial(growth_on_halves, count=20, bound=15),
    memory,
    lockstep_step,
)


class Bookkeeping:
    """The core of `batched` alone: which programs each function has."""

    def __init__(self, world: World) -> None:
        self._sets = ProgramSets(len(world.functions))
        self._programs = 0

    def attach(self, indices: Indices) -> float:
        """Attaches one more program; returns the seconds that it took."""
        self._programs += 1
        node = int(self._sets.new_nodes(self._programs, LISTS["fentry"])[0])
        return seconds(lambda: self._sets.attach(indices, node))


def seconds(action: Callable[[], object]) -> float:
    """The time that one call takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def taking_turns(times: int, *actions: Callable[[], float]) -> list[float]:
    """The median of what each action returns, each called in turn this many times, without the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        rounds = [[action() for action in actions] for _ in range(times)]
    finally:
        gc.enable()
    return [median(values) for values in zip(*rounds, strict=True)]


def _growth(world: World, links: Sequence[Indices]) -> float:
    """Time per function of the last link against the first, over bookkeeping made anew for each run."""

    def once() -> list[float]:
        bookkeeping = Bookkeeping(world)
        return [bookkeeping.attach(indices) / len(indices) for indices in links]

    runs = [once() for _ in range(15)]
    return median(run[-1] for run in runs) / median(run[0] for run in runs)


def _prepared(world: World, name: str) -> System:
    """A system with the program that is to be attached."""
    factory: SystemFactory = resolve(name)
    system = factory(world, semantics_named(SEMANTICS))
    assert system.apply(BpfProgLoad("p1", "fentry", multi=True)) == Ok()
    return system


def _attach_time(world: World, name: str) -> float:
    # A world of its own, so that no pattern has been matched before.
    system = _prepared(World(world.name, world.functions), name)
    taken = seconds(lambda: system.apply(ATTACH))
    assert system.cost().sites_patched > len(world.functions) // 2
    system.close()
    return taken


def _attached(world: World) -> Indices:
    """Indices of the functions that the attach of the whole population reaches."""
    system = _prepared(world, "batched")
    system.apply(ATTACH)
    reached = system.sites()
    system.close()
    return np.flatnonzero([function.name in reached for function in world.functions])


def _machine_time(machine: type[LockstepMachine]) -> float:
    """The time of the same examples, each time."""
    return seconds(lambda: run_state_machine_as_test(seed(RANDOM_SEED)(machine), settings=generating(EXAMPLES)))
