"""Crews: units are done in other processes, each lost one is told and ends no other, and nothing is left behind."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import msgspec
import pytest

from properties.work.crew import Crew, Hands
from properties.work.servant import EndedError
from properties.work.units import Done, Lost, Outcome, Unit, fingerprint, key, request, unit_of, value_of
from spec.errors import BadInputError
from spec.reading import encode
from tests.support.work_units import Double, Doubled, Failing, Way


@pytest.fixture
def crew() -> Iterator[Crew]:
    with Crew.here(2) as crew:
        yield crew


def outcomes(crew: Crew, units: list[Unit], limit: float = 60.0) -> dict[int, Outcome]:
    """What becomes of each unit, by its place."""
    take = partial(next, iter(list(enumerate(units))), None)
    return {place: outcome for place, _, outcome in crew.outcomes(take, limit)}


def test_units_are_done_in_other_processes(crew: Crew) -> None:
    """Each gives its value, whatever it prints; two processes share them, and none of them is this one."""
    found = outcomes(crew, [Double(number, 0.05) for number in range(12)])
    values = [outcome.value for outcome in found.values() if isinstance(outcome, Done)]

    assert {place: 2 * place for place in range(12)} == {
        place: outcome.value.number for place, outcome in found.items() if isinstance(outcome, Done)
    }
    assert 2 == len({value.process for value in values})
    assert os.getpid() not in {value.process for value in values}


@pytest.mark.parametrize(
    ("way", "reason", "told", "journal"),
    [
        ("raises", "raised", "ValueError: two lines", ""),
        ("refuses", "refused", "x.seed:3: is bad", ""),
        ("exits", "died", "its process ended with status 7\nthe last words", "seed"),
        ("crashes", "died", "its process was ended by signal 11", "seed"),
        ("sleeps", "hung", "it has not ended after 3 s", "seed"),
    ],
)
def test_a_unit_that_is_lost(crew: Crew, way: Way, reason: str, told: str, journal: str) -> None:
    """It is told why, with what it has written down, and the others are done."""
    limit = 3.0 if reason == "hung" else 60.0
    found = outcomes(crew, [Double(1), Failing(way), Double(2), Double(3)], limit)
    lost = found.pop(1)

    assert isinstance(lost, Lost)
    assert (reason, journal) == (lost.reason, lost.journal)
    assert lost.told.startswith(told)
    assert [2, 4, 6] == [found[place].value.number for place in sorted(found)]  # type: ignore[union-attr]


def test_no_process_stays_behind() -> None:
    """A crew that is closed ends its processes, whatever they do, and its units come to no value."""
    crew = Crew.here(2)
    (process,) = {outcomes(crew, [Double(1)])[0].value.process}  # type: ignore[union-attr]
    tasks = [crew.submit(Failing("sleeps")) for _ in range(5)]
    time.sleep(0.5)
    start = time.monotonic()
    crew.close()

    assert {"unreached"} == {task.result().reason for task in tasks}  # type: ignore[union-attr]
    assert time.monotonic() - start < 30
    assert not Path(f"/proc/{process}").exists()


def test_nobody_is_hired_after_the_end() -> None:
    """A thread that comes too late starts no process, which nobody would end."""
    hands = Hands()
    hands.close()
    with pytest.raises(EndedError):
        hands.perform(encode(request(Double(1))), 60.0)


def test_who_waits_no_longer(crew: Crew) -> None:
    """Past the time until which somebody waits, what has not come is left."""
    units: list[Unit] = [Failing("sleeps"), Double(1)]
    take = partial(next, iter(list(enumerate(units))), None)
    found = list(crew.outcomes(take, 1000, time.monotonic() + 5))

    assert [1] == [place for place, _, _ in found]


def test_another_version_is_refused() -> None:
    """A process whose code is another does no unit: its value might be another one."""
    asked = request(Double(1))
    with pytest.raises(BadInputError, match="not of the version of massattach that is here"):
        unit_of(msgspec.structs.replace(asked, version="0"))


@pytest.mark.parametrize("kind", ["os:system", "tests.support.work_units:Way", "tests.support.work_units:nothing"])
def test_what_is_no_unit_is_refused(kind: str) -> None:
    """Only a dataclass that can do its work is one."""
    with pytest.raises(BadInputError, match="is no unit of work"):
        unit_of(msgspec.structs.replace(request(Double(1)), kind=kind))


def test_a_unit_goes_as_json() -> None:
    """A unit and its value are the same on the other side; equal units have one key, others another."""
    assert Double(3, 0.5) == unit_of(request(Double(3, 0.5)))
    assert Doubled(6, 1) == value_of(Double(3), b'{"number": 6, "process": 1}')
    assert key(Double(3)) == key(Double(3)) != key(Double(4))
    assert 32 == len(fingerprint())
    with pytest.raises(BadInputError, match="number: expected an integer"):
        value_of(Double(3), b'{"number": "six", "process": 1}')
