"""Directed runs of what stays behind: addresses of modules in hashes, and R at sites."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.semantics import Semantics

__all__ = ["LEFTOVERS"]

Lines = Iterator[str]


# Modules.


def _tombstones_keep_a_hash_from_being_empty(_: Semantics) -> Lines:
    """A module that went away leaves its addresses in a hash, in copies too, until a reset (MODULE-5, MODULE-6)."""
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ips o1 bar1 bar2 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "ftrace_ops o2"
    yield "ftrace_set_notrace o2 bar* -> 0"
    yield "delete_module mod1 -> 0"
    yield "register_ftrace_function o2 -> 0"
    yield "call foo1 1 -> ops:o2 body =1"
    yield "init_module mod1 -> 0"
    yield "call bar1 1"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "ftrace_set_filter_ip o1 foo1 remove -> 0"
    yield "site foo2"
    yield "ftrace_set_filter_ip o1 foo2 reset -> 0"
    yield "ftrace_set_filter_ip o1 foo2 remove -> 0"
    yield "site foo1"
    yield "call bar1 1"


def _tombstones_of_direct_ops_collide(_: Semantics) -> Lines:
    """Two direct ops want the entry of one address where nothing is, a third that of another (MODULE-6)."""
    for name, functions in (("o1", "bar1 foo1"), ("o2", "bar1 foo2"), ("o3", "bar2 foo3")):
        yield f"ftrace_ops {name}"
        yield f"ftrace_set_filter_ips {name} {functions} -> 0"
    yield "delete_module mod1 -> 0"
    yield "register_ftrace_direct_multi o1 T1 -> 0"
    yield "register_ftrace_direct_multi o2 T2 -> -EBUSY"
    yield "register_ftrace_direct_multi o3 T2 -> 0"
    yield "init_module mod1 -> 0"
    yield "call bar1 1 -> body =1"
    yield "modify_ftrace_direct_multi o1 T2 -> 0"
    yield "unregister_ftrace_direct_multi o1 T2 -> 0"
    yield "register_ftrace_direct_multi o2 T2"


def _tombstones_of_two_unloads_differ(_: Semantics) -> Lines:
    """A function that came back and went again leaves a second address; without it a filter is not empty (MODULE-6)."""
    for name in ("o1", "o2"):
        yield f"ftrace_ops {name}"
        yield f"ftrace_set_filter_ip {name} bar1 -> 0"
        yield "delete_module mod1 -> 0"
        yield "init_module mod1 -> 0"
    yield "ftrace_set_filter_ip o1 bar1 -> 0"
    yield "delete_module mod1 -> 0"
    yield "register_ftrace_direct_multi o1 T1 -> 0"
    yield "register_ftrace_direct_multi o2 T1 -> 0"
    yield "unregister_ftrace_direct_multi o1 T1 -> 0"
    yield "ftrace_set_filter_ip o1 foo1 reset -> 0"
    yield "ftrace_set_filter_ip o1 foo1 remove -> 0"
    yield "register_ftrace_direct_multi o1 T1"


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


def _module_goes_with_its_livepatch(_: Semantics) -> Lines:
    """What is livepatched in a module is unpatched when it goes; a program holds it (MODULE-3, MODULE-4)."""
    yield "livepatch bar1 -> 0"
    yield "livepatch bar2 -> 0"
    yield "bpf_prog_load p fexit"
    yield "bpf_raw_tracepoint_open l p bar5 -> 0"
    yield "delete_module mod1 -> -EAGAIN"
    yield "bpf_link_detach l -> 0"
    yield "delete_module mod1 -> 0"
    yield "unlivepatch bar2 -> -EINVAL"
    yield "init_module mod1 -> 0"
    yield "call bar1 1 -> body =1"
    yield "livepatch bar1 -> 0"
    yield "bpf_prog_load pinning fentry target=bar1"
    yield "delete_module mod1"


# What the kernel keeps saving registers for.


def _beside_two(function: str) -> Lines:
    """Two plain ops on a function, so that its site tells by its caller whether it shows R."""
    for name in ("o8", "o9"):
        yield f"ftrace_ops {name}"
        yield f"ftrace_set_filter_ip {name} {function} -> 0"
        yield f"register_ftrace_function {name} -> 0"


def _regs_stay_where_an_ops_narrows(_: Semantics) -> Lines:
    """R stays where a filter is left, until the ops is there again and unregistered, or nobody is (SITE-6)."""
    yield "ftrace_ops o1 save_regs"
    yield "ftrace_set_filter_ips o1 foo1 foo2 bar1 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield from _beside_two("foo1")
    yield "ftrace_set_filter_ip o1 foo1 remove -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "unregister_ftrace_function o9 -> 0"
    yield "site foo1 -> ops:o8"
    yield "register_ftrace_function o9 -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "unregister_ftrace_function o1 -> 0"
    yield "site foo1 -> ftrace_caller"
    yield "register_ftrace_function o1 -> 0"
    yield "ftrace_set_filter o1 foo2 reset -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "unregister_ftrace_function o8 -> 0"
    yield "unregister_ftrace_function o9 -> 0"
    yield "register_ftrace_function o8 -> 0"
    yield "register_ftrace_function o9 -> 0"
    yield "site foo1 -> ftrace_caller"
    yield "unregister_ftrace_function o1 -> 0"
    yield "site foo1 -> ftrace_caller"


def _regs_stay_while_another_needs_them(_: Semantics) -> Lines:
    """Of two ops that save regs one narrows; the other's end at the site lets the kernel ask again (SITE-6)."""
    for name in ("o1", "o2"):
        yield f"ftrace_ops {name} save_regs"
        yield f"ftrace_set_filter_ips {name} foo1 foo2 -> 0"
        yield f"register_ftrace_function {name} -> 0"
    yield from _beside_two("foo1")
    yield "ftrace_set_filter_ip o1 foo1 remove -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "unregister_ftrace_function o2 -> 0"
    yield "site foo1 -> ftrace_caller"
    yield "unregister_ftrace_function o1 -> 0"
    yield "site foo1 -> ftrace_caller"


