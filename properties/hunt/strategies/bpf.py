"""Makers of BPF operations: programs, and links to one function or to many."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from functools import lru_cache
from itertools import islice

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies.drawing import (
    COOKIES,
    LINKS,
    MOST_CALLING_PROGRAMS,
    MOST_FUNCTIONS,
    PROGRAMS,
    RETURNS,
    Setting,
    a_function,
    a_word,
    all_used,
    existing,
    fresh,
    hooks_of,
    is_usual,
    pick,
    rarely,
    some_functions,
    unused,
)
from spec import operations as op
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["attach", "attach_batch", "attach_new", "attaching_kinds", "detach", "kinds", "load", "refused_beside"]

TRACING = ("fentry", "fexit")
"""The kinds that no function refuses by its return value or its attributes."""

MOST_REFUSING = 64


@lru_cache(maxsize=16)
def kinds(semantics: Semantics) -> tuple[str, ...]:
    """The kinds that exist, by weight."""
    found: tuple[str, ...] = ("fentry", "fexit", "fentry", "fexit", "fexit", "fentry")
    found += ("fmod_ret",) * 3 if semantics.fmod_ret else ()
    found += (op.LSM,) * 2 if semantics.lsm else ()
    found += ("fsession",) * 3 if semantics.fsession else ()
    found += ("freplace",) if semantics.freplace else ()
    return found


def attaching_kinds(semantics: Semantics, *, multi: bool = False) -> tuple[str, ...]:
    """The kinds of which a function may have many programs; multi: if a link attaches them to many functions."""
    others = {"freplace", "fmod_ret", op.LSM} if multi else {"freplace"}
    return tuple(kind for kind in kinds(semantics) if kind not in others)


def load(draw: DrawFn, at: Setting) -> op.Operation:
    """Load a program; if all names are used, attach one instead."""
    if all_used(PROGRAMS, at.inventory.programs) and not rarely(draw, 8):
        return attach(draw, at)
    return _load_as(draw, at, multi=at.batch and draw(st.booleans()))


def _load_as(draw: DrawFn, at: Setting, *, multi: bool) -> op.Operation:
    name = fresh(draw, PROGRAMS, at.inventory.programs)
    misuse = rarely(draw, 24)
    kind = pick(draw, op.KINDS if misuse else kinds(at.semantics))
    targeted = not multi and rarely(draw, 5)
    multi = misuse or (multi and kind not in {"fmod_ret", op.LSM, "freplace"})
    returning = kind in {"fmod_ret", op.LSM, "freplace"} or misuse
    return op.BpfProgLoad(
        name,
        kind,
        target=_function_for(draw, at, kind) if targeted else None,
        multi=multi,
        sleepable=rarely(draw, 8),
        func_ip=rarely(draw, 24 if kind == op.LSM else 4),
        returns=_returned(draw, kind) if returning and not rarely(draw, 5) else None,
        calls=_callee(draw, at),
    )


LSM_RETURNS = (0, -1, -22, -4095, -4096, 1, 2, 1 << 32, (1 << 32) - 1, -1 << 32)
"""Around what the verifier lets through: the low half of the first and last of these is 0."""


def _returned(draw: DrawFn, kind: str) -> int:
    return pick(draw, LSM_RETURNS) if kind == op.LSM and not rarely(draw, 4) else a_word(draw, RETURNS)


def _function_for(draw: DrawFn, at: Setting, kind: str | None) -> str:
    """Draw a function; for an lsm program often a hook, where few functions are."""
    hooks = hooks_of(at.inventory.world) if kind == op.LSM else ()
    return pick(draw, hooks) if hooks and not rarely(draw, 4) else a_function(draw, at)


def _callee(draw: DrawFn, at: Setting) -> str | None:
    """The function that a program calls. Few programs call any, as their runs multiply."""
    calling = sum(program.calls is not None for program in at.inventory.programs.values())
    if calling >= MOST_CALLING_PROGRAMS or not rarely(draw, 5):
        return None
    return a_function(draw, at)


def _program(draw: DrawFn, at: Setting, *, multi: bool) -> str | None:
    fitting = tuple(
        name
        for name, program in at.inventory.programs.items()
        if program.multi == multi and program.kind not in op.KPROBES
    )
    if rarely(draw, 32) or (not fitting and all_used(PROGRAMS, at.inventory.programs)):
        return pick(draw, PROGRAMS)
    return pick(draw, fitting) if fitting else None


def _cookie(draw: DrawFn, at: Setting) -> int | None:
    return a_word(draw, COOKIES) % (1 << 64) if rarely(draw, 3 if at.semantics.cookies else 32) else None


def attach(draw: DrawFn, at: Setting) -> op.Operation:
    """Attach a program to one function."""
    if all_used(LINKS, at.inventory.links) and not rarely(draw, 6):
        return detach(draw, at)
    prog = _program(draw, at, multi=False)
    if prog is None:
        return _load_as(draw, at, multi=False)
    link = fresh(draw, LINKS, at.inventory.links)
    program = at.inventory.programs.get(prog)
    if program and program.target is not None:
        function = program.target if rarely(draw, 4) else a_function(draw, at) if rarely(draw, 8) else None
    else:
        function = None if rarely(draw, 24) else _function_for(draw, at, program.kind if program else None)
    if function and op.BpfLinkCreate in at.supports and rarely(draw, 6):
        return op.BpfLinkCreate(link, prog, ((function, _cookie(draw, at)),))
    return op.BpfRawTracepointOpen(link, prog, function, _cookie(draw, at))


def attach_new(
    draw: DrawFn,
    at: Setting,
    function: str,
    count: int,
    *,
    beside: Collection[op.Operation] = (),
    may_sleep: bool = False,
    only: tuple[str, ...] = (),
) -> Iterator[op.Operation]:
    """Load so many programs and attach them to this function, some as programs for many functions.

    beside: operations that take the first unused names, and come before. may_sleep: some are sleepable. only: the
    kinds to draw from, if not all of them.
    """
    names = zip(unused(PROGRAMS, at.inventory.programs), unused(LINKS, at.inventory.links), strict=False)
    taken = sum(isinstance(one, op.BpfProgLoad) for one in beside)
    for prog, link in islice(names, taken, taken + count):
        multi: bool = at.batch and draw(st.booleans())
        kind = pick(draw, only or attaching_kinds(at.semantics, multi=multi))
        yield op.BpfProgLoad(prog, kind, multi=multi, sleepable=may_sleep and draw(st.booleans()))
        yield (
            op.BpfLinkCreate(link, prog, ((function, None),))
            if multi
            else op.BpfRawTracepointOpen(link, prog, function)
        )


def refused_beside(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A program on a function, and one beside it of a kind that the function refuses; nothing if none refuses any."""
    refusing = _list_refusing(at.inventory.world, at.semantics)
    if not refusing:
        return ()
    function, kind = pick(draw, refusing)
    first = tuple(attach_new(draw, at, function, 1, only=TRACING))
    return (*first, *attach_new(draw, at, function, 1, beside=first, only=(kind,)))


