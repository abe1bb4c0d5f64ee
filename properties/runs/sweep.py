"""A systematic sweep: every operation with each point failing in it, with unknown names, and in roles that it refuses.

Random search reaches most of this, but not each verb with each answer; short lists of steps do, in a second.
"""

from __future__ import annotations

from collections.abc import Iterator

from properties.runs.corpus import FixedRun, fixed_run
from spec.alphabet import alphabet
from spec.operations import OPERATIONS, POINTS
from spec.prototypes import Prototype
from spec.seeds import parse_operation
from spec.semantics import Semantics
from spec.worlds import LONG, Function, World, synthetic

__all__ = ["sweep"]

DIRECT = ("ftrace_ops o1", "ftrace_set_filter_ips o1 foo1 foo2", "register_ftrace_direct_multi o1 T1")
HASHED = ("ftrace_ops o1", "update_ftrace_direct_add o1 foo1=T1 foo2=T1")
PLAIN = ("ftrace_ops o1 dynamic", "register_ftrace_function o1")
SHARED = ("bpf_prog_load p0 fexit", "bpf_raw_tracepoint_open l0 p0 foo1")
IPMODIFY = (*SHARED, "ftrace_ops o1 ipmodify", "ftrace_set_filter_ip o1 foo1")
GRAPH = ("register_ftrace_graph g1 filter=foo1",)
MULTI = ("bpf_prog_load p1 fentry multi",)

WORKING: tuple[tuple[tuple[str, ...], str], ...] = (
    (PLAIN, "ftrace_set_filter_ip o1 foo1"),
    (PLAIN, "ftrace_set_filter_ips o1 foo1 foo2"),
    (PLAIN, "ftrace_set_filter o1 foo*"),
    (PLAIN, "ftrace_set_notrace o1 foo*"),
    (PLAIN[:1], "register_ftrace_function o1"),
    (IPMODIFY, "register_ftrace_function o1"),
    (PLAIN, "unregister_ftrace_function o1"),
    ((*IPMODIFY, "register_ftrace_function o1"), "unregister_ftrace_function o1"),
    ((), "register_ftrace_direct foo1 T1"),
    (("register_ftrace_direct foo1 T1",), "unregister_ftrace_direct foo1 T1"),
    (("register_ftrace_direct foo1 T1",), "modify_ftrace_direct foo1 T1 T2"),
    (DIRECT[:2], "register_ftrace_direct_multi o1 T1"),
    (DIRECT, "unregister_ftrace_direct_multi o1 T1"),
    (DIRECT, "modify_ftrace_direct_multi o1 T2"),
    (HASHED[:1], HASHED[1]),
    (HASHED, "update_ftrace_direct_add o1 foo3=T3"),
    (HASHED, "update_ftrace_direct_del o1 foo1=T1"),
    (HASHED, "update_ftrace_direct_del o1 foo1=T1 foo2=T1"),
    (HASHED, "update_ftrace_direct_mod o1 foo1=T2 foo3=T2"),
    ((), "register_ftrace_graph g1 filter=foo*"),
    (("register_ftrace_graph g1",), "unregister_ftrace_graph g1"),
    (GRAPH, "set_ftrace_filter g1 foo2"),
    (GRAPH, "set_ftrace_notrace g1 foo1"),
    (GRAPH, "set_graph_function g1 foo1"),
    (GRAPH, "set_graph_notrace g1 foo1"),
    ((*PLAIN, "register_ftrace_function o1"), "ftrace_enabled 0"),
    ((*PLAIN, "register_ftrace_function o1", "ftrace_enabled 0"), "ftrace_enabled 1"),
    ((), "livepatch foo1"),
    (("livepatch foo1",), "unlivepatch foo1"),
    (SHARED, "livepatch foo1"),
    ((*SHARED, "livepatch foo1"), "unlivepatch foo1"),
    (("bpf_prog_load p1 fentry",), "bpf_raw_tracepoint_open l1 p1 foo1"),
    ((*SHARED, "bpf_prog_load p1 fentry"), "bpf_raw_tracepoint_open l1 p1 foo1"),
    (("bpf_prog_load p1 fentry",), "bpf_link_create l1 p1 foo1"),
    (MULTI, "bpf_link_create l1 p1 foo1 foo2"),
    ((*SHARED, *MULTI), "bpf_link_create l1 p1 foo1 foo2"),
    (SHARED, "bpf_link_detach l0"),
    ((*SHARED, "bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1"), "bpf_link_detach l0"),
    (("livepatch bar1",), "delete_module mod1"),
)
"""Steps, and then an operation that succeeds: it is made to fail at each point, and tried again."""

