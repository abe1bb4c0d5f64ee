"""Makers of kprobe programs, and of links that attach them to many functions by a fprobe."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies.drawing import (
    COOKIES,
    UNKNOWN,
    Setting,
    a_function,
    a_word,
    all_used,
    existing,
    fresh,
    pick,
    rarely,
    some_functions,
)
from spec import operations as op

__all__ = ["attach", "detach", "load"]

PROGRAMS = ("k1", "k2", "k3")
LINKS = ("j1", "j2", "j3", "j4")
GLOBS = ("foo1*", "*2", "foo?", "mod1:bar*", "traceable(foo*)", "?oo2", "nowhere*")


def load(draw: DrawFn, at: Setting) -> op.Operation:
    """Load a kprobe program; if all names are used, attach one instead."""
    if all_used(PROGRAMS, at.inventory.programs) and not rarely(draw, 8):
        return attach(draw, at)
    return op.BpfProgLoad(
        fresh(draw, PROGRAMS, at.inventory.programs),
        pick(draw, op.KPROBES),
        target=a_function(draw, at) if rarely(draw, 32) else None,
        multi=rarely(draw, 32),
        sleepable=rarely(draw, 16),
        func_ip=rarely(draw, 3),
        returns=1 if rarely(draw, 8) else None,
    )


def attach(draw: DrawFn, at: Setting) -> op.Operation:
    """Attach a kprobe program; an earlier link of it, or of another one, has some of the functions often."""
    if all_used(LINKS, at.inventory.kprobes) and not rarely(draw, 6):
        return detach(draw, at)
    programs = tuple(name for name, program in at.inventory.programs.items() if program.kind in op.KPROBES)
    if not programs:
        return load(draw, at)
    link = fresh(draw, LINKS, at.inventory.kprobes)
    functions = _functions(draw, at)
    cookies: bool = draw(st.booleans())
    return op.BpfLinkCreate(
        link, pick(draw, programs), tuple((name, a_word(draw, COOKIES) if cookies else None) for name in functions)
    )


def _functions(draw: DrawFn, at: Setting) -> tuple[str, ...]:
    functions = tuple(dict.fromkeys(some_functions(draw, at)))
    if rarely(draw, 3):
        glob = pick(draw, GLOBS)
        return (*(functions if rarely(draw, 8) else _not_selected(at, functions, glob)), glob)
    if rarely(draw, 12):
        return (*functions, pick(draw, (functions[0], UNKNOWN)))
    return functions


def _not_selected(at: Setting, functions: tuple[str, ...], glob: str) -> tuple[str, ...]:
    """Those that a pattern does not select: of a function that stands twice the cookies are in doubt (NAME-18)."""
    selected = {name for name, _ in at.inventory.kprobe_targets(((glob, None),))}
    return tuple(name for name in functions if name not in selected)


def detach(draw: DrawFn, at: Setting) -> op.Operation:
    """Detach such a link."""
    if not at.inventory.kprobes:
        return attach(draw, at)
    return op.BpfLinkDetach(existing(draw, LINKS, tuple(at.inventory.kprobes)))
