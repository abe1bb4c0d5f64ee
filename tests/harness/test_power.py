"""The power of the harness: planted bugs are found and shrunk, and none of them is left behind."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from io import StringIO
from pathlib import Path
from statistics import median, median_low

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
BUDGET = 120.0
"""Seconds of one processor in which a bug is found."""

SHRINKING = 180.0
RANDOM_SEEDS = (1, 2, 3, 4, 5)
MEDIAN = 10.0
ENDLESS = 1_000_000_000
Hunts = Mapping[tuple[str, int], Errand[SearchUnit]]
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
        yield {
            (bug.name, number): crew.submit(unit_of(bug, number), BUDGET + SHRINKING)
            for number in RANDOM_SEEDS
            for bug in PLANTED
        }


def unit_of(bug: Planted, number: int) -> SearchUnit:
    """One search a bug and random seed, however many tests ask for it; the first shrinks what it finds."""
    shrinking = SHRINKING if number == RANDOM_SEEDS[0] else 0.0
    return SearchUnit(
        (SYSTEMS[bug.name],), "synthetic", bug.semantics, number, ENDLESS, shrink_seconds=shrinking, time_limit=60.0
    )


def found_by(hunts: Hunts, bug: Planted, number: int = RANDOM_SEEDS[0]) -> Found | None:
    """What a search of it has found within the budget."""
    outcome = hunts[bug.name, number].result()
    finding = outcome.value.finding if isinstance(outcome, Done) else None
    return finding.found if finding is not None and finding.seconds <= BUDGET else None


def all_found_by(hunts: Hunts, bug: Planted) -> list[Found]:
    """What its searches have found within the budget."""
    return [found for number in RANDOM_SEEDS if (found := found_by(hunts, bug, number)) is not None]


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
    """By each search within the budget; the shrunk seed fails again, at its last step, and `batched` agrees on it."""
    found = found_by(hunts, bug)

    assert len(RANDOM_SEEDS) == len(all_found_by(hunts, bug))
    assert found is not None

    steps, world = parse_seed(print_seed(found.seed)).steps, world_named(found.seed.world)
    again = Lockstep(world, PRESETS[bug.semantics], (bug,)).run(steps)

    assert () == Lockstep(world, PRESETS[bug.semantics], honest(steps)).run(steps)
    assert [(found.divergence.aspect, len(steps) - 1)] == [(one.aspect, one.index) for one in again]


@pytest.mark.power
def test_half_of_the_searches_are_short(hunts: Hunts) -> None:
    """The median over all planted bugs of the median of the searches for each."""
    assert median(median(found.seconds for found in all_found_by(hunts, bug)) for bug in PLANTED) <= MEDIAN


@pytest.mark.power
def test_most_seeds_are_minimal(capsys: pytest.CaptureFixture[str], hunts: Hunts) -> None:
    """Four of five shrunk seeds are no longer than the shortest one that is known; the table tells which."""
    table = power_table(hunts)
    with capsys.disabled():
        Console(width=WIDTH).print("\n", table)
    TABLE.parent.mkdir(exist_ok=True)
    with TABLE.open("w", encoding="utf-8") as file:
        Console(file=file, width=WIDTH).print(table)
    record = PowerRecord(RANDOM_SEEDS, tuple(_record(bug, all_found_by(hunts, bug)) for bug in PLANTED))
    publish_power(record, TABLE.with_suffix(".json"), Console(file=StringIO()))
    minimal = [bug for bug in PLANTED if is_minimal(bug, hunts)]

    assert 5 * len(minimal) >= 4 * len(PLANTED)


def is_minimal(bug: Planted, hunts: Hunts) -> bool:
    found = found_by(hunts, bug)
    return found is not None and len(found.seed.steps) <= len(bug.minimal)


def power_table(hunts: Hunts) -> Table:
    headings = ("bug", "rule", "origin", "semantics", "found in", "seconds", "steps", "shrunk", "minimal", "killed in")
    seeds = f"{RANDOM_SEEDS[0]} to {RANDOM_SEEDS[-1]}"
    table = Table(title=f"planted bugs, random seeds {seeds}: medians of seconds and steps; shrunk by the first")
    for place, heading in enumerate(headings):
        table.add_column(heading, justify="right" if 4 < place < 9 else "left", no_wrap=True)
    for bug in PLANTED:
        about = bug.name, bug.rule, str(bug.origin), bug.semantics
        killed = " ".join(kernel.removeprefix("linux-") for kernel in kernels_with(bug.name))
        table.add_row(*about, *_told(_record(bug, all_found_by(hunts, bug))), str(len(bug.minimal)), killed)
    return table


def _record(bug: Planted, found: Sequence[Found]) -> FoundBug:
    known = {"shortest": len(bug.minimal), "kernels": kernels_with(bug.name)}
    if len(found) < len(RANDOM_SEEDS):
        return FoundBug(bug.name, None, **known)
    shrunk = found[0].seed
    seconds, steps = median(each.seconds for each in found), median_low(each.steps_to_find for each in found)
    return FoundBug(
        bug.name, found[0].divergence.aspect, seconds, steps, len(shrunk.steps), print_seed(shrunk), **known
    )


def _told(bug: FoundBug) -> tuple[str, str, str, str]:
    if bug.aspect is None:
        return "not found", "", "", ""
    return bug.aspect, f"{bug.seconds:.1f}", str(bug.steps), str(bug.shrunk)
