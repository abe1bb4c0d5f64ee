"""Directed runs: named lists of steps that reach what random search reaches rarely: limits, leftovers, death.

Each depends on the semantics' facts; one that does not is a seed of the corpus. Lockstep judges them as it does every
step; an expectation makes sure that a list reaches what it is for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from properties.runs.conflicts import CONFLICTS, CONFLICTS_OF_MANY
from properties.runs.corpus import FixedRun, fixed_run
from properties.runs.fprobes import FPROBES
from properties.runs.graph_users import GRAPH_USERS
from properties.runs.hundreds import HUNDREDS, wide
from properties.runs.staying import STAYING
from spec.semantics import Semantics
from spec.worlds import synthetic

__all__ = ["directed"]

Lines = Iterator[str]


def directed(semantics: Semantics) -> Iterator[FixedRun]:
    """Every run that these semantics can take."""
    small, large = synthetic(), wide()
    runs = (
        *(
            (make.__name__.lstrip("_"), small, make(semantics))
            for make in (*_SYNTHETIC, *GRAPH_USERS, *STAYING, *CONFLICTS, *FPROBES)
        ),
        *((f"limit_of_{kind}", small, _limit(kind, semantics)) for kind in _kinds(semantics)),
        *((make.__name__.lstrip("_"), large, make(semantics)) for make in (*HUNDREDS, *CONFLICTS_OF_MANY)),
    )
    for name, world, lines in runs:
        if steps := list(lines):
            yield fixed_run(name, world, semantics, steps)


def _kinds(semantics: Semantics) -> tuple[str, ...]:
    """The kinds of these semantics that count for a trampoline's limit."""
    present = {"fentry": True, "fexit": True, "fmod_ret": semantics.fmod_ret, "fsession": semantics.fsession}
    return tuple(kind for kind, exists in present.items() if exists)


def _attach(count: int, kind: str, function: str, first: int = 1) -> Lines:
    for number in range(first, first + count):
        yield f"bpf_prog_load p{number} {kind}"
        yield f"bpf_raw_tracepoint_open l{number} p{number} {function} -> 0"


# Limits.


def _limit(kind: str, s: Semantics) -> Lines:
    """As many programs as a trampoline takes; one more, new or attached already, is too many (LINK-3)."""
    most = s.max_links // (2 if kind == "fsession" else 1)
    yield from _attach(most, kind, "foo2")
    yield f"bpf_prog_load more {kind}"
    yield "bpf_prog_load entry fentry"
    yield "bpf_raw_tracepoint_open l0 more foo2 -> -E2BIG"
    yield "bpf_raw_tracepoint_open l0 p1 foo2 -> -E2BIG"
    yield "call foo2 1 2"
    yield "bpf_link_detach l1 -> 0"
    yield "bpf_raw_tracepoint_open l0 p2 foo2 -> -EBUSY"
    yield "bpf_raw_tracepoint_open l1 entry foo2 -> 0"
    yield "bpf_raw_tracepoint_open l0 more foo2 -> -E2BIG"
    yield "call foo2 1 2"
    yield "site foo2"


def _batch_over_a_full_function(s: Semantics) -> Lines:
    """One full function among several refuses the whole call, and the others keep nothing (LINK-8, LINK-10)."""
    if not s.tracing_multi:
        return
    yield from _attach(s.max_links, "fexit", "foo2")
    yield "bpf_prog_load m fentry multi"
    yield "bpf_link_create l0 m foo1 foo2 foo6 -> -E2BIG"
    yield "site foo1 -> nop"
    yield "bpf_link_detach l1 -> 0"
    yield "bpf_link_create l0 m foo1 foo2 foo6 -> 0"
    yield "call foo2 1 2"
    yield "bpf_link_detach l0 -> 0"


