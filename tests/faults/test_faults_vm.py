"""Faults in real kernels: in one with fail-nth each allocation of an operation, in Debian's those of hashes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from impl import linux
from properties.faults.known import defect_of
from properties.faults.scenarios import scenarios
from properties.faults.units import Faulted, FaultsUnit
from properties.mutants.subject import Subject
from properties.systems.naming import OWN_KERNEL
from spec.semantics import PRESETS
from tests.support.stations import debug_kernel_or_skip, kernel_or_skip

pytestmark = pytest.mark.vm

RULES = "linux-7.3"


@pytest.fixture(scope="module")
def subject() -> Iterator[Subject]:
    """The kernel, which is booted once."""
    yield Subject(f"{OWN_KERNEL}{debug_kernel_or_skip()}", RULES)
    linux.close()


@pytest.fixture(scope="module")
def debian() -> Iterator[Subject]:
    """Debian's kernel, which has no fail-nth."""
    kernel_or_skip(RULES)
    yield Subject(RULES, RULES)
    linux.close()


def take(subject: Subject, line: str, before: int) -> Faulted:
    """A scenario by its operation, and the number of steps before it."""
    scenario = next(s for s in scenarios(PRESETS[RULES]) if s.line == line and len(s.before) == before)
    return FaultsUnit(subject, scenario).work(Path())


@pytest.mark.parametrize(
    ("line", "before"),
    [("register_ftrace_function o1", 2), ("bpf_raw_tracepoint_open l1 p1", 1), ("livepatch foo1", 0)],
)
def test_each_allocation_that_fails_leaves_nothing(subject: Subject, line: str, before: int) -> None:
    """The first of them is -ENOMEM, the row ends, and the kernel tells where it was."""
    faulted = take(subject, line, before)
    first, *faults = faulted.tried

    assert ("", []) == (faulted.declined, [each for each in faulted.tried if each.aspect])
    assert "" == first.fault
    assert [f"nth {number}" for number in range(1, len(faults) + 1)] == [each.fault for each in faults]
    assert "-ENOMEM" == faults[0].answer
    assert any(each.where for each in faults)


def test_hashes_fail_in_any_kernel(debian: Subject) -> None:
    """An operation that needs one is -ENOMEM, changes nothing, and goes well when it is tried again."""
    faulted = take(debian, "register_ftrace_direct_multi o1 T1", 2)

    assert [] == [each for each in faulted.tried if each.aspect]
    assert ("hash", "-ENOMEM") in [(each.fault, each.answer) for each in faulted.tried]


@pytest.mark.parametrize(
    ("line", "before", "defect"),
    [
        ("bpf_link_detach l1", 2, "DEFECT-24"),
        ("unregister_ftrace_graph g1", 2, "DEFECT-25"),
        ("register_ftrace_graph g1 filter=foo*", 0, "DEFECT-26"),
        ("bpf_link_detach l0", 2, "DEFECT-1"),
    ],
)
def test_a_defect_is_found_and_known(debian: Subject, line: str, before: int, defect: str) -> None:
    """By the run without memory for hashes, and by no other."""
    faulted = take(debian, line, before)

    assert [("hash", defect)] == [(t.fault, defect_of(line, t.told, t.where)) for t in faulted.tried if t.aspect]
