"""What begins well, to end without memory: the ends of what serves several functions are where kernels lose track."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf
from properties.hunt.strategies.drawing import GRAPH_USERS, LINKS, PROGRAMS, Setting, a_function, pick, unused
from spec import operations as op

__all__ = ["beginning_and_end"]


def beginning_and_end(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A link of several functions, or two users of the graph tracer; its end is last. Nothing if no name is left."""
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
    return (*begun, op.UnregisterFtraceGraph(pick(draw, users)))
