"""Directed runs in a kernel's laboratory, for what the other fixed runs do not reach, as a kernel declines some steps.

They expect an answer only where a list would otherwise miss its point.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from properties.kernels.directed_links import LINK_RUNS, fmod_ret_up_to_the_limit, sleepable_programs
from properties.kernels.directed_tasks import TASK_RUNS, a_sleepable_program_waits
from properties.runs.corpus import FixedRun, fixed_run, seeds_under_every_preset
from properties.runs.hooks import HOOK_RUNS
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["linux_directed"]

SEEDS = Path(__file__).with_name("seeds")
Lines = Iterator[str]


def linux_directed(semantics: Semantics, lab: World) -> Iterator[FixedRun]:
    """Every run that these semantics can take: seeds first, which expect the same of every kernel."""
    yield from seeds_under_every_preset(SEEDS, lab, semantics)
    marked = lab.by_name["sleepy1"].attributes
    chosen = (sleepable_programs, a_sleepable_program_waits) if marked else (fmod_ret_up_to_the_limit,)
    for make in (*_RUNS, *LINK_RUNS, *TASK_RUNS, *HOOK_RUNS, *chosen):
        if steps := list(make(semantics)):
            yield fixed_run(make.__name__.lstrip("_"), lab, semantics, steps)


# Ops.


def _ops_of_every_flag(s: Semantics) -> Lines:
    """Plain ops that differ in what ftrace does before it calls them, alone on a site and in company (OPS-1)."""
    _ = s
    for number, flags in enumerate(("recursion", "rcu", "recursion rcu", "dynamic recursion", "save_regs rcu"), 1):
        yield f"ftrace_ops o{number} {flags}"
        yield f"ftrace_set_filter_ips o{number} foo1 foo2 -> 0"
        yield f"register_ftrace_function o{number} -> 0"
        yield "call foo1 1"
        yield f"ftrace_set_filter_ip o{number} foo1 remove -> 0"
        yield "call foo2 1 2"
    for number in (1, 2, 3, 4, 5):
        yield f"unregister_ftrace_function o{number} -> 0"
        yield "call foo2 1 2"


def _direct_ops_go_with_their_filters(s: Semantics) -> Lines:
    """unregister_ftrace_direct() that frees the filter, and changes of an ops that is not registered (DIRECT-7)."""
    yield "ftrace_ops o1"
    yield "modify_ftrace_direct_multi o1 T1"
    yield "unregister_ftrace_direct_multi o1 T1"
    yield "register_ftrace_direct_multi o1 T1"
    yield "ftrace_set_filter_ips o1 foo1 foo2 -> 0"
    yield "register_ftrace_direct_multi o1 T1 -> 0"
    yield "modify_ftrace_direct_multi o1 T2 -> 0"
    yield "call foo1 1"
    yield "unregister_ftrace_direct_multi o1 T2 free -> 0"
    yield "call foo1 1"
    yield "modify_ftrace_direct_multi o1 T1"
    yield "register_ftrace_direct_multi o1 T1"
    yield "livepatch foo3 -> 0"
    yield "ftrace_ops o2"
    yield "ftrace_set_filter_ips o2 foo2 foo3 -> 0"
    yield "register_ftrace_direct_multi o2 T1"
    yield "register_ftrace_direct_multi o2 T1"
    if s.hash_direct:
        yield "ftrace_ops o3"
        yield "update_ftrace_direct_add o3 foo2=T1 foo3=T2"
        yield "update_ftrace_direct_add o3 foo2=T1 -> 0"
        yield "update_ftrace_direct_mod o3 foo2=T2 -> 0"
        yield "update_ftrace_direct_add o3 foo4=T1 foo5=T1 foo6=T2"
        yield "update_ftrace_direct_mod o3 foo4=T2 foo3=T1"
        yield "update_ftrace_direct_del o3 foo4=T1 foo3=T1"
        yield "update_ftrace_direct_del o3 foo2=T2 foo4=T1"


# An ops without a filter, whose notrace hash holds the rest of the kernel here.


def _everything_but(_: Semantics) -> Lines:
    """An empty filter means every site that the notrace hash does not hold (FILTER-2, FILTER-10, MODULE-1)."""
    yield "ftrace_ops o1"
    yield "ftrace_set_notrace o1 * -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "call foo1 1 -> body =1"
    yield "ftrace_set_notrace o1 !foo1 -> 0"
    yield "site foo1 -> ops:o1"
    yield "call outer 1"
    yield "ftrace_set_filter_ip o1 foo2 -> 0"
    yield "site foo1 -> nop"
    yield "ftrace_set_filter_ip o1 foo2 remove -> 0"
    yield "site foo1 -> ops:o1"
    for step in ("ftrace_ops o2", "ftrace_set_filter_ip o2 foo1", "register_ftrace_function o2"):
        yield f"{step} -> 0"
    yield "call foo1 1 -> ops:o2 ops:o1 body =1"
    yield "unregister_ftrace_function o2 -> 0"
    yield "delete_module mod1 -> 0"
    yield "init_module mod1 -> 0"
    yield "site bar1 -> ops:o1"
    yield "call bar1 1"
    yield "unregister_ftrace_function o1 -> 0"
    yield "site bar1 -> nop"


def _module_joins_an_ops_with_regs(_: Semantics) -> Lines:
    """Functions of a new module have all flags of the ops that cover them (MODULE-1, SITE-6)."""
    yield "ftrace_ops o1 save_regs"
    yield "ftrace_set_notrace o1 * -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "delete_module mod1 -> 0"
    yield "init_module mod1 -> 0"
    yield "call bar1 1"
    yield "unregister_ftrace_function o1 -> 0"
    yield "site bar1 -> nop"


# The graph tracer, whose users need a filter here.


def _graph_users_meet(s: Semantics) -> Lines:
    """Two users of whom one takes the frame; the other's slot comes first (GRAPH-3, GRAPH-5, GRAPH-8)."""
    yield "register_ftrace_graph g1 filter=foo1 -> 0"
    if s.graph_users == 1:
        yield "register_ftrace_graph g2 filter=foo2 -> -EBUSY"
        return
    yield "register_ftrace_graph g2 filter=foo2 -> 0"
    yield "register_ftrace_graph g3 filter=outer -> 0"
    for call in ("outer 1", "foo2 1 2", "foo1 1"):
        yield f"call {call}"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "call outer 1"


