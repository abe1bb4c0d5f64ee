"""Runs about functions that BTF names and ftrace has no site of, and about links over several BTFs (PROG-7, LINK-17).

They have a small world of their own, for a kernel has such functions and a module of ours cannot: kernels are asked
about some of their own in a laboratory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from properties.runs.corpus import FixedRun, fixed_run
from spec.prototypes import Prototype, Type
from spec.semantics import Semantics
from spec.worlds import INT, LONG, PAIR, Function, World

__all__ = ["unsited", "unsited_world"]

Lines = Iterator[str]

ONE = Prototype((LONG,), LONG)
VARIADIC = Prototype((LONG,), LONG, variadic=True)
WIDE_RETURN = Prototype((LONG,), Type("__int128", "INT", 16))
EIGHT = Prototype((LONG,) * 8, LONG)
SORTS: tuple[tuple[Prototype, tuple[str, ...]], ...] = (
    (ONE, ()),
    (VARIADIC, ()),
    (WIDE_RETURN, ()),
    (EIGHT, ()),
    (ONE, ("deny",)),
    (ONE, ("sleepable", "fmod_ret")),
)
"""Prototype and attributes of the functions without a site, for each reason for which they have none."""


def unsited_world() -> World:
    """Functions of vmlinux and of two modules, with and without sites, for each reason."""
    beside = {"no_symbol": "inlined", "outside": "init", "no_site": "notrace"}
    functions = (
        Function("plain1", ONE, 1),
        Function("plain2", Prototype((INT, PAIR), INT), 2, attributes=frozenset({"sleepable", "fmod_ret"})),
        Function("earlier", ONE, 3, attributes=frozenset({"no_site"})),
        Function("weak", ONE, 4, attributes=frozenset({"disabled"})),
        Function("denied", ONE, 5, attributes=frozenset({"deny"})),
        Function("nameless", ONE, None),
        Function("one1", ONE, 101, "one"),
        Function("plain1@2", ONE, 102, "one"),
        Function("two1", ONE, 101, "two"),
    )
    others = [
        Function(f"{name}{place}", prototype, 10 * code + place, None, frozenset({why, "unrecorded", *marks}))
        for code, (why, name) in enumerate(beside.items(), 1)
        for place, (prototype, marks) in enumerate(SORTS)
    ]
    others.append(Function("gone1", ONE, 110, "one", frozenset({"no_symbol", "unrecorded"})))
    others.append(Function("leaves1", ONE, 111, "one", frozenset({"outside", "unrecorded"})))
    return World("unsited", functions, tuple(others))


def unsited(semantics: Semantics) -> Iterator[FixedRun]:
    """Every run that these semantics can take."""
    world = unsited_world()
    for make in _RUNS:
        if steps := list(make(semantics, world)):
            yield fixed_run(f"unsited{make.__name__}", world, semantics, steps)


def _one_by_one(s: Semantics, world: World) -> Lines:
    """Each function under each kind of program, sleepable or not (PROG-3, PROG-7, LINK-16)."""
    kinds = {"fentry": True, "fexit": True, "fmod_ret": s.fmod_ret, "fsession": s.fsession}
    for kind in (kind for kind, exists in kinds.items() if exists):
        for sleepable in ("", " sleepable"):
            for function in (*world.functions, *world.others):
                name = f"{kind}{sleepable.strip()}.{function.name}"
                yield f"bpf_prog_load {name} {kind} target={function.name}{sleepable}"
                yield f"bpf_prog_load free.{name} {kind}{sleepable}"
                yield f"bpf_raw_tracepoint_open free.{name} free.{name} {function.name}"
    for name in ("inlined0", "notrace0", "init0", "earlier", "weak"):
        yield f"bpf_raw_tracepoint_open l.{name} fentry.{name}"
        yield f"bpf_raw_tracepoint_open m.{name} fentry.{name} cookie=7"
    yield "bpf_raw_tracepoint_open l.EBUSY fentry.notrace0 -> -EBUSY"
    yield "bpf_raw_tracepoint_open l.EINVAL fentry.init0 -> -EINVAL"
    yield "bpf_prog_load last fentry target=inlined0 -> -ENOENT"
    yield "bpf_link_create l.last free.fentry.plain1 inlined0 -> -ENOENT"
    yield "site earlier -> nop"
    yield "call earlier 1"
    yield "bpf_raw_tracepoint_open l fentry.plain1 -> 0"
    yield "call plain1 1"


def _faults(s: Semantics, world: World) -> Lines:
    """What comes before bpf_arch_text_poke(): memory for code, and slots; after ftrace's death too (LINK-16)."""
    _ = s, world
    yield "bpf_prog_load p fentry target=notrace0 -> 0"
    for point in ("alloc", "jit_charge", "filter", "register"):
        yield f"fail {point}"
        yield "bpf_raw_tracepoint_open l p"
        yield f"fail {point} 1000"
    yield "bpf_prog_load many fentry target=notrace3"
    yield "bpf_raw_tracepoint_open l many"
    yield "ftrace_ops o"
    yield "ftrace_set_filter_ips o earlier plain1 -> 0"
    yield "ftrace_set_filter_ip o notrace0 -> -EINVAL"
    yield "fail patch"
    yield "register_ftrace_function o -> -ENODEV WARN"
    yield "bpf_raw_tracepoint_open l p -> -EBUSY"


