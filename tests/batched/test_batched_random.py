"""Random operations on `batched`: what holds after any of them, whatever the rules say of each."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest

from impl.batched import Batched
from impl.batched.direct_functions import BPF
from spec.outcomes import Errno
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sharing import LEVELS
from spec.worlds import synthetic
from tests.batched.test_batched_batches import snapshot

FUNCTIONS = "foo0 foo1 foo2 foo3 foo7 outer spill bar1 bar2".split()
GLOBS = "foo* * foo1 foo[12] bar* !foo1 !foo* 3 0x3 3x 99 zzz* foo?".split()
KINDS = "fentry fexit fmod_ret fsession freplace".split()
POINTS = "alloc jit_charge register filter".split()
STEPS = 60
START = """
    bpf_prog_load p0 fentry multi
    bpf_prog_load p1 fexit multi
    bpf_prog_load p2 fsession multi
    bpf_prog_load p3 fentry
    bpf_prog_load p4 fmod_ret returns=5
    bpf_prog_load p5 fexit calls=foo1
    ftrace_ops o1 ipmodify
    ftrace_ops o2
    ftrace_ops o3 save_regs dynamic"""


@dataclass(frozen=True)
class Draw:
    """Words for lines, mostly names that exist."""

    random: random.Random

    def one(self, words: list[str]) -> str:
        """One of some words."""
        return self.random.choice(words)

    def maybe(self, word: str, chance: float = 0.3) -> str:
        """A word, or nothing."""
        return word if self.random.random() < chance else ""

    def name(self, letter: str, count: int) -> str:
        """A name of a kind of thing."""
        return f"{letter}{self.random.randrange(count)}"

    def function(self) -> str:
        """A function, rarely one that is not there."""
        return self.one(FUNCTIONS) if self.random.random() < 0.97 else "nowhere"

    def functions(self) -> str:
        """A few functions, perhaps one twice."""
        return " ".join(self.function() for _ in range(self.random.randint(1, 4)))

    def targets(self) -> str:
        """Functions and globs, some with cookies."""
        if self.random.random() < 0.3:
            return self.one(["foo*", "*", "foo[1-3] bar*"])
        chosen = dict.fromkeys(self.functions().split())
        return " ".join(name + self.maybe(f":{self.random.randint(-1, 2)}") for name in chosen)

    def pairs(self) -> str:
        """Pairs of the hash API."""
        return " ".join(f"{name}={self.name('T', 2)}" for name in dict.fromkeys(self.functions().split()))


def flags(draw: Draw) -> str:
    return f"{draw.maybe('remove')} {draw.maybe('reset')}"


FORMS: list[Callable[[Draw], str]] = [
    lambda d: f"ftrace_ops {d.name('o', 4)} {d.maybe('save_regs')} {d.maybe('ipmodify')} {d.maybe('dynamic')}",
    lambda d: f"ftrace_set_filter_ip {d.name('o', 4)} {d.function()} {flags(d)}",
    lambda d: f"ftrace_set_filter_ips {d.name('o', 4)} {d.functions()} {flags(d)}",
    lambda d: f"ftrace_set_filter {d.name('o', 4)} {d.one(GLOBS)} {d.maybe('reset')}",
    lambda d: f"ftrace_set_notrace {d.name('o', 4)} {d.one(GLOBS)} {d.maybe('reset')}",
    lambda d: f"ftrace_free_filter {d.name('o', 9)}",
    lambda d: f"register_ftrace_function {d.name('o', 4)}",
    lambda d: f"unregister_ftrace_function {d.name('o', 4)}",
    lambda d: f"register_ftrace_direct {d.function()} {d.name('T', 2)}",
    lambda d: f"unregister_ftrace_direct {d.function()} {d.name('T', 2)}",
    lambda d: f"modify_ftrace_direct {d.function()} {d.name('T', 2)} {d.name('T', 2)}",
    lambda d: f"register_ftrace_direct_multi {d.name('o', 4)} {d.name('T', 2)}",
    lambda d: f"unregister_ftrace_direct_multi {d.name('o', 4)} {d.name('T', 2)} {d.maybe('free')}",
    lambda d: f"modify_ftrace_direct_multi {d.name('o', 4)} {d.name('T', 2)}",
    lambda d: f"update_ftrace_direct_add {d.name('o', 4)} {d.pairs()}",
    lambda d: f"update_ftrace_direct_del {d.name('o', 4)} {d.pairs()}",
    lambda d: f"update_ftrace_direct_mod {d.name('o', 4)} {d.pairs()}",
    lambda d: (
        f"register_ftrace_graph {d.name('g', 3)} {d.maybe('filter=foo*')} {d.maybe('function=outer')} "
        f"{d.maybe('notrace=foo1')} {d.maybe('depth=1')}"
    ),
    lambda d: f"unregister_ftrace_graph {d.name('g', 3)}",
    lambda d: f"livepatch {d.function()}",
    lambda d: f"unlivepatch {d.function()}",
    lambda d: f"bpf_prog_load {d.name('p', 9)} {d.one(KINDS)} {d.maybe('multi')} {d.maybe('func_ip')}",
    lambda d: f"bpf_prog_load {d.name('p', 9)} {d.one(KINDS)} {d.maybe('sleepable')} target={d.function()}",
    lambda d: f"bpf_raw_tracepoint_open {d.name('l', 8)} {d.name('p', 9)} {d.function()} {d.maybe('cookie=7')}",
    lambda d: f"bpf_raw_tracepoint_open {d.name('l', 8)} {d.name('p', 9)}",
    lambda d: f"bpf_link_create {d.name('l', 8)} {d.name('p', 9)} {d.targets()}",
    lambda d: f"bpf_link_create {d.name('l', 8)} {d.name('p', 3)} {d.targets()}",
    lambda d: f"bpf_link_detach {d.name('l', 8)}",
    lambda _: "delete_module mod1",
    lambda _: "init_module mod1",
    lambda d: f"fail {d.one(POINTS) if d.random.random() < 0.95 else 'patch'} {d.random.randint(1, 4)}",
]


def assert_sums(system: Batched) -> None:
    """Each site counts S(f) and who saves regs, no nop keeps R, classes have their members, and entries are counted."""
    state = system.state
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

    assert counts.tolist() == state.sites.count.tolist()
    assert regs.tolist() == state.sites.regs.tolist()
    assert not state.sites.regs_left[counts == 0].any()
    assert members.tolist() == sets.members.tolist()
    assert np.count_nonzero(state.direct.entry) + len(state.direct.gone) == state.direct._entries


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("semantics", PRESETS)
def test_levels_agree_and_failures_leave_no_trace(semantics: str, seed: int) -> None:
    """Sharing is unobservable, a failed operation changes nothing, and all sums are right after every operation."""
    draw = Draw(random.Random(f"{semantics} {seed}"))
    systems = [Batched(synthetic(), PRESETS[semantics], level) for level in LEVELS]
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
