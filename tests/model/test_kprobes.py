"""Links of kprobe programs in the model (KPROBE-*)."""

from __future__ import annotations

import pytest

import model
from model.system import Model
from spec.operations import BpfLinkDetach
from spec.outcomes import Errno, Ok
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import synthetic


def run(semantics: str, *lines: str) -> Model:
    """The model after these lines, each of which succeeds."""
    made = model.system(synthetic(), PRESETS[semantics])
    for line in lines:
        assert isinstance(made.apply(parse_operation(line)), Ok), line
    return made


BOTH = ("bpf_prog_load k1 kprobe", "bpf_prog_load k2 kretprobe")


@pytest.mark.parametrize(
    ("semantics", "trace"),
    [
        ("linux-6.12", "graph>g1 body <graph:g1 kretprobe:k2 =1"),
        ("linux-7.3", "graph>g1 body kretprobe:k2 <graph:g1 =1"),
    ],
)
def test_who_hooked_last_returns_first(semantics: str, trace: str) -> None:
    """KPROBE-7: by rethook in the order of the list, in the graph tracer in the order of the slots."""
    graph, link = "register_ftrace_graph g1 filter=foo1", "bpf_link_create j1 k2 foo1"
    made = run(semantics, *BOTH, *((graph, link) if semantics == "linux-6.12" else (link, graph)))

    assert trace == str(made.call("foo1", (1,)))


@pytest.mark.parametrize(("semantics", "runs"), [("linux-6.12", 1), ("linux-7.3", 2)])
def test_an_address_twice_runs_twice_where_fprobes_are_shared(semantics: str, runs: int) -> None:
    """KPROBE-9."""
    made = run(semantics, *BOTH, "bpf_link_create j1 k1 foo2 ?oo2")

    assert runs == str(made.call("foo2", (1, 2))).count("kprobe:k1")


@pytest.mark.parametrize(
    ("targets", "errno"),
    [("foo1 foo1", "ESRCH"), ("foo1 nowhere", "ESRCH"), ("?oo1 nowhere", "ENOENT"), ("nowhere*", "EINVAL")],
)
def test_names_are_symbols_unless_one_is_a_pattern(targets: str, errno: str) -> None:
    """KPROBE-2, KPROBE-3."""
    made = run("linux-7.3", *BOTH)

    assert Errno(errno) == made.apply(parse_operation(f"bpf_link_create j1 k1 {targets}"))


def test_a_program_sees_the_slots_that_are_in_registers() -> None:
    """KPROBE-8: six of foo8, and at the return its value."""
    made = run("linux-6.12", *BOTH, "bpf_link_create j1 k1 foo8", "bpf_link_create j2 k2 foo8")

    entry, _, returned = made.call("foo8", tuple(range(1, 9))).events
    assert (1, 2, 3, 4, 5, 6) == entry.context  # type: ignore[attr-defined]
    assert (36,) == returned.context  # type: ignore[attr-defined]


def test_a_shared_ops_shrinks_with_its_links() -> None:
    """KPROBE-6: what no link is on any more is a nop, and nothing is waited for."""
    made = run("linux-7.3", *BOTH, "bpf_link_create j1 k1 foo1 foo2", "bpf_link_create j2 k1 foo2 foo3")
    made.apply(BpfLinkDetach("j1"))

    assert {"foo2", "foo3"} == set(made.sites())
    assert {} == dict(made.cost().grace_periods)


def test_a_point_that_may_fail_keeps_fprobes_away_until_it_is_taken_back() -> None:
    """NAME-18."""
    made = run("linux-6.12", *BOTH, "fail alloc")
    link = parse_operation("bpf_link_create j1 k1 foo1")

    assert Errno("EOPNOTSUPP", harness="NAME-18") == made.apply(link)
    made.apply(parse_operation("fail alloc 1000000000"))
    assert Ok() == made.apply(link)


def test_debian_builds_6_1_without_fprobes() -> None:
    """KPROBE-2: programs load, and no link takes them."""
    made = run("linux-6.1", *BOTH)

    assert Errno("EOPNOTSUPP") == made.apply(parse_operation("bpf_link_create j1 k1 foo1"))
    assert "body =1" == str(made.call("foo1", (1,)))
