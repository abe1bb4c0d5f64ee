"""The programs of docs/defects on the kernels that have the defect, and on those that have not."""

from __future__ import annotations

from pathlib import Path

import pytest

from impl.linux.guest.guest import GuestDiedError
from properties.export.program import program_files
from properties.export.recorded import record, setting_of
from properties.runs.corpus import DEFECTS, SEEDS, TASKS
from tests.support.exporting import Ended, Exports, compile_c
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm

PATIENCE = 100
"""Seconds, on a slow machine that has other work."""

REPORTS = Path(__file__).parents[2] / "docs/defects"


def run(guest: Exports, number: str, scratch: Path, *words: str) -> Ended | None:
    """A program that needs no modules; None where the kernel dies of it, or never lets it end."""
    program = scratch / number
    assert compile_c(REPORTS / f"{number}.c", program, "-pthread") == ""
    try:
        return guest.run_file(program, words=words, timeout=PATIENCE)
    except GuestDiedError:
        return None


@pytest.mark.parametrize("kernel", KERNELS)
def test_programs_that_no_seed_can_say(kernel: str, tmp_path: Path) -> None:
    """DEFECT-17 and DEFECT-12: 7.3 frees a program late enough; on all three an index of 64 bits is taken."""
    guest = Exports(kernel_or_skip(kernel))
    try:
        freed = run(guest, "DEFECT-17", tmp_path, *(("lsm",) if kernel == "linux-6.1" else ()))
        wide = run(guest, "DEFECT-12", tmp_path)
    finally:
        guest.close()

    assert (freed is not None and freed.status == 0) == (kernel == "linux-7.3"), freed
    assert wide is None or (wide.status != 0 and "argument 0x100000000" in wide.output), wide


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_program_that_calls_itself_without_end(kernel: str, tmp_path: Path) -> None:
    """DEFECT-31: 7.3 never answers again."""
    guest = Exports(kernel_or_skip(kernel))
    try:
        ended = run(guest, "DEFECT-31", tmp_path)
    finally:
        guest.close()

    assert (ended is None) == (kernel == "linux-7.3"), ended
    assert ended is None or (ended.status, ended.output) == (0, "attached\n")


@pytest.mark.parametrize("kernel", ["linux-6.12", "linux-7.3"])
def test_a_task_that_sleeps_before_a_program_that_leaves(kernel: str) -> None:
    """DEFECT-17 as a seed, exported: 6.12 runs what it has freed, or dies of it.

    6.1 has no sleepable programs for functions of modules.
    """
    path = TASKS / "a-sleeper-before-a-program-that-leaves.seed"
    guest = Exports(kernel_or_skip(kernel))
    try:
        ended = guest.run(path.stem, program_files(record(setting_of(path)), []))
    except GuestDiedError:
        ended = None
    finally:
        guest.close()

    assert (ended is not None and ended.status == 0) == (kernel == "linux-7.3"), ended
    assert ended is None or ended.status == 0 or "differs at line 14: finish t1" in ended.output


@pytest.mark.parametrize(
    ("kernel", "path", "line", "seen"),
    [
        ("linux-6.1", SEEDS / "second-try-on-a-live-ops.seed", 17, "WARNING"),
        ("linux-6.1", DEFECTS / "regs-stay-at-a-record-without-ops.seed", 13, "foo1 (1) R ops:o2"),
        ("linux-6.12", DEFECTS / "handshake-for-functions-that-have-gone.seed", 12, "-EBUSY"),
        (
            "linux-7.3",
            DEFECTS / "notrace-hash-goes-with-a-direct-call.seed",
            11,
            "foo2 (1) RD direct:T2 direct-->direct:T2",
        ),
    ],
    ids=["DEFECT-2", "DEFECT-10", "DEFECT-11", "DEFECT-5"],
)
def test_seeds_that_a_kernel_diverges_from(kernel: str, path: Path, line: int, seen: str) -> None:
    """The program goes red at the line, and prints what was seen."""
    guest = Exports(kernel_or_skip(kernel))
    try:
        ended = guest.run(path.stem, program_files(record(setting_of(path)), []))
    finally:
        guest.close()

    assert ended.status == 1
    assert f"differs at line {line}:" in ended.output
    assert seen in ended.output
