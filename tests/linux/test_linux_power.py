"""The power of the harness on real kernels: faults planted in the model are found there, and shrunk.

The searches boot each kernel once, and take minutes: `tox -e linux-power`.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from impl import linux
from impl.linux.station import Station
from model import system
from properties.hunt.findings import Found
from properties.hunt.search import Search
from properties.lockstep.lockstep import Lockstep
from spec.laboratory import laboratory
from spec.seeds import Step, parse_operation, parse_seed, print_seed
from spec.semantics import PRESETS
from spec.worlds import World
from tests.support.linux_faults import FAULTS, Fault
from tests.support.stations import kernel_or_skip

KERNELS = tuple(dict.fromkeys(fault.kernel for fault in FAULTS))
OPERATIONS = 6000
SECONDS_TO_SHRINK = 180.0
LONGER = 4
RANDOM_SEED = 2
TABLE = Path("build/linux-power.txt")
WIDTH = 140

each_fault = pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
each_fault_in_its_kernel = pytest.mark.parametrize(
    ("kernel", "fault"),
    [pytest.param(fault.kernel, fault, id=f"{fault.name}-{fault.kernel}") for fault in FAULTS],
    indirect=["kernel"],
)


@dataclass(frozen=True, slots=True)
class Hunted:
    """What a search found, and the seconds that it took to shrink that."""

    found: Found | None
    shrinking: float


def world_of(kernel: str) -> World:
    return laboratory(kernel.replace("linux", "laboratory"))


def minimal_steps(fault: Fault) -> list[Step]:
    return [Step(parse_operation(line)) for line in fault.minimal]


@lru_cache(maxsize=1)
def booted(kernel: str) -> Station:
    """The station of a kernel, which is kept until another one is asked for: one guest at a time."""
    fetched = kernel_or_skip(kernel)
    linux.close()
    return linux.station_of(fetched, world_of(kernel))


@pytest.fixture(scope="module", autouse=True)
def _no_guest_is_left() -> Iterator[None]:
    yield
    linux.close()
    booted.cache_clear()


@pytest.fixture
def kernel(request: pytest.FixtureRequest) -> str:
    """A kernel whose station is up."""
    name: str = request.param
    booted(name)
    return name


@cache
def hunt(fault: Fault) -> Hunted:
    """One search a fault, however many tests ask for it; what bounds it is operations, not the machine's speed."""
    booted(fault.kernel)
    factories = [linux.factory(fault.kernel)]
    searching = Search(world_of(fault.kernel), PRESETS[fault.kernel], factories, RANDOM_SEED, model=fault)
    found, started = None, time.monotonic()
    while found is None and searching.tally.steps < OPERATIONS:
        found = searching.round(float("inf"), SECONDS_TO_SHRINK)
    return Hunted(found, time.monotonic() - started - (found.seconds if found else 0.0))


@each_fault
def test_the_minimal_steps_show_the_fault_to_the_model(fault: Fault) -> None:
    """The model itself, as the system under test, differs from the faulty one in the last of the minimal steps."""
    lockstep = Lockstep(world_of(fault.kernel), PRESETS[fault.kernel], [system], model=fault)
    found = lockstep.run(minimal_steps(fault))

    assert [len(fault.minimal) - 1] == [divergence.index for divergence in found]


@each_fault
def test_no_fault_stays_behind(fault: Fault) -> None:
    """The model is as it was after a run with the fault."""
    before = fault.present()
    with fault.in_place():
        assert before is not fault.present()
    Lockstep(world_of(fault.kernel), PRESETS[fault.kernel], (), model=fault).run(minimal_steps(fault))

    assert before is fault.present()


def test_there_are_enough_faults() -> None:
    """At least ten, each of another rule, over all kernels that can be fetched."""
    assert len(FAULTS) >= 10
    assert len(FAULTS) == len({fault.rule for fault in FAULTS}) == len({fault.name for fault in FAULTS})
    assert {"linux-6.1", "linux-6.12", "linux-7.3"} == set(KERNELS)


@pytest.mark.vm
@pytest.mark.parametrize("kernel", KERNELS, indirect=True)
def test_the_minimal_steps_show_the_faults_to_the_kernel(kernel: str) -> None:
    """Each fault of a kernel, and nothing else: the model without it agrees on the same steps."""
    setting = world_of(kernel), PRESETS[kernel], [linux.factory(kernel)]
    faults = [fault for fault in FAULTS if fault.kernel == kernel]
    runs = {fault.name: Lockstep(*setting, model=fault).run(minimal_steps(fault)) for fault in faults}
    honest = {fault.name: Lockstep(*setting).run(minimal_steps(fault)) for fault in faults}
    shown = {name: [divergence.index for divergence in found] for name, found in runs.items()}

    assert {fault.name: [len(fault.minimal) - 1] for fault in faults} == shown
    assert dict.fromkeys(shown, ()) == honest


@pytest.mark.power
@each_fault_in_its_kernel
def test_a_fault_is_found_in_a_kernel(kernel: str, fault: Fault) -> None:
    """A random search finds it; the shrunk seed is short and fails again, at its last step, and for the fault alone."""
    found = hunt(fault).found

    assert found is not None

    steps = parse_seed(print_seed(found.seed)).steps
    setting = world_of(kernel), PRESETS[kernel], [linux.factory(kernel)]
    again = Lockstep(*setting, model=fault).run(steps)

    assert [(found.divergence.aspect, len(steps) - 1)] == [(one.aspect, one.index) for one in again]
    assert () == Lockstep(*setting).run(steps)
    assert len(steps) <= len(fault.minimal) + LONGER


@pytest.mark.power
def test_most_seeds_are_minimal(capsys: pytest.CaptureFixture[str]) -> None:
    """Two of three shrunk seeds are no longer than the shortest one that is known; the table tells which."""
    table = power_table()
    with capsys.disabled():
        Console(width=WIDTH).print("\n", table)
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDTH).print(table)
        file.writelines(f"\n{print_seed(found.seed, [fault.name])}" for fault in FAULTS if (found := hunt(fault).found))
    minimal = [fault for fault in FAULTS if is_minimal(fault)]

    assert 3 * len(minimal) >= 2 * len(FAULTS)


def is_minimal(fault: Fault) -> bool:
    found = hunt(fault).found
    return found is not None and len(found.seed.steps) <= len(fault.minimal)


def power_table() -> Table:
    headings = ("fault", "rule", "kernel", "found in", "seconds", "steps", "shrinking", "before", "shrunk", "minimal")
    table = Table(title=f"faults planted in the model, random seed {RANDOM_SEED}")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place > 3 else "left", no_wrap=True)
    for fault in FAULTS:
        table.add_row(fault.name, fault.rule, fault.kernel, *_told(hunt(fault)), str(len(fault.minimal)))
    return table


def _told(hunted: Hunted) -> tuple[str, ...]:
    found = hunted.found
    if found is None:
        return "not found", "", "", "", "", ""
    numbers = found.steps_to_find, f"{hunted.shrinking:.1f}", found.original, len(found.seed.steps)
    return found.divergence.aspect, f"{found.seconds:.1f}", *map(str, numbers)
