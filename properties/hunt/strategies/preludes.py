"""The beginnings of some examples: more of one thing than steps that are drawn one by one ever make.

Many begin with nothing, which is what the others shrink to.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import chain, islice

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf
from properties.hunt.strategies.drawing import (
    Setting,
    a_function,
    a_glob,
    a_trampoline,
    a_word,
    arguments_for,
    is_usual,
    numbered,
    pick,
    pick_any,
    some_functions,
)
from spec import operations as op

__all__ = ["prelude"]

MOST_OPS = 12
MOST_PROGRAMS = 80
IMAGES = 270
"""More than a byte can count."""

MOST_TOGETHER = 20
MOST_LINKED = 300

Lines = Iterator[op.Operation]


def prelude(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Draw the operations that an example begins with, those of them that the systems support."""
    begin = pick(draw, PRELUDES)
    if begin is _one_link and not at.batch:
        begin = _direct_calls
    return tuple(operation for operation in begin(draw, at) if type(operation) in at.supports)


def _nothing(_draw: DrawFn, _at: Setting) -> Lines:
    return iter(())


def _graph_users(draw: DrawFn, at: Setting) -> Lines:
    """Users of the graph tracer, up to one more than there may be. A few have no filter, so that they meet."""
    most = at.semantics.graph_users + 1
    for user in islice(numbered("g"), min(most, pick(draw, (4, 9, most, most)))):
        yield op.RegisterFtraceGraph(user, filter=a_glob(draw, at) if draw(st.booleans()) else None)
    yield from _call(draw, at, a_function(draw, at))


def _ops(draw: DrawFn, at: Setting) -> Lines:
    """Many ops on the same functions, registered in another order than they are declared."""
    functions = some_functions(draw, at)
    names = tuple(islice(numbered("o"), draw(st.integers(4, MOST_OPS))))
    for name in names:
        yield op.FtraceOps(name, save_regs=draw(st.booleans()))
        yield op.FtraceSetFilterIps(name, functions)
    yield from map(op.RegisterFtraceFunction, reversed(names))
    yield op.FtraceOps(f"o{len(names) + 1}")
    yield from _call(draw, at, functions[0])


def _load(draw: DrawFn, name: str, kinds: tuple[str, ...], *, multi: bool = False) -> op.BpfProgLoad:
    """A program that may ask for the function's address, if its kind can (LSM-1)."""
    kind = pick(draw, kinds)
    return op.BpfProgLoad(name, kind, multi=multi, func_ip=kind != op.LSM and draw(st.booleans()))


def _one_program_everywhere(draw: DrawFn, at: Setting) -> Lines:
    """One program in many trampolines, by a link for each, and each with a cookie of its own."""
    world = at.inventory.world
    start = draw(st.integers(0, max(0, len(world.functions) - 40)))
    first = a_word(draw, (1,)) if at.semantics.cookies else None
    yield _load(draw, "p1", bpf.attaching_kinds(at.semantics))
    functions = world.functions[start : start + 40]
    for place, function in enumerate(functions):
        cookie = None if first is None else (first + place) % (1 << 64)
        yield op.BpfRawTracepointOpen(f"l{place + 1}", "p1", function.name, cookie)
    yield from _call(draw, at, pick_any(draw, functions).name)


def _one_link(draw: DrawFn, at: Setting) -> Lines:
    """One link over hundreds of functions, if there are as many, each with a cookie of its own."""
    linked = _hundreds(draw, at)
    if not linked:
        return
    first = a_word(draw, (1,)) if at.semantics.cookies else None
    cookies = (None if first is None else (first + place) % (1 << 64) for place in range(MOST_LINKED))
    yield op.BpfProgLoad("p1", pick(draw, bpf.attaching_kinds(at.semantics, multi=True)), multi=True)
    yield op.BpfLinkCreate("l1", "p1", tuple(zip(linked, cookies, strict=False)))
    yield from _call(draw, at, linked[-1 - draw(st.integers(0, min(20, len(linked) - 1)))])


def _direct_calls(draw: DrawFn, at: Setting) -> Lines:
    """Direct calls of hundreds of functions at once, if there are as many, and then an entry more."""
    functions = _hundreds(draw, at)
    if not functions:
        return
    yield op.FtraceOps("o1")
    yield op.FtraceSetFilterIps("o1", functions)
    yield op.RegisterFtraceDirectMulti("o1", a_trampoline(draw))
    yield _load(draw, "p1", bpf.attaching_kinds(at.semantics))
    yield op.BpfRawTracepointOpen("l1", "p1", a_function(draw, at))
    yield from _call(draw, at, pick_any(draw, functions))


def _hundreds(draw: DrawFn, at: Setting) -> tuple[str, ...]:
    """Functions that follow each other in the world, of those that nothing keeps a program from."""
    functions = tuple(function.name for function in at.inventory.world.functions if is_usual(function))
    start = draw(st.integers(0, max(0, len(functions) - MOST_LINKED)))
    return functions[start : start + MOST_LINKED]


def _usual_of(at: Setting, names: tuple[str, ...]) -> tuple[str, ...]:
    """Those of the functions that nothing keeps a program from, if there are any: one other would refuse them all."""
    found = ((name, at.inventory.world.by_name.get(name)) for name in names)
    return tuple(name for name, function in found if function and is_usual(function)) or names


def _programs(draw: DrawFn, at: Setting) -> Lines:
    """Many programs, the last ones attached."""
    kinds = bpf.attaching_kinds(at.semantics)
    count = pick(draw, (20, MOST_PROGRAMS - 20, MOST_PROGRAMS))
    for number in range(1, count + 1):
        yield _load(draw, f"p{number}", kinds)
    for number in range(max(1, count - 8), count + 1):
        function = a_function(draw, at)
        yield op.BpfRawTracepointOpen(f"l{number}", f"p{number}", function)
    yield from _call(draw, at, function)


def _images(draw: DrawFn, at: Setting) -> Lines:
    """Hundreds of images, one after another: a program comes and goes where others stay."""
    multi = at.batch
    kinds = bpf.attaching_kinds(at.semantics, multi=multi)
    functions = _usual_of(at, some_functions(draw, at)[:MOST_TOGETHER]) if multi else (a_function(draw, at),)
    targets = tuple((function, None) for function in functions)
    for number in (1, 2):
        yield _load(draw, f"p{number}", kinds, multi=multi)
    first, second = (
        op.BpfLinkCreate(f"l{number}", f"p{number}", targets)
        if multi
        else op.BpfRawTracepointOpen(f"l{number}", f"p{number}", functions[0])
        for number in (1, 2)
    )
    yield first
    yield from chain.from_iterable((second, op.BpfLinkDetach("l2")) for _ in range(IMAGES // (2 * len(functions))))
    yield from _call(draw, at, functions[0])


def _call(draw: DrawFn, at: Setting, function: str) -> Lines:
    """A call that shows what has been done, if the world has the function."""
    found = at.inventory.world.by_name.get(function)
    if found is not None:
        yield op.Call(function, arguments_for(draw, found.prototype))


Prelude = Callable[[DrawFn, Setting], Lines]

PRELUDES: tuple[Prelude, ...] = (
    *(_nothing,) * 8,
    *(_graph_users, _ops, _one_program_everywhere, _one_link, _programs, _images) * 2,
)