def _livepatch_comes_first(s: Semantics) -> Lines:
    """An image that begins to call the original of a livepatched function goes on to the patch (IPMODIFY-5).

    So since 3e9a18e1c3e9; where a second try is refused, ftrace dies of the detach.
    """
    if s.failed_direct_reusable:
        yield "livepatch foo2 -> 0"
        yield "bpf_prog_load p1 fentry"
        yield "bpf_prog_load p2 fexit"
        yield "bpf_raw_tracepoint_open l1 p1 foo2 -> 0"
        yield "bpf_raw_tracepoint_open l2 p2 foo2 -> 0"
        yield "call foo2 1 2"


def _live_graph_user(s: Semantics) -> Lines:
    """A user's filter, notrace hash and lists change while it is live (GRAPH-10, GRAPH-11, GRAPH-12)."""
    yield "register_ftrace_graph g1 filter=foo1 -> 0"
    yield "set_ftrace_filter g1 foo2 -> 0"
    yield "site foo2 -> ops:graph_ops"
    yield "set_ftrace_filter g1 outer -> 0"
    yield "set_ftrace_filter g1 nothing* -> -EINVAL"
    yield "call outer 1"
    yield "set_ftrace_filter g1 !foo1 -> 0"
    yield "set_ftrace_filter g1 !foo1 -> 0"
    yield "site foo1 -> nop"
    yield "call outer 1"
    yield "set_ftrace_notrace g1 nothing* -> -EINVAL"
    yield "set_ftrace_notrace g1 foo? -> 0"
    follows = s.graph_users == 1 or s.graph_rebuilds
    yield f"site foo2 -> {'nop' if follows else 'ops:graph_ops'}"
    yield "call outer 1"
    yield "set_ftrace_notrace g1 !foo2 -> 0"
    yield "call outer 1"
    yield "set_ftrace_notrace g1 -> 0"
    for file in ("set_graph_function", "set_graph_notrace"):
        yield f"{file} g1 nothing* -> -EINVAL"
        yield f"{file} g1 !foo2 -> -EINVAL"
        yield f"{file} g1 foo2 -> 0"
        yield "call outer 1"
        yield f"{file} g1 outer -> 0"
        yield "call outer 1"
        yield f"{file} g1 !outer -> 0"
        yield f"{file} g1 !outer -> -EINVAL"
        yield "call outer 1"
        yield f"{file} g1 !foo2 -> 0"
        yield "call outer 1"
        yield f"{file} g1 foo2 -> 0"
        yield f"{file} g1 -> 0"
        yield "call outer 1"
    yield "set_graph_function g1 foo2 -> 0"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "register_ftrace_graph g1 filter=foo? -> 0"
    yield "call outer 1"


