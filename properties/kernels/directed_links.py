"""Directed runs of BPF's links in a kernel's laboratory: some are refused, lack a site, sleep, or miss a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from spec.laboratory import BESIDE
from spec.semantics import Semantics

__all__ = ["LINK_RUNS", "fmod_ret_up_to_the_limit", "sleepable_programs"]

Lines = Iterator[str]


def _single_links(s: Semantics) -> Lines:
    """What a program that is not multi can be attached to, and how often (LINK-1 to LINK-3, PROG-1, PROG-2)."""
    yield "bpf_prog_load p1 fentry returns=1 -> -EINVAL"
    yield "bpf_prog_load p1 fmod_ret multi -> -EINVAL"
    yield "bpf_prog_load p1 fentry target=nowhere -> -EINVAL"
    yield "bpf_prog_load p1 fexit target=foo2 func_ip -> 0"
    yield "bpf_raw_tracepoint_open l1 p1 foo1 -> -EINVAL"
    yield "bpf_link_create l1 p1 foo1 foo2 -> -EINVAL"
    yield "bpf_link_create l1 p1 foo* -> -EINVAL"
    yield "bpf_link_create l1 p1 foo2 -> 0"
    yield "bpf_raw_tracepoint_open l2 p1 -> -EBUSY"
    yield "bpf_prog_load p2 fentry"
    yield "bpf_raw_tracepoint_open l2 p2 -> -EINVAL"
    yield f"bpf_raw_tracepoint_open l2 p2 foo2 cookie=77 -> {'0' if s.cookies else '-EINVAL'}"
    yield "bpf_prog_load p3 fentry calls=foo2"
    yield "bpf_raw_tracepoint_open l3 p3 foo2 -> 0"
    yield "call foo2 1 2"
    yield "bpf_prog_load p4 fexit target=bar1"
    yield "delete_module mod1"
    yield "bpf_raw_tracepoint_open l4 p4"
    yield "init_module mod1"
    yield "init_module mod1 -> -EEXIST"
    yield "delete_module nowhere -> -ENOENT"
    yield "init_module nowhere -> -ENOENT"


def sleepable_programs(s: Semantics) -> Lines:
    """Programs that may sleep, of every kind and beside those that may not, and one that meets itself (PROG-6)."""
    kinds = ("fentry", "fexit", "fmod_ret", *(("fsession",) if s.fsession else ()))
    for number, kind in enumerate(kinds, 1):
        yield f"bpf_prog_load p{number} {kind} sleepable func_ip"
        yield f"bpf_raw_tracepoint_open l{number} p{number} sleepy2 -> 0"
    yield "bpf_prog_load awake fexit"
    yield "bpf_raw_tracepoint_open l0 awake sleepy2 -> 0"
    yield "call sleepy2 1 2"
    yield "bpf_prog_load stop fmod_ret sleepable returns=-5"
    yield "bpf_raw_tracepoint_open l5 stop sleepy2 -> 0"
    yield "call sleepy2 1 2"
    yield "bpf_prog_load self fentry sleepable calls=sleepy1"
    yield "bpf_raw_tracepoint_open l6 self sleepy1 -> 0"
    yield "call sleepy1 5"
    if s.tracing_multi:
        yield "bpf_prog_load many fentry multi sleepable"
        yield "bpf_link_create l7 many sleepy? -> 0"
        for call in ("sleepy0", "sleepy1 5", "sleepy2 1 2", "sleepy6 1 2 3 4 5 6"):
            yield f"call {call}"
        yield "bpf_link_detach l7 -> 0"
    yield "bpf_link_detach l5 -> 0"
    yield "call sleepy2 1 2"


def _missed_programs(s: Semantics) -> Lines:
    """Runs that are skipped are counted: of every kind, one by one and all over, with and without a target (PROG-8)."""
    yield "bpf_prog_load here fexit calls=outer"
    yield "bpf_raw_tracepoint_open l1 here foo1 -> 0"
    yield "bpf_raw_tracepoint_open l2 here foo2 -> 0"
    yield "bpf_prog_load fixed fentry target=foo2 calls=foo2"
    yield "bpf_raw_tracepoint_open l3 fixed -> 0"
    for call in ("foo1 1", "foo2 1 2", "outer 1", "outer 2"):
        yield f"call {call}"
    yield "bpf_link_detach l1 -> 0"
    yield "call outer 1"
    yield "bpf_raw_tracepoint_open l1 here foo1 -> 0"
    yield "call foo1 1"
    yield "bpf_prog_load modifies fmod_ret returns=-5 calls=sleepy1 sleepable"
    yield "bpf_raw_tracepoint_open l4 modifies sleepy1"
    yield "call sleepy1 1"
    if s.tracing_multi:
        yield "bpf_prog_load many fentry multi calls=outer"
        yield "bpf_link_create l5 many foo1 foo2 outer -> 0"
        yield "bpf_prog_load session fsession multi calls=foo1"
        yield "bpf_link_create l6 session foo? -> 0"
        for call in ("foo1 1", "outer 1", "foo6 1 2 3 4 5 6"):
            yield f"call {call}"
        yield "bpf_link_detach l5 -> 0"
        yield "call outer 1"


def _two_of_one_name(_: Semantics) -> Lines:
    """A name selects all sites of its symbol, and an address one of them (GLOB-5)."""
    yield "ftrace_ops o1"
    yield "ftrace_set_filter o1 branches_show -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "site branches_show -> ops:o1"
    yield "site branches_show@2 -> ops:o1"
    yield "ftrace_set_filter_ip o1 branches_show remove -> 0"
    yield "site branches_show -> nop"
    yield "site branches_show@2 -> ops:o1"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "ftrace_set_filter o1 !branches_show -> 0"
    yield "site branches_show@2 -> nop"


def _livepatch_meets_a_failed_detach(s: Semantics) -> Lines:
    """An image that could not be rebuilt without its fexit program still calls the original (FAIL-3, IPMODIFY-5)."""
    for number, kind in enumerate(("fexit", "fentry"), 1):
        yield f"bpf_prog_load p{number} {kind}"
        yield f"bpf_raw_tracepoint_open l{number} p{number} foo2 -> 0"
    yield "fail jit_charge"
    yield "bpf_link_detach l1 -> 0 WARN"
    yield "livepatch foo2 -> 0"
    if s.skips_detached:
        yield "call foo2 1 2"


def _verifier_refuses(s: Semantics) -> Lines:
    """Each reason for which a function takes no program of a kind (PROG-3, LINK-1, ARG-4)."""
    for number, kind in enumerate(("fentry", "fexit", "fmod_ret", *(("fsession",) if s.fsession else ())), 1):
        yield f"bpf_prog_load p{number} {kind}"
        yield f"bpf_prog_load s{number} {kind} sleepable"
        for prog in (f"p{number}", f"s{number}"):
            for function in OF_EACH_REASON:
                yield f"bpf_raw_tracepoint_open {prog}.{function} {prog} {function}"


def _batch_is_refused(s: Semantics) -> Lines:
    """One function that refuses among several refuses all (LINK-7, LINK-8, LINK-10)."""
    if not s.tracing_multi:
        return
    for kind in ("fentry", "fexit", "fsession"):
        yield f"bpf_prog_load {kind} {kind} multi"
        yield f"bpf_prog_load sleepy-{kind} {kind} multi sleepable"
        for prog in (kind, f"sleepy-{kind}"):
            for function in OF_EACH_REASON:
                yield f"bpf_link_create {prog}.{function} {prog} foo1 {function}"
    yield "bpf_prog_load more fexit multi"
    yield "bpf_link_create l1 more bpf_fentry_test1:1 bpf_fentry_test5:5 -> 0"
    yield "bpf_link_create l2 more bpf_fentry_test1 -> -EBUSY"
    yield "bpf_link_create l3 fentry foo1 foo1 -> -EINVAL"
    yield "bpf_link_create l4 fentry nothing* -> -EINVAL"
    yield "bpf_prog_load last fexit multi"
    yield "bpf_link_create l5 last foo?:7 -> 0"
    yield "call foo1 1"
    yield "call foo2 1 2"


def _no_site(s: Semantics) -> Lines:
    """Functions that BTF names and ftrace has no site of, for each reason (PROG-7, LINK-16)."""
    for number, kind in enumerate(("fentry", "fexit", "fmod_ret", *(("fsession",) if s.fsession else ())), 1):
        for sleepable in ("", " sleepable"):
            for function in BESIDE:
                prog = f"p{number}{sleepable.strip()}.{function}"
                yield f"bpf_prog_load {prog} {kind} target={function}{sleepable}"
                if not sleepable:
                    yield f"bpf_raw_tracepoint_open l.{prog} {prog}"
    yield "bpf_prog_load notrace fentry target=sched_clock -> 0"
    yield "bpf_raw_tracepoint_open l notrace -> -EBUSY"
    yield "fail jit_charge"
    yield "bpf_raw_tracepoint_open l notrace -> -EPERM"
    yield "bpf_prog_load init fentry target=vfs_caches_init -> 0"
    yield "bpf_raw_tracepoint_open l init -> -EINVAL"
    yield "ftrace_ops o"
    yield "ftrace_set_filter_ip o sched_clock -> -EINVAL"


def _no_site_in_a_batch(s: Semantics) -> Lines:
    """One function without a site refuses the batch, whatever the reason; patterns ask for none (LINK-7, GLOB-6)."""
    if not s.tracing_multi:
        return
    for prog, words in {"plain": "fentry multi", "exit": "fexit multi", "sleepy": "fentry multi sleepable"}.items():
        yield f"bpf_prog_load {prog} {words} -> 0"
        for function in BESIDE:
            yield f"bpf_link_create {prog}.{function} {prog} bpf_fentry_test1 {function}"
    yield "bpf_link_create l plain bpf_fentry_test1 ksys_semctl -> -ENOENT"
    yield "bpf_link_create l plain bpf_fentry_test1 sched_clock -> -ENOENT"
    yield "bpf_link_create l plain sched_* -> -ENOENT"
    yield "bpf_link_create l plain traceable(sched_*) -> -EINVAL"
    yield "bpf_prog_load fresh fexit multi -> 0"
    yield "bpf_link_create l fresh bpf_fentry_test?:7 -> 0"


def _links_over_two_btfs(s: Semantics) -> Lines:
    """A multi program is for one BTF, and finds nothing of another one (LINK-17)."""
    if not s.tracing_multi:
        return
    for prog in ("first", "second", "third"):
        yield f"bpf_prog_load {prog} fentry multi"
    yield "bpf_link_create l first bpf_fentry_test1 bar1 -> -EINVAL"
    yield "bpf_link_create l first bpf_fentry_test1 -> 0"
    yield "bpf_link_detach l -> 0"
    yield "bpf_link_create l first mod1:bar1 -> -EINVAL"
    yield "bpf_link_create l second bar1 bpf_fentry_test1 -> -ENOENT"
    yield "bpf_link_create l second mod1:bar? -> 0"
    yield "call bar1 1"
    yield "bpf_link_create m second bpf_fentry_test1 -> -ENOENT"
    yield "bpf_link_create m second bar1 early_memremap_pgprot_adjust -> -EINVAL"
    yield "bpf_link_create m third traceable(mod1:bar1*):7 -> 0"
    yield "call bar1 1"


def _shapes(s: Semantics) -> Lines:
    """Every shape of the laboratory under fentry and fexit, with words that the types cannot hold (ARG-1 to ARG-5)."""
    calls = {
        "unsigneds": "-1 -1 -1",
        "kinds": "-1 -2 -3",
        "pieces": "-1 -2 -3 -4",
        "beyond": "1 2 3 4 5 6 7 8 9 10 -11",
        "gives_char": "127 1",
        "gives_int": "0x7fffffff 1",
        "gives_unsigned": "-1",
        "gives_bool": "256",
        "gives_pointer": "-1",
        "gives_nothing": "1 2",
    }
    for number, kind in enumerate(("fentry", "fexit"), 1):
        yield f"bpf_prog_load p{number} {kind} func_ip"
        for function in calls:
            cookie = f" cookie={number}" if s.cookies else ""
            yield f"bpf_raw_tracepoint_open {function}.{number} p{number} {function}{cookie}"
    for function, words in calls.items():
        yield f"call {function} {words}"


def fmod_ret_up_to_the_limit(s: Semantics) -> Lines:
    """Where no function of a module can be marked for fmod_ret: as many programs as there can be (LINK-3, TRAMP-3)."""
    for number in range(1, s.max_links + 1):
        yield f"bpf_prog_load p{number} fmod_ret"
        yield f"bpf_raw_tracepoint_open l{number} p{number} security_lab1 -> 0"
    yield "bpf_prog_load more fmod_ret returns=-5"
    yield "bpf_raw_tracepoint_open l0 more security_lab1 -> -E2BIG"
    yield "call security_lab1 1"
    yield "bpf_link_detach l1 -> 0"
    yield "bpf_raw_tracepoint_open l0 more security_lab1 -> 0"
    yield "call security_lab1 1"


OF_EACH_REASON = (
    *("bpf_fentry_test1", "bpf_fentry_test6", "bpf_modify_return_test", "security_sb_remount", "make_task_dead"),
    *("panic", "umip_printk", "xen_mc_extend_args", "branches_show@2", "start_thread_common.constprop.0", "nowhere"),
    *("gives_pair", "beyond", "sleepy1", "security_lab1", "foo12"),
)
"""Functions of the kernel's own and of the laboratory, of which each refuses some programs for a reason of its own."""

LINK_RUNS: tuple[Callable[[Semantics], Lines], ...] = (
    _batch_is_refused,
    _links_over_two_btfs,
    _livepatch_meets_a_failed_detach,
    _missed_programs,
    _no_site,
    _no_site_in_a_batch,
    _shapes,
    _single_links,
    _two_of_one_name,
    _verifier_refuses,
)
