"""The n-th allocation of an operation fails: what is written around its calls, and what is read back."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from impl.linux.allocations import Allocations
from impl.linux.declining.decliner import NO_FAIL_NTH, Decliner
from impl.linux.guest.batch import Batch, Reply
from impl.linux.run import RunState
from impl.linux.system import HalfDoneError, _require_same
from spec.inventory import Inventory
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sites import Site
from spec.worlds import synthetic

DESCRIPTOR = 7
SITE = Site(1, True, False, True, "direct:T1", "direct:T1")


class Counting:
    """A guest whose fail-nth reads so, frame by frame."""

    def __init__(self, *left: int) -> None:
        self.left = list(left)
        self.frames: list[int] = []

    def submit(self, batch: Batch) -> tuple[Reply, ...]:
        """As Guest has it: every reply bears the number, though only one entry reads it."""
        self.frames.append(len(batch))
        text = f"{self.left.pop(0)}\n".encode().ljust(16, b"\0")
        return (Reply(0, 0, (text,)),) * len(batch)


def close(batch: Batch) -> int:
    """The call that is counted."""
    return batch.syscall("close", 5)


@pytest.mark.parametrize(("descriptor", "armed"), [(None, 3), (DESCRIPTOR, 0)])
def test_nothing_is_written_unless_something_is_to_fail(descriptor: int | None, armed: int) -> None:
    """Neither in a kernel without fail-nth nor without a fault."""
    guest = Counting(0)
    allocations = Allocations(cast("Any", guest), descriptor, cast("Any", None), armed)
    index, replies = allocations.submit(close)

    assert (0, 1, [1], False) == (index, len(replies), guest.frames, allocations.failed)


def test_the_call_stands_between_two_writes() -> None:
    """Its number is armed before, and what is left is read and put back behind it."""
    guest = Counting(0)
    allocations = Allocations(cast("Any", guest), DESCRIPTOR, cast("Any", None), 2)
    index, replies = allocations.submit(close)

    assert (1, 4) == (index, len(replies))
    assert (True, 0) == (allocations.failed, allocations.armed)


def test_a_count_goes_on_in_the_next_frame() -> None:
    """An operation may take several; what it made in the first is counted."""
    allocations = Allocations(cast("Any", Counting(1, 0)), DESCRIPTOR, cast("Any", None), 3)
    allocations.submit(close)

    assert (False, 1) == (allocations.failed, allocations.armed)
    allocations.submit(close)
    assert (True, 0) == (allocations.failed, allocations.armed)


def test_what_failed_and_changed_a_site_is_told() -> None:
    """-ENOMEM promises that nothing was done."""
    _require_same({"foo1": SITE}, {"foo1": SITE})
    with pytest.raises(HalfDoneError, match=r"foo1 \(1\) RD direct:T1 direct-->direct:T1, then nop; foo2 nop, then"):
        _require_same({"foo1": SITE}, {"foo2": SITE})


@pytest.mark.parametrize(("descriptor", "reason"), [(None, NO_FAIL_NTH), (DESCRIPTOR, "")])
def test_a_kernel_without_fail_nth_declines(descriptor: int | None, reason: str) -> None:
    """Whatever the count is; with it every count will do."""
    station = SimpleNamespace(fail_nth=descriptor, injects=True)
    run = RunState(Inventory.at_start(synthetic(), PRESETS["linux-7.3"]))
    decliner = Decliner(cast("Any", SimpleNamespace(station=station)), run, retries=True)

    assert reason == decliner.reason(parse_operation("fail nth 13"))