def _points_fail(s: Semantics) -> Lines:
    """Each point that can be made to fail in the kernel itself, and the retry (FAIL-1, FAIL-2, FILTER-3, LINK-12)."""
    yield "ftrace_ops o1"
    for line in ("ftrace_set_filter_ip o1 foo1", "ftrace_set_filter o1 foo2", "ftrace_set_notrace o1 foo3"):
        for point, errno in (("alloc", "-ENOMEM"), ("filter", "-EINVAL")):
            yield f"fail {point}"
            yield f"{line} -> {errno}"
        yield f"{line} -> 0"
    yield "fail register"
    yield "register_ftrace_function o1 -> -EBUSY"
    yield "fail register 1000"
    yield "register_ftrace_function o1 -> 0"
    for point, errno in (("alloc", "-ENOMEM"), ("filter", "-EINVAL")):
        yield f"fail {point}"
        yield f"ftrace_set_filter_ips o1 foo6 outer -> {errno}"
        yield "site foo6 -> nop"
    yield "call foo1 1"
    yield "ftrace_ops o2"
    yield "ftrace_set_filter_ip o2 foo3 -> 0"
    yield "fail register"
    yield "register_ftrace_direct_multi o2 T1 -> -EBUSY"
    if s.failed_direct_reusable:
        yield "register_ftrace_direct_multi o2 T1 -> 0"
        yield "fail register"
        yield "modify_ftrace_direct_multi o2 T2 -> -EBUSY"
        yield "call foo3 1 2 3"
    yield "register_ftrace_graph g1 filter=foo12 -> 0"
    for file in ("set_ftrace_filter", "set_ftrace_notrace", "set_graph_function", "set_graph_notrace"):
        yield "fail alloc"
        yield f"{file} g1 foo2 -> -ENOMEM"
    yield "bpf_prog_load p1 fexit"
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l1 p1 foo6 -> 0"
    yield "bpf_raw_tracepoint_open l2 p2 foo6 -> 0"
    yield "fail alloc"
    yield "bpf_link_detach l1 -> 0 WARN"
    yield "site foo6 -> trampoline:fentry:p2,fexit:p1"
    yield "bpf_raw_tracepoint_open l3 p1 foo6 -> 0"
    yield "call foo6 1 2 3 4 5 6"


def _ftrace_dies_at_once(s: Semantics) -> Lines:
    """Each operation that starts an ops dies of ftrace_bug(), and each answers so afterwards (DEAD-1, DEAD-2)."""
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "ftrace_ops o2"
    yield "ftrace_set_filter_ip o2 foo2 -> 0"
    yield "register_ftrace_function o2 -> 0"
    yield "fail patch"
    yield "register_ftrace_direct_multi o1 T1 -> -ENODEV WARN"
    yield "site foo2 -> ops:o2"
    for line in (
        *("register_ftrace_function o2", "unregister_ftrace_function o2", "ftrace_set_filter_ip o2 foo3"),
        *("ftrace_set_filter o2 foo3", "ftrace_set_notrace o2 foo2", "register_ftrace_graph g1 filter=foo1"),
        *("livepatch foo3", "ftrace_set_filter_ips o1 foo3 reset", "ftrace_enabled 1", "ftrace_enabled 0"),
        "register_ftrace_graph g1 filter=nothing*",
    ):
        yield f"{line} -> -ENODEV"
    yield "bpf_prog_load p1 fentry"
    yield f"bpf_raw_tracepoint_open l1 p1 foo3 -> {'-EINVAL' if s.filter_unchecked else '-ENODEV'}"
    yield from ("delete_module mod1 -> 0", "init_module mod1 -> 0") * 2
    yield "ftrace_set_filter_ip o2 bar1 -> -ENODEV"
    yield "bpf_raw_tracepoint_open l1 p1 bar1 -> -EINVAL"
    if s.tracing_multi:
        yield "bpf_prog_load p2 fentry multi"
        yield "bpf_link_create l1 p2 bar1 -> -ENOENT"
        yield "bpf_link_create l1 p2 traceable(mod1:bar*) -> -EINVAL"
    if s.fprobes:
        yield "fail patch 1000000000"
        yield "bpf_prog_load k1 kprobe"
        yield "bpf_link_create l1 k1 bar1 -> -ESRCH"
        yield "bpf_link_create l1 k1 mod1:bar* -> -EINVAL"
    yield "site foo2 -> ops:o2"