@lru_cache(maxsize=16)
def _list_refusing(world: World, semantics: Semantics) -> tuple[tuple[str, str], ...]:
    """Functions with a kind of programs that each refuses, though others attach to it; not very many."""
    offered = {"fmod_ret", op.LSM}.intersection(kinds(semantics))
    usual = (function for function in world.functions if is_usual(function))
    found = ((function.name, kind) for function in usual for kind in sorted(offered - function.attributes))
    return tuple(islice(found, MOST_REFUSING))


def attach_batch(draw: DrawFn, at: Setting) -> op.Operation:
    """Attach a program to many functions."""
    if all_used(LINKS, at.inventory.links) and not rarely(draw, 6):
        return detach(draw, at)
    prog = _program(draw, at, multi=at.batch)
    if prog is None:
        return _load_as(draw, at, multi=at.batch)
    link = fresh(draw, LINKS, at.inventory.links)
    return op.BpfLinkCreate(link, prog, _with_cookies(draw, at, _functions_of_a_link(draw, at, prog)))


def _functions_of_a_link(draw: DrawFn, at: Setting, prog: str) -> tuple[str, ...]:
    """Draw what a link to many functions names; often it modifies images and no more, so that nothing refuses it."""
    taken = _taken_by_others(at, prog)
    modifies: bool = bool(taken) and draw(st.booleans())
    if modifies:
        return (pick(draw, taken), *(some_functions(draw, at) if rarely(draw, 4) else ()))
    functions = some_functions(draw, at)
    if not rarely(draw, 8):
        functions = _of_one_btf(at, prog, functions)
    return (*functions[1:], _link_glob(draw, at)) if rarely(draw, 5) else functions


def _taken_by_others(at: Setting, prog: str) -> tuple[str, ...]:
    """Functions with programs, this one not among them, whose images a batch modifies: livepatched ones, if any are."""
    own, others = set[str](), dict[str, None]()
    for link in at.inventory.links.values():
        if link.prog == prog:
            own |= link.functions
        elif at.inventory.programs[link.prog].kind != "freplace":
            others |= dict.fromkeys(sorted(link.functions)[:MOST_FUNCTIONS])
    taken = tuple(name for name in others if name not in own)
    return tuple(name for name in taken if name in at.shared) or taken


def _of_one_btf(at: Setting, prog: str, functions: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the functions that the program's BTF has, if there are any (LINK-17)."""
    btf, world = at.inventory.btf_of(prog, functions[0]), at.inventory.world
    fitting = tuple(name for name in functions if (found := world.find(name)) and found.module == btf)
    if len(fitting) > MOST_FUNCTIONS and prog in at.inventory.programs:
        # One of so many that the program does not take would refuse them all.
        accepted = frozenset(at.inventory.expand(prog, "attachable(*)" if btf is None else f"attachable({btf}:*)"))
        fitting = tuple(name for name in fitting if name in accepted)
    return fitting or functions


FIRST_COOKIES = (1,)
LINK_GLOBS = (
    *("foo[12]", "foo*", "mod1:bar*", "*2", "*", "mod1:*", "nowhere*"),
    *("traceable(foo?)", "attachable(*)", "attachable(mod1:*)"),
)


def _link_glob(draw: DrawFn, at: Setting) -> str:
    """Draw a glob; one in six selects by a function's name, in its BTF."""
    if not rarely(draw, 6):
        return pick(draw, LINK_GLOBS)
    name = a_function(draw, at)
    found = at.inventory.world.find(name)
    glob = f"{name[:-1]}*" if draw(st.booleans()) else f"*{name[-1]}"
    return f"attachable({found.module}:{glob})" if found and found.module else f"attachable({glob})"


def _with_cookies(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[tuple[str, int | None], ...]:
    """Give a cookie to none, to all or to the first function. Each is different, so that a mix-up shows."""
    count = pick(draw, (0, len(functions), 1)) if at.semantics.cookies or rarely(draw, 32) else 0
    first = a_word(draw, FIRST_COOKIES) if count else 0
    cookies = ((first + place) % (1 << 64) if place < count else None for place in range(len(functions)))
    return tuple(zip(functions, cookies, strict=True))


def detach(draw: DrawFn, at: Setting) -> op.Operation:
    """Detach a link."""
    if not at.inventory.links:
        return attach(draw, at)
    return op.BpfLinkDetach(existing(draw, LINKS, tuple(at.inventory.links)))
