"""A mutant of a real kernel is poked into a guest: a bug that the kernel once had is seen, and no change is not."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from impl import linux
from impl.linux.instruments.mutants import Candidates
from properties.mutants.named import NAMED, find_named, named_like
from properties.mutants.subject import Subject
from properties.mutants.survey import CandidatesUnit
from properties.mutants.units import MutantUnit
from tests.support.stations import kernel_or_skip

pytestmark = pytest.mark.vm

KERNEL = "linux-6.12"
SUBJECT = Subject(KERNEL, KERNEL)
RUN = "synthetic: trampoline-restored-when-count-returns-to-one"
SECONDS = 60.0


@pytest.fixture(scope="module")
def candidates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Candidates]:
    """The mutants of the kernel."""
    kernel_or_skip(KERNEL)
    yield CandidatesUnit(SUBJECT).work(tmp_path_factory.mktemp("work"))
    linux.close()


def test_a_named_bug_is_killed_by_a_fixed_run(candidates: Candidates, tmp_path: Path) -> None:
    """In under a minute."""
    (bug,) = named_like("tramp-not-restored")
    mutant = find_named(bug, candidates.mutants)
    assert mutant is not None
    judged = MutantUnit(SUBJECT, ((mutant.address, mutant.new),), (RUN,), SECONDS, 1.0, 1).work(tmp_path)

    assert ("killed", "sites", RUN) == (judged.verdict, judged.aspect, judged.run)


def test_a_call_that_stays_where_it_entered_is_seen(candidates: Candidates, tmp_path: Path) -> None:
    """A program behind which migration is not enabled again."""
    (mutant,) = (
        one for one in candidates.mutants if (one.function, one.target) == ("__bpf_prog_exit_recur", "migrate_enable")
    )
    run = "synthetic: programs-run-newest-first"
    judged = MutantUnit(SUBJECT, ((mutant.address, mutant.new),), (run,), SECONDS, 0.0, 1).work(tmp_path)

    assert ("killed", "warn", run) == (judged.verdict, judged.aspect, judged.run)
    assert "the kernel warned in a call" in judged.told


def test_no_mutation_leaves_the_kernel_agreeing(candidates: Candidates, tmp_path: Path) -> None:
    """Neither without a change, nor where the bytes that are poked are those that are there."""
    mutant = candidates.mutants[0]
    for changes in ((), ((mutant.address, mutant.old),)):
        judged = MutantUnit(SUBJECT, changes, (RUN,), SECONDS, 5.0, 1).work(tmp_path)

        assert ("survived", "", "", 1) == (judged.verdict, judged.aspect, judged.run, judged.runs)
        assert judged.steps


def test_every_named_bug_of_the_kernel_has_its_place(candidates: Candidates) -> None:
    """It is found by what stands there, in as many instructions as there are bugs."""
    bugs = [bug for bug in NAMED if KERNEL in bug.kernels]
    found = [find_named(bug, candidates.mutants) for bug in bugs]

    assert [] == [bug.name for bug, mutant in zip(bugs, found, strict=True) if mutant is None]
    assert len({(mutant.address, mutant.change) for mutant in found if mutant}) == len(bugs)