def _live_graph_users(s: Semantics) -> Lines:
    """The hashes of graph_ops for several users, in the order in which their hashes changed (GRAPH-12, GRAPH-13)."""
    if s.graph_users == 1:
        return
    yield "register_ftrace_graph g1 filter=foo1 -> 0"
    yield "set_ftrace_filter g1 foo2 -> 0"
    yield "set_ftrace_notrace g1 foo2 -> 0"
    yield "register_ftrace_graph g2 filter=foo2 -> 0"
    yield "call foo2 1 2"
    yield "call foo1 1"
    yield "set_ftrace_filter g2 foo3 -> 0"
    yield "set_ftrace_notrace g2 foo2 -> 0"
    yield "site foo2"
    yield "call foo2 1 2"
    yield "register_ftrace_graph g3 filter=outer -> 0"
    yield "set_ftrace_filter g3 foo2 -> 0"
    yield "set_ftrace_notrace g3 foo2 -> 0"
    yield "site foo2"
    yield "call outer 1"
    yield "set_ftrace_notrace g1 -> 0"
    yield "call outer 1"
    yield "unregister_ftrace_graph g2 -> 0"
    yield "site foo2"
    yield "set_ftrace_notrace g3 -> 0"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "call outer 1"
    yield "set_ftrace_filter g3 !foo2 -> 0"
    yield "site foo2"
    yield "call outer 1"


# kernel.ftrace_enabled.


def _permanent_ops(s: Semantics) -> Lines:
    """Permanent ops keep ftrace on, and are refused while it is off (SYSCTL-1, SYSCTL-3)."""
    yield "ftrace_enabled 1 -> 0"
    yield "ftrace_ops o1 permanent"
    yield "ftrace_set_filter_ips o1 foo1 foo2 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield f"ftrace_enabled 0 -> {'-EBUSY' if s.sysctl_stops else '-EOPNOTSUPP'}"
    yield "unregister_ftrace_function o1 -> 0"
    yield "livepatch foo1 -> 0"
    yield f"ftrace_enabled 0 -> {'-EBUSY' if s.sysctl_stops else '-EOPNOTSUPP'}"
    yield "call foo1 1 -> body:patched =1001"
    if not s.sysctl_stops:
        return
    yield "unlivepatch foo1 -> 0"
    yield "ftrace_enabled 0 -> 0"
    yield "register_ftrace_function o1 -> -EBUSY"
    yield "livepatch foo2 -> -EBUSY"
    if s.single_direct:
        yield "register_ftrace_direct foo3 T2 -> -EBUSY"
        yield "ftrace_enabled 1 -> 0"
        yield "register_ftrace_direct foo3 T2 -> 0"
        yield "ftrace_enabled 0 -> -EBUSY"


