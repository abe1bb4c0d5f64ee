"""Random operations on `batched`: what holds after any of them, whatever the rules say of each."""

from __future__ import annotations

import random

import numpy as np
import pytest

from impl.batched import Batched
from impl.batched.direct_functions import BPF
from spec.border import bordered
from spec.outcomes import Errno
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import synthetic
from tests.support.random_lines import FORMS, START, Draw
from tests.support.snapshots import snapshot

STEPS = 60


def assert_sums(system: Batched) -> None:
    """Each site counts S(f) and who saves regs, no nop keeps R, classes have their members, and entries are counted.

    No ops covers the functions of a module that has come after ftrace's death (DEAD-2).
    """
    state = system.state
    told = np.array([not state.dead or each.module is None for each in synthetic().functions] + [True])
    sets, stale = state.trampolines.sets, state.trampolines.stale
    regs = (state.direct.single & state.sites.loaded).astype(int) + (state.direct.entry == BPF)
    counts = regs + state.livepatched
    for ops in state.ops.values():
        if ops.enabled:
            covered = state.sites.covered(ops.filter_hash, ops.notrace_hash)
            counts[covered] += 1
            regs[covered] += ops.regs
    counts[state.graph.covered(state.sites)] += 1
    members = np.bincount(np.concatenate([sets.of, stale[stale >= 0]]), minlength=len(sets.members))
    members[0] += 1

    assert counts[told].tolist() == state.sites.count[told].tolist()
    assert regs[told].tolist() == state.sites.regs[told].tolist()
    assert not state.sites.regs_left[counts == 0].any()
    assert members.tolist() == sets.members.tolist()
    assert np.count_nonzero(state.direct.entry) + len(state.direct.gone) == state.direct._entries


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("semantics", PRESETS)
def test_levels_agree_and_failures_leave_no_trace(semantics: str, seed: int) -> None:
    """Sharing is unobservable, a failed operation changes nothing, and all sums are right after every operation."""
    draw = Draw(random.Random(f"{semantics} {seed}"))
    world, facts = synthetic(), PRESETS[semantics]
    systems = [bordered(Batched(world, facts, level), world, facts) for level in LEVELS]
    lines = START.strip().splitlines() + [draw.random.choice(FORMS)(draw) for _ in range(STEPS)]
    for line in lines:
        operation = parse_operation(line)
        if type(operation) not in systems[0].supports:
            continue
        before = snapshot(systems[1])
        outcomes = [system.apply(operation) for system in systems]

        assert [outcomes[0]] * len(LEVELS) == outcomes

        after = [snapshot(system) for system in systems]

        assert not isinstance(outcomes[0], Errno) or before == after[1]
        for shown in after[1:]:
            assert after[0][0] == shown[0]
            assert after[0][2:] == shown[2:]
        built = [system.cost().images_built for system in systems]

        assert sorted(built, reverse=True) == built

        assert_sums(systems[2])
