"""All Hypothesis strategies: operations biased to what exists, words, worlds of random prototypes, mutated texts.

A concept is a group of operations by kernel concept, such as `direct`; each maker draws one operation of it. Where what
a maker needs does not exist yet, it draws the operation that makes it. All shrinks to o1, p1, l1, foo1 and no options.
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass
from functools import lru_cache
from itertools import cycle, islice
from typing import TypeVar

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from properties.situation import OpsState, Situation, functions_of
from spec import operations as op
from spec.prototypes import Prototype, Type
from spec.seeds import print_operation
from spec.semantics import PRESETS, Semantics
from spec.worlds import Callee, Function, World

__all__ = [
    "CONCEPTS",
    "Setting",
    "argument_words",
    "drawn_for",
    "mutated",
    "operations",
    "presets",
    "prototypes",
    "worlds",
]

Value = TypeVar("Value")

OPS = ("o1", "o2", "o3")
PROGRAMS = ("p1", "p2", "p3", "p4", "p5", "p6")
LINKS = ("l1", "l2", "l3", "l4", "l5", "l6")
GRAPH_USERS = ("g1", "g2", "g3")
TRAMPOLINES = ("T1", "T1", "T2", "T3")
FAVOURITES = tuple("foo1 foo2 foo0 bar1 outer bar2 foo6 foo7 foo12 narrow split spill".split())
UNKNOWN = "nowhere"
MOST_FUNCTIONS = 12
MOST_CALLING_PROGRAMS = 2

GLOBS = tuple("foo1 foo* *2 foo[12] bar* bar1 foo? out* *a* * 5 nowhere*".split())
NOTRACE_GLOBS = tuple("foo1 foo2 foo[12] bar* *2 foo* !foo1 nowhere".split())
POWERS = tuple(1 << bits for bits in (7, 8, 15, 16, 31, 32, 63))
WORDS = (0, 1, 2, -1, *POWERS, *(power - 1 for power in POWERS), (1 << 64) - 1)
PATTERNS = ((1, 2, 3), (0,), (-1,), (1 << 63, 255, 256), ((1 << 32) + 1, 128, -2, 1 << 31))
COOKIES = (1, 2, 3, (1 << 64) - 1)
RETURNS = (None, 1, 0, -22, 1 << 32)


@dataclass(frozen=True, slots=True)
class Setting:
    """What a maker draws from: what exists, whose rules, and which operations the systems can carry out."""

    situation: Situation
    semantics: Semantics
    supports: frozenset[type[op.Operation]]

    @property
    def batch(self) -> bool:
        """Whether a link may attach to many functions here."""
        return self.semantics.tracing_multi and op.BpfLinkCreate in self.supports


Maker = Callable[[DrawFn, Setting], op.Operation]


@lru_cache(maxsize=4096)
def _one_of(values: tuple[Value, ...]) -> SearchStrategy[Value]:
    return st.sampled_from(values)


@lru_cache(maxsize=32)
def _one_in(count: int) -> SearchStrategy[bool]:
    return st.integers(0, count - 1).map(lambda number: number == count - 1)


def _pick(draw: DrawFn, values: tuple[Value, ...]) -> Value:
    chosen: Value = draw(_one_of(values))
    return chosen


def _rarely(draw: DrawFn, count: int = 16) -> bool:
    return draw(_one_in(count))


# Names and functions.


def _fresh(draw: DrawFn, pool: tuple[str, ...], used: tuple[str, ...]) -> str:
    """The first name that is not in use; rarely, and where there is none, any."""
    free = [name for name in pool if name not in used]
    return free[0] if free and not _rarely(draw) else _pick(draw, pool)


def _all_used(pool: tuple[str, ...], used: Container[str]) -> bool:
    return all(name in used for name in pool)


def _existing(draw: DrawFn, pool: tuple[str, ...], used: tuple[str, ...]) -> str:
    """A name that is in use; rarely any."""
    return _pick(draw, used if used and not _rarely(draw) else pool)


def _favourites(world: World) -> tuple[str, ...]:
    """A few functions of a world: the known ones, or else some spread over all of it."""
    known = tuple(name for name in FAVOURITES if name in world.by_name)
    stride = max(1, len(world.functions) // MOST_FUNCTIONS)
    return known or tuple(function.name for function in world.functions[::stride][:MOST_FUNCTIONS])


@lru_cache(maxsize=4096)
def _pool(favourites: tuple[str, ...], touched: tuple[str, ...]) -> tuple[str, ...]:
    """Functions to draw from: those used last stand several times, one is unknown."""
    known = [name for name in touched if name != UNKNOWN]
    return (*favourites, *(3 * known), *favourites, UNKNOWN)


def _functions(at: Setting) -> tuple[str, ...]:
    return _pool(_favourites(at.situation.world), at.situation.touched)


def _function(draw: DrawFn, at: Setting) -> str:
    return _pick(draw, _functions(at))


def _some_functions(draw: DrawFn, at: Setting) -> tuple[str, ...]:
    drawn = draw(_short_lists(_functions(at)))
    return tuple(drawn) if _rarely(draw) else tuple(dict.fromkeys(drawn))


@lru_cache(maxsize=4096)
def _short_lists(pool: tuple[str, ...]) -> SearchStrategy[list[str]]:
    return st.lists(_one_of(pool), min_size=1, max_size=4)


def _glob(draw: DrawFn, globs: tuple[str, ...]) -> str:
    return _pick(draw, globs)


# Ops and filters.


def _ops(draw: DrawFn, at: Setting, wanted: Callable[[OpsState], bool]) -> str | None:
    """A declared ops as wanted; rarely another one or any name, None if there is none."""
    fitting = tuple(name for name, state in at.situation.ops.items() if wanted(state))
    if _rarely(draw):
        return _pick(draw, (*at.situation.ops, *OPS))
    return _pick(draw, fitting) if fitting else None


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
    return dict.fromkeys(_pick(draw, choices), True)


def _declare_more(draw: DrawFn, at: Setting) -> op.Operation:
    """Declares an ops while there are few; then rarely."""
    if _all_used(OPS, at.situation.ops) and not _rarely(draw, 8):
        return _set_filter(draw, at)
    return _declare(draw, at)


def _declare(draw: DrawFn, at: Setting) -> op.Operation:
    return op.FtraceOps(_fresh(draw, OPS, tuple(at.situation.ops)), **_flags(draw, OPS_FLAGS))


def _make_room(draw: DrawFn, at: Setting) -> op.Operation:
    """Where no ops can become direct: one more, or else an end of one that is in use."""
    if not _all_used(OPS, at.situation.ops):
        return op.FtraceOps(_fresh(draw, OPS, tuple(at.situation.ops)), dynamic=draw(st.booleans()))
    name = _pick(draw, tuple(at.situation.ops))
    state = at.situation.ops[name]
    if _is_direct(state):
        return op.UnregisterFtraceDirectMulti(name, next(iter(state.entries.values()), "T1"))
    return op.UnregisterFtraceFunction(name) if state.enabled else op.FtraceFreeFilter(name)


def _may_filter(state: OpsState) -> bool:
    return not (state.enabled and state.role == "direct")


def _set_filter(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _may_filter if not _rarely(draw, 12) else _is_direct)
    return _declare(draw, at) if name is None else _filter_of(draw, at, name)


def _filter_of(draw: DrawFn, at: Setting, name: str) -> op.Operation:
    if _rarely(draw, 4):
        return op.FtraceSetFilter(name, _glob(draw, GLOBS), reset=draw(st.booleans()))
    flags = _flags(draw, FILTER_FLAGS)
    state = at.situation.ops.get(name)
    if "remove" in flags and state and state.filter and not _rarely(draw, 4):
        return op.FtraceSetFilterIp(name, _pick(draw, state.filter[:MOST_FUNCTIONS]), **flags)
    if draw(st.booleans()):
        return op.FtraceSetFilterIp(name, _function(draw, at), **flags)
    return op.FtraceSetFilterIps(name, _some_functions(draw, at), **flags)


def _set_notrace(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _may_filter)
    if name is None:
        return _declare(draw, at)
    return op.FtraceSetNotrace(name, _glob(draw, NOTRACE_GLOBS), reset=_rarely(draw, 4))


def _free(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: not state.enabled)
    return _declare(draw, at) if name is None else op.FtraceFreeFilter(name)


def _register(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: not state.enabled and state.role != "direct")
    if name is None:
        return _declare_more(draw, at)
    state = at.situation.ops.get(name)
    if state and not state.filter and not _rarely(draw, 4):
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
    if state and not state.filter and not _rarely(draw, 8):
        return _filter_of(draw, at, name)
    return op.RegisterFtraceDirectMulti(name, _pick(draw, TRAMPOLINES))


def _unregister_direct(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _register_direct(draw, at)
    state = at.situation.ops.get(name)
    entries = tuple(dict.fromkeys(state.entries.values())) if state else ()
    tramp = _pick(draw, entries if entries and not _rarely(draw, 8) else TRAMPOLINES)
    return op.UnregisterFtraceDirectMulti(name, tramp, free=_rarely(draw, 4))


def _modify_direct(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    return _register_direct(draw, at) if name is None else op.ModifyFtraceDirectMulti(name, _pick(draw, TRAMPOLINES))


def _register_single(draw: DrawFn, at: Setting) -> op.Operation:
    return op.RegisterFtraceDirect(_function(draw, at), _pick(draw, TRAMPOLINES))


def _single_entry(draw: DrawFn, at: Setting) -> tuple[str, str]:
    """A function and the address of its entry; rarely others."""
    entries = tuple(at.situation.raw_entries.items())
    if not entries or _rarely(draw, 6):
        return _function(draw, at), _pick(draw, TRAMPOLINES)
    return _pick(draw, entries)


def _unregister_single(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.raw_entries and not _rarely(draw, 6):
        return _register_single(draw, at)
    return op.UnregisterFtraceDirect(*_single_entry(draw, at))


def _modify_single(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.raw_entries and not _rarely(draw, 6):
        return _register_single(draw, at)
    return op.ModifyFtraceDirect(*_single_entry(draw, at), _pick(draw, TRAMPOLINES))


def _update_add(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, lambda state: _is_direct(state) or (_may_be_direct(state) and not state.filter))
    if name is None:
        return _make_room(draw, at)
    return op.UpdateFtraceDirectAdd(name, _new_entries(draw, at))


def _new_entries(draw: DrawFn, at: Setting) -> tuple[tuple[str, str], ...]:
    return tuple((function, _pick(draw, TRAMPOLINES)) for function in _some_functions(draw, at))


def _update_del(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _update_add(draw, at)
    return op.UpdateFtraceDirectDel(name, _known_entries(draw, at, name))


def _known_entries(draw: DrawFn, at: Setting, name: str) -> tuple[tuple[str, str], ...]:
    """Some entries of an ops, as they are; rarely any."""
    state = at.situation.ops.get(name)
    if state is None or not state.entries or _rarely(draw, 8):
        return _new_entries(draw, at)
    entries = tuple(state.entries.items())[:MOST_FUNCTIONS]
    return tuple(draw(st.lists(_one_of(entries), min_size=1, max_size=len(entries), unique=True)))


def _update_mod(draw: DrawFn, at: Setting) -> op.Operation:
    name = _ops(draw, at, _is_direct)
    if name is None:
        return _update_add(draw, at)
    tramp = _pick(draw, TRAMPOLINES)
    return op.UpdateFtraceDirectMod(name, tuple((function, tramp) for function, _ in _known_entries(draw, at, name)))


# The graph tracer.


def _register_graph(draw: DrawFn, at: Setting) -> op.Operation:
    user = _fresh(draw, GRAPH_USERS, at.situation.graph_users)
    options = _pick(draw, GRAPH_OPTIONS)
    globs = {option: _glob(draw, GLOBS) for option in options if option != "depth"}
    depth = _pick(draw, (1, 2, 0, 4, 5)) if "depth" in options else None
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
    return op.UnregisterFtraceGraph(_existing(draw, GRAPH_USERS, at.situation.graph_users))


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
    if _all_used(PROGRAMS, at.situation.programs) and not _rarely(draw, 8):
        return _attach(draw, at)
    return _load_as(draw, at, multi=at.batch and draw(st.booleans()))


def _load_as(draw: DrawFn, at: Setting, *, multi: bool) -> op.Operation:
    name = _fresh(draw, PROGRAMS, tuple(at.situation.programs))
    misuse = _rarely(draw, 24)
    kind = _pick(draw, op.KINDS if misuse else _kinds(at.semantics))
    targeted = not multi and _rarely(draw, 5)
    multi = misuse or (multi and kind not in {"fmod_ret", "freplace"})
    returning = kind in {"fmod_ret", "freplace"} or misuse
    return op.BpfProgLoad(
        name,
        kind,
        target=_function(draw, at) if targeted else None,
        multi=multi,
        sleepable=_rarely(draw, 8),
        func_ip=_rarely(draw, 4),
        returns=_pick(draw, RETURNS) if returning else None,
        calls=_callee(draw, at),
    )


def _callee(draw: DrawFn, at: Setting) -> str | None:
    """What a program calls: rarely, and for few programs, as the runs multiply."""
    calling = sum(program.calls is not None for program in at.situation.programs.values())
    if calling >= MOST_CALLING_PROGRAMS or not _rarely(draw, 5):
        return None
    return _function(draw, at)


def _program(draw: DrawFn, at: Setting, *, multi: bool) -> str | None:
    fitting = tuple(name for name, program in at.situation.programs.items() if program.multi == multi)
    if _rarely(draw, 32) or (not fitting and _all_used(PROGRAMS, at.situation.programs)):
        return _pick(draw, PROGRAMS)
    return _pick(draw, fitting) if fitting else None


def _cookie(draw: DrawFn, at: Setting) -> int | None:
    return _pick(draw, COOKIES) if _rarely(draw, 3 if at.semantics.cookies else 32) else None


def _attach(draw: DrawFn, at: Setting) -> op.Operation:
    if _all_used(LINKS, at.situation.links) and not _rarely(draw, 6):
        return _detach(draw, at)
    prog = _program(draw, at, multi=False)
    if prog is None:
        return _load_as(draw, at, multi=False)
    link = _fresh(draw, LINKS, tuple(at.situation.links))
    program = at.situation.programs.get(prog)
    if program and program.target is not None:
        function = program.target if _rarely(draw, 4) else _function(draw, at) if _rarely(draw, 8) else None
    else:
        function = None if _rarely(draw, 24) else _function(draw, at)
    if function and op.BpfLinkCreate in at.supports and _rarely(draw, 6):
        return op.BpfLinkCreate(link, prog, ((function, _cookie(draw, at)),))
    return op.BpfRawTracepointOpen(link, prog, function, _cookie(draw, at))


def _attach_batch(draw: DrawFn, at: Setting) -> op.Operation:
    if _all_used(LINKS, at.situation.links) and not _rarely(draw, 6):
        return _detach(draw, at)
    prog = _program(draw, at, multi=at.batch)
    if prog is None:
        return _load_as(draw, at, multi=at.batch)
    link = _fresh(draw, LINKS, tuple(at.situation.links))
    functions = _some_functions(draw, at)
    if _rarely(draw, 5):
        functions = (*functions[1:], _glob(draw, LINK_GLOBS))
    return op.BpfLinkCreate(link, prog, _with_cookies(draw, at, functions))


LINK_GLOBS = ("foo[12]", "foo*", "bar*", "*2", "*", "foo[!1]", "nowhere*")


def _with_cookies(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """No cookies, all, or only the first: which function has which must show."""
    count = _pick(draw, (0, MOST_FUNCTIONS, 1)) if at.semantics.cookies or _rarely(draw, 32) else 0
    return tuple((function, place + 1 if place < count else None) for place, function in enumerate(functions))


def _detach(draw: DrawFn, at: Setting) -> op.Operation:
    if not at.situation.links:
        return _attach(draw, at)
    return op.BpfLinkDetach(_existing(draw, LINKS, tuple(at.situation.links)))


# IPMODIFY, modules, failures, observation.


def _livepatch(draw: DrawFn, at: Setting) -> op.Operation:
    return op.Livepatch(_function(draw, at))


def _unlivepatch(draw: DrawFn, at: Setting) -> op.Operation:
    present = at.situation.livepatches
    return op.Unlivepatch(_pick(draw, present) if present and not _rarely(draw, 8) else _function(draw, at))


def _ipmodify_ops(draw: DrawFn, at: Setting) -> op.Operation:
    """A plain IPMODIFY user: declared, given a filter, registered, and then its filter changed."""
    name = _ops(draw, at, lambda state: state.ipmodify)
    if name is None:
        return op.FtraceOps(_fresh(draw, OPS, tuple(at.situation.ops)), ipmodify=True, save_regs=draw(st.booleans()))
    state = at.situation.ops.get(name)
    if state and state.filter and not state.enabled:
        return op.RegisterFtraceFunction(name)
    return op.UnregisterFtraceFunction(name) if _rarely(draw, 4) else _filter_of(draw, at, name)


def _init_module(draw: DrawFn, at: Setting) -> op.Operation:
    gone = tuple(name for name in at.situation.world.modules if name not in at.situation.modules)
    return op.InitModule(_module(draw, at, gone)) if gone else _delete_module(draw, at)


def _delete_module(draw: DrawFn, at: Setting) -> op.Operation:
    return op.DeleteModule(_module(draw, at, tuple(sorted(at.situation.modules))))


def _module(draw: DrawFn, at: Setting, wanted: tuple[str, ...]) -> str:
    if wanted and not _rarely(draw, 12):
        return _pick(draw, wanted[:MOST_FUNCTIONS])
    return _pick(draw, (*at.situation.world.modules[:MOST_FUNCTIONS], UNKNOWN))


def _fail(draw: DrawFn, _: Setting) -> op.Operation:
    return op.Fail(_pick(draw, FAULTS), _pick(draw, (1, 1, 1, 2, 3, 4)))


FAULTS = ("register", "jit_charge", "alloc", "filter", "register", "jit_charge", "register", "patch")


def _again(draw: DrawFn, at: Setting) -> op.Operation:
    """The last operation once more: a retry, or a double registration."""
    last = at.situation.last
    return _call(draw, at) if last is None or isinstance(last, op.BpfProgLoad | op.FtraceOps) else last


def _call(draw: DrawFn, at: Setting) -> op.Operation:
    function = _function(draw, at)
    if function not in at.situation.world.by_name or not at.situation.may_call(function):
        return _site(draw, at)
    return op.Call(function, _arguments(draw, at.situation.world.by_name[function].prototype))


def _arguments(draw: DrawFn, prototype: Prototype | None) -> tuple[int, ...]:
    count = 3 if prototype is None else len(prototype.slots)
    if count and _rarely(draw, 8):
        return tuple(draw(st.lists(argument_words(), min_size=count, max_size=count)))
    return tuple(islice(cycle(_pick(draw, PATTERNS)), count))


def _site(draw: DrawFn, at: Setting) -> op.Operation:
    function = _function(draw, at)
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
    return _pick(draw, _makers(concept, at.supports))(draw, at)


@st.composite
def operations(
    draw: DrawFn,
    situation: Situation,
    semantics: Semantics,
    supports: frozenset[type[op.Operation]],
) -> op.Operation:
    """One operation that the systems support, biased to what exists."""
    at = Setting(situation, semantics, supports)
    concept = _pick(draw, tuple(CONCEPTS))
    operation = _fail(draw, at) if _rarely(draw, 20) else _draw_from(draw, concept, at)
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
        return (fault,) if _rarely(draw, 6) else (fault, _draw_from(draw, _pick(draw, REACH_POINTS), at))
    if concept == "programs" and _rarely(draw, 24):
        return _filling(draw, at)
    return (_draw_from(draw, concept, at),)


def _call_of(function: str, draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A call of the function, or of one that calls it."""
    world = at.situation.world
    if function not in world.by_name:
        return ()
    callers = (name for name in _favourites(world) if any(c.function == function for c in world.by_name[name].callees))
    chosen = world.by_name[_pick(draw, (function, *callers))]
    return (op.Call(chosen.name, _arguments(draw, chosen.prototype)),)


