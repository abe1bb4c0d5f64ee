"""The power of the harness: planted bugs are found and shrunk, and none of them is left behind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

from impl import batched
from impl.planted import PLANTED, SYSTEMS, Planted
from impl.planted.planting import Origin
from properties.hunt.findings import Found
from properties.hunt.units import SearchUnit
from properties.lockstep.coverage import Tally
from properties.lockstep.lockstep import Lockstep
from properties.mutants.named import NAMED, kernels_with
from properties.report.records import FoundBug, PowerRecord
from properties.systems.naming import world_named
from properties.verbs.publishing import publish_power
from properties.work.crew import Crew, Errand, processors
from properties.work.units import Done
from spec.alphabet import STOPPING
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

MENDED_SEVERAL = {
    "e21aa341785c": "each wait and each patch by which an image outlives the tasks in it was missing before",
}
"""Commits of several bugs, and why."""

each_bug = pytest.mark.parametrize("bug", PLANTED, ids=lambda bug: bug.name)


def minimal_steps(bug: Planted) -> list[Step]:
    return [Step(parse_operation(line)) for line in bug.minimal]


def honest(steps: Sequence[Step]) -> tuple[SystemFactory, ...]:
    """Every system without a bug that can take these steps: in images that functions share not all can stop."""
    return HONEST[:1] if any(type(step.operation) in STOPPING for step in steps) else HONEST


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
    """At least 60 historical ones, most with a commit, and 25 behind ranges, of all semantics, with own names."""
    historical = [bug for bug in PLANTED if isinstance(bug.origin, Origin)]
    ranged = [bug for bug in PLANTED if bug.origin == "range"]

    assert len(historical) >= 60
    assert len([bug for bug in historical if bug.mended]) >= 55
    assert len(ranged) >= 25
    assert len(PLANTED) == len({bug.name for bug in PLANTED})
    assert set(PRESETS) == {bug.semantics for bug in PLANTED}


@each_bug
def test_a_historical_bug_has_its_origin(bug: Planted) -> None:
    """A commit of twelve digits and its subject, or else a number; and every bug has a paragraph."""
    assert bug.about.endswith(".")
    if isinstance(bug.origin, Origin):
        assert bool(bug.origin.commit) == bool(bug.origin.subject)
        assert bug.origin.number or bug.origin.commit
        assert not bug.origin.commit or re.fullmatch("[0-9a-f]{12}", bug.origin.commit)


def test_no_origin_is_there_twice() -> None:
    """Each number is one bug's, and each commit, but for those that mended several."""
    origins = [bug.origin for bug in PLANTED if isinstance(bug.origin, Origin)]
    numbers = Counter(origin.number for origin in origins if origin.number)
    commits = Counter(origin.commit for origin in origins if origin.commit)

    assert {1} == set(numbers.values())
    assert set(MENDED_SEVERAL) == {commit for commit, count in commits.items() if count > 1}


def test_named_mutants_and_planted_bugs_agree() -> None:
    """A mutant that is like a planted bug has the same origin."""
    planted = {bug.name: bug for bug in PLANTED}
    alike = [(mutant, planted[mutant.planted].mended) for mutant in NAMED if mutant.planted]

    assert [m.commit for m, _ in alike] == [mended.commit if mended else "" for _, mended in alike]
    assert [m.subject for m, mended in alike if mended] == [mended.subject for _, mended in alike if mended]


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
    headings = ("bug", "rule", "origin", "semantics", "found in", "seconds", "steps", "shrunk", "minimal", "killed in")
    table = Table(title=f"planted bugs, random seed {RANDOM_SEED}")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 4 < place < 9 else "left", no_wrap=True)
    for bug in PLANTED:
        about = bug.name, bug.rule, str(bug.origin), bug.semantics
        killed = " ".join(kernel.removeprefix("linux-") for kernel in kernels_with(bug.name))
        table.add_row(*about, *_told(found_by(hunts, bug)), str(len(bug.minimal)), killed)
    return table


def _record(bug: Planted, found: Found | None) -> FoundBug:
    known = {"shortest": len(bug.minimal), "kernels": kernels_with(bug.name)}
    if found is None:
        return FoundBug(bug.name, None, **known)
    counted = found.steps_to_find, len(found.seed.steps)
    return FoundBug(bug.name, found.divergence.aspect, found.seconds, *counted, print_seed(found.seed), **known)


def _told(found: Found | None) -> tuple[str, str, str, str]:
    if found is None:
        return "not found", "", "", ""
    return found.divergence.aspect, f"{found.seconds:.1f}", str(found.steps_to_find), str(len(found.seed.steps))
