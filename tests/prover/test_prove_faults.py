"""Of each obligation there is an image that it refutes, on every architecture."""

from __future__ import annotations

import pytest

from properties.prover.architectures import ARCHITECTURES
from properties.prover.proving import prove
from tests.support.faults import FAULTS
from tests.support.prove_images import Trampoline
from tests.support.verdicts import pattern, refuted
from tests.support.x86_64_faults import SHARING

CASES = [(machine, name) for machine, faults in FAULTS.items() for name in faults]


@pytest.mark.parametrize(("machine", "name"), CASES, ids=[f"{machine}: {name}" for machine, name in CASES])
def test_each_obligation_can_fall(machine: str, name: str) -> None:
    """With the fault the obligation is refuted, and broken in execution."""
    fault = FAULTS[machine][name]
    image = fault.broken()
    verdict = prove(image, fault.goal, architecture=ARCHITECTURES[machine])

    assert fault.obligation == refuted(verdict)
    assert verdict.counterexample is not None
    assert image.holds(verdict.counterexample.at)


@pytest.mark.proof
@pytest.mark.parametrize("machine", FAULTS)
def test_z3_alone_decides_alike(machine: str) -> None:
    """With every decision by z3, each image is refuted by the same obligation, and without its fault proved."""
    architecture = ARCHITECTURES[machine]
    for name, fault in FAULTS[machine].items():
        verdict = prove(fault.whole(), fault.goal, thorough=True, architecture=architecture)
        broken = prove(fault.broken(), fault.goal, thorough=True, architecture=architecture)

        assert ("proved", 0) == (verdict.outcome, verdict.figures.plain), name
        assert fault.obligation == refuted(broken), name


# On arm64, what holds after every instruction holds at a call.
IMPLIED = {"x86-64": set[str](), "arm64": {"STEP: the stack pointer is aligned"}}


@pytest.mark.parametrize("machine", FAULTS)
def test_of_every_obligation_there_is_one_that_falls(machine: str) -> None:
    """What proofs name, numbers and kinds aside, is refuted by some fault."""
    architecture, faults = ARCHITECTURES[machine], FAULTS[machine].values()
    tasks = [(fault.whole(), fault.goal) for fault in faults]
    tasks += [(Trampoline(SHARING).image(), SHARING)] if machine == "x86-64" else []
    verdicts = [prove(image, goal, architecture=architecture) for image, goal in tasks]
    named = {pattern(name) for verdict in verdicts for name in verdict.obligations}

    assert IMPLIED[machine] == named - {pattern(fault.obligation) for fault in faults}