def _filling(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Programs up to the limit of one function, or one less."""
    if any(name.startswith("q") for name in at.situation.programs):
        return (_attach(draw, at),)
    function, kind = _function(draw, at), _pick(draw, _kinds(at.semantics))
    taken = sum(function in link.functions for link in at.situation.links.values())
    room = (at.semantics.max_links - taken) // (2 if kind == "fsession" else 1)
    count = max(room - _pick(draw, (0, 1, 2)), 0)
    loads = (op.BpfProgLoad(f"q{number}", kind) for number in range(1, count + 1))
    opens = (op.BpfRawTracepointOpen(f"m{number}", f"q{number}", function) for number in range(1, count + 1))
    return (*loads, *opens)


# Words, prototypes, worlds, texts.


def argument_words() -> SearchStrategy[int]:
    """A 64-bit argument word: where conversions change their mind, or any."""
    return st.sampled_from(WORDS) | st.integers(-(1 << 63), (1 << 64) - 1)


def presets() -> SearchStrategy[Semantics]:
    """One of the semantics."""
    return st.sampled_from(tuple(PRESETS.values()))


SCALARS = (
    Type("long", "INT", 8),
    Type("int", "INT", 4),
    Type("char", "INT", 1),
    Type("short", "INT", 2),
    Type("bool", "INT", 1),
    Type("unsigned long", "INT", 8),
    Type("unsigned int", "INT", 4),
    Type("unsigned short", "INT", 2),
    Type("unsigned char", "INT", 1),
    Type("void *", "PTR", 8),
    Type("enum state", "ENUM", 4),
)
RETURNED = (*SCALARS, *SCALARS, Type("void", "VOID", 0), Type("__int128", "INT", 16), Type("struct s16", "STRUCT", 16))


@st.composite
def _types(draw: DrawFn) -> Type:
    if _rarely(draw, 4):
        size = draw(st.integers(1, 16))
        return Type(f"struct s{size}", "STRUCT", size)
    return _pick(draw, SCALARS)


@st.composite
def prototypes(draw: DrawFn) -> Prototype:
    """A prototype; some have more arguments, larger ones or other returns than BPF can describe."""
    arguments = draw(st.lists(_types(), max_size=7) | st.lists(_types(), max_size=13))
    if _rarely(draw):
        arguments.append(Type("struct large", "STRUCT", 24))
    return Prototype(tuple(arguments), _pick(draw, RETURNED), variadic=_rarely(draw))


ATTRIBUTES = (
    frozenset({"fmod_ret", "sleepable", "freplace"}),
    frozenset({"fmod_ret"}),
    frozenset({"sleepable"}),
    frozenset[str](),
    frozenset({"deny"}),
    frozenset({"noreturn"}),
    frozenset({"disabled"}),
)


@st.composite
def worlds(draw: DrawFn, most: int = 8) -> World:
    """A world of random prototypes, named foo1... and, in module mod1, bar1..., so that the same globs select of it."""
    functions: list[Function] = []
    modules = sorted(draw(st.lists(st.sampled_from(("", "mod1")), min_size=1, max_size=most)))
    ids = draw(st.permutations(range(1, len(modules) + 1)))
    for number, module in enumerate(modules, 1):
        prototype = None if _rarely(draw) else draw(prototypes())
        functions.append(
            Function(
                f"{'bar' if module else 'foo'}{number}",
                prototype,
                None if _rarely(draw) or prototype is None else ids[number - 1],
                module or None,
                _pick(draw, ATTRIBUTES),
                _callees(draw, functions),
            ),
        )
    return World("random", tuple(functions))


def _callees(draw: DrawFn, before: list[Function]) -> tuple[Callee, ...]:
    """At most two calls of functions that are there already, so that no call is endless."""
    callable_ones = [function for function in before if function.prototype is not None and not function.module]
    if not callable_ones or not _rarely(draw, 4):
        return ()
    chosen = draw(st.lists(st.sampled_from(callable_ones), min_size=1, max_size=2))
    slots = ((function.name, function.prototype.slots) for function in chosen if function.prototype)
    return tuple(Callee(name, tuple(("value", n) for n, _ in enumerate(places))) for name, places in slots)


PIECES = tuple("->;-> 0;-> -EBUSY WARN;#;---;world;semantics;fail alloc;foo1:1;a=b;0x;-1;*;\x00;\u2028;é; ".split(";"))


@st.composite
def mutated(draw: DrawFn, text: str) -> str:
    """The text after one to four edits: lines or stretches dropped, doubled, swapped, or something put in."""
    for _ in range(draw(st.integers(1, 4))):
        edit = _pick(draw, (_drop, _double, _insert, _swap_lines))
        text = edit(draw, text)
    return text


def _stretch(draw: DrawFn, text: str) -> tuple[int, int]:
    start = draw(st.integers(0, len(text)))
    return start, min(len(text), start + draw(st.integers(1, 12)))


def _drop(draw: DrawFn, text: str) -> str:
    start, end = _stretch(draw, text)
    return text[:start] + text[end:]


def _double(draw: DrawFn, text: str) -> str:
    start, end = _stretch(draw, text)
    return text[:end] + text[start:]


def _insert(draw: DrawFn, text: str) -> str:
    start, _ = _stretch(draw, text)
    return text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=4)) + text[start:]


def _swap_lines(draw: DrawFn, text: str) -> str:
    lines = text.split("\n")
    first, second = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)
