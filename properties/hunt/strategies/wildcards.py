"""Strategies for large worlds: plans of wildcard attaches that overlap and go in any order, with sampled calls.

They stand apart from `operations` because a step on a real population costs a thousand times as much: a plan
is drawn whole, is short, and nearly every operation in it succeeds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from spec import operations as op
from spec.globs import is_glob, matcher
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["PATTERNS", "plans"]

PATTERNS = (
    "x86*",
    "vfs_*",
    "*",
    "tcp_*",
    "bpf_*",
    "*_lock*",
    "security_*",
    "*sched*",
    "*f*",
    "__x64_sys_*",
    "*_show",
    "virt*",
    "*.constprop.*",
)
ONE_BY_ONE = 12
MOST_MODULES = 3


@dataclass
class Drawing:
    """A plan that is being drawn: its steps so far, and the names of what is attached, by kind."""

    world: World
    semantics: Semantics
    steps: list[op.Operation] = field(default_factory=list)
    links: list[str] = field(default_factory=list)
    plain: list[str] = field(default_factory=list)
    direct: list[str] = field(default_factory=list)
    users: list[str] = field(default_factory=list)
    patched: list[str] = field(default_factory=list)
    names: int = 0

    def fresh(self, letter: str) -> str:
        """A name that the plan has not used."""
        self.names += 1
        return f"{letter}{self.names}"


@st.composite
def plans(draw: DrawFn, world: World, semantics: Semantics, length: int) -> tuple[op.Operation, ...]:
    """So many attaches and detaches. Calls of a function that it names and of any function follow each."""
    drawing = Drawing(world, semantics)
    for _ in range(length):
        pattern = draw(_pattern(world))
        move = draw(st.sampled_from(_moves(drawing)))
        drawing.steps += move(draw, drawing, pattern)
        for function in (draw(st.sampled_from(_matching(world, pattern))), draw(st.sampled_from(world.functions))):
            drawing.steps.append(_call(function, draw(st.integers(0, 1 << 63))))
    return tuple(drawing.steps)


def _pattern(world: World) -> SearchStrategy[str]:
    return st.sampled_from([pattern for pattern in PATTERNS if _matching(world, pattern)])


@lru_cache(maxsize=256)
def _matching(world: World, pattern: str) -> Sequence[Function]:
    match = matcher(pattern)
    return [function for function in world.functions if match(function.symbol)]


def _call(function: Function, seed: int) -> op.Call:
    slots = len(function.prototype.slots) if function.prototype else 0
    return op.Call(function.name, tuple((seed * (number + 1)) % (1 << 64) for number in range(slots)))


@lru_cache(maxsize=256)
def _link_patterns(world: World, pattern: str) -> Sequence[str]:
    """How a link can say this pattern: mostly so that it succeeds, as one function without a site refuses a batch.

    libbpf knows no classes, so that a pattern with one selects nothing there.
    """
    modules = [module for module in world.modules if any(f.module == module for f in _matching(world, pattern))]
    attachable = [f"attachable({pattern})", *(f"attachable({module}:{pattern})" for module in modules[:MOST_MODULES])]
    return [*attachable * 3, pattern if is_glob(pattern) else f"{pattern}*", f"traceable({pattern})"]


Move = Callable[[DrawFn, Drawing, str], list[op.Operation]]


def _moves(drawing: Drawing) -> list[Move]:
    """The moves that are possible now. An attach is about twice as likely as a detach."""
    facts = drawing.semantics
    attaches: list[Move] = [_batch, _batch, _batch] if facts.tracing_multi else [_one_by_one, _one_by_one]
    attaches += [_direct_multi, _plain, _graph, _livepatch]
    attaches += [_hash_direct] if facts.hash_direct else []
    detaches = [
        (drawing.links, _detach),
        (drawing.links, _detach),
        (drawing.plain, _unregister),
        (drawing.plain, _narrow),
        (drawing.direct, _undirect),
        (drawing.users, _ungraph),
        (drawing.patched, _unpatch),
    ]
    return attaches + [move for exists, move in detaches if exists]


def _batch(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """One link over a wildcard."""
    kinds = ("fentry", "fexit", "fsession") if drawing.semantics.fsession else ("fentry", "fexit")
    prog, link = drawing.fresh("p"), drawing.fresh("l")
    cookie = draw(st.sampled_from((None, 7))) if drawing.semantics.cookies else None
    drawing.links.append(link)
    return [
        op.BpfProgLoad(prog, draw(st.sampled_from(kinds)), multi=True, func_ip=draw(st.booleans())),
        op.BpfLinkCreate(link, prog, ((draw(st.sampled_from(_link_patterns(drawing.world, pattern))), cookie),)),
    ]


def _one_by_one(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """A program attached to some functions of a wildcard, each by a link of its own, as tools do without batches."""
    prog = drawing.fresh("p")
    steps: list[op.Operation] = [op.BpfProgLoad(prog, draw(st.sampled_from(("fentry", "fexit"))))]
    matched = _matching(drawing.world, pattern)
    start = draw(st.integers(0, len(matched) - 1))
    for function in matched[start : start + ONE_BY_ONE]:
        link = drawing.fresh("l")
        steps.append(op.BpfRawTracepointOpen(link, prog, function.name))
        drawing.links.append(link)
    return steps


def _detach(draw: DrawFn, drawing: Drawing, _pattern: str) -> list[op.Operation]:
    return [op.BpfLinkDetach(_take(draw, drawing.links))]


def _plain(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """An ops over a wildcard, perhaps with a notrace hash."""
    ops = drawing.fresh("o")
    drawing.plain.append(ops)
    notrace = draw(st.sampled_from((None, *PATTERNS[:2])))
    return [
        op.FtraceOps(ops, save_regs=draw(st.booleans()), dynamic=draw(st.booleans())),
        op.FtraceSetFilter(ops, pattern),
        *([op.FtraceSetNotrace(ops, notrace)] if notrace else []),
        op.RegisterFtraceFunction(ops),
    ]


def _narrow(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """The filter of a registered ops loses a wildcard, or is set anew."""
    ops = draw(st.sampled_from(drawing.plain))
    return [op.FtraceSetFilter(ops, draw(st.sampled_from((f"!{pattern}", pattern))), reset=draw(st.booleans()))]


def _unregister(draw: DrawFn, drawing: Drawing, _pattern: str) -> list[op.Operation]:
    return [op.UnregisterFtraceFunction(_take(draw, drawing.plain))]


def _direct_multi(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """Register direct calls of a wildcard at once; -EBUSY if one of the sites has one already."""
    ops = drawing.fresh("o")
    drawing.direct.append(ops)
    dynamic = draw(st.booleans())
    return [
        op.FtraceOps(ops, dynamic=dynamic),
        op.FtraceSetFilter(ops, pattern),
        op.RegisterFtraceDirectMulti(ops, "T1"),
        op.ModifyFtraceDirectMulti(ops, "T2"),
    ]


def _undirect(draw: DrawFn, drawing: Drawing, _pattern: str) -> list[op.Operation]:
    return [op.UnregisterFtraceDirectMulti(_take(draw, drawing.direct), "T2")]


def _hash_direct(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    """The hash API over some functions of a wildcard, added, changed and deleted again."""
    ops = drawing.fresh("o")
    matched = _matching(drawing.world, pattern)[: draw(st.integers(1, 600))]
    return [
        op.FtraceOps(ops),
        op.UpdateFtraceDirectAdd(ops, tuple((function.name, "T1") for function in matched)),
        op.UpdateFtraceDirectMod(ops, tuple((function.name, "T2") for function in matched)),
        op.UpdateFtraceDirectDel(ops, tuple((function.name, "T2") for function in matched)),
    ]


def _graph(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    user = drawing.fresh("g")
    drawing.users.append(user)
    notrace = draw(st.sampled_from((None, *PATTERNS[:2])))
    return [op.RegisterFtraceGraph(user, filter=pattern, notrace=notrace)]


def _ungraph(draw: DrawFn, drawing: Drawing, _pattern: str) -> list[op.Operation]:
    return [op.UnregisterFtraceGraph(_take(draw, drawing.users))]


def _livepatch(draw: DrawFn, drawing: Drawing, pattern: str) -> list[op.Operation]:
    function = draw(st.sampled_from(_matching(drawing.world, pattern)))
    drawing.patched.append(function.name)
    return [op.Livepatch(function.name), _call(function, 1)]


def _unpatch(draw: DrawFn, drawing: Drawing, _pattern: str) -> list[op.Operation]:
    return [op.Unlivepatch(_take(draw, drawing.patched))]


def _take(draw: DrawFn, names: list[str]) -> str:
    """Draw one of the names, and take it off the list."""
    return names.pop(draw(st.integers(0, len(names) - 1)))
