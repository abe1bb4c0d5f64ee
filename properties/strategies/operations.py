"""Operations biased to what exists.

A concept is a group of operations by kernel concept, such as `direct`; each maker draws one operation of it. Where what
a maker needs does not exist yet, it draws the operation that makes it. All shrinks to o1, p1, l1, foo1 and no options.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from itertools import cycle, islice

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.situation import OpsState, Situation, functions_of
from properties.strategies.drawing import (
    COOKIES,
    GLOBS,
    GRAPH_USERS,
    LINKS,
    MOST_CALLING_PROGRAMS,
    MOST_FUNCTIONS,
    NOTRACE_GLOBS,
    OPS,
    PATTERNS,
    PROGRAMS,
    RETURNS,
    TRAMPOLINES,
    UNKNOWN,
    Maker,
    Setting,
    a_function,
    all_used,
    existing,
    favourites,
    fresh,
    one_of,
    pick,
    rarely,
    some_functions,
)
from properties.strategies.worlds import argument_words
from spec import operations as op
from spec.prototypes import Prototype
from spec.seeds import print_operation
from spec.semantics import Semantics

__all__ = ["CONCEPTS", "drawn_for", "operations"]


def _ops(draw: DrawFn, at: Setting, wanted: Callable[[OpsState], bool]) -> str | None:
    """A declared ops as wanted; rarely another one or any name, None if there is none."""
    fitting = tuple(name for name, state in at.situation.ops.items() if wanted(state))
    if rarely(draw):
        return pick(draw, (*at.situation.ops, *OPS))
    return pick(draw, fitting) if fitting else None


OPS_FLAGS = (
    (),
    (),
    ("save_regs",),
    ("ipmodify",),
    ("dynamic",),
    ("save_regs", "ipmodify", "dynamic"),
    ("recursion", "rcu", "permanent"),
)
FILTER_FLAGS = ((), (), (), (), ("reset",), ("reset",), ("remove",), ("remove",), ("remove", "reset"))


def _flags(draw: DrawFn, choices: tuple[tuple[str, ...], ...]) -> dict[str, bool]:
    return dict.fromkeys(pick(draw, choices), True)


def _declare_more(draw: DrawFn, at: Setting) -> op.Operation:
    """Declares an ops while there are few; then rarely."""
    if all_used(OPS, at.situation.ops) and not rarely(draw, 8):
        return _set_filter(draw, at)
    return _declare(draw, at)


def _declare(draw: DrawFn, at: Setting) -> op.Operation:
    return op.FtraceOps(fresh(draw, OPS, tuple(at.situation.ops)), **_flags(draw, OPS_FLAGS))


def _make_room(draw: DrawFn, at: Setting) -> op.Operation:
    """Where no ops can become direct: one more, or else an end of one that is in use."""
    if not all_used(OPS, at.situation.ops):
        return op.FtraceOps(fresh(draw, OPS, tuple(at.situation.ops)), dynamic=draw(st.booleans()))
    name = pick(draw, tuple(at.situation.ops))
    state = at.situation.ops[name]
    if _is_direct(state):
        return op.UnregisterFtraceDirectMulti(name, next(iter(state.entries.values()), "T1"))
    return op.UnregisterFtraceFunction(name) if state.enabled else op.FtraceFreeFilter(name)


def _may_filter(state: OpsState) -> bool:
    return not (state.enabled and state.role == "direct")


def _set_filter(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _may_filter if not rarely(draw, 12) else _is_direct)
    return _declare(draw, at) if name is None else _filter_of(draw, at, name)


def _filter_of(draw: DrawFn, at: Setting, name: str) -> op.Operation:
    if rarely(draw, 4):
        return op.FtraceSetFilter(name, pick(draw, GLOBS), reset=draw(st.booleans()))
    flags = _flags(draw, FILTER_FLAGS)
    state = at.situation.ops.get(name)
    if "remove" in flags and state and state.filter and not rarely(draw, 4):
        return op.FtraceSetFilterIp(name, pick(draw, state.filter[:MOST_FUNCTIONS]), **flags)
    if draw(st.booleans()):
        return op.FtraceSetFilterIp(name, a_function(draw, at), **flags)
    return op.FtraceSetFilterIps(name, some_functions(draw, at), **flags)


def _set_notrace(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _may_filter)
    if name is None:
        return _declare(draw, at)
    return op.FtraceSetNotrace(name, pick(draw, NOTRACE_GLOBS), reset=rarely(draw, 4))


def _free(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: not state.enabled)
    return _declare(draw, at) if name is None else op.FtraceFreeFilter(name)


def _register(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: not state.enabled and state.role != "direct")
    if name is None:
        return _declare_more(draw, at)
    state = at.situation.ops.get(name)
    if state and not state.filter and not rarely(draw, 4):
        return _filter_of(draw, at, name)
    return op.RegisterFtraceFunction(name)


def _unregister(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: state.enabled and state.role == "plain")
    return _register(draw, at) if name is None else op.UnregisterFtraceFunction(name)


# The direct-call API.


def _is_direct(state: OpsState) -> bool:
    return state.enabled and state.role == "direct"


def _may_be_direct(state: OpsState) -> bool:
    return not state.enabled and not state.ipmodify and state.role != "plain"


def _register_direct(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _may_be_direct)
    if name is None:
        return _make_room(draw, at)
    state = at.situation.ops.get(name)
    if state and not state.filter and not rarely(draw, 8):
        return _filter_of(draw, at, name)
    return op.RegisterFtraceDirectMulti(name, pick(draw, TRAMPOLINES))


def _unregister_direct(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _register_direct(draw, at)
    state = at.situation.ops.get(name)
    entries = tuple(dict.fromkeys(state.entries.values())) if state else ()
    tramp = pick(draw, entries if entries and not rarely(draw, 8) else TRAMPOLINES)
    return op.UnregisterFtraceDirectMulti(name, tramp, free=rarely(draw, 4))


def _modify_direct(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    return _register_direct(draw, at) if name is None else op.ModifyFtraceDirectMulti(name, pick(draw, TRAMPOLINES))


def _register_single(draw: DrawFn, at: Setting) -> op.Operation:
    return op.RegisterFtraceDirect(a_function(draw, at), pick(draw, TRAMPOLINES))


def _single_entry(draw: DrawFn, at: Setting) -> tuple[str, str]:
    """A function and the address of its entry; rarely others."""
    entries = tuple(at.situation.raw_entries.items())
    if not entries or rarely(draw, 6):
        return a_function(draw, at), pick(draw, TRAMPOLINES)
    return pick(draw, entries)


def _unregister_single(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.raw_entries and not rarely(draw, 6):
        return _register_single(draw, at)
    return op.UnregisterFtraceDirect(*_single_entry(draw, at))


def _modify_single(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.raw_entries and not rarely(draw, 6):
        return _register_single(draw, at)
    return op.ModifyFtraceDirect(*_single_entry(draw, at), pick(draw, TRAMPOLINES))


def _update_add(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: _is_direct(state) or (_may_be_direct(state) and not state.filter))
    if name is None:
        return _make_room(draw, at)
    return op.UpdateFtraceDirectAdd(name, _new_entries(draw, at))


def _new_entries(draw: DrawFn, at: Setting) -> tuple[tuple[str, str], ...]:
    return tuple((function, pick(draw, TRAMPOLINES)) for function in some_functions(draw, at))


def _update_del(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _update_add(draw, at)
    return op.UpdateFtraceDirectDel(name, _known_entries(draw, at, name))


def _known_entries(draw: DrawFn, at: Setting, name: str) -> tuple[tuple[str, str], ...]:
    """Some entries of an ops, as they are; rarely any."""
    state = at.situation.ops.get(name)
    if state is None or not state.entries or rarely(draw, 8):
        return _new_entries(draw, at)
    entries = tuple(state.entries.items())[:MOST_FUNCTIONS]
    return tuple(draw(st.lists(one_of(entries), min_size=1, max_size=len(entries), unique=True)))


def _update_mod(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _update_add(draw, at)
    tramp = pick(draw, TRAMPOLINES)
    return op.UpdateFtraceDirectMod(name, tuple((function, tramp) for function, _ in _known_entries(draw, at, name)))


# The graph tracer.


def _register_graph(draw: DrawFn, at: Setting) -> op.Operation:
    user = fresh(draw, GRAPH_USERS, at.situation.graph_users)
    options = pick(draw, GRAPH_OPTIONS)
    globs = {option: pick(draw, GLOBS) for option in options if option != "depth"}
    depth = pick(draw, (1, 2, 0, 4, 5)) if "depth" in options else None
    return op.RegisterFtraceGraph(user, depth=depth, **globs)


GRAPH_OPTIONS: tuple[tuple[str, ...], ...] = (
    ("filter",),
    ("filter",),
    (),
    ("filter", "function"),
    ("function",),
    ("notrace",),
    ("filter", "notrace"),
    ("function", "depth"),
    ("filter", "depth"),
    ("function", "notrace", "depth"),
)


def _unregister_graph(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.graph_users:
        return _register_graph(draw, at)
    return op.UnregisterFtraceGraph(existing(draw, GRAPH_USERS, at.situation.graph_users))


# BPF programs and links.


@lru_cache(maxsize=16)
def _kinds(semantics: Semantics) -> tuple[str, ...]:
    """The kinds that exist, by weight."""
    kinds: tuple[str, ...] = ("fentry", "fexit", "fentry", "fexit", "fexit", "fentry")
    kinds += ("fmod_ret",) * 3 if semantics.fmod_ret else ()
    kinds += ("fsession",) * 3 if semantics.fsession else ()
    kinds += ("freplace",) if semantics.freplace else ()
    return kinds


def _load(draw: DrawFn, at: Setting) -> op.Operation:
    if all_used(PROGRAMS, at.situation.programs) and not rarely(draw, 8):
        return _attach(draw, at)
    return _load_as(draw, at, multi=at.batch and draw(st.booleans()))


def _load_as(draw: DrawFn, at: Setting, *, multi: bool) -> op.Operation:
    name = fresh(draw, PROGRAMS, tuple(at.situation.programs))
    misuse = rarely(draw, 24)
    kind = pick(draw, op.KINDS if misuse else _kinds(at.semantics))
    targeted = not multi and rarely(draw, 5)
    multi = misuse or (multi and kind not in {"fmod_ret", "freplace"})
    returning = kind in {"fmod_ret", "freplace"} or misuse
    return op.BpfProgLoad(
        name,
        kind,
        target=a_function(draw, at) if targeted else None,
        multi=multi,
        sleepable=rarely(draw, 8),
        func_ip=rarely(draw, 4),
        returns=pick(draw, RETURNS) if returning else None,
        calls=_callee(draw, at),
    )


def _callee(draw: DrawFn, at: Setting) -> str | None:
    """What a program calls: rarely, and for few programs, as the runs multiply."""
    calling = sum(program.calls is not None for program in at.situation.programs.values())
    if calling >= MOST_CALLING_PROGRAMS or not rarely(draw, 5):
        return None
    return a_function(draw, at)


def _program(draw: DrawFn, at: Setting, *, multi: bool) -> str | None:
    fitting = tuple(name for name, program in at.situation.programs.items() if program.multi == multi)
    if rarely(draw, 32) or (not fitting and all_used(PROGRAMS, at.situation.programs)):
        return pick(draw, PROGRAMS)
    return pick(draw, fitting) if fitting else None


def _cookie(draw: DrawFn, at: Setting) -> int | None:
    return pick(draw, COOKIES) if rarely(draw, 3 if at.semantics.cookies else 32) else None


def _attach(draw: DrawFn, at: Setting) -> op.Operation:
    if all_used(LINKS, at.situation.links) and not rarely(draw, 6):
        return _detach(draw, at)
    prog = _program(draw, at, multi=False)
    if prog is None:
        return _load_as(draw, at, multi=False)
    link = fresh(draw, LINKS, tuple(at.situation.links))
    program = at.situation.programs.get(prog)
    if program and program.target is not None:
        function = program.target if rarely(draw, 4) else a_function(draw, at) if rarely(draw, 8) else None
    else:
        function = None if rarely(draw, 24) else a_function(draw, at)
    if function and op.BpfLinkCreate in at.supports and rarely(draw, 6):
        return op.BpfLinkCreate(link, prog, ((function, _cookie(draw, at)),))
    return op.BpfRawTracepointOpen(link, prog, function, _cookie(draw, at))


def _attach_batch(draw: DrawFn, at: Setting) -> op.Operation:
    if all_used(LINKS, at.situation.links) and not rarely(draw, 6):
        return _detach(draw, at)
    prog = _program(draw, at, multi=at.batch)
    if prog is None:
        return _load_as(draw, at, multi=at.batch)
    link = fresh(draw, LINKS, tuple(at.situation.links))
    functions = some_functions(draw, at)
    if rarely(draw, 5):
        functions = (*functions[1:], pick(draw, LINK_GLOBS))
    return op.BpfLinkCreate(link, prog, _with_cookies(draw, at, functions))


LINK_GLOBS = ("foo[12]", "foo*", "bar*", "*2", "*", "foo[!1]", "nowhere*")


def _with_cookies(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """No cookies, all, or only the first: which function has which must show."""
    count = pick(draw, (0, MOST_FUNCTIONS, 1)) if at.semantics.cookies or rarely(draw, 32) else 0
    return tuple((function, place + 1 if place < count else None) for place, function in enumerate(functions))


def _detach(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.links:
        return _attach(draw, at)
    return op.BpfLinkDetach(existing(draw, LINKS, tuple(at.situation.links)))


# IPMODIFY, modules, failures, observation.


def _livepatch(draw: DrawFn, at: Setting) -> op.Operation:
    return op.Livepatch(a_function(draw, at))


def _unlivepatch(draw: DrawFn, at: Setting) -> op.Operation:
    present = at.situation.livepatches
    return op.Unlivepatch(pick(draw, present) if present and not rarely(draw, 8) else a_function(draw, at))


def _ipmodify_ops(draw: DrawFn, at: Setting) -> op.Operation:
    """A plain IPMODIFY user: declared, given a filter, registered, and then its filter changed."""
    name = _ops(draw, at, lambda state: state.ipmodify)
    if name is None:
        return op.FtraceOps(fresh(draw, OPS, tuple(at.situation.ops)), ipmodify=True, save_regs=draw(st.booleans()))
    state = at.situation.ops.get(name)
    if state and state.filter and not state.enabled:
        return op.RegisterFtraceFunction(name)
    return op.UnregisterFtraceFunction(name) if rarely(draw, 4) else _filter_of(draw, at, name)


def _init_module(draw: DrawFn, at: Setting) -> op.Operation:
    gone = tuple(name for name in at.situation.world.modules if name not in at.situation.modules)
    return op.InitModule(_module(draw, at, gone)) if gone else _delete_module(draw, at)


def _delete_module(draw: DrawFn, at: Setting) -> op.Operation:
    return op.DeleteModule(_module(draw, at, tuple(sorted(at.situation.modules))))


def _module(draw: DrawFn, at: Setting, wanted: tuple[str, ...]) -> str:
    if wanted and not rarely(draw, 12):
        return pick(draw, wanted[:MOST_FUNCTIONS])
    return pick(draw, (*at.situation.world.modules[:MOST_FUNCTIONS], UNKNOWN))


def _fail(draw: DrawFn, _: Setting) -> op.Operation:
    return op.Fail(pick(draw, FAULTS), pick(draw, (1, 1, 1, 2, 3, 4)))


FAULTS = ("register", "jit_charge", "alloc", "filter", "register", "jit_charge", "register", "patch")


def _again(draw: DrawFn, at: Setting) -> op.Operation:
    """The last operation once more: a retry, or a double registration."""
    last = at.situation.last
    return _call(draw, at) if last is None or isinstance(last, op.BpfProgLoad | op.FtraceOps) else last


def _call(draw: DrawFn, at: Setting) -> op.Operation:
    function = a_function(draw, at)
    if function not in at.situation.world.by_name or not at.situation.may_call(function):
        return _site(draw, at)
    return op.Call(function, _arguments(draw, at.situation.world.by_name[function].prototype))


def _arguments(draw: DrawFn, prototype: Prototype | None) -> tuple[int, ...]:
    count = 3 if prototype is None else len(prototype.slots)
    if count and rarely(draw, 8):
        return tuple(draw(st.lists(argument_words(), min_size=count, max_size=count)))
    return tuple(islice(cycle(pick(draw, PATTERNS)), count))


def _site(draw: DrawFn, at: Setting) -> op.Operation:
    function = a_function(draw, at)
    return op.ObserveSite(function if function in at.situation.world.by_name else at.situation.world.functions[0].name)


CONCEPTS: dict[str, tuple[tuple[type[op.Operation], int, Maker], ...]] = {
    "filters": (
        (op.FtraceSetFilterIp, 8, _set_filter),
        (op.FtraceOps, 3, _declare_more),
        (op.FtraceSetNotrace, 4, _set_notrace),
        (op.FtraceFreeFilter, 1, _free),
    ),
    "plain": ((op.RegisterFtraceFunction, 3, _register), (op.UnregisterFtraceFunction, 1, _unregister)),
    "direct": (
        (op.RegisterFtraceDirectMulti, 4, _register_direct),
        (op.UnregisterFtraceDirectMulti, 2, _unregister_direct),
        (op.ModifyFtraceDirectMulti, 2, _modify_direct),
        (op.RegisterFtraceDirect, 3, _register_single),
        (op.UnregisterFtraceDirect, 2, _unregister_single),
        (op.ModifyFtraceDirect, 2, _modify_single),
        (op.UpdateFtraceDirectAdd, 4, _update_add),
        (op.UpdateFtraceDirectDel, 2, _update_del),
        (op.UpdateFtraceDirectMod, 2, _update_mod),
    ),
    "graph": ((op.RegisterFtraceGraph, 2, _register_graph), (op.UnregisterFtraceGraph, 1, _unregister_graph)),
    "programs": ((op.BpfProgLoad, 1, _load),),
    "attach": ((op.BpfRawTracepointOpen, 1, _attach),),
    "batch": ((op.BpfLinkCreate, 1, _attach_batch),),
    "detach": ((op.BpfLinkDetach, 1, _detach),),
    "ipmodify": (
        (op.Livepatch, 3, _livepatch),
        (op.Unlivepatch, 2, _unlivepatch),
        (op.RegisterFtraceFunction, 2, _ipmodify_ops),
    ),
    "modules": ((op.DeleteModule, 1, _delete_module), (op.InitModule, 1, _init_module)),
    "again": ((op.FtraceOps, 1, _again),),
    "call": ((op.Call, 12, _call), (op.ObserveSite, 1, _site)),
}
"""The rules of the machines, but for `faults`: each a choice of operations by weight."""

REACH_POINTS = tuple("attach attach batch detach detach ipmodify ipmodify plain direct direct graph filters".split())


@lru_cache(maxsize=256)
def _makers(concept: str, supports: frozenset[type[op.Operation]]) -> tuple[Maker, ...]:
    """The makers of a concept, each as often as its weight says; observation where the systems have nothing of it."""
    makers = tuple(maker for kind, weight, maker in CONCEPTS[concept] if kind in supports for _ in range(weight))
    return makers or (_call,)


def _draw_from(draw: DrawFn, concept: str, at: Setting) -> op.Operation:
    return pick(draw, _makers(concept, at.supports))(draw, at)


@st.composite
def operations(
    draw: DrawFn,
    situation: Situation,
    semantics: Semantics,
    supports: frozenset[type[op.Operation]],
) -> op.Operation:
    """One operation that the systems support, biased to what exists."""
    at = Setting(situation, semantics, supports)
    concept = pick(draw, tuple(CONCEPTS))
    operation = _fail(draw, at) if rarely(draw, 20) else _draw_from(draw, concept, at)
    return operation if type(operation) in supports else _call(draw, at)


class Drawn(tuple[op.Operation, ...]):
    """Operations that Hypothesis shows as the lines of a seed."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "; ".join(map(print_operation, self))


