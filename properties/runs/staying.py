"""Directed runs of what stays where it was: addresses of modules that have gone, and records that keep R."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.semantics import Semantics

__all__ = ["STAYING"]

Lines = Iterator[str]


def _module_goes_from_under_a_direct_call(s: Semantics) -> Lines:
    """Direct entries of a module stay at addresses where nothing is any more (MODULE-5)."""
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ips o1 bar1 foo1 -> 0"
    yield "register_ftrace_direct_multi o1 T1 -> 0"
    if s.single_direct:
        yield "register_ftrace_direct bar2 T2 -> 0"
    yield "delete_module mod1 -> 0"
    yield "init_module mod1 -> 0"
    yield "call bar1 1"
    yield "bpf_prog_load p fentry"
    yield "bpf_raw_tracepoint_open l p bar1 -> 0"
    yield "modify_ftrace_direct_multi o1 T2"
    yield "unregister_ftrace_direct_multi o1 T2"
    if s.single_direct:
        yield "unregister_ftrace_direct bar2 T2 -> -ENODEV"
        yield "fail register"
        yield "register_ftrace_direct bar2 T2 -> 0"
        yield "unregister_ftrace_direct bar2 T2 -> 0"
        yield "register_ftrace_direct bar2 T1 -> 0"
        yield "unregister_ftrace_direct bar2 T1 -> 0"
    if s.hash_direct:
        yield "ftrace_ops o2"
        yield "update_ftrace_direct_add o2 bar3=T1 foo3=T2 -> 0"
        yield "delete_module mod1 -> -EAGAIN"
        yield "bpf_link_detach l -> 0"
        yield "delete_module mod1 -> 0"
        yield "update_ftrace_direct_del o2 foo3=T2 -> 0"
        yield "unregister_ftrace_direct_multi o2 T1 -> 0"


def _beside_two(function: str) -> Lines:
    """Two plain ops on a function, so that its site tells by its caller whether it shows R."""
    for name in ("o8", "o9"):
        yield f"ftrace_ops {name}"
        yield f"ftrace_set_filter_ip {name} {function} -> 0"
        yield f"register_ftrace_function {name} -> 0"


def _regs_under_a_notrace_hash(s: Semantics) -> Lines:
    """Whether a notrace hash leaves R behind, or makes the kernel ask again wherever it holds (SITE-6)."""
    for name in ("o1", "o2"):
        yield f"ftrace_ops {name} save_regs"
        yield f"ftrace_set_filter_ips {name} foo1 foo2 -> 0"
        yield f"register_ftrace_function {name} -> 0"
    yield "unregister_ftrace_function o2 -> 0"
    yield from _beside_two("foo1")
    stays = "ftrace_regs_caller" if s.notrace_leaves_regs else "ftrace_caller"
    yield "ftrace_set_notrace o1 foo1 -> 0"
    yield f"site foo1 -> {stays}"
    yield "register_ftrace_function o2 -> 0"
    yield "ftrace_set_filter_ip o2 foo1 remove -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "ftrace_set_notrace o1 foo[12] -> 0"
    yield f"site foo1 -> {stays}"


def _regs_of_direct_calls(s: Semantics) -> Lines:
    """An ops of several direct calls narrows when one of them goes; one ops a trampoline does not (SITE-6)."""
    yield from _beside_two("foo1")
    yield "bpf_prog_load p fentry"
    yield "bpf_raw_tracepoint_open l1 p foo1 -> 0"
    yield "bpf_raw_tracepoint_open l2 p foo2 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield f"site foo1 -> {'ftrace_regs_caller' if s.single_direct_ops else 'ftrace_caller'}"
    yield "bpf_raw_tracepoint_open l1 p foo1 -> 0"
    yield "bpf_link_detach l2 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield "site foo1 -> ftrace_caller"
    if s.single_direct:
        yield from _narrow_direct(("register_ftrace_direct", "unregister_ftrace_direct"), "{} T1")
    if s.hash_direct:
        yield "ftrace_ops o1"
        yield from _narrow_direct(("update_ftrace_direct_add o1", "update_ftrace_direct_del o1"), "{}=T1")


def _narrow_direct(calls: tuple[str, str], pair: str) -> Lines:
    """Two functions join one direct ops, and leave it in turn: twice foo1 first, then as the last."""
    add, remove = calls
    first, second = pair.format("foo1"), pair.format("foo2")
    yield f"{add} {second} -> 0"
    for _ in range(2):
        yield f"{add} {first} -> 0"
        yield f"{remove} {first} -> 0"
        yield "site foo1 -> ftrace_regs_caller"
    yield f"{add} {first} -> 0"
    yield f"{remove} {second} -> 0"
    yield f"{remove} {first} -> 0"
    yield "site foo1 -> ftrace_caller"


def _regs_of_a_batch(s: Semantics) -> Lines:
    """One link leaves several sites at once, of which some keep a program, or others keep the ops (SITE-6, COST-4)."""
    if not s.tracing_multi:
        return
    yield from _beside_two("foo1")
    yield "bpf_prog_load p1 fentry multi"
    yield "bpf_prog_load p2 fexit multi"
    yield "bpf_link_create l1 p1 foo1 foo2 -> 0"
    yield "bpf_link_create l2 p2 foo2 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield f"site foo1 -> {'ftrace_regs_caller' if s.single_direct_ops else 'ftrace_caller'}"
    yield "bpf_link_create l1 p1 foo1 -> 0"
    yield "bpf_link_detach l2 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield "site foo1 -> ftrace_caller"


def _last_ops_ends_ftrace(s: Semantics) -> Lines:
    """A permanent ops keeps ftrace on; what leaves while it is off ends it later (SYSCTL-1, SYSCTL-3 to SYSCTL-5)."""
    if not s.sysctl_stops:
        return
    yield "ftrace_ops o1 permanent"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "ftrace_enabled 0 -> -EBUSY"
    yield "unregister_ftrace_function o1 -> 0"
    yield "bpf_prog_load p1 fentry"
    yield "bpf_raw_tracepoint_open l1 p1 foo1 -> 0"
    yield "ftrace_enabled 0 -> 0"
    yield "register_ftrace_function o1 -> -EBUSY"
    yield "bpf_link_detach l1 -> 0"
    yield "ftrace_enabled 1 -> 0"
    yield "bpf_raw_tracepoint_open l1 p1 foo2 -> 0"
    yield "bpf_link_detach l1 -> 0 WARN"
    yield "register_ftrace_function o1 -> -ENODEV"


def _module_comes_while_off(s: Semantics) -> Lines:
    """A module that an ops covers is not loaded while ftrace is off, and one that none covers is (NAME-13)."""
    if not s.sysctl_stops:
        return
    yield "delete_module mod1 -> 0"
    yield "ftrace_ops o1"
    yield "register_ftrace_function o1"
    yield "ftrace_enabled 0 -> 0"
    yield "init_module mod1"
    yield "ftrace_set_filter_ip o1 foo1"
    yield "init_module mod1"
    yield "ftrace_enabled 1 -> 0"
    yield "site foo1"
    yield "site bar1 -> nop"


STAYING: tuple[Callable[[Semantics], Lines], ...] = (
    _last_ops_ends_ftrace,
    _module_comes_while_off,
    _module_goes_from_under_a_direct_call,
    _regs_of_a_batch,
    _regs_of_direct_calls,
    _regs_under_a_notrace_hash,
)