def _extension_is_alone(s: Semantics) -> Lines:
    """An extension refuses programs, and programs refuse it (LINK-3, LINK-5)."""
    if not s.freplace:
        return
    yield "bpf_prog_load r freplace returns=7"
    yield "bpf_prog_load p fexit"
    yield "bpf_raw_tracepoint_open l1 r foo2 -> 0"
    yield "bpf_raw_tracepoint_open l2 p foo2 -> -EBUSY"
    yield "call foo2 1 2 -> freplace:r =7"
    yield "livepatch foo2"
    yield "call foo2 1 2"
    yield "bpf_link_detach l1 -> 0"
    yield "bpf_raw_tracepoint_open l2 p foo2 -> 0"
    yield "bpf_raw_tracepoint_open l1 r foo2 -> -EBUSY"


# Injected failures.


def _ftrace_dies(s: Semantics) -> Lines:
    """After a failed patching pass every way in answers as DEAD-1 has it, and what is attached stays."""
    yield "bpf_prog_load p1 fentry"
    yield "bpf_prog_load p2 fexit"
    for number, prog in enumerate(("p1", "p2"), 1):
        yield f"bpf_raw_tracepoint_open l{number} {prog} foo1 -> 0"
    yield "bpf_raw_tracepoint_open l3 p1 foo2 -> 0"
    yield "ftrace_ops o1"
    yield "ftrace_set_filter_ip o1 foo7 -> 0"
    yield "register_ftrace_graph g filter=foo6 -> 0"
    yield "livepatch foo12 -> 0"
    yield "fail patch"
    yield "register_ftrace_function o1 -> -ENODEV WARN"
    yield "register_ftrace_function o1 -> -ENODEV"
    yield "ftrace_set_filter_ip o1 foo6 -> -ENODEV"
    yield "register_ftrace_direct_multi o1 T1"
    yield "register_ftrace_graph h -> -ENODEV"
    yield "unregister_ftrace_graph g -> -ENODEV"
    yield "livepatch foo6 -> -ENODEV"
    yield "unlivepatch foo12 -> -ENODEV"
    yield f"bpf_raw_tracepoint_open l4 p2 foo6 -> {'-EINVAL' if s.filter_unchecked else '-ENODEV'}"
    yield "bpf_link_create l5 p2 foo2 -> -ENODEV"
    yield "delete_module mod1 -> 0"
    yield "delete_module mod1 -> -ENOENT"
    yield "init_module mod1 -> 0"
    yield "init_module mod1 -> -EEXIST"
    yield "ftrace_set_filter_ip o1 bar1 -> -ENODEV"
    yield "livepatch bar1 -> -EINVAL"
    yield "ftrace_enabled 0 -> -ENODEV"
    yield "bpf_link_detach l3 -> 0 WARN"
    yield "bpf_link_detach l1 -> 0 WARN"
    yield "site foo1"
    yield "delete_module mod1 -> 0"
    if s.hash_direct:
        yield "ftrace_ops o2"
        yield "update_ftrace_direct_add o2 foo7=T1 -> -ENODEV"


def _ftrace_dies_of_a_detach(s: Semantics) -> Lines:
    """The program leaves the lists, and the old image stays at every function of the link (DEAD-1)."""
    multi = " multi" if s.tracing_multi else ""
    yield f"bpf_prog_load p fexit{multi}"
    yield f"bpf_link_create l p foo1{' foo2 foo6' if multi else ''} -> 0"
    yield "fail patch"
    yield "bpf_link_detach l -> 0 WARN"
    yield "site foo1 -> trampoline:fexit:p"
    yield "delete_module mod1 -> -EOPNOTSUPP"
    yield "init_module mod1 -> -EOPNOTSUPP"


