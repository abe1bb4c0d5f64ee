"""The proof matrix against angr, which proves the same obligations of the same images in an interpreter of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, partial
from typing import Final

from properties.benchmarks.angr.client import AngrAnswer, Peer
from properties.benchmarks.figures import Figure, Measure, taking_turns, worked
from properties.proofs.matrix import Cell, Matrix, cells, prove_cells
from properties.prover.proving import prove

__all__ = ["measures"]

ROUNDS: Final = 3
TIMES: Final = 100
TIMES_BY_Z3: Final = 20
"""How often the prover proves each image in its turn, so that it takes about as long as angr."""


def measures(python: str) -> list[Measure]:
    """The figures; python: an interpreter that has angr."""
    return [
        partial(matrix_against_angr, python, thorough=False, bound=150),
        partial(matrix_against_angr, python, thorough=True, bound=25),
    ]


def matrix_against_angr(python: str, *, thorough: bool, bound: float) -> Figure:
    """The matrix by both. thorough: the prover sends every obligation to z3."""
    angr, plain, solved = _times(python)
    name = "the proof matrix, faster than by angr" + (", all by z3" if thorough else "")
    return Figure(name, angr / (solved if thorough else plain), bound, "higher", "times")


@cache
def _times(python: str) -> tuple[float, float, float]:
    """Seconds of the matrix by angr, by the prover, and by the prover with every obligation sent to z3.

    They take turns, arity by arity, once all have lifted the code. angr's import does not count, nor making projects.
    """
    wanted = cells("per_function")
    found = []
    with Peer(python) as peer:
        peer.take([(cell.image, cell.goal) for cell in wanted])
        _agree(peer.prove(range(len(wanted)))[1], prove_cells("per_function", wanted))
        for arity in sorted({cell.arity for cell in wanted}):
            places = [place for place, cell in enumerate(wanted) if cell.arity == arity]
            own = [wanted[place] for place in places]
            angr, plain, solved = taking_turns(
                ROUNDS,
                partial(_peer_time, peer, places),
                partial(_own_time, own, thorough=False),
                partial(_own_time, own, thorough=True),
            )
            found.append((angr, plain, solved))
    angr, plain, solved = map(sum, zip(*found, strict=True))
    return angr, plain, solved


def _peer_time(peer: Peer, places: Sequence[int]) -> float:
    return peer.prove(places)[0]


def _own_time(wanted: Sequence[Cell], *, thorough: bool) -> float:
    times = TIMES_BY_Z3 if thorough else TIMES
    return worked(lambda: _prove_again(wanted, times, thorough=thorough)) / times


def _prove_again(wanted: Sequence[Cell], times: int, *, thorough: bool) -> None:
    """Proves each image so often. Neither reading clocks nor memory that grows is the prover's cost."""
    for _ in range(times):
        for cell in wanted:
            prove(cell.image, cell.goal, thorough=thorough, architecture=cell.architecture)


def _agree(answers: Sequence[AngrAnswer], matrix: Matrix) -> None:
    """Both have proved every image, and decided the same obligations of it; angr once for each path, which are more."""
    for answer, proof in zip(answers, matrix.proofs, strict=True):
        assert answer.outcome == proof.verdict.outcome == "proved", (answer, proof.lines)
        assert answer.obligations.keys() == proof.verdict.obligations.keys(), (answer, proof.verdict)