def _turned_off(s: Semantics) -> Lines:
    """What is registered, changed and attached while ftrace is off is called once it is on again (SYSCTL-2)."""
    if not s.sysctl_stops:
        return
    yield "ftrace_ops o2"
    yield "ftrace_set_filter_ips o2 foo1 foo2 outer -> 0"
    yield "register_ftrace_function o2 -> 0"
    yield "ftrace_ops o3 permanent"
    yield "ftrace_set_filter_ip o3 foo6 -> 0"
    yield "register_ftrace_direct_multi o3 T1 -> 0"
    yield "bpf_prog_load p1 fexit"
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l1 p1 foo1 -> 0"
    yield "register_ftrace_graph g1 filter=foo? -> 0"
    yield "call outer 1"
    yield "ftrace_enabled 0 -> 0"
    yield "ftrace_enabled 0 -> 0"
    for call in ("outer 1", "foo1 1 -> body =1", "foo6 1 2 3 4 5 6"):
        yield f"call {call}"
    yield "bpf_raw_tracepoint_open l2 p2 foo1 -> 0"
    yield "bpf_raw_tracepoint_open l3 p2 foo3 -> 0"
    yield "modify_ftrace_direct_multi o3 T2 -> 0"
    yield "ftrace_set_filter_ip o2 foo1 remove -> 0"
    yield "set_ftrace_filter g1 outer -> 0"
    yield "ftrace_ops o4 dynamic"
    yield "ftrace_set_filter_ip o4 foo2 -> 0"
    yield "register_ftrace_function o4 -> 0"
    yield "delete_module mod1 -> 0"
    yield "init_module mod1 -> 0"
    yield "site foo1 -> nop"
    yield "ftrace_enabled 1 -> 0"
    for call in ("outer 1", "foo1 1", "foo6 1 2 3 4 5 6"):
        yield f"call {call}"
    yield "unregister_ftrace_function o4 -> 0"
    yield "ftrace_enabled 0 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "unregister_ftrace_function o2 -> 0"
    yield "ftrace_enabled 1 -> 0"
    yield "call outer 1"
    yield "call foo1 1"


def _records_keep_regs(s: Semantics) -> Lines:
    """A record keeps its R when its last ops leaves while ftrace is off; this ends ftrace later (SYSCTL-4 and -5)."""
    if not s.sysctl_stops:
        return
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ips o1 foo1 foo2 -> 0"
    for step in ("ftrace_enabled 0", "bpf_link_detach l1", "ftrace_enabled 1", "register_ftrace_function o1"):
        if step == "ftrace_enabled 0":
            yield "bpf_prog_load p1 fentry"
            yield "bpf_raw_tracepoint_open l1 p1 foo1 -> 0"
        yield f"{step} -> 0"
    yield "call foo1 1 -> ops:o1 body =1"
    yield "register_ftrace_graph g1 filter=foo1 -> 0"
    yield "site foo1 -> ftrace_regs_caller"
    yield "unregister_ftrace_graph g1 -> 0"
    yield "unregister_ftrace_function o1 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "site foo1 -> ops:o1"
    yield "bpf_raw_tracepoint_open l1 p1 foo2 -> 0"
    yield "bpf_raw_tracepoint_open l2 p1 foo6 -> 0"
    yield "ftrace_enabled 0 -> 0"
    yield "bpf_link_detach l2 -> 0"
    yield "bpf_link_detach l1 -> 0"
    yield "ftrace_enabled 1 -> 0"
    yield "site foo2 -> ops:o1"
    yield "unregister_ftrace_function o1 -> 0 WARN"
    yield "register_ftrace_function o1 -> -ENODEV"
    yield "ftrace_enabled 0 -> -ENODEV"


def _switch_dies(s: Semantics) -> Lines:
    """A pass that fails while ftrace is turned off (SYSCTL-2, DEAD-1)."""
    if not s.sysctl_stops:
        return
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ips o1 foo1 foo2 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "fail patch"
    yield "ftrace_enabled 0 -> 0 WARN"
    yield "site foo1 -> ops:o1"
    yield "ftrace_enabled 1 -> -ENODEV"


_RUNS: tuple[Callable[[Semantics], Lines], ...] = (
    _direct_ops_go_with_their_filters,
    _graph_users_meet,
    _everything_but,
    _ftrace_dies_at_once,
    _live_graph_user,
    _live_graph_users,
    _livepatch_comes_first,
    _module_joins_an_ops_with_regs,
    _permanent_ops,
    _points_fail,
    _ops_of_every_flag,
    _records_keep_regs,
    _switch_dies,
    _turned_off,
)
