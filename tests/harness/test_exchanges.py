"""Shrinking tries other ways to do the same: each leads to what no step that is left out would."""

from __future__ import annotations

import pytest

from impl.planted import PLANTED
from properties.hunt.exchanges import fewer
from properties.hunt.shrink import Trial, shrink
from properties.lockstep.lockstep import Lockstep
from properties.systems.naming import world_named
from spec.seeds import Step, parse_operation
from spec.semantics import PRESETS

ALREADY_SHORT = tuple(map(parse_operation, ("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1", "call foo1 1")))


@pytest.mark.parametrize(
    ("name", "lines", "shrunk"),
    [
        (
            "recursion-not-prevented",
            """
            bpf_prog_load p1 fentry
            bpf_raw_tracepoint_open l1 p1 foo1
            task t1 foo1 1
            step t1 to=program:p1
            task t2 foo1 1
            finish t2
            """,
            ("bpf_prog_load p1 fentry calls=foo1", "bpf_raw_tracepoint_open l1 p1 foo1", "call foo1 1"),
        ),
        (
            "shapes-share-an-image",
            """
            bpf_prog_load p1 fentry
            bpf_raw_tracepoint_open l1 p1 foo2
            bpf_raw_tracepoint_open l2 p1 foo1
            """,
            ("bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 foo2 foo1"),
        ),
        (
            "lsm-return-compared-whole",
            """
            bpf_prog_load p1 lsm returns=4294967296
            bpf_raw_tracepoint_open l1 p1 foo1
            """,
            ("bpf_prog_load p1 lsm target=foo1 returns=4294967296",),
        ),
        (
            "set-filter-error-ignored",
            """
            fail filter 2
            livepatch foo1
            bpf_prog_load p1 fentry
            bpf_raw_tracepoint_open l1 p1 foo1
            """,
            ("fail filter", "bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1"),
        ),
    ],
)
def test_a_way_is_found(name: str, lines: str, shrunk: tuple[str, ...]) -> None:
    """Programs that call, links of several functions, targets, failures that come earlier."""
    bug = next(bug for bug in PLANTED if bug.name == name)
    world, semantics = world_named(bug.world), PRESETS[bug.semantics]
    steps = tuple(map(parse_operation, lines.strip().splitlines()))
    (found,) = Lockstep(world, semantics, (bug,)).run(map(Step, steps))
    trial = Trial(world, semantics, (bug,), found.aspect, lambda: False)

    assert tuple(map(parse_operation, shrunk)) == shrink(trial, steps, found)[0]


def test_nothing_is_proposed_where_there_is_no_other_way() -> None:
    """No task stands, no program has several links or is attached to a function by its name, and nothing fails."""
    assert [] == list(fewer(ALREADY_SHORT))
