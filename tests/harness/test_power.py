"""The power of the harness: planted bugs are found and shrunk, and none of them is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from impl import batched
from impl.planted import PLANTED, SYSTEMS, Planted
from properties.hunt.findings import Found
from properties.hunt.units import SearchUnit
from properties.lockstep.coverage import Tally
from properties.lockstep.lockstep import Lockstep
from properties.report.records import FoundBug, PowerRecord
from properties.systems.naming import world_named
from properties.verbs.publishing import publish_power
from properties.work.crew import Crew, Errand, processors
from properties.work.units import Done
from spec.alphabet import INTERLEAVED
from spec.seeds import Step, parse_operation, parse_seed, print_seed
from spec.semantics import PRESETS
from spec.system import SystemFactory

WORLDS = {bug.world: world_named(bug.world) for bug in PLANTED}
HONEST: tuple[SystemFactory, ...] = (batched.per_function, batched.per_shape, batched.generic)
BUDGET = 180.0
RANDOM_SEED = 1
ENDLESS = 1_000_000_000
Hunts = Mapping[str, Errand[SearchUnit]]
TABLE = Path("build/power.txt")
WIDTH = 140

each_bug = pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)


def minimal_steps(bug: Planted) -> list[Step]:
    return [Step(parse_operation(line)) for line in bug.minimal]


def honest(steps: Sequence[Step]) -> tuple[SystemFactory, ...]:
    """Every system without a bug that can take these steps: tasks do not stand in images that functions share."""
    interleaved = any(type(step.operation) in INTERLEAVED for step in steps)
    return HONEST[:1] if interleaved else HONEST


@pytest.fixture(scope="module")
def hunts() -> Iterator[Hunts]:
    with Crew.here(processors()) as crew:
        yield {bug.name: crew.submit(unit_of(bug), 2 * BUDGET) for bug in PLANTED}


def unit_of(bug: Planted) -> SearchUnit:
    """One search a bug, however many tests ask for it. It ends when the bug is found, or its time is over."""
    return SearchUnit(
        (SYSTEMS[bug.name],), "synthetic", bug.semantics, RANDOM_SEED, ENDLESS, shrink_seconds=BUDGET, time_limit=60.0
    )


def found_by(hunts: Hunts, bug: Planted) -> Found | None:
    """What its search has found within the budget."""
    outcome = hunts[bug.name].result()
    finding = outcome.value.finding if isinstance(outcome, Done) else None
    return finding.found if finding is not None and finding.seconds <= BUDGET else None


@each_bug
def test_the_minimal_steps_show_the_bug(bug: Planted) -> None:
    """The last of the minimal steps diverges for the bug, not for `batched` beside it, and the rule was reached."""
    tally = Tally(PRESETS[bug.semantics])
    steps = minimal_steps(bug)
    lockstep = Lockstep(WORLDS[bug.world], PRESETS[bug.semantics], (bug, *honest(steps)), tally=tally)
    found = lockstep.run(steps)
    closed = lockstep.close()

    assert [(0, len(bug.minimal) - 1)] == [(divergence.place, divergence.index) for divergence in found]
    assert () == closed
    assert bug.rule in tally.rules


@each_bug
def test_no_bug_stays_behind(bug: Planted) -> None:
    """`batched` is as it was after a run, after an exception, and outside of the bug's own systems."""
    before = bug.present()
    with suppress(ZeroDivisionError), bug.in_place():
        assert before is not bug.present()
        raise ZeroDivisionError
    Lockstep(WORLDS[bug.world], PRESETS[bug.semantics], (bug,)).run(minimal_steps(bug))

    assert before is bug.present()


def test_there_are_enough_bugs() -> None:
    """At least 25, half of them historical, and 25 behind ranges, with names of their own, over all semantics."""
    near = [bug for bug in PLANTED if bug.origin != "range"]
    historical = [bug for bug in near if bug.origin != "rule"]

    assert len(near) >= 25
    assert 2 * len(historical) >= len(near)
    assert len(PLANTED) >= 25 + len(near)
    assert len(PLANTED) == len({bug.name for bug in PLANTED})
    assert set(PRESETS) == {bug.semantics for bug in PLANTED}


@pytest.mark.power
@each_bug
def test_a_planted_bug_is_found(bug: Planted, hunts: Hunts) -> None:
    """Within the budget; the shrunk seed fails again, at its last step, and `batched` agrees on it."""
    found = found_by(hunts, bug)

    assert found is not None

    steps, world = parse_seed(print_seed(found.seed)).steps, world_named(found.seed.world)
    again = Lockstep(world, PRESETS[bug.semantics], (bug,)).run(steps)

    assert () == Lockstep(world, PRESETS[bug.semantics], honest(steps)).run(steps)
    assert [(found.divergence.aspect, len(steps) - 1)] == [(one.aspect, one.index) for one in again]


@pytest.mark.power
def test_most_seeds_are_minimal(capsys: pytest.CaptureFixture[str], hunts: Hunts) -> None:
    """Two of three shrunk seeds are no longer than the shortest one that is known; the table tells which."""
    table = power_table(hunts)
    with capsys.disabled():
        Console(width=WIDTH).print("\n", table)
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDTH).print(table)
    record = PowerRecord(RANDOM_SEED, tuple(_record(bug, found_by(hunts, bug)) for bug in PLANTED))
    publish_power(record, TABLE.with_suffix(".json"), Console(file=StringIO()))
    minimal = [bug for bug in PLANTED if is_minimal(bug, hunts)]

    assert 3 * len(minimal) >= 2 * len(PLANTED)


def is_minimal(bug: Planted, hunts: Hunts) -> bool:
    found = found_by(hunts, bug)
    return found is not None and len(found.seed.steps) <= len(bug.minimal)


def power_table(hunts: Hunts) -> Table:
    headings = ("bug", "rule", "origin", "semantics", "found in", "seconds", "steps", "shrunk", "minimal")
    table = Table(title=f"planted bugs, random seed {RANDOM_SEED}")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if place > 4 else "left", no_wrap=True)
    for bug in PLANTED:
        table.add_row(
            bug.name, bug.rule, bug.origin, bug.semantics, *_told(found_by(hunts, bug)), str(len(bug.minimal))
        )
    return table


def _record(bug: Planted, found: Found | None) -> FoundBug:
    if found is None:
        return FoundBug(bug.name, None)
    counted = found.steps_to_find, len(found.seed.steps)
    return FoundBug(bug.name, found.divergence.aspect, found.seconds, *counted, print_seed(found.seed))


def _told(found: Found | None) -> tuple[str, str, str, str]:
    if found is None:
        return "not found", "", "", ""
    return found.divergence.aspect, f"{found.seconds:.1f}", str(found.steps_to_find), str(len(found.seed.steps))
