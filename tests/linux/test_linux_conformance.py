"""Real kernels agree with the model, and confirm the rules that they confirmed before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from impl import linux
from properties.kernels import confirmed
from properties.kernels.conformance import Conforming, fixed_runs
from properties.systems.kernels import laboratory_of
from properties.systems.naming import KERNELS
from spec.semantics import PRESETS
from tests.support.stations import kernel_or_skip

pytestmark = pytest.mark.vm

OPERATIONS = 600
SECONDS = 300.0


@pytest.fixture(params=KERNELS)
def conforming(request: pytest.FixtureRequest) -> Iterator[Conforming]:
    """A kernel, in whose laboratory random runs take place."""
    semantics = PRESETS[request.param]
    yield Conforming(kernel_or_skip(request.param), semantics, laboratory_of(semantics))
    linux.close()


def test_a_kernel_agrees_with_the_model(conforming: Conforming) -> None:
    """Every seed and directed run, and 600 random operations: no difference, and no rule is lost."""
    semantics = conforming.semantics
    conforming.fixed(fixed_runs(semantics, conforming.lab))
    compared = confirmed.compare(conforming.evidence, confirmed.known()[semantics.name])
    fixed_steps = conforming.evidence.steps
    conforming.random(OPERATIONS, SECONDS)
    evidence = conforming.evidence
    print(f"{semantics.name}, {evidence.release}: {evidence.steps} steps in {evidence.seconds:.0f} s; {compared}")

    assert [] == [str(difference) for difference in evidence.differences]
    assert () == compared.lost
    assert evidence.steps - fixed_steps >= OPERATIONS
