"""Campaigns on a real scheduler and real workers, as processes of their own, some of which are killed."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Final

import pytest

from properties.hunt.units import SearchUnit, search_units
from properties.lockstep.coverage import Tally
from properties.work.cluster import join
from properties.work.crew import Crew
from properties.work.remembering import Remembering
from properties.work.units import Done, Outcome
from spec.errors import BadInputError
from spec.semantics import PRESETS
from tests.support.work_units import Double

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning:distributed"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]

ROOT: Final = Path(__file__).parents[2]
BUG: Final = SearchUnit(("impl.planted.ftrace:tramp_not_restored",), "synthetic", "linux-6.12", 3, 60)


@pytest.fixture(autouse=True)
def random_numbers_of_dask() -> Iterator[None]:
    """Dask's clients draw from the global generator."""
    before = random.getstate()
    yield
    random.setstate(before)


def process(*words: str) -> subprocess.Popen[bytes]:
    """A command of dask's, in the checkout."""
    return subprocess.Popen(
        [sys.executable, "-m", "distributed.cli.dask_" + words[0], *words[1:]],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def kill(one: subprocess.Popen[bytes]) -> None:
    """Kill a process and its children."""
    os.killpg(one.pid, signal.SIGKILL)
    one.wait()


class Cluster:
    """A scheduler and workers. State: the processes."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address = f"tcp://127.0.0.1:{port}"
        self.scheduler = process("scheduler", "--host", "127.0.0.1", "--port", str(port), "--no-dashboard")
        self.workers: list[subprocess.Popen[bytes]] = []

    def hire(self) -> None:
        """Start a worker without a nanny, which would start it again."""
        self.workers.append(process("worker", self.address, "--nthreads", "1", "--no-nanny", "--no-dashboard"))

    def close(self) -> None:
        """Kill all."""
        for one in (*self.workers, self.scheduler):
            kill(one)


@contextmanager
def cluster(workers: int) -> Iterator[Cluster]:
    made = Cluster()
    try:
        for _ in range(workers):
            made.hire()
        yield made
    finally:
        made.close()


def outcomes(crew: Crew, units: list[SearchUnit]) -> dict[int, Outcome]:
    take = partial(next, iter(list(enumerate(units))), None)
    return {place: outcome for place, _, outcome in crew.outcomes(take, 300)}


def test_workers_that_are_killed_lose_nothing(tmp_path: Path) -> None:
    """Four workers, one of them killed after every other unit: the merged values are those of one process."""
    units = list(islice(search_units([BUG]), 16))
    with Crew.here(1) as crew:
        expected = outcomes(crew, units)
    over = threading.Event()
    killed = 0

    def kill_some(made: Cluster, crew: Remembering) -> None:
        nonlocal killed
        while not over.wait(0.2):
            if crew.kept > 2 * killed:
                kill(made.workers.pop(0))
                killed += 1
                made.hire()

    with cluster(4) as made, Remembering(join(made.address, None, print), tmp_path) as crew:
        killer = threading.Thread(target=kill_some, args=(made, crew))
        killer.start()
        found = outcomes(crew, units)
        over.set()
        killer.join()

    assert killed > 3
    assert [True] * 16 == [isinstance(outcome, Done) for outcome in found.values()]
    assert 16 == len(list(tmp_path.glob("*.json")))
    merged = [merge(each) for each in (expected, found)]
    assert merged[0] == merged[1]


def merge(found: dict[int, Outcome]) -> tuple[object, list[str]]:
    """The tally of all units, and the seeds that they found."""
    tally, seeds = Tally(PRESETS["linux-6.12"]), set()
    for outcome in found.values():
        assert isinstance(outcome, Done)
        tally.add(outcome.value.counts)
        seeds |= {outcome.value.finding.seed} if outcome.value.finding else set()
    return tally.table(), sorted(seeds)


def test_a_scheduler_that_dies_is_told(tmp_path: Path) -> None:
    """What was done is kept; what was not is lost with a sentence, and a second cluster does only that."""
    units = [Double(number, 0.5) for number in range(30)]
    with cluster(1) as made, Remembering(join(made.address, None, print), tmp_path) as crew:
        tasks = [crew.submit(unit) for unit in units]
        while crew.kept < 3:
            time.sleep(0.1)
        kill(made.scheduler)
        made.scheduler = process("scheduler", "--help")
        found = [task.result() for task in tasks]
    kept = sum(isinstance(outcome, Done) for outcome in found)

    assert 3 <= kept < 30
    assert {"unreached"} == {outcome.reason for outcome in found if not isinstance(outcome, Done)}

    with cluster(2) as made, Remembering(join(made.address, None, print), tmp_path) as crew:
        again = [crew.submit(unit).result() for unit in units]

        assert kept == crew.known
    assert [2 * number for number in range(30)] == [outcome.value.number for outcome in again]  # type: ignore[union-attr]


def test_where_no_scheduler_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is one sentence, with how to start one."""
    monkeypatch.setattr("properties.work.cluster.CONNECT_SECONDS", 2)
    with pytest.raises(BadInputError, match="no scheduler answers: .*; start one with `dask scheduler`"):
        join("tcp://127.0.0.1:9", None, print)


def test_a_campaign_on_this_machine_goes_on(tmp_path: Path) -> None:
    """Without a scheduler a cluster is started here; the second start does no unit again that is known."""
    command = [sys.executable, "-m", "properties", "campaign", "--jobs", "2", "--budget", "12", "--save", str(tmp_path)]
    explored = ["explore", "--system", BUG.systems[0], "--semantics", BUG.semantics, "--random-seed", "3"]
    told = []
    for _ in range(2):
        done = subprocess.run([*command, *explored], cwd=ROOT, capture_output=True, text=True, timeout=200, check=False)
        told.append(done.stdout)

        assert 1 == done.returncode, done.stderr
    other = [*command, "explore", "--system", "batched"]
    refused = subprocess.run(other, cwd=ROOT, capture_output=True, text=True, timeout=100, check=False)

    assert "dashboard: http://127.0.0.1:" in told[0]
    assert ", 0 were known; " in told[0]
    assert ", 0 were known; " not in told[1]
    assert 1 <= len(list((tmp_path / "seeds").glob("*.seed")))
    assert len(list((tmp_path / "units").glob("*.json"))) >= 2
    assert (2, "") == (refused.returncode, refused.stdout)
    assert "has the campaign 'explore --system impl.planted" in refused.stderr