UNKNOWN = (
    "ftrace_set_filter_ip nobody foo1",
    "ftrace_set_filter_ips nobody foo1",
    "ftrace_set_filter nobody foo*",
    "ftrace_set_notrace nobody foo*",
    "ftrace_free_filter nobody",
    "register_ftrace_function nobody",
    "unregister_ftrace_function nobody",
    "register_ftrace_direct_multi nobody T1",
    "unregister_ftrace_direct_multi nobody T1",
    "modify_ftrace_direct_multi nobody T1",
    "update_ftrace_direct_add nobody foo1=T1",
    "update_ftrace_direct_del nobody foo1=T1",
    "update_ftrace_direct_mod nobody foo1=T1",
    "unregister_ftrace_graph nobody",
    "set_ftrace_filter nobody foo1",
    "set_ftrace_notrace nobody",
    "set_graph_function nobody foo1",
    "set_graph_notrace nobody",
    "bpf_raw_tracepoint_open l1 nobody foo1",
    "bpf_link_create l1 nobody foo1",
    "bpf_link_detach nobody",
)
"""NAME-2, each with its operation."""

FILTERS = ("ftrace_set_filter_ip o1 foo3", "ftrace_set_filter_ips o1 foo3", "ftrace_set_filter o1 foo3")
GRAPH_FILES = ("set_ftrace_filter", "set_ftrace_notrace", "set_graph_function", "set_graph_notrace")
DIRECT_CALLS = (
    "register_ftrace_direct_multi o1 T1",
    "unregister_ftrace_direct_multi o1 T1",
    "modify_ftrace_direct_multi o1 T2",
    "update_ftrace_direct_add o1 foo3=T1",
    "update_ftrace_direct_del o1 foo1=T1",
    "update_ftrace_direct_mod o1 foo1=T2",
)
ROLES: dict[str, tuple[str, ...]] = {
    "an enabled direct ops keeps its filter and its role": (
        *DIRECT,
        *FILTERS,
        "ftrace_set_notrace o1 foo3",
        "ftrace_free_filter o1",
        "register_ftrace_function o1",
        "unregister_ftrace_function o1",
        "modify_ftrace_direct foo1 T1 T2",
        "unregister_ftrace_direct foo1 T1",
        "unregister_ftrace_direct_multi o1 T9",
    ),
    "an ipmodify ops is not called directly": ("ftrace_ops o1 ipmodify", *FILTERS, *DIRECT_CALLS),
    "an ipmodify ops that is not enabled is not unregistered": (
        "ftrace_ops o1 ipmodify",
        "unregister_ftrace_function o1",
    ),
    "a plain ops is not called directly": (
        *PLAIN,
        *FILTERS,
        *DIRECT_CALLS,
        "unregister_ftrace_function o1",
        *DIRECT_CALLS,
    ),
    "an ops that was never registered": (
        DIRECT[0],
        *DIRECT_CALLS[1:3],
        *DIRECT_CALLS[4:],
        "unregister_ftrace_function o1",
        "ftrace_free_filter o1",
    ),
    "names in use": (
        *SHARED,
        "bpf_prog_load p0 fexit",
        "bpf_raw_tracepoint_open l0 p0 foo2",
        "bpf_link_create l0 p0 foo2",
        "ftrace_ops o1",
        "ftrace_ops o1",
        "register_ftrace_graph g1",
        "register_ftrace_graph g1",
    ),
    "what is not there": (
        "ftrace_ops o1 ipmodify",
        "register_ftrace_function o1",
        "ftrace_set_filter_ip o1 foo1 remove",
        "ftrace_set_filter_ips o1 foo1 remove",
        "ftrace_set_notrace o1 foo1",
        "register_ftrace_graph g1 filter=nothing*",
        "register_ftrace_graph g1 notrace=!foo*",
        "bpf_prog_load p1 fentry returns=1",
        "bpf_prog_load p1 fentry target=nothing",
        "init_module mod1",
        "init_module mod2",
        "delete_module mod2",
        "delete_module mod1",
        "call bar1 1",
        "init_module mod1",
    ),
    "more slots than registers": (
        "bpf_prog_load p1 fentry",
        "bpf_raw_tracepoint_open l1 p1 foo7",
        "bpf_link_create l1 p1 foo12",
    ),
    "a graph user that is live": (
        *GRAPH,
        *(f"{file} g1 nothing*" for file in GRAPH_FILES),
        "set_graph_function g1 !foo1",
        "set_ftrace_filter g1 !foo1",
        "set_ftrace_filter g1 foo2",
        "set_ftrace_notrace g1 foo2",
        "register_ftrace_graph g2",
        "set_ftrace_notrace g2 foo2",
        "call foo2 1 2",
        "set_ftrace_notrace g1",
        "unregister_ftrace_graph g2",
        "call foo2 1 2",
    ),
    "after ftrace has died": (
        *GRAPH,
        *SHARED,
        "fail patch",
        "livepatch foo2",
        "init_module mod1",
        "delete_module mod1",
        *(f"{file} g1 foo2" for file in GRAPH_FILES),
        "livepatch foo2",
        "unlivepatch foo1",
        "bpf_link_detach l0",
        "bpf_raw_tracepoint_open l0 p0 foo1",
    ),
    "a patched body": ("livepatch foo1", "call foo1 1", "unlivepatch foo1", "call foo1 1"),
    "a body that is stopped, in the graph": (
        "register_ftrace_graph g1",
        "bpf_prog_load p1 fmod_ret returns=-22",
        "bpf_raw_tracepoint_open l1 p1 foo1",
        "call foo1 1",
    ),
    "a second IPMODIFY user does not join a filter": (
        "livepatch foo3",
        "ftrace_ops o1 ipmodify",
        "ftrace_set_filter_ip o1 foo3",
        "register_ftrace_function o1",
        "ftrace_set_filter_ip o1 foo1 reset",
        "register_ftrace_function o1",
        *FILTERS,
        "register_ftrace_function o1",
    ),
    "entries of another ops are left alone": (
        *HASHED,
        "ftrace_ops o2",
        "update_ftrace_direct_add o2 foo3=T1",
        "update_ftrace_direct_del o2 foo1=T1",
        "update_ftrace_direct_mod o2 foo1=T2",
    ),
}
RECORDS = (
    "ftrace_ops o1",
    "ftrace_set_filter_ip o1 weak -> -EINVAL",
    "ftrace_set_filter o1 weak -> -EINVAL",
    "ftrace_set_filter o1 show",
    "register_ftrace_function o1",
    "call show@2 1 -> ops:o1 body =1",
    "ftrace_set_filter o1 4 reset -> 0",
    "site last -> ops:o1",
    "ftrace_set_filter o1 !last",
    "bpf_prog_load p1 fentry",
    "bpf_raw_tracepoint_open l1 p1 show@2 -> -EINVAL",
    "bpf_raw_tracepoint_open l1 p1 show -> 0",
    "call show 2 -> ops:o1 fentry:p1 body =2",
    "call show@2 2 -> ops:o1 body =2",
)
"""A world of its own (GLOB-5, FILTER-11)."""