@st.composite
def drawn_for(draw: DrawFn, concept: str) -> Drawn:
    """One or more operations of a concept, for the machine that runs and its `situation`, `semantics` and `supports`.

    Often a call follows, of a function that the last one named: what an operation did shows in traces too.
    """
    machine = draw(st.runner())
    at = Setting(machine.situation, machine.semantics, machine.supports)
    drawn = _drawn(draw, concept, at)
    if isinstance(drawn[-1], op.Call | op.ObserveSite):
        return Drawn(drawn)
    named = (*functions_of(drawn[-1]), *at.situation.touched[:1])
    follows: bool = bool(named) and draw(st.booleans())
    return Drawn((*drawn, *_call_of(named[0], draw, at)) if follows else drawn)


def _drawn(draw: DrawFn, concept: str, at: Setting) -> tuple[op.Operation, ...]:
    if concept == "faults":
        fault = _fail(draw, at)
        return (fault,) if rarely(draw, 6) else (fault, _draw_from(draw, pick(draw, REACH_POINTS), at))
    if concept == "programs" and rarely(draw, 24):
        return _filling(draw, at)
    return (_draw_from(draw, concept, at),)


def _call_of(function: str, draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A call of the function, or of one that calls it."""
    world = at.situation.world
    if function not in world.by_name:
        return ()
    callers = (name for name in favourites(world) if any(c.function == function for c in world.by_name[name].callees))
    chosen = world.by_name[pick(draw, (function, *callers))]
    return (op.Call(chosen.name, _arguments(draw, chosen.prototype)),)


def _filling(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Programs up to the limit of one function, or one less."""
    if any(name.startswith("q") for name in at.situation.programs):
        return (_attach(draw, at),)
    function, kind = a_function(draw, at), pick(draw, _kinds(at.semantics))
    taken = sum(function in link.functions for link in at.situation.links.values())
    room = (at.semantics.max_links - taken) // (2 if kind == "fsession" else 1)
    count = max(room - pick(draw, (0, 1, 2)), 0)
    loads = (op.BpfProgLoad(f"q{number}", kind) for number in range(1, count + 1))
    opens = (op.BpfRawTracepointOpen(f"m{number}", f"q{number}", function) for number in range(1, count + 1))
    return (*loads, *opens)