def _regs_go_with_a_module(_: Semantics) -> Lines:
    """A record that is dropped keeps nothing: when the module is back, its sites begin anew (SITE-6)."""
    yield "ftrace_ops o1 save_regs"
    yield "ftrace_set_filter_ips o1 foo1 bar1 -> 0"
    yield "register_ftrace_function o1 -> 0"
    for name in ("o8", "o9"):
        yield f"ftrace_ops {name}"
        yield f"register_ftrace_function {name} -> 0"
    yield "ftrace_set_filter_ip o1 bar1 remove -> 0"
    yield "site bar1 -> ftrace_regs_caller"
    yield "delete_module mod1 -> 0"
    yield "init_module mod1 -> 0"
    yield "site bar1 -> ftrace_caller"


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
        yield from _narrowed_direct(("register_ftrace_direct", "unregister_ftrace_direct"), "{} T1")
    if s.hash_direct:
        yield "ftrace_ops o1"
        yield from _narrowed_direct(("update_ftrace_direct_add o1", "update_ftrace_direct_del o1"), "{}=T1")


def _narrowed_direct(calls: tuple[str, str], pair: str) -> Lines:
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


LEFTOVERS: tuple[Callable[[Semantics], Lines], ...] = (
    _module_goes_from_under_a_direct_call,
    _module_goes_with_its_livepatch,
    _regs_go_with_a_module,
    _regs_of_a_batch,
    _regs_of_direct_calls,
    _regs_stay_where_an_ops_narrows,
    _regs_stay_while_another_needs_them,
    _regs_under_a_notrace_hash,
    _tombstones_keep_a_hash_from_being_empty,
    _tombstones_of_direct_ops_collide,
    _tombstones_of_two_unloads_differ,
)