NUMBERS = (
    "ftrace_ops o1",
    "ftrace_set_filter o1 0x2 -> 0",
    "register_ftrace_function o1 -> 0",
    "site show@2 -> ops:o1",
    "ftrace_set_filter o1 3 reset -> 0",
    "site show@2 -> nop",
    "site last -> nop",
    "ftrace_set_filter o1 !3 -> 0",
    "site last -> ops:o1",
    "ftrace_set_notrace o1 04 -> 0",
    "site last -> nop",
    "ftrace_set_filter o1 08 -> -EINVAL",
    "ftrace_set_filter o1 7 -> -EINVAL",
    "register_ftrace_graph g1 function=4 -> -EINVAL",
    "register_ftrace_graph g1 notrace=4 -> -EINVAL",
    "register_ftrace_graph g1 filter=3 -> 0",
    "call last 1 -> body =1",
    "unregister_ftrace_graph g1 -> 0",
    "register_ftrace_graph g1 filter=4 function=last -> 0",
    "call last 1 -> graph>g1 body <graph:g1 =1",
    "ftrace_ops o2",
    "ftrace_set_filter o2 3 -> 0",
    "register_ftrace_direct_multi o2 T1 -> 0",
    "ftrace_ops o3",
    "ftrace_set_filter o3 3 -> 0",
    "register_ftrace_direct_multi o3 T1 -> -EBUSY",
    "modify_ftrace_direct_multi o2 T2 -> 0",
    "unregister_ftrace_direct_multi o2 T2 -> 0",
    "ftrace_ops o4",
    "ftrace_set_filter o4 5 -> 0",
    "delete_module mod1 -> 0",
    "ftrace_set_filter o4 !5 -> -EINVAL",
    "init_module mod1 -> 0",
    "ftrace_set_filter o4 !5 -> 0",
    "register_ftrace_function o4 -> 0",
    "site end -> ops:o1",
)
"""In the same world, by numbers (GLOB-4, GRAPH-1, MODULE-5)."""


