"""The figures of `bench`: their form, how they are taken, and what is said where a tool is missing."""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
from pathlib import Path

import pytest

from properties.benchmarks import proving, stepping
from properties.benchmarks.angr.client import Peer
from properties.benchmarks.angr.wire import Request, request_images
from properties.benchmarks.attaching import growth_on_halves, growth_on_wildcards
from properties.benchmarks.figures import Figure, taking_turns, write
from properties.proofs.matrix import cells
from properties.systems.naming import resolve, world_named
from properties.verbs import bench
from spec.errors import BadInputError
from spec.reading import decode, encode
from spec.seeds import read_seed
from spec.worlds import synthetic


@pytest.mark.parametrize(
    ("value", "better", "holds"),
    [(3.0, "lower", True), (3.1, "lower", False), (3.0, "higher", True), (2.9, "higher", False)],
)
def test_a_figure_is_held_against_its_bound(value: float, better: str, holds: bool) -> None:
    """The bound itself is good enough on either side."""
    assert holds is Figure("f", value, 3, better, "times").holds


def test_bench_writes_its_figures(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """bench.json is a list of objects with the contract's members; the exit status tells whether all hold."""
    for value, status in ((2.0, 0), (4.0, 1)):
        figure = Figure("growth", value, 3, "lower", "times")
        monkeypatch.setattr(bench, "measures", lambda figure=figure: [lambda: figure])
        path = tmp_path / "bench.json"

        assert status == bench.run(argparse.Namespace(json=path, angr=None))
        row = {"figure": "growth", "value": value, "bound": 3, "better": "lower", "holds": not status, "unit": "times"}
        assert [row] == json.loads(path.read_text())
        out = capsys.readouterr().out
        assert "growth" in out
        assert 1 == out.count("tox -e bench-angr")


def test_what_diverges_is_not_measured_but_kept(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """The bench tells what it met in place of a table, and writes a seed that shows it again."""
    monkeypatch.setattr(stepping, "resolve", lambda _: resolve("impl.planted.ftrace:tramp_not_restored"))
    monkeypatch.setattr(stepping, "FINDINGS", tmp_path / "seeds")
    monkeypatch.setattr(bench, "measures", lambda: [stepping.lockstep_step])

    assert 1 == bench.run(argparse.Namespace(json=tmp_path / "bench.json", angr=None))
    (path,) = (tmp_path / "seeds").iterdir()
    told = capsys.readouterr()
    assert not told.out
    assert f"Nothing was measured. The seed: {path}" in told.err
    assert read_seed(path).steps
    assert not (tmp_path / "bench.json").exists()


def test_what_is_compared_takes_turns() -> None:
    """Measurements alternate, and each gives its own median."""
    order: list[str] = []
    values = iter([1.0, 9.0, 5.0])

    def first() -> float:
        order.append("first")
        return next(values)

    def second() -> float:
        order.append("second")
        return 2.0

    assert [5.0, 2.0] == taking_turns(3, first, second)
    assert ["first", "second"] * 3 == order


def test_the_bookkeeping_figures_can_be_measured() -> None:
    """Figures of bookkeeping alone are measured; only their form is judged, as a loaded machine fails nothing."""
    wildcards = growth_on_wildcards(world_named("linux-6.1"))
    halves = growth_on_halves(synthetic(), 3, 4.0)

    assert ("growth over 32 overlapping wildcards", 3) == (wildcards.figure, wildcards.bound)
    assert ("growth over 3 random halves", 4.0) == (halves.figure, halves.bound)
    assert min(wildcards.value, halves.value) > 0


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    """The sentence names the file."""
    with pytest.raises(BadInputError, match="cannot be written"):
        write([], tmp_path / "no" / "bench.json")


@pytest.mark.proof
def test_the_figures_of_machine_code_hold() -> None:
    """Programs cost proofs less than their number, and relocating is many times faster than assembling."""
    for measure in proving.measures():
        figure = measure()

        assert figure.holds, figure


def test_the_peer_is_told_all_that_it_must_know() -> None:
    """It gets the images and goals of the matrix as they are; one with a lookup it is not asked to prove."""
    images = [(cell.image, cell.goal) for cell in cells("per_function")]

    assert Request(images=tuple(images)) == decode(encode(request_images(images)), Request)
    generic = cells("generic")[0]
    with pytest.raises(ValueError, match="images of one function only"):
        request_images([(generic.image, generic.goal)])


def test_an_interpreter_that_cannot_be_run_is_named() -> None:
    """So is what to install."""
    with pytest.raises(
        BadInputError, match="no/python: cannot be run: .*pip install -r properties/benchmarks/angr/requirements"
    ):
        Peer("no/python")


@pytest.mark.skipif(importlib.util.find_spec("angr") is not None, reason="this interpreter has angr")
def test_an_interpreter_without_angr_is_named() -> None:
    """The peer tells that it has no angr before it is asked anything, and what to install is told."""
    with Peer(sys.executable) as peer, pytest.raises(BadInputError, match="has no angr: .*pip install -r"):
        peer.take([])


def test_a_peer_that_dies_is_named() -> None:
    """Its end is no answer."""
    with Peer("/bin/true") as peer, pytest.raises(BadInputError, match="ended before it answered"):
        peer.take([])
