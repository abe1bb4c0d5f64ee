"""Directed runs of links of kprobe programs, each of which is a fprobe."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

from spec.semantics import Semantics

__all__ = ["FPROBES"]

Lines = Iterator[str]


def _fprobes(s: Semantics) -> Lines:
    """Fprobes by symbol and by address, what they refuse, and a module of theirs (KPROBE-1 to KPROBE-10)."""
    yield "bpf_prog_load k1 kprobe func_ip -> 0"
    yield "bpf_prog_load k2 kretprobe func_ip returns=5 -> 0"
    yield "bpf_prog_load k3 kprobe sleepable -> 0"
    yield "bpf_raw_tracepoint_open j1 k1 foo1 -> -EINVAL"
    yield "bpf_prog_load k4 kprobe calls=foo2 -> -EOPNOTSUPP"
    if not s.fprobes:
        yield "bpf_link_create j1 k1 foo1 -> -EOPNOTSUPP"
        yield "bpf_link_create j1 k3 nowhere -> -EOPNOTSUPP"
        yield "bpf_link_create j1 k1 nothing* -> -EOPNOTSUPP"
        return
    yield "bpf_link_create j1 k3 foo1 -> -EINVAL"
    yield "bpf_link_create j1 k1 foo1:7 foo2:8 -> 0"
    yield "bpf_link_create j2 k2 foo2:3 -> 0"
    yield "call foo2 1 2 -> kprobe:k1 body kretprobe:k2 =3"
    yield f"site foo2 -> {'ftrace_caller' if s.fprobes_shared else 'ftrace_regs_caller'}"
    yield "bpf_link_create j3 k1 foo2:4 -> 0"
    yield "bpf_link_create j4 k2 foo2 foo3 -> 0"
    yield "call foo2 1 2 -> kprobe:k1 kprobe:k1 body kretprobe:k2 kretprobe:k2 =3"
    yield "bpf_link_create j5 k1 nowhere -> -ESRCH"
    yield "bpf_link_create j5 k1 foo1 foo1 -> -ESRCH"
    yield f"bpf_link_create j5 k1 ?oo1 nowhere -> {'-ENOENT' if s.fprobes_shared else '-EINVAL'}"
    yield "bpf_link_create j5 k1 foo4:5 ?oo4:5 -> 0"
    yield f"call foo4 1 2 3 4 -> {'kprobe:k1 kprobe:k1' if s.fprobes_shared else 'kprobe:k1'} body =10"
    yield "bpf_link_create j6 k1 mod1:bar* narrow split spill -> 0"
    yield "bpf_link_create j7 k2 narrow split spill -> 0"
    yield from ("call bar8 1 2 3 4 5 6 7 8", "call narrow 300 70000 -5 3", "call split 1 2 3 4")
    yield "call spill 1 2 3 4 5 6 7 300"
    yield "delete_module mod1 -> -EAGAIN"
    yield "bpf_link_detach j6 -> 0"
    yield "delete_module mod1 -> 0"
    yield "bpf_link_create j6 k1 bar1 -> -ESRCH"
    yield "bpf_link_detach j1 -> 0"
    yield "call foo2 1 2 -> kprobe:k1 body kretprobe:k2 kretprobe:k2 =3"
    yield "bpf_link_detach j2 -> 0"
    yield "bpf_link_detach j3 -> 0"
    yield f"site foo2 -> ops:{'graph_ops' if s.fprobes_shared else 'fprobe'}"
    yield from _not_described()


def _fprobes_among_others(s: Semantics) -> Lines:
    """Fprobes, users of the graph tracer, an ops, programs and a livepatch on one function (KPROBE-4 to KPROBE-7)."""
    if not s.fprobes:
        return
    yield "register_ftrace_graph g1 filter=foo3 -> 0"
    yield "bpf_prog_load k1 kprobe"
    yield "bpf_prog_load k2 kretprobe"
    yield "bpf_link_create j1 k2 foo1 -> 0"
    if not s.fprobes_shared:
        yield "register_ftrace_graph g2 filter=foo1 -> 0"
    yield from ("bpf_link_create j2 k1 foo1 foo2 -> 0", "call outer 3")
    yield from ("ftrace_ops o1", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1 -> 0")
    yield from ("bpf_link_create j3 k2 outer foo1 foo2 -> 0", "call outer 3")
    yield from ("bpf_prog_load p1 fexit", "bpf_raw_tracepoint_open l1 p1 foo1 -> 0", "call outer 3")
    yield from ("livepatch foo1 -> 0", "call outer 3", "bpf_link_detach j1 -> 0", "call outer 3")
    yield from ("bpf_prog_load p2 fmod_ret returns=77", "bpf_raw_tracepoint_open l2 p2 foo2", "call outer 3")
    yield from ("set_ftrace_filter g1 foo2 -> 0", "call outer 3", "unregister_ftrace_graph g1 -> 0", "call outer 3")
    yield from ("bpf_link_detach j2 -> 0", "bpf_link_detach j3 -> 0", "call outer 3", "site foo1")


def _not_described() -> Lines:
    """These steps belong to no comparison, and are not carried out (NAME-18)."""
    yield "bpf_link_create j8 k1 foo1:1 ?oo1:2 -> -EOPNOTSUPP"
    yield "fail alloc 1000"
    yield "bpf_link_create j8 k1 foo1 -> -EOPNOTSUPP"
    yield "bpf_link_detach j4 -> -EOPNOTSUPP"
    yield "fail alloc 1000000000"


FPROBES: Final[tuple[Callable[[Semantics], Lines], ...]] = (_fprobes, _fprobes_among_others)
