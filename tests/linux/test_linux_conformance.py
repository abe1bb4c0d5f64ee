"""Real kernels agree with the model, and confirm the rules that they confirmed before."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from impl import linux
from properties.kernels import confirmed
from properties.kernels.conformance import Conforming, fixed_runs
from properties.kernels.coverage import Coverage, core_share
from properties.systems.kernels import laboratory_of
from properties.systems.naming import KERNELS
from spec.semantics import PRESETS
from tests.support.stations import kernel_or_skip

pytestmark = pytest.mark.vm

OPERATIONS = 600
SECONDS = 3600.0
"""The operations are the end of the search, however long a busy machine takes for them."""

SHRINKING = 60.0

LEAST_PERCENT = 75


@pytest.fixture(params=KERNELS)
def conforming(request: pytest.FixtureRequest) -> Iterator[Conforming]:
    """A kernel, in whose laboratory random runs take place; it is noted what it executes."""
    semantics = PRESETS[request.param]
    yield Conforming(kernel_or_skip(request.param), semantics, laboratory_of(semantics), Coverage())
    linux.close()


def test_a_kernel_agrees_with_the_model(conforming: Conforming) -> None:
    """Every seed and directed run, and 600 random operations: no difference, and no rule is lost.

    Of the blocks that the alphabet reaches, three in four were executed.
    """
    semantics = conforming.semantics
    conforming.fixed(fixed_runs(semantics, conforming.lab))
    compared = confirmed.compare(conforming.evidence, confirmed.known()[semantics.name])
    fixed_steps = conforming.evidence.steps
    conforming.random(OPERATIONS, SECONDS, shrink_seconds=SHRINKING)
    evidence = conforming.evidence
    print(f"{semantics.name}, {evidence.release}: {evidence.steps} steps in {evidence.seconds:.0f} s; {compared}")

    assert [] == [str(difference) for difference in evidence.differences]
    assert () == compared.lost
    assert evidence.steps - fixed_steps >= OPERATIONS
    assert conforming.coverage is not None
    share = core_share(conforming.coverage.record(evidence.release))
    print(f"{semantics.name}: {share.executed} of {share.reachable} blocks, {share.percent:.1f} %")
    assert share.percent >= LEAST_PERCENT
