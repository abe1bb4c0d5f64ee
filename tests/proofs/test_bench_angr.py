"""angr is an honest peer: it decides the prover's obligations, proves what the prover proves, and refutes what it does.

Runs where an interpreter with angr is given: `tox -e bench-angr` makes one.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from properties.benchmarks import against_angr
from properties.benchmarks.angr.client import Peer
from properties.proofs.generated import generated
from properties.proofs.matrix import KINDS, cells
from properties.prover.goal import Program
from properties.prover.proving import prove
from tests.support.prove_images import Trampoline, goal_of, long, of_kinds, sized
from tests.support.x86_64_faults import BROKEN

PYTHON = os.environ.get("MASSATTACH_ANGR", "")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(not PYTHON, reason="no interpreter with angr is given: tox -e bench-angr"),
]

# VEX lifts cli to nothing, and ud2 not at all.
NOT_LIFTED = {"interrupts disabled", "undefined"}

# The peer has no memory but the stack.
COUNTED = [name for name, (goal, _, __) in BROKEN.items() if goal.counters]


@pytest.fixture(scope="module")
def peer() -> Iterator[Peer]:
    """One process for all."""
    with Peer(PYTHON) as process:
        yield process


def test_it_decides_the_same_obligations(peer: Peer) -> None:
    """Of every image of the matrix it decides the obligations of the same names, and at least as many in all."""
    wanted = cells("per_function")
    peer.take([(cell.image, cell.goal) for cell in wanted])
    _, answers = peer.prove(range(len(wanted)))
    verdicts = [prove(cell.image, cell.goal) for cell in wanted]

    assert ["proved"] * len(wanted) == [answer.outcome for answer in answers]
    assert [verdict.obligations.keys() for verdict in verdicts] == [answer.obligations.keys() for answer in answers]
    assert all(
        sum(answer.obligations.values()) >= sum(verdict.obligations.values())
        for answer, verdict in zip(answers, verdicts, strict=True)
    )


def test_it_proves_other_images(peer: Peer) -> None:
    """Narrow arguments, structs, cookies, the function's address, jmp sites and several programs of a kind."""
    images = [
        generated(sized([1, 16, 4, 12, 8], 4), [Program("fentry", 0), Program("fexit", 0)]),
        generated(long(9), [Program("fmod_ret", 0, cookie=0x1234)] * 2 + [Program("fexit", 0)] * 2, func_ip=True),
        generated(long(3), [Program("fexit", 0, sleepable=True)], site="jmp"),
        generated(sized([8], 0), [Program("fexit", 0)]),
    ]
    peer.take(images)
    _, answers = peer.prove(range(len(images)))

    for answer, (image, goal) in zip(answers, images, strict=True):
        assert ("proved", prove(image, goal).obligations.keys()) == (answer.outcome, answer.obligations.keys())


def test_it_refutes_what_the_prover_refutes(peer: Peer) -> None:
    """Every planted fault in code that VEX lifts, each by the obligation by which the prover refutes it."""
    faults = {
        name: (Trampoline(goal).image(edit), goal, obligation)
        for name, (goal, edit, obligation) in BROKEN.items()
        if name not in NOT_LIFTED and not goal.counters
    }
    peer.take([(image, goal) for image, goal, _ in faults.values()])
    _, answers = peer.prove(range(len(faults)))
    found = {name: answer.broken for name, answer in zip(faults, answers, strict=True)}

    assert len(faults) == len(BROKEN) - len(NOT_LIFTED) - len(COUNTED)
    assert {name: obligation for name, (_, __, obligation) in faults.items()} == found


def test_an_image_without_an_end_is_not_proved(peer: Peer) -> None:
    """A loop is refuted by the number of its instructions."""
    goal = goal_of(long(1), *of_kinds("fentry"))
    image = Trampoline(goal).image(lambda code: setattr(code[-2], "code", b"\xeb\xfe"))
    peer.take([(image, goal)])
    answer = peer.prove([0])[1][0]

    assert "refuted" == answer.outcome
    assert "the image is left within" in answer.broken


def test_the_figures_can_be_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The prover is faster than angr, both ways; how much faster is for `bench` to say."""
    monkeypatch.setattr(against_angr, "cells", lambda level: cells(level)[: 2 * len(KINDS)])
    for thorough in (False, True):
        figure = against_angr.matrix_against_angr(PYTHON, thorough=thorough, bound=2)

        assert figure.holds, figure
