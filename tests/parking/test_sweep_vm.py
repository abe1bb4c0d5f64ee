"""Tasks at each instruction of images of real kernels: a small slice of what `sweep` does."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from impl import linux
from properties.parking.scenarios import rows, rows_of
from properties.parking.units import RowUnit, Stay, Swept
from spec.semantics import PRESETS
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm


@pytest.fixture(scope="module", params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[str]:
    """A kernel, which is booted once."""
    name: str = request.param
    kernel_or_skip(name)
    yield name
    linux.close()


def sweep(kernel: str, image: str, operation: str) -> Swept:
    """A row of a kernel."""
    (row,) = rows_of(rows(PRESETS[kernel]), image, operation)
    return RowUnit(kernel, kernel, row).work(Path())


def at_instructions(swept: Swept) -> list[Stay]:
    """The tasks that stood in the image."""
    return [stay for stay in swept.parked if stay.place.offset is not None]


def test_the_last_detach_waits_for_a_task_at_any_instruction(kernel: str) -> None:
    """On 6.x, and not on 7.3; each task comes home as the model says, and nothing is left."""
    swept = sweep(kernel, "fexit", "detach the last")
    stays = at_instructions(swept)
    waits = not PRESETS[kernel].programs_wait_for_tasks

    assert ("", "") == (swept.without, swept.left)
    assert [] == [stay.told for stay in swept.parked if stay.aspect or not stay.reached or stay.declined]
    assert {("pending", "0") if waits else ("0",)} == {stay.answers for stay in stays}
    assert len(stays) > 25


def test_a_program_that_leaves_while_another_stays(kernel: str) -> None:
    """Before its call 6.x calls what was freed (DEFECT-17), which is shown once; behind it, and on 7.3, all is well."""
    swept = sweep(kernel, "two fentry", "detach the oldest")
    known = [stay for stay in swept.parked if stay.defect]

    assert [] == [stay.told for stay in swept.parked if stay.aspect and not stay.defect]
    assert PRESETS[kernel].programs_wait_for_tasks == (not known)
    assert {"DEFECT-17"} >= {stay.defect for stay in known}
    assert ["crash"] * bool(known) == [stay.aspect for stay in known if stay.aspect]
    assert {"program:p1", "body"} <= {stay.place.point for stay in swept.parked if not stay.defect}


def test_tasks_stand_in_a_program_that_calls(kernel: str) -> None:
    """Nothing that a row needs is declined: the kernel has this program once."""
    swept = sweep(kernel, "calls", "an ops comes")

    assert ("", "") == (swept.without, swept.left)
    assert [] == [stay.told or stay.declined for stay in swept.parked if stay.aspect or stay.declined]
    assert "program:p1" in {stay.place.point for stay in swept.parked}
