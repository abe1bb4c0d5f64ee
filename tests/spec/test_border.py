"""The border answers by the Harness rules, says so, and asks the system everything else."""

# ruff: noqa: D102  # what a method of a System does stands in the protocol

from __future__ import annotations

from collections.abc import Mapping

import pytest

from spec.border import bordered, refusal
from spec.costs import Cost
from spec.following import follow
from spec.inventory import Inventory
from spec.operations import OPERATIONS, Operation
from spec.outcomes import Errno, Ok, Outcome
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import synthetic

WORLD = synthetic()


class Agreeable:
    """Says yes to everything, and remembers what it was asked."""

    name = "agreeable"
    supports = frozenset(OPERATIONS.values())
    counts = frozenset({"images_alive"})

    def __init__(self) -> None:
        self.asked: list[Operation] = []

    def apply(self, operation: Operation) -> Outcome:
        self.asked.append(operation)
        return Ok()

    def sites(self) -> Mapping[str, Site]:
        return {}

    def call(self, _function: str, _arguments: tuple[int, ...], /) -> Trace:
        return Trace((), None)

    def cost(self) -> Cost:
        return Cost()

    def close(self) -> None:
        self.asked.clear()

    def declines(self, operation: Operation) -> str:
        return f"would rather not {operation.verb}"


DIRECT = ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_direct_multi o1 T1")
SECOND = ("ftrace_ops o2", "ftrace_set_filter_ip o2 foo2", "register_ftrace_direct_multi o2 T2")
IPMODIFY = ("ftrace_ops o3 ipmodify", "ftrace_set_filter_ip o3 foo3", "register_ftrace_function o3")
ATTACHED = ("bpf_prog_load p1 fentry target=bar1", "bpf_raw_tracepoint_open l1 p1")

REFUSED = {
    "NAME-1": [
        (("ftrace_ops o1",), "ftrace_ops o1", "EEXIST"),
        (ATTACHED, "bpf_prog_load p1 fexit", "EEXIST"),
        (ATTACHED, "bpf_raw_tracepoint_open l1 nowhere foo1", "EEXIST"),
        (("register_ftrace_graph g1",), "register_ftrace_graph g1 filter=foo1", "EEXIST"),
    ],
    "NAME-2": [
        ((), "ftrace_free_filter o1", "EBADF"),
        ((), "bpf_link_create l1 p1 foo1", "EBADF"),
        ((), "bpf_link_detach l1", "EBADF"),
        ((), "unregister_ftrace_graph g1", "EBADF"),
    ],
    "NAME-3": [
        (DIRECT, "register_ftrace_function o1", "EOPNOTSUPP"),
        (IPMODIFY[:2], "register_ftrace_direct_multi o3 T1", "EOPNOTSUPP"),
        (IPMODIFY[:2], "update_ftrace_direct_add o3 foo1=T1 foo1=T1", "EOPNOTSUPP"),
    ],
    "NAME-4": [
        (DIRECT, "ftrace_set_filter_ip o1 foo2", "EOPNOTSUPP"),
        (DIRECT, "ftrace_set_notrace o1 nowhere", "EOPNOTSUPP"),
    ],
    "NAME-6": [
        (
            ("bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 foo3", "livepatch foo3", *IPMODIFY[:2]),
            "unregister_ftrace_function o3",
            "EOPNOTSUPP",
        ),
    ],
    "NAME-9": [
        ((*DIRECT, *IPMODIFY), "ftrace_set_filter o3 foo[12]", "EOPNOTSUPP"),
        ((*ATTACHED, *IPMODIFY), "ftrace_set_filter_ips o3 foo2 bar1", "EOPNOTSUPP"),
    ],
    "NAME-10": [
        (
            ("bpf_prog_load p1 fentry target=bar1", "delete_module mod1", "init_module mod1"),
            "bpf_raw_tracepoint_open l1 p1",
            "EOPNOTSUPP",
        ),
    ],
    "NAME-13": [
        (
            ("delete_module mod1", "ftrace_ops o1", "register_ftrace_function o1", "ftrace_enabled 0"),
            "init_module mod1",
            "EOPNOTSUPP",
        ),
        (
            ("delete_module mod1", "register_ftrace_graph g1", "ftrace_enabled 0"),
            "init_module mod1",
            "EOPNOTSUPP",
        ),
    ],
    "DIRECT-3": [
        (("register_ftrace_direct foo1 T1",), "unregister_ftrace_direct foo1 T2", "EOPNOTSUPP"),
        (DIRECT, "unregister_ftrace_direct foo1 T1", "EOPNOTSUPP"),
        (ATTACHED, "unregister_ftrace_direct bar1 T1", "EOPNOTSUPP"),
    ],
    "DIRECT-5": [(DIRECT, "modify_ftrace_direct foo1 T1 T2", "EOPNOTSUPP")],
    "DIRECT-10": [
        (("ftrace_ops o1",), "update_ftrace_direct_add o1 foo1=T1 foo1=T2", "EINVAL"),
        (("ftrace_ops o1",), "update_ftrace_direct_add o1 nowhere=T1", "EINVAL"),
        (DIRECT[:2], "update_ftrace_direct_add o1 foo2=T1", "EOPNOTSUPP"),
    ],
    "DIRECT-11": [((*DIRECT, *SECOND), "update_ftrace_direct_del o1 foo2=T2", "EOPNOTSUPP")],
    "DIRECT-12": [((*DIRECT, *SECOND), "update_ftrace_direct_mod o1 foo1=T3 foo2=T3", "EOPNOTSUPP")],
}
CASES = [(rule, *case) for rule, cases in REFUSED.items() for case in cases]

