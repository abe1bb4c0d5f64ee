"""Random lines of a seed, mostly of names that exist, for tests that look at what holds after any of them."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

__all__ = ["FORMS", "START", "Draw"]

FUNCTIONS = "foo0 foo1 foo2 foo3 foo7 outer spill bar1 bar2".split()
GLOBS = "foo* * foo1 foo[12] bar* !foo1 !foo* 3 0x3 3x 99 zzz* foo?".split()
KINDS = "fentry fexit fmod_ret fsession freplace".split()
POINTS = "alloc jit_charge register filter".split()
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
    lambda d: f"set_ftrace_filter {d.name('g', 3)} {d.maybe('foo*')}",
    lambda d: f"set_ftrace_notrace {d.name('g', 3)} {d.maybe('foo1')}",
    lambda d: f"set_graph_function {d.name('g', 3)} {d.maybe('!outer')}",
    lambda d: f"set_graph_notrace {d.name('g', 3)} {d.maybe('foo2')}",
    lambda d: f"ftrace_enabled {d.one(('0', '1', '1'))}",
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
