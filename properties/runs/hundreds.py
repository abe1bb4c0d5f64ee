"""Directed runs in worlds of hundreds of functions: tables that grow, rounds of pokes, links over all of them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Final

from spec.prototypes import Prototype
from spec.semantics import Semantics
from spec.worlds import LONG, Function, World

__all__ = ["HUNDREDS", "WIDE", "wide"]

WIDE: Final = 600
"""Functions of the world."""

Lines = Iterator[str]


def wide() -> World:
    """A world of many functions of one argument, wide1, wide2 and so on; those from the 101st on are in modules."""
    prototype = Prototype((LONG,), LONG)
    modules = (None if n <= 100 else f"mod{n % 3 + 1}" for n in range(1, WIDE + 1))
    named = enumerate(modules, 1)
    return World(f"wide{WIDE}", tuple(Function(f"wide{n}", prototype, n, module) for n, module in named))


def _direct_functions_grow(s: Semantics) -> Lines:
    """Entries one by one and many at once, past each size at which the table is exchanged (DIRECT-13)."""
    for number in range(1, 71):
        if s.single_direct:
            yield f"register_ftrace_direct wide{number} T1 -> 0"
    yield "ftrace_ops o1"
    yield f"ftrace_set_filter_ips o1 {' '.join(f'wide{n}' for n in range(101, 301))} -> 0"
    yield "register_ftrace_direct_multi o1 T2 -> 0"
    yield "unregister_ftrace_direct_multi o1 T2 -> 0"
    yield "register_ftrace_direct_multi o1 T3 -> 0"
    yield "bpf_prog_load p fentry"
    for number in range(71, 80):
        yield f"bpf_raw_tracepoint_open l{number} p wide{number} -> 0"
    if s.hash_direct:
        yield "ftrace_ops o2"
        yield f"update_ftrace_direct_add o2 {' '.join(f'wide{n}=T{n % 3}' for n in range(301, 600))} -> 0"
        yield f"update_ftrace_direct_del o2 {' '.join(f'wide{n}=T{n % 3}' for n in range(301, 400))} -> 0"


def _rounds_of_256_sites(s: Semantics) -> Lines:
    """Passes of more than one poke round (COST-2)."""
    yield "ftrace_ops o1"
    yield f"ftrace_set_filter_ips o1 {' '.join(f'wide{n}' for n in range(1, 258))} -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "ftrace_set_filter o1 wide* -> 0"
    yield "delete_module mod2 -> 0"
    yield "register_ftrace_graph g -> 0"
    if s.tracing_multi:
        yield "bpf_prog_load p fexit multi"
        yield "bpf_link_create l p wide* -> 0"
        yield "bpf_link_detach l -> 0"
    yield "unregister_ftrace_graph g -> 0"
    yield "unregister_ftrace_function o1 -> 0"


def _links_over_every_function(s: Semantics) -> Lines:
    """A link of each kind for each BTF over hundreds of functions, on which they meet, leave and meet again (LINK-17).

    Their hashes have long chains, which links over a few functions never have.
    """
    if not s.tracing_multi:
        return
    btfs = {"v": "wide*", **{f"m{n}": f"mod{n}:wide*" for n in (1, 2, 3)}}
    for kind in ("fentry", "fexit"):
        for btf, pattern in btfs.items():
            yield f"bpf_prog_load {kind}.{btf} {kind} multi"
            yield f"bpf_link_create l.{kind}.{btf} {kind}.{btf} {pattern} -> 0"
    calls = [f"call wide{number} {number}" for number in (1, 100, 101, 102, 103, 600)]
    yield from calls
    for btf in btfs:
        yield f"bpf_link_detach l.fentry.{btf} -> 0"
    yield from calls
    for btf, pattern in btfs.items():
        yield f"bpf_prog_load again.{btf} fentry multi"
        yield f"bpf_link_create a.{btf} again.{btf} {pattern} -> 0"
    yield "bpf_link_detach l.fexit.m1 -> 0"
    yield from calls


def _trampolines_leave_their_chains(s: Semantics) -> Lines:
    """The older of two crowds of trampolines goes, and the younger is found where they shared a bucket (LINK-3).

    Keys of two BTFs may share none, so that the younger has functions of more.
    """
    if not s.tracing_multi:
        return
    older, younger = ["wide*"], ["mod1:wide*", "mod2:wide*"]
    yield from _join(older, "fentry", "first")
    yield from _join(younger, "fentry", "second")
    yield "bpf_link_detach first.0 -> 0"
    yield from _join(younger, "fexit", "third")
    yield from _join(older, "fexit", "fourth")
    yield from (f"call wide{number} {number}" for number in (1, 60, 101, 102, 103))


def _join(targets: Sequence[str], kind: str, prog: str) -> Lines:
    """A new program is linked to each target."""
    for place, target in enumerate(targets):
        yield f"bpf_prog_load {prog}.{place} {kind} multi"
        yield f"bpf_link_create {prog}.{place} {prog}.{place} {target} -> 0"


def _modules_come_one_after_another(_: Semantics) -> Lines:
    """Modules that come behind others that have come, and go from between them, have all of their sites (MODULE-1)."""
    every = "wide101 wide102 wide103"
    for come, goes in (((1, 2, 3), 2), ((2,), 1), ((1,), 3), ((3,), 1)):
        yield from (f"delete_module mod{number}" for number in (1, 2, 3) if come == (1, 2, 3))
        yield from (f"init_module mod{number} -> 0" for number in come)
        yield "ftrace_ops o1"
        yield f"ftrace_set_filter_ips o1 {every} reset -> 0"
        yield "register_ftrace_function o1 -> 0"
        yield from (f"call {function} 1 -> ops:o1 body =1" for function in every.split())
        yield "unregister_ftrace_function o1 -> 0"
        yield f"delete_module mod{goes} -> 0"


HUNDREDS: Final[tuple[Callable[[Semantics], Lines], ...]] = (
    _direct_functions_grow,
    _links_over_every_function,
    _modules_come_one_after_another,
    _rounds_of_256_sites,
    _trampolines_leave_their_chains,
)