def _detach_cannot_rebuild(s: Semantics) -> Lines:
    """A detach that cannot make the new image answers 0 WARN; the next image puts an end to that (LINK-13, IMAGE-2)."""
    yield from _attach(3, "fexit", "foo1")
    for point, link in (("jit_charge", "l2"), ("register", "l3")):
        yield f"fail {point}"
        yield f"bpf_link_detach {link} -> 0 WARN"
        yield "site foo1 -> trampoline:fexit:p3,fexit:p2,fexit:p1"
    if s.skips_detached:
        yield "settle"
        yield "call foo1 1 -> body fexit:p1 =1"
    yield "bpf_raw_tracepoint_open l4 p2 foo1 -> 0"
    yield "site foo1 -> trampoline:fexit:p2,fexit:p1"
    yield "call foo1 1 -> body fexit:p2 fexit:p1 =1"


def _link_of_one_function_cannot_rebuild(s: Semantics) -> Lines:
    """The image that a link leaves behind is not given away with it (IMAGE-2, SETTLE-1)."""
    if not s.tracing_multi:
        return
    yield from _attach(1, "fexit", "foo1")
    yield "bpf_prog_load m fentry multi"
    yield "bpf_link_create l m foo1 -> 0"
    yield "fail jit_charge"
    yield "bpf_link_detach l -> 0 WARN"
    if s.skips_detached:
        yield "settle -> 0"
        yield "site foo1 -> trampoline:fentry:m,fexit:p1"
        yield "call foo1 1 -> body fexit:p1 =1"
    yield "bpf_link_create l m foo1 -> 0"
    yield "settle -> 0"
    yield "call foo1 1 -> fentry:m body fexit:p1 =1"


def _images_settle(s: Semantics) -> Lines:
    """Whatever was replaced goes, and what is in place stays (SETTLE-1)."""
    for kind, function in (("fentry", "foo1"), ("fexit", "foo2")):
        yield f"bpf_prog_load {kind} {kind}"
        yield f"bpf_raw_tracepoint_open {kind} {kind} {function} -> 0"
    for kind, function in (("fexit", "foo1"), ("fentry", "foo2")):
        yield f"bpf_raw_tracepoint_open other.{kind} {kind} {function} -> 0"
    yield "livepatch foo2 -> 0" if s.share_ipmodify else "site foo2"
    yield "settle -> 0"
    yield "call foo1 1 -> fentry:fentry body fexit:fexit =1"
    yield "call foo2 1 2"
    yield "bpf_link_detach fentry -> 0"
    yield "bpf_link_detach other.fentry -> 0"
    yield "unlivepatch foo2" if s.share_ipmodify else "site foo2"
    yield "settle -> 0"
    yield "call foo1 1 -> body fexit:fexit =1"
    yield "call foo2 1 2 -> body fexit:fexit =3"


def _batch_that_fell_forgets_nothing(s: Semantics) -> Lines:
    """A batch that could not share leaves flags and images as they were, so that a livepatch still works (LINK-10)."""
    if not (s.tracing_multi and s.share_ipmodify):
        return
    yield from _attach(1, "fexit", "foo1")
    yield "livepatch foo2 -> 0"
    yield "bpf_prog_load m fexit multi"
    yield "bpf_link_create l m foo1 foo2 -> -EAGAIN"
    yield "call foo1 5 -> body fexit:p1 =5"
    yield "livepatch foo1 -> 0"
    yield "call foo1 5 -> body:patched fexit:p1 =1005"
    yield "unlivepatch foo1 -> 0"
    yield "settle -> 0"
    yield "call foo1 5 -> body fexit:p1 =5"


def _ipmodify_filter_of_one_function(_: Semantics) -> Lines:
    """The filter of an enabled IPMODIFY user may change from one function to another, and not to none (FILTER-8)."""
    yield "ftrace_ops o1 ipmodify"
    yield "ftrace_set_filter_ip o1 foo1 -> 0"
    yield "register_ftrace_function o1 -> 0"
    yield "ftrace_set_filter_ip o1 foo2 reset -> 0"
    yield "site foo1 -> nop"
    yield "ftrace_set_filter_ip o1 foo3 -> 0"
    yield "ftrace_set_filter_ip o1 foo2 remove -> 0"
    yield "ftrace_set_filter_ip o1 foo3 remove -> -EINVAL"
    yield "site foo3"
    yield "call foo3 1 2 3"