def sweep(semantics: Semantics) -> Iterator[FixedRun]:
    """Every run of the sweep, without the operations that these semantics lack."""
    world, supported = synthetic(), alphabet(semantics)
    for before, line in WORKING:
        if type(parse_operation(line)) in supported and (semantics.tracing_multi or before[-1:] != MULTI):
            for point in POINTS:
                name = f"{point} fails in {line} after {len(before)}"
                yield _run(name, (*before, f"fail {point}", line, line, f"fail {point}"), world, semantics)
    yield _run("unknown names", ("bpf_prog_load p1 fentry", *UNKNOWN), world, semantics)
    for name, lines in ROLES.items():
        yield _run(name, lines, world, semantics)
    yield _run("a full function and a batch", _full(semantics), world, semantics)
    yield _run("duplicated and disabled records", RECORDS, _records(), semantics)
    loose = f"ftrace_set_filter o1 4x reset -> {'0' if semantics.lenient_index else '-EINVAL'}"
    yield _run("records by number", (*NUMBERS, loose), _records(), semantics)


def _full(semantics: Semantics) -> tuple[str, ...]:
    """Fill a function with as many programs as it takes, then attach one more."""
    multi = " multi" if semantics.tracing_multi else ""
    loads = (f"bpf_prog_load p{n} fentry" for n in range(semantics.max_links))
    opens = (f"bpf_raw_tracepoint_open l{n} p{n} foo1" for n in range(semantics.max_links))
    batch = (f"bpf_prog_load q fexit{multi}", "bpf_link_create lq q foo1")
    return (*loads, *opens, *batch, "bpf_raw_tracepoint_open lr p0 foo1")


def _records() -> World:
    """Two sites of one symbol, and the records of weak functions that were overridden, one of them in a module."""
    prototype = Prototype((LONG,), LONG)
    return World(
        "records",
        (
            Function("show", prototype, 1),
            Function("show@2", prototype, None),
            Function("weak", None, None, attributes=frozenset({"disabled"})),
            Function("last", prototype, 2),
            Function("weak_too", None, None, "mod1", attributes=frozenset({"disabled"})),
            Function("end", prototype, 3, "mod1"),
        ),
    )


def _run(name: str, lines: tuple[str, ...], world: World, semantics: Semantics) -> FixedRun:
    """A run of the lines whose operations these semantics have."""
    supported = alphabet(semantics)
    steps = [line for line in lines if OPERATIONS[line.split()[0]] in supported]
    return fixed_run(name, world, semantics, steps)