def _starved(s: Semantics, world: World) -> Lines:
    """A detach that gets no memory leaves the image of one function of the link (LINK-12, NAME-12)."""
    _ = world
    for name in ("p", "q"):
        yield f"bpf_prog_load {name} fexit"
        yield f"bpf_raw_tracepoint_open {name} {name} plain1 -> 0"
    for name in ("p", "q"):
        yield "fail alloc"
        yield f"bpf_link_detach {name} -> 0 WARN"
        if name == "p":
            yield "bpf_raw_tracepoint_open p p plain1 -> 0"
            yield "bpf_link_detach p -> 0"
    yield "bpf_raw_tracepoint_open p p plain1 -> -EOPNOTSUPP"
    yield "livepatch plain1 -> -EOPNOTSUPP"
    yield "unlivepatch plain1 -> -EOPNOTSUPP"
    yield "ftrace_ops o ipmodify"
    yield "ftrace_set_filter_ip o plain1"
    yield "register_ftrace_function o -> -EOPNOTSUPP"
    yield "unregister_ftrace_function o -> -EOPNOTSUPP"
    yield "bpf_link_create p p plain1 -> -EOPNOTSUPP"
    yield "bpf_raw_tracepoint_open p p plain2 -> 0"
    yield "bpf_raw_tracepoint_open q q one1 -> 0"
    yield "fail alloc"
    yield "bpf_link_detach q -> 0 WARN"
    yield "delete_module one -> -EOPNOTSUPP"
    if s.tracing_multi:
        yield "bpf_prog_load m fentry multi"
        yield "bpf_link_create m m plain? -> -EOPNOTSUPP"


def _starved_batch(s: Semantics, world: World) -> Lines:
    """Of a link's functions, in the order of BTF ids, the one whose turn it is keeps its image (LINK-12)."""
    _ = world
    if not s.tracing_multi:
        return
    yield "bpf_prog_load m fexit multi"
    yield "bpf_link_create m m plain2 plain1 -> 0"
    yield "fail alloc 3"
    yield "bpf_link_detach m -> 0"
    yield "fail alloc 1000"
    yield "bpf_link_create m m plain2 plain1 -> 0"
    yield "fail alloc 2"
    yield "bpf_link_detach m -> 0 WARN"
    yield "site plain1 -> nop"
    yield "site plain2 -> trampoline:fexit:m"


def _batches(s: Semantics, world: World) -> Lines:
    """One function without a site refuses the whole call, and the least id says why (LINK-7)."""
    if not s.tracing_multi:
        return
    for kind in ("fentry", "fexit"):
        for sleepable in ("", " sleepable"):
            prog = f"{kind}{sleepable.strip()}"
            yield f"bpf_prog_load {prog} {kind} multi{sleepable}"
            for function in (*world.functions, *world.others):
                yield f"bpf_link_create {prog}.{function.name} {prog} plain2 {function.name}"
    yield "bpf_prog_load new fentry multi"
    yield "bpf_link_create l new plain1 notrace0 -> -ENOENT"
    yield "bpf_link_create l new inlined1 notrace0 -> -EINVAL"
    yield "bpf_link_create l new notrace1 inlined0 -> -ENOENT"
    yield "bpf_link_create l new notrace0 notrace0 -> -EINVAL"


