"""Searches as units: what they reach and find is the same, whoever does them, and adds up."""

from __future__ import annotations

from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

from properties.hunt.exploring import explore
from properties.hunt.units import SearchUnit, SearchValue, search_units
from properties.lockstep.coverage import Tally
from properties.verbs.checks import nothing_is_found
from properties.work.crew import Crew
from properties.work.units import Done, Lost
from spec.errors import BadInputError
from spec.seeds import parse_seed
from spec.semantics import PRESETS

FAKES: Final = Path(__file__).parents[1] / "support" / "lockstep_fakes.py"
HONEST: Final = SearchUnit(("batched",), "synthetic", "linux-7.3", 3, 150)


def values(units: list[SearchUnit], jobs: int) -> dict[int, SearchValue]:
    take = partial(next, iter(list(enumerate(units))), None)
    with Crew.here(jobs) as crew:
        return {place: outcome.value for place, _, outcome in crew.outcomes(take) if isinstance(outcome, Done)}


def test_the_same_units_give_the_same_values() -> None:
    """In one process or two, in one order or the other; each has its operations, and none is another's."""
    units = list(islice(search_units([HONEST, SearchUnit(("batched",), "synthetic", "linux-6.1", 3, 150)]), 6))
    alone, together = values(units, 1), values(units[::-1], 2)

    assert [alone[place] for place in range(6)] == [together[5 - place] for place in range(6)]
    assert {6} == {len(alone)}
    assert 6 == len({str(value.counts) for value in alone.values()})
    for value in alone.values():
        assert 150 <= sum(count for *_, count in value.counts.outcomes) < 400


def test_tallies_add_up() -> None:
    """What was counted apart is counted together."""
    found = values(list(islice(search_units([HONEST]), 2)), 2)
    both, other = Tally(PRESETS["linux-7.3"]), Tally(PRESETS["linux-7.3"])
    for place in (0, 1):
        both.add(found[place].counts)
    for place in (1, 0):
        other.add(found[place].counts)

    assert both.counts == other.counts
    assert both.steps == sum(count for value in found.values() for *_, count in value.counts.outcomes)
    assert both.table() == other.table()


@pytest.mark.parametrize("jobs", [1, 2])
def test_the_first_finding_is_that_of_the_lowest_unit(jobs: int) -> None:
    """However many work, the finding, its seed and its place are the same."""
    unit = SearchUnit((f"{FAKES}:WrongOutcome",), "synthetic", "linux-7.3", 5)
    with Crew.here(jobs) as crew:
        explored = explore([unit], crew, 60.0)
    assert explored.first is not None
    found = explored.findings[explored.first]

    assert 0 == explored.first
    assert "outcome" == found.divergence.aspect
    assert 2 == len(parse_seed(found.seed).steps)
    assert found.found.seed == parse_seed(found.seed)


def test_a_search_whose_process_dies_is_a_finding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The steps that it has written down are written as a seed, and the property falls."""
    monkeypatch.chdir(tmp_path)
    journal = "world small.json\nsemantics linux-7.3\n---\nftrace_ops o1\nregister_ftrace_function o1\n"
    result = nothing_is_found(PRESETS["linux-7.3"], [Lost("died", "its process ended\nsaid", journal)])
    (path,) = (tmp_path / "build" / "seeds").iterdir()

    assert "fell" == result.verdict.value
    assert str(path.relative_to(tmp_path)) in result.detail
    assert path.name.startswith("linux-7.3-died-")
    assert ("small.json", 2) == (parse_seed(path.read_text()).world, len(parse_seed(path.read_text()).steps))
    assert "# its process ended\n# said\n" in path.read_text()


def test_a_search_that_is_no_search_is_bad_input() -> None:
    """What no process can do ends the exploration with its sentence."""
    with Crew.here(1) as crew, pytest.raises(BadInputError, match="unknown world 'nowhere'"):
        explore([SearchUnit(("batched",), "nowhere", "linux-7.3", 1)], crew, 10.0)