def _batch_detach_fails_in_part(s: Semantics) -> Lines:
    """One charge of several fails, then the one registration of those charged (LINK-12, LINK-13)."""
    if not s.tracing_multi:
        return
    yield "bpf_prog_load under fentry multi"
    for number, (point, count) in enumerate((("jit_charge", 2), ("register", 1), ("jit_charge", 1)), 1):
        yield f"bpf_link_create u{number} under foo1 foo2 foo6"
        yield f"bpf_prog_load p{number} fexit multi"
        yield f"bpf_link_create l{number} p{number} foo1 foo2 foo6 foo3 -> 0"
        yield f"fail {point} {count}"
        yield f"bpf_link_detach l{number} -> 0 WARN"
        yield "site foo1"
        yield "site foo2"
        yield "site foo3 -> nop"


def _attach_fails_at_every_point(s: Semantics) -> Lines:
    """Whatever fails, nothing is left, and the retry succeeds (FAIL-3, LINK-10)."""
    multi = " multi" if s.tracing_multi else ""
    functions = "foo1 foo2 foo6" if multi else "foo1"
    yield f"bpf_prog_load p1 fexit{multi}"
    yield f"bpf_prog_load p2 fentry{multi}"
    for prog in ("p1", "p2"):
        for point, count in (("alloc", 1), ("jit_charge", 1), ("jit_charge", 3), ("register", 1), ("filter", 1)):
            yield f"fail {point} {count}"
            yield f"bpf_link_create l{prog} {prog} {functions}"
            yield "site foo1"
            yield f"bpf_link_detach l{prog}"
            yield f"fail {point} 1000"
        yield f"bpf_link_create l{prog} {prog} {functions} -> 0"
        yield "call foo1 1"


def _handshake_fails_half_way(s: Semantics) -> Lines:
    """Of several trampolines asked to share, the second cannot; the first is put back (IPMODIFY-2)."""
    if not s.share_ipmodify:
        return
    yield "bpf_prog_load p fexit"
    yield "bpf_raw_tracepoint_open l1 p foo1 -> 0"
    yield "bpf_raw_tracepoint_open l2 p foo2 -> 0"
    yield "ftrace_ops o1 ipmodify"
    yield "ftrace_set_filter_ips o1 foo2 foo1 -> 0"
    for point, count, errno in (("jit_charge", 2, "-EPERM"), ("register", 2, "-EBUSY"), ("register", 3, "-EBUSY")):
        yield f"fail {point} {count}"
        yield f"register_ftrace_function o1 -> {errno}"
    yield "register_ftrace_function o1 -> 0"
    yield "call foo1 1"
    yield "fail jit_charge"
    yield "unregister_ftrace_function o1 -> 0"
    yield "livepatch foo1 -> 0"
    yield "call foo1 1 -> body:patched fexit:p =1001"
    yield "bpf_link_detach l1 -> 0"
    yield "bpf_raw_tracepoint_open l1 p foo1 -> 0"
    yield "call foo1 1"


def _target_goes_with_its_module(s: Semantics) -> Lines:
    """A program's target went: what a kernel makes of attaching it depends on what it did before (NAME-10)."""
    yield "bpf_prog_load p1 fentry target=bar1"
    if not s.prog_pins_module:
        yield "delete_module mod1"
        yield "init_module mod1"
        yield "bpf_raw_tracepoint_open l1 p1 -> -EOPNOTSUPP"
        yield "bpf_link_create l1 p1 bar1 -> -EOPNOTSUPP"