def _patterns(s: Semantics, world: World) -> Lines:
    """The three ways to expand a pattern (GLOB-6)."""
    _ = world
    if not s.tracing_multi:
        return
    yield "bpf_prog_load p fentry multi -> 0"
    yield "bpf_link_create l p earl* -> -ENOENT"
    yield "bpf_link_create l p notrace[0] -> -EINVAL"
    yield "bpf_link_create l p traceable(notrace*) -> -EINVAL"
    yield "bpf_link_create l p * -> -ENOENT"
    yield "bpf_link_create l p traceable(*) -> -ENOENT"
    yield "bpf_link_create l p plain[12] -> -EINVAL"
    yield "bpf_link_create l p plain? -> 0"
    yield "bpf_link_detach l -> 0"
    cookie = ":7" if s.cookies else ""
    yield f"bpf_link_create l p attachable(*){cookie} -> 0"
    yield "call plain1 1 -> fentry:p body =1"
    yield "call denied 1 -> body =1"
    yield "call earlier 1 -> body =1"
    yield "call one1 1 -> body =1"
    yield "bpf_link_detach l -> 0"
    yield "bpf_link_create l p one:* -> -EINVAL"
    yield "bpf_prog_load q fentry multi"
    yield "bpf_link_create m q attachable(one:*) -> 0"
    yield "call one1 1 -> fentry:q body =1"
    yield "call plain1@2 1 -> fentry:q body =1"
    yield "bpf_link_detach m -> 0"
    yield "bpf_link_create m q one:gone* -> -ENOENT"
    yield "bpf_link_create m q nowhere:* -> -EINVAL"


def _several_btfs(s: Semantics, world: World) -> Lines:
    """A multi program is for one BTF (LINK-17)."""
    _ = world
    if not s.tracing_multi:
        return
    yield "bpf_prog_load p fentry multi"
    yield "bpf_link_create l p plain1 one1 -> -EINVAL"
    yield "bpf_link_create l p one1 plain1 -> -ENOENT"
    yield "bpf_link_create l p one1 denied -> -EINVAL"
    yield "bpf_link_create l p one1 two1 -> -EINVAL"
    yield "bpf_link_create l p one1 gone1 -> -ENOENT"
    yield "bpf_link_create l p one1 leaves1 -> -ENOENT"
    yield "bpf_link_create l p nowhere plain1 -> -EINVAL"
    yield "bpf_link_create l p one1 -> 0"
    yield "bpf_link_detach l -> 0"
    yield "bpf_link_create l p plain1 -> -ENOENT"
    yield "bpf_link_create l p two1 -> -EINVAL"
    yield "bpf_link_create l p plain1@2 -> 0"
    yield "call plain1@2 5 -> fentry:p body =5"


def _modules(s: Semantics, world: World) -> Lines:
    """Programs for functions without a site hold their module too, and go with it (MODULE-3, NAME-10)."""
    _ = world
    yield "bpf_prog_load gone fentry target=gone1 -> -ENOENT"
    yield "bpf_prog_load p fentry target=leaves1 -> 0"
    yield "bpf_raw_tracepoint_open l p -> -EINVAL"
    yield "delete_module two -> 0"
    yield "bpf_prog_load two fentry target=two1 -> -EINVAL"
    yield f"delete_module one -> {'-EAGAIN' if s.prog_pins_module else '0'}"
    yield "bpf_prog_load q fentry target=leaves1"
    yield "bpf_raw_tracepoint_open l p"
    if s.tracing_multi:
        yield "bpf_prog_load m fentry multi"
        yield "bpf_link_create k m two1 -> -EINVAL"
        yield "bpf_link_create k m traceable(two:*) -> -EINVAL"
        yield "bpf_link_create k m notrace0 two1 -> -EINVAL"
        yield "init_module two -> 0"
        yield "bpf_link_create k m two1 -> 0"


def _written_with_modules(s: Semantics, world: World) -> Lines:
    """MODULE:FUNC wherever a FUNC stands (NAME-11)."""
    _ = world
    yield "ftrace_ops o"
    yield "ftrace_set_filter_ips o one:plain1 two:two1 -> 0"
    yield "register_ftrace_function o -> 0"
    yield "site one:plain1 -> ops:o"
    yield "site plain1 -> nop"
    yield "call one:plain1 3 -> ops:o body =3"
    yield "livepatch one:one1 -> 0"
    yield "bpf_prog_load p fexit target=one:plain1"
    yield "bpf_raw_tracepoint_open l p one:plain1 -> 0"
    yield "bpf_prog_load q fentry target=one:nowhere -> -EINVAL"
    if s.tracing_multi:
        yield "bpf_prog_load m fentry multi"
        yield f"bpf_link_create k m one:plain1{':7' if s.cookies else ''} -> 0"
        yield "call plain1@2 3"


_RUNS: tuple[Callable[[Semantics, World], Lines], ...] = (
    _one_by_one,
    _faults,
    _starved,
    _starved_batch,
    _batches,
    _patterns,
    _several_btfs,
    _modules,
    _written_with_modules,
)
