"""What is made to fail: operations of the alphabet, each with the steps before it and the calls behind it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from spec.alphabet import alphabet
from spec.errors import BadInputError
from spec.operations import Operation
from spec.seeds import parse_operation
from spec.semantics import Semantics

__all__ = ["AFTER", "POINTS", "Scenario", "scenarios", "scenarios_of"]

POINTS: Final = ("jit_charge", "alloc", "filter", "register", "patch")
"""What can be made to fail in a kernel without fail-nth: bpf_jit_limit, and functions that stand for a point."""

AFTER: Final = ("call foo1 1", "call foo2 1 2", "call foo3 1 2 3", "call bar1 1")
"""Calls behind the operation, of those functions that are there."""

TEN: Final = "foo0 foo1 foo2 foo3 foo4 foo5 foo6 outer narrow split"
_SET: Final = ("ftrace_ops o1", "ftrace_set_filter_ips o1 foo1 foo2")
_PLAIN: Final = (*_SET, "register_ftrace_function o1")
_DIRECT: Final = (*_SET, "register_ftrace_direct_multi o1 T1")
_HASHED: Final = ("ftrace_ops o1", "update_ftrace_direct_add o1 foo1=T1 foo2=T1")
_SHARED: Final = ("ftrace_ops o2", "ftrace_set_filter_ip o2 foo2", "register_ftrace_function o2")
_ENTRY: Final = ("bpf_prog_load p0 fentry", "bpf_raw_tracepoint_open l0 p0 foo1")
_EXIT: Final = ("bpf_prog_load p0 fexit", "bpf_raw_tracepoint_open l0 p0 foo1")
_IPMODIFY: Final = (*_EXIT, "ftrace_ops o1 ipmodify", "ftrace_set_filter_ip o1 foo1")
_MULTI: Final = ("bpf_prog_load p1 fentry multi",)
_KPROBE: Final = ("bpf_prog_load k1 kprobe",)
_KRETPROBE: Final = ("bpf_prog_load k2 kretprobe",)
_USERS: Final = ("register_ftrace_graph g1 filter=foo1", "register_ftrace_graph g2 filter=foo2")
_NEIGHBOUR: Final = ("livepatch foo6", "bpf_prog_load p2 fexit", "bpf_raw_tracepoint_open l2 p2 foo6")

SCENARIOS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    ((), "ftrace_ops o1"),
    (_PLAIN, "ftrace_set_filter_ip o1 foo3"),
    (_PLAIN, "ftrace_set_filter_ips o1 foo3 foo4"),
    (_PLAIN, "ftrace_set_filter o1 foo*"),
    (_PLAIN, "ftrace_set_notrace o1 foo1"),
    (_SET, "ftrace_free_filter o1"),
    (_SET, "register_ftrace_function o1"),
    ((*_ENTRY, *_SET), "register_ftrace_function o1"),
    (_IPMODIFY, "register_ftrace_function o1"),
    (_PLAIN, "unregister_ftrace_function o1"),
    ((*_IPMODIFY, "register_ftrace_function o1"), "unregister_ftrace_function o1"),
    ((), "register_ftrace_direct foo1 T1"),
    (("register_ftrace_direct foo1 T1",), "unregister_ftrace_direct foo1 T1"),
    (("register_ftrace_direct foo1 T1",), "modify_ftrace_direct foo1 T1 T2"),
    (_SET, "register_ftrace_direct_multi o1 T1"),
    ((*_SHARED, *_SET), "register_ftrace_direct_multi o1 T1"),
    (_DIRECT, "unregister_ftrace_direct_multi o1 T1"),
    (_DIRECT, "modify_ftrace_direct_multi o1 T2"),
    (_HASHED[:1], _HASHED[1]),
    ((*_SHARED, *_HASHED[:1]), _HASHED[1]),
    (_HASHED, "update_ftrace_direct_add o1 foo3=T3"),
    (_HASHED, "update_ftrace_direct_del o1 foo1=T1"),
    (_HASHED, "update_ftrace_direct_del o1 foo1=T1 foo2=T1"),
    ((*_SHARED, *_HASHED), "update_ftrace_direct_del o1 foo1=T1 foo2=T1"),
    (_HASHED, "update_ftrace_direct_mod o1 foo1=T2 foo2=T2"),
    ((), "register_ftrace_graph g1 filter=foo*"),
    (_USERS[:1], _USERS[1]),
    (_ENTRY, _USERS[0]),
    (_USERS[:1], "unregister_ftrace_graph g1"),
    (_USERS, "unregister_ftrace_graph g1"),
    (_USERS, "unregister_ftrace_graph g2"),
    (_USERS[:1], "set_ftrace_filter g1 foo2"),
    (_USERS[:1], "set_ftrace_notrace g1 foo2"),
    (("register_ftrace_graph g1 filter=foo*",), "set_graph_function g1 foo1"),
    (_USERS[:1], "set_graph_notrace g1 foo1"),
    (_PLAIN, "ftrace_enabled 0"),
    ((*_PLAIN, "ftrace_enabled 0"), "ftrace_enabled 1"),
    ((), "livepatch foo1"),
    (_EXIT, "livepatch foo1"),
    (("livepatch foo1",), "unlivepatch foo1"),
    ((*_EXIT, "livepatch foo1"), "unlivepatch foo1"),
    ((), "bpf_prog_load p1 fentry"),
    ((), "bpf_prog_load p1 fexit target=foo1"),
    ((), _MULTI[0]),
    (("bpf_prog_load p1 fentry target=foo1",), "bpf_raw_tracepoint_open l1 p1"),
    ((*_EXIT, "bpf_prog_load p1 fentry"), "bpf_raw_tracepoint_open l1 p1 foo1"),
    ((*_ENTRY, "bpf_prog_load p1 fexit"), "bpf_raw_tracepoint_open l1 p1 foo1"),
    ((*_NEIGHBOUR, *_ENTRY), "bpf_raw_tracepoint_open l1 p2 foo1"),
    (("bpf_prog_load p1 fentry",), "bpf_link_create l1 p1 foo1:7"),
    (_MULTI, "bpf_link_create l1 p1 foo1 foo2"),
    ((*_EXIT, *_MULTI), "bpf_link_create l1 p1 foo1:1 foo2:2"),
    (_MULTI, f"bpf_link_create l1 p1 {TEN}"),
    (_EXIT, "bpf_link_detach l0"),
    ((*_EXIT, "bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1"), "bpf_link_detach l0"),
    ((*_MULTI, "bpf_link_create l1 p1 foo1 foo2"), "bpf_link_detach l1"),
    ((*_ENTRY, *_MULTI, "bpf_link_create l1 p1 foo1 foo2"), "bpf_link_detach l1"),
    ((*_MULTI, f"bpf_link_create l1 p1 {TEN}"), "bpf_link_detach l1"),
    ((), _KPROBE[0]),
    (_KPROBE, "bpf_link_create l1 k1 foo1 foo2"),
    ((*_KPROBE, "bpf_link_create l2 k1 foo2"), "bpf_link_create l1 k1 foo1 foo2"),
    (_KRETPROBE, "bpf_link_create l1 k2 foo1 foo2"),
    ((*_KRETPROBE, "bpf_link_create l2 k2 foo2"), "bpf_link_create l1 k2 foo1 foo2"),
    ((*_KPROBE, "bpf_link_create l1 k1 foo1 foo2"), "bpf_link_detach l1"),
    ((*_KPROBE, "bpf_link_create l1 k1 foo1 foo2", "bpf_link_create l2 k1 foo2"), "bpf_link_detach l1"),
    ((*_KRETPROBE, "bpf_link_create l1 k2 foo1 foo2"), "bpf_link_detach l1"),
    ((*_KRETPROBE, "bpf_link_create l1 k2 foo1 foo2", "bpf_link_create l2 k2 foo2"), "bpf_link_detach l1"),
    (("delete_module mod1", *_PLAIN), "init_module mod1"),
    ((), "delete_module mod1"),
    (("livepatch bar1",), "delete_module mod1"),
)
"""Operations that succeed, and the steps before each."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """An operation, as a line of a seed, and the lines before it."""

    before: tuple[str, ...]
    line: str

    @property
    def operation(self) -> Operation:
        """The operation itself."""
        return parse_operation(self.line)

    def __str__(self) -> str:
        after = f" after {'; '.join(self.before)}" if self.before else ""
        return f"{self.line}{after}"


def scenarios(semantics: Semantics) -> tuple[Scenario, ...]:
    """Every scenario whose operations these semantics have."""
    supported = alphabet(semantics)
    every = (Scenario(before, line) for before, line in SCENARIOS)
    has = (each for each in every if semantics.tracing_multi or not _loads(each, *_MULTI))
    has = (each for each in has if semantics.fprobes or not _loads(each, *_KPROBE, *_KRETPROBE))
    return tuple(each for each in has if _kinds(each) <= supported)


def scenarios_of(every: Iterable[Scenario], verb: str | None) -> tuple[Scenario, ...]:
    """Those of one operation of the alphabet, or all; BadInputError if there is none."""
    held = tuple(every)
    found = tuple(each for each in held if verb in {None, each.operation.verb})
    if not found:
        known = dict.fromkeys(each.operation.verb for each in held)
        raise BadInputError(f"'{verb}' is no operation that can be made to fail: write one of {', '.join(known)}")
    return found


def _kinds(scenario: Scenario) -> set[type[Operation]]:
    return {type(parse_operation(line)) for line in (*scenario.before, scenario.line)}


def _loads(scenario: Scenario, *programs: str) -> bool:
    return not {*scenario.before, scenario.line}.isdisjoint(programs)