def _direct_registration_fails(s: Semantics) -> Lines:
    """Where a failed registration stops decides whether the ops can be used again (DIRECT-6, DIRECT-7)."""
    for number, point in enumerate(("alloc", "register", "patch"), 1):
        yield f"ftrace_ops o{number}"
        yield f"ftrace_set_filter_ip o{number} foo{number} -> 0"
        yield f"fail {point}"
        yield f"register_ftrace_direct_multi o{number} T1"
        yield f"register_ftrace_direct_multi o{number} T1"
        yield f"call foo{number} {' '.join(map(str, range(number)))}"
    if s.hash_direct:
        yield "ftrace_ops o4"
        yield "update_ftrace_direct_add o4 foo6=T1"


# Sharing and links.


def _parts_up_to_the_limit(s: Semantics) -> Lines:
    """A link over as many parts as the limit allows, and over one more (LINK-11)."""
    if not s.has_parts or not s.tracing_multi:
        return
    names = [*(f"foo{number}" for number in range(7)), "outer", "narrow", "split"]
    yield "bpf_prog_load single fentry"
    for number, name in enumerate(names):
        yield f"bpf_raw_tracepoint_open s{number} single {name} -> 0"
    yield "bpf_prog_load all fexit multi"
    yield f"bpf_link_create l all {' '.join(names)} -> 0"
    yield "bpf_prog_load half fexit multi"
    yield f"bpf_link_create h half {' '.join(names[::2])} -> 0"
    yield "call foo2 1 2"
    yield "bpf_link_detach l -> 0"
    yield "bpf_link_detach h -> 0"


def _overlapping_links(s: Semantics) -> Lines:
    """Links that overlap in every way, with cookies in the order of the array, not that of BTF ids (LINK-15)."""
    if not s.tracing_multi or s.has_parts:
        return
    for number, kind in enumerate(("fentry", "fexit", "fsession", "fexit", "fsession"), 1):
        yield f"bpf_prog_load p{number} {kind} multi func_ip"
    yield "bpf_link_create l1 p1 foo6:6 foo2:2 foo1:1 -> 0"
    yield "bpf_link_create l2 p2 outer:22 foo2:12 split:3 -> 0"
    yield "bpf_link_create l3 p3 spill:9 foo2 foo1:8 -> 0"
    yield "bpf_link_create l4 p4 foo*:4 -> 0"
    yield "bpf_link_create l5 p5 foo2:1 outer:2 -> 0"
    for call in ("foo1 1", "foo2 1 2", "outer 1", "foo6 1 2 3 4 5 6", "split 1 2 3 4", "spill 1 2 3 4 5 6 7 -8"):
        yield f"call {call}"
    for number in (2, 4, 1, 5, 3):
        yield f"bpf_link_detach l{number} -> 0"
        yield "call foo2 1 2"


def _words_at_the_edges(s: Semantics) -> Lines:
    """Every shape under every kind, with words that the types cannot hold (ARG-1 to ARG-5, TRAMP-4, TRAMP-5)."""
    world = synthetic()
    for number, kind in enumerate(_kinds(s), 1):
        yield f"bpf_prog_load p{number} {kind} func_ip"
        for function in world.functions:
            yield f"bpf_raw_tracepoint_open {function.name}.{number} p{number} {function.name}"
    for function in world.functions:
        count = len(function.prototype.slots) if function.prototype else 0
        for words in (["-1"] * count, [str((1 << 63) + 129 * n) for n in range(count)]):
            yield " ".join(["call", function.name, *words])


_SYNTHETIC: tuple[Callable[[Semantics], Lines], ...] = (
    _attach_fails_at_every_point,
    _batch_detach_fails_in_part,
    _batch_that_fell_forgets_nothing,
    _batch_over_a_full_function,
    _detach_cannot_rebuild,
    _direct_registration_fails,
    _extension_is_alone,
    _ftrace_dies,
    _ftrace_dies_of_a_detach,
    _handshake_fails_half_way,
    _images_settle,
    _ipmodify_filter_of_one_function,
    _link_of_one_function_cannot_rebuild,
    _overlapping_links,
    _parts_up_to_the_limit,
    _target_goes_with_its_module,
    _words_at_the_edges,
)
