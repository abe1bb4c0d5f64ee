"""What begins well, for its end to fail: ends are where kernels lose track, and what has not begun cannot end."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf
from properties.hunt.strategies.drawing import (
    GRAPH_USERS,
    LINKS,
    OPS,
    PROGRAMS,
    Setting,
    a_function,
    a_trampoline,
    pick,
    unused,
)
from spec import operations as op

__all__ = ["beginning_and_end", "direct_calls"]


def beginning_and_end(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A link of several functions, or two users of the graph tracer; its end is last. Nothing if no name is left.

    Of the users it may be the beginning of the second one, which changes what the first one began.
    """
    functions = a_function(draw, at), a_function(draw, at)
    return _link(draw, at, functions) if at.batch and draw(st.booleans()) else _users(draw, at, functions)


def _link(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    prog, link = next(unused(PROGRAMS, at.inventory.programs)), next(unused(LINKS, at.inventory.links))
    load = op.BpfProgLoad(prog, pick(draw, bpf.attaching_kinds(at.semantics, multi=True)), multi=True)
    targets = tuple((function, None) for function in dict.fromkeys(functions))
    return load, op.BpfLinkCreate(link, prog, targets), op.BpfLinkDetach(link)


def _users(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    users = tuple(name for name in GRAPH_USERS if name not in at.inventory.graph_users)[: len(functions)]
    if len(users) < len(functions) or op.RegisterFtraceGraph not in at.supports:
        return ()
    begun = (op.RegisterFtraceGraph(user, filter=function) for user, function in zip(users, functions, strict=True))
    ends = () if draw(st.booleans()) else (op.UnregisterFtraceGraph(pick(draw, users)),)
    return (*begun, *ends)


def direct_calls(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Direct calls by one of the APIs that there are, and last a change of them or their end."""
    apis = tuple(calls for kind, calls in DIRECT_APIS.items() if kind in at.supports)
    if not apis:
        return ()
    drawn = a_function(draw, at), a_function(draw, at)
    free = tuple(name for name in dict.fromkeys(drawn) if not at.inventory.has_entry(name))
    return pick(draw, apis)(draw, at, free or drawn[:1])


def _single(draw: DrawFn, _: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    function, tramp = functions[0], a_trampoline(draw)
    ends = op.UnregisterFtraceDirect(function, tramp), op.ModifyFtraceDirect(function, tramp, a_trampoline(draw))
    return op.RegisterFtraceDirect(function, tramp), pick(draw, ends)


def _batch(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    made, tramp = _ops(at), a_trampoline(draw)
    ends = (
        op.UnregisterFtraceDirectMulti(made.ops, tramp),
        op.ModifyFtraceDirectMulti(made.ops, a_trampoline(draw)),
    )
    filled = op.FtraceSetFilterIps(made.ops, functions)
    return made, filled, op.RegisterFtraceDirectMulti(made.ops, tramp), pick(draw, ends)


def _hash(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    made, other = _ops(at), a_trampoline(draw)
    entries = tuple((function, a_trampoline(draw)) for function in functions)
    ends = (
        op.UpdateFtraceDirectDel(made.ops, entries[: pick(draw, (1, 2))]),
        op.UpdateFtraceDirectMod(made.ops, tuple((function, other) for function, _ in entries)),
    )
    return made, op.UpdateFtraceDirectAdd(made.ops, entries), pick(draw, ends)


def _ops(at: Setting) -> op.FtraceOps:
    return op.FtraceOps(next(unused(OPS, at.inventory.ops)))


DIRECT_APIS = {
    op.RegisterFtraceDirect: _single,
    op.RegisterFtraceDirectMulti: _batch,
    op.UpdateFtraceDirectAdd: _hash,
}
