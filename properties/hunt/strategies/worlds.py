"""Semantics, prototypes, and worlds of random functions."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn, SearchStrategy

from properties.hunt.strategies.drawing import pick, rarely
from spec.prototypes import Prototype, Type
from spec.semantics import PRESETS, Semantics
from spec.worlds import Callee, Function, World

__all__ = ["presets", "prototypes", "worlds"]


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
    if rarely(draw, 4):
        size = draw(st.integers(1, 16))
        return Type(f"struct s{size}", "STRUCT", size)
    return pick(draw, SCALARS)


@st.composite
def prototypes(draw: DrawFn) -> Prototype:
    """A prototype; some have more arguments, larger ones or other returns than BPF can describe."""
    arguments = draw(st.lists(_types(), max_size=7) | st.lists(_types(), max_size=13))
    if rarely(draw):
        arguments.append(Type("struct large", "STRUCT", 24))
    return Prototype(tuple(arguments), pick(draw, RETURNED), variadic=rarely(draw))


ATTRIBUTES = (
    frozenset({"fmod_ret", "sleepable", "freplace", "lsm", "lsm_sleepable"}),
    frozenset({"fmod_ret", "lsm", "lsm_bool"}),
    frozenset({"lsm", "lsm_sleepable", "empty"}),
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
        prototype = None if rarely(draw) else draw(prototypes())
        functions.append(
            Function(
                f"{'bar' if module else 'foo'}{number}",
                prototype,
                None if rarely(draw) or prototype is None else ids[number - 1],
                module or None,
                pick(draw, ATTRIBUTES),
                _callees(draw, functions),
            ),
        )
    return World("random", tuple(functions))


def _callees(draw: DrawFn, before: list[Function]) -> tuple[Callee, ...]:
    """At most two calls of functions that are there already, so that no call is endless."""
    callable_ones = [function for function in before if function.prototype is not None and not function.module]
    if not callable_ones or not rarely(draw, 4):
        return ()
    chosen = draw(st.lists(st.sampled_from(callable_ones), min_size=1, max_size=2))
    slots = ((function.name, function.prototype.slots) for function in chosen if function.prototype)
    return tuple(Callee(name, tuple(("value", n) for n, _ in enumerate(places))) for name, places in slots)