ASKED = [
    (DIRECT, "unregister_ftrace_direct_multi o1 T2"),
    (DIRECT[:2], "ftrace_set_filter_ip o1 foo2 remove"),
    (DIRECT, "unregister_ftrace_direct foo2 T1"),
    (DIRECT, "unregister_ftrace_function o1"),
    (IPMODIFY, "ftrace_free_filter o3"),
    (IPMODIFY[:2], "unregister_ftrace_function o3"),
    ((*IPMODIFY[:2], "livepatch foo3"), "unregister_ftrace_function o3"),
    (IPMODIFY, "ftrace_set_filter_ip o3 nowhere"),
    (IPMODIFY[:2], "ftrace_set_filter_ip o3 foo1"),
    ((*DIRECT, *IPMODIFY), "ftrace_set_filter_ips o3 foo1 nowhere"),
    (DIRECT[:2], "update_ftrace_direct_del o1 foo1=T1"),
    ((*DIRECT, *SECOND), "update_ftrace_direct_del o1 foo2=T3"),
    ((), "unlivepatch foo1"),
    ((), "delete_module nowhere"),
]


def after(*lines: str, semantics: str = "linux-7.3") -> Inventory:
    inventory = Inventory.at_start(WORLD, PRESETS[semantics])
    for line in lines:
        inventory = follow(inventory, parse_operation(line), Ok())
    return inventory


@pytest.mark.parametrize(("rule", "lines", "line", "errno"), CASES, ids=[f"{c[0]} {c[2]}" for c in CASES])
def test_the_harness_answers_by_its_rules(rule: str, lines: tuple[str, ...], line: str, errno: str) -> None:
    """What is not carried out is answered with the rule's errno, and the rule."""
    refused = refusal(parse_operation(line), after(*lines))

    assert refused is not None
    assert (errno, rule, False) == (refused.name, refused.harness, refused.warn)


@pytest.mark.parametrize(("lines", "line"), ASKED)
def test_the_system_is_asked_everything_else(lines: tuple[str, ...], line: str) -> None:
    """What a kernel answers itself, errors among it, is the system's to answer."""
    assert refusal(parse_operation(line), after(*lines)) is None


def test_an_enabled_ops_is_not_freed_where_the_kernel_would_do_it() -> None:
    """NAME-5: 6.1 and 6.12 free the hashes of an enabled ops without a warning."""
    refused = refusal(parse_operation("ftrace_free_filter o3"), after(*IPMODIFY, semantics="linux-6.12"))

    assert refused is not None
    assert ("EOPNOTSUPP", "NAME-5") == (refused.name, refused.harness)


def test_modules_stay_as_they_are_once_ftrace_has_died() -> None:
    """NAME-7: after a detach that may have met ftrace_bug(), and where a livepatch would outlive its function."""
    died = follow(after("livepatch bar1"), parse_operation("register_ftrace_graph g1"), Errno("ENODEV", warn=True))
    perhaps = follow(after(*ATTACHED, "fail patch"), parse_operation("bpf_link_detach l1"), Ok(warn=True))

    for inventory in (died, perhaps):
        refused = refusal(parse_operation("delete_module mod1"), inventory)

        assert refused is not None
        assert "NAME-7" == refused.harness
    unpatched = follow(after(), parse_operation("register_ftrace_graph g1"), Errno("ENODEV", warn=True))
    assert refusal(parse_operation("delete_module mod1"), unpatched) is None
    assert refusal(parse_operation("init_module mod1"), unpatched) is None
    unhurt = follow(after(*ATTACHED), parse_operation("bpf_link_detach l1"), Ok(warn=True))
    assert refusal(parse_operation("delete_module mod1"), unhurt) is None


def test_a_refused_operation_does_not_reach_the_system() -> None:
    """The system sees only what it is to carry out; an outcome that it gave names no rule of the harness."""
    inner = Agreeable()
    system = bordered(inner, WORLD, PRESETS["linux-7.3"])
    outcomes = [system.apply(parse_operation(line)) for line in ("ftrace_ops o1", "ftrace_ops o1", "ftrace_ops o2")]

    assert ["0", "-EEXIST", "0"] == list(map(str, outcomes))
    assert ["", "NAME-1", ""] == [outcome.harness for outcome in outcomes]
    assert ["o1", "o2"] == [operation.ops for operation in inner.asked]  # type: ignore[attr-defined]


def test_the_border_hands_on_what_else_a_system_has() -> None:
    """Optional members are the system's own, and one that it lacks is lacking behind the border too."""
    system = bordered(Agreeable(), WORLD, PRESETS["linux-7.3"])

    assert ("agreeable", frozenset({"images_alive"})) == (system.name, system.counts)
    assert "would rather not ftrace_ops" == system.declines(parse_operation("ftrace_ops o1"))
    assert not hasattr(system, "console")
