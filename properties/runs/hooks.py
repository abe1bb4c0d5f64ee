"""Runs of LSM programs on hooks that a kernel's laboratory has, too: a module of ours cannot have any (LSM-1 to -6).

Without a kernel they have a small world of their own, with the same names.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from properties.runs.corpus import FixedRun, fixed_run
from spec.prototypes import Prototype, Type
from spec.semantics import Semantics
from spec.worlds import INT, VOID, Function, World, synthetic

__all__ = ["HOOK_RUNS", "hooks", "hooks_world"]

Lines = Iterator[str]

POINTER: Final = Type("void *", "PTR", 8)
SIZE: Final = Type("size_t", "INT", 8)
SHAPES: Final[tuple[tuple[str, tuple[Type, ...], Type, tuple[str, ...]], ...]] = (
    ("binder_transaction", (POINTER, POINTER), INT, ("lsm",)),
    ("quotactl", (INT, INT, INT, POINTER), INT, ("lsm",)),
    ("settime", (POINTER, POINTER), INT, ("lsm", "lsm_sleepable")),
    ("audit_rule_known", (POINTER,), INT, ("lsm", "lsm_bool")),
    ("sctp_sk_clone", (POINTER,) * 3, VOID, ("lsm",)),
    ("inode_post_setxattr", (POINTER, POINTER, POINTER, SIZE, INT), VOID, ("lsm", "lsm_sleepable")),
    ("key_getsecurity", (POINTER, POINTER), INT, ()),
)
"""Hooks as every one of the three kernels has them; the last one is disabled."""


def hooks_world() -> World:
    """The synthetic world, none of whose functions is a hook, behind some hooks."""
    small = synthetic()
    named = tuple(
        Function(f"bpf_lsm_{name}", Prototype(arguments, returns), number, attributes=frozenset({*attributes, "empty"}))
        for number, (name, arguments, returns, attributes) in enumerate(SHAPES, len(small.functions) + 1)
    )
    plain = tuple(Function(f.name, f.prototype, f.btf_id, f.module, frozenset(), f.callees) for f in small.functions)
    return World("hooks", (*named, *plain))


def hooks(semantics: Semantics) -> Iterator[FixedRun]:
    """Every run that these semantics can take, in the world of hooks."""
    world = hooks_world()
    for make in HOOK_RUNS:
        if steps := list(make(semantics)):
            yield fixed_run(make.__name__.lstrip("_"), world, semantics, steps)


def _hooks_accept(s: Semantics) -> Lines:
    """Some programs can be loaded, each for some functions (LSM-1, LSM-2)."""
    if not s.lsm:
        yield "bpf_prog_load p1 lsm -> -EINVAL"
        yield "call bpf_lsm_quotactl 1 2 3 4 -> =0"
        return
    yield "bpf_prog_load p1 lsm -> 0"
    yield "bpf_prog_load p2 lsm multi -> -EINVAL"
    yield "bpf_prog_load p2 lsm func_ip -> -ENOTSUPP"
    yield "bpf_prog_load p2 lsm func_ip returns=5 target=bpf_lsm_settime -> -ENOTSUPP"
    yield "bpf_prog_load p2 lsm func_ip target=foo1 -> -EINVAL"
    for refused in ("foo1", "bar1", "nowhere", "bpf_lsm_key_getsecurity"):
        yield f"bpf_prog_load p2 lsm target={refused} -> -EINVAL"
        yield f"bpf_raw_tracepoint_open l1 p1 {refused} -> -EINVAL"
    yield "bpf_prog_load asleep lsm sleepable -> 0"
    for name in ("binder_transaction", "audit_rule_known", "sctp_sk_clone"):
        yield f"bpf_prog_load p2 lsm sleepable target=bpf_lsm_{name} -> -EINVAL"
        yield f"bpf_raw_tracepoint_open l1 asleep bpf_lsm_{name} -> -EINVAL"
    yield "bpf_prog_load p2 lsm sleepable target=bpf_lsm_settime -> 0"
    yield "bpf_raw_tracepoint_open l2 p2 -> 0"
    yield "bpf_raw_tracepoint_open l3 p2 -> -EBUSY"
    yield "bpf_raw_tracepoint_open l4 asleep bpf_lsm_inode_post_setxattr -> 0"
    yield "call bpf_lsm_settime 1 2"
    yield "call bpf_lsm_inode_post_setxattr 1 2 3 4 5"
    yield "bpf_link_create l5 p1 bpf_lsm_quotactl bpf_lsm_settime -> -EINVAL"
    yield "bpf_link_create l5 p1 bpf_lsm_quot* -> -EINVAL"
    yield "bpf_link_create l5 p1 bpf_lsm_quotactl:7 -> 0"
    yield "call bpf_lsm_quotactl 1 -2 3 4 -> lsm:p1 =0"
    yield from ("bpf_prog_load other fmod_ret", "bpf_raw_tracepoint_open l6 other bpf_lsm_settime -> -EINVAL")
    yield from ("bpf_prog_load entry fentry", "bpf_raw_tracepoint_open l6 entry bpf_lsm_key_getsecurity -> 0")
    yield "call bpf_lsm_key_getsecurity 5 6 -> fentry:entry =0"


def _hooks_return(s: Semantics) -> Lines:
    """A program may return this or that, by its hook (LSM-3)."""
    if not s.lsm:
        return
    no = "-EINVAL" if s.lsm_return_checked else "0"
    tried = (
        ("quotactl", ((-1, "0"), (-4095, "0"), (-4096, no), (1, no), (4294967296, "0"), (4294967291, "0"))),
        ("audit_rule_known", ((1, "0"), (2, no), (-1, no), (4294967297, "0"))),
        ("sctp_sk_clone", ((1, "0"), (-4096, "0"), (4294967296, "0"))),
    )
    for name, values in tried:
        for value, answer in values:
            yield f"bpf_prog_load {name}.{value} lsm target=bpf_lsm_{name} returns={value} -> {answer}"
            yield f"bpf_prog_load free.{name}.{value} lsm returns={value} -> 0"
            yield f"bpf_raw_tracepoint_open l.{name}.{value} free.{name}.{value} bpf_lsm_{name} -> {answer}"
            yield f"call bpf_lsm_{name} {' '.join('7' * len(_arguments(name)))}"
            if answer == "0":
                yield f"bpf_link_detach l.{name}.{value}"


def _arguments(name: str) -> tuple[Type, ...]:
    return next(arguments for hook, arguments, _, _ in SHAPES if hook == name)


def _hooks_run_their_programs(s: Semantics) -> Lines:
    """Each kind of hook with LSM programs among others, which come and go (LSM-4, LSM-6, TRAMP-1 to -5)."""
    if not s.lsm:
        return
    for name in ("quotactl", "sctp_sk_clone"):
        hook, call = f"bpf_lsm_{name}", f"call bpf_lsm_{name} {' '.join('12345'[: len(_arguments(name))])}"
        yield f"bpf_prog_load {name}.out fexit func_ip"
        yield f"bpf_raw_tracepoint_open {name}.l1 {name}.out {hook} -> 0"
        yield f"bpf_prog_load {name}.zero lsm"
        yield f"bpf_raw_tracepoint_open {name}.l2 {name}.zero {hook} cookie=3 -> 0"
        yield call
        yield f"bpf_prog_load {name}.in fentry"
        yield f"bpf_raw_tracepoint_open {name}.l3 {name}.in {hook} cookie=4 -> 0"
        yield f"bpf_prog_load {name}.denies lsm returns=-13"
        yield f"bpf_raw_tracepoint_open {name}.l4 {name}.denies {hook} -> 0"
        yield from (call, f"site {hook}")
        yield f"bpf_prog_load {name}.last lsm returns=-1"
        yield f"bpf_raw_tracepoint_open {name}.l5 {name}.last {hook} -> 0"
        yield from (call, f"bpf_link_detach {name}.l4 -> 0", call)
        yield from (f"bpf_link_detach {name}.l1 -> 0", call, f"bpf_link_detach {name}.l2 -> 0", call)
        yield f"bpf_raw_tracepoint_open {name}.l6 {name}.last {hook} -> -EBUSY"
        yield from (f"bpf_link_detach {name}.l5 -> 0", call, f"bpf_link_detach {name}.l3 -> 0", f"site {hook} -> nop")
    yield from ("bpf_prog_load high lsm returns=4294967296", "bpf_prog_load seen fexit")
    yield "bpf_raw_tracepoint_open l7 seen bpf_lsm_settime -> 0"
    yield "bpf_raw_tracepoint_open l8 high bpf_lsm_settime -> 0"
    yield "call bpf_lsm_settime 1 2 -> lsm:high fexit:seen =0"
    yield "bpf_raw_tracepoint_open l9 high bpf_lsm_inode_post_setxattr -> 0"
    yield "call bpf_lsm_inode_post_setxattr 1 2 3 4 5 -> lsm:high =0"


def _hooks_program_meets_itself(s: Semantics) -> Lines:
    """An LSM program runs inside the call that it makes; others do not (LSM-5, PROG-6)."""
    if not s.lsm:
        return
    for number, sleepable in enumerate(("", " sleepable")):
        yield f"bpf_prog_load self{number} lsm{sleepable} calls=bpf_lsm_settime returns=-1 -> 0"
        yield f"bpf_raw_tracepoint_open l{number} self{number} bpf_lsm_settime -> 0"
        yield (f"call bpf_lsm_settime 1 2 -> lsm:self{number} bpf_lsm_settime[ lsm:self{number} =-1 ] =-1")
        yield f"bpf_link_detach l{number} -> 0"
    yield "bpf_prog_load target lsm calls=bpf_lsm_sctp_sk_clone target=bpf_lsm_sctp_sk_clone -> 0"
    yield "bpf_raw_tracepoint_open l2 target -> 0"
    yield "call bpf_lsm_sctp_sk_clone 1 2 3 -> lsm:target bpf_lsm_sctp_sk_clone[ lsm:target =0 ] =0"
    yield "bpf_prog_load entry fentry calls=bpf_lsm_sctp_sk_clone"
    yield "bpf_raw_tracepoint_open l3 entry bpf_lsm_sctp_sk_clone -> 0"
    yield "call bpf_lsm_sctp_sk_clone 1 2 3"


def _hooks_among_others(s: Semantics) -> Lines:
    """LSM programs beside an ops, the graph tracer and a direct call of somebody else's (LINK-4, TRACE-1, GRAPH-9)."""
    if not s.lsm:
        return
    yield from ("ftrace_ops o1", "ftrace_set_filter_ips o1 bpf_lsm_quotactl bpf_lsm_sctp_sk_clone")
    yield "register_ftrace_function o1 -> 0"
    yield from ("bpf_prog_load p1 lsm returns=-7", "bpf_raw_tracepoint_open l1 p1 bpf_lsm_quotactl -> 0")
    yield "bpf_raw_tracepoint_open l2 p1 bpf_lsm_sctp_sk_clone -> 0"
    calls = ("call bpf_lsm_quotactl 1 2 3 4", "call bpf_lsm_sctp_sk_clone 1 2 3")
    yield from calls
    yield "register_ftrace_graph g1 filter=bpf_lsm_quotactl -> 0"
    yield from (*calls, "site bpf_lsm_quotactl", "unregister_ftrace_function o1 -> 0", *calls)
    yield from ("ftrace_ops o2", "ftrace_set_filter_ip o2 bpf_lsm_quotactl")
    yield "register_ftrace_direct_multi o2 T1 -> -EBUSY"
    yield from ("bpf_link_detach l1 -> 0", *calls, "ftrace_ops o3", "ftrace_set_filter_ip o3 bpf_lsm_quotactl")
    yield from ("register_ftrace_direct_multi o3 T1 -> 0", *calls)
    yield f"bpf_raw_tracepoint_open l1 p1 bpf_lsm_quotactl -> -{s.foreign_direct}"


def _hooks_are_limited(s: Semantics) -> Lines:
    """As many LSM programs as a trampoline takes, in either list (LINK-3)."""
    if not s.lsm:
        return
    for name in ("binder_transaction", "sctp_sk_clone"):
        for number in range(s.max_links):
            yield f"bpf_prog_load {name}{number} lsm"
            yield f"bpf_raw_tracepoint_open l.{name}{number} {name}{number} bpf_lsm_{name} -> 0"
        yield f"bpf_prog_load {name}.more lsm"
        yield f"bpf_raw_tracepoint_open l.{name} {name}.more bpf_lsm_{name} -> -E2BIG"
    yield "call bpf_lsm_binder_transaction 1 2"
    yield "call bpf_lsm_sctp_sk_clone 1 2 3"


HOOK_RUNS: Final[tuple[Callable[[Semantics], Lines], ...]] = (
    _hooks_accept,
    _hooks_return,
    _hooks_run_their_programs,
    _hooks_program_meets_itself,
    _hooks_among_others,
    _hooks_are_limited,
)
