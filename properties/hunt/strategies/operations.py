"""Operations biased to what exists.

A concept, such as `direct`, is a group of operations; each maker draws one of them. If what a maker needs does not
exist yet, it draws the operation that makes it. Draws shrink to o1, p1, l1, foo1 and no options.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import islice
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf, ftrace, kprobes, pokes, tasks
from properties.hunt.strategies.drawing import (
    LINKS,
    MOST_FUNCTIONS,
    OPS,
    PROGRAMS,
    UNKNOWN,
    Maker,
    Setting,
    a_function,
    arguments_for,
    covered_functions,
    favourites,
    functions_of,
    pick,
    pick_any,
    rarely,
    unused,
)
from properties.hunt.strategies.ends import beginning_and_end, direct_calls
from properties.hunt.strategies.preludes import prelude
from spec import operations as op
from spec.alphabet import POKING
from spec.inventory import Inventory
from spec.names import names_of
from spec.seeds import print_operation
from spec.semantics import Semantics

__all__ = ["CONCEPTS", "INTERLEAVED_CONCEPTS", "TASKS", "Beginning", "beginnings", "drawn_for", "operations"]


def _init_module(draw: DrawFn, at: Setting) -> op.Operation:
    gone = tuple(name for name in at.inventory.world.modules if name not in at.inventory.modules)
    return op.InitModule(_module(draw, at, gone)) if gone else _delete_module(draw, at)


def _delete_module(draw: DrawFn, at: Setting) -> op.Operation:
    return op.DeleteModule(_module(draw, at, tuple(sorted(at.inventory.modules))))


def _module(draw: DrawFn, at: Setting, wanted: tuple[str, ...]) -> str:
    if wanted and not rarely(draw, 12):
        return pick(draw, wanted[:MOST_FUNCTIONS])
    return pick(draw, (*at.inventory.world.modules[:MOST_FUNCTIONS], UNKNOWN))


def _reload(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A module goes and comes back, once an ops has got one of its functions into its filter, or covers everything.

    One of its functions is called at the end.
    """
    module = _module(draw, at, tuple(sorted(at.inventory.modules)))
    functions = functions_of(at, module)
    named = bool(functions) and draw(st.booleans())
    covers = (ftrace.set_filter_of(draw, at, functions),) if named else ftrace.cover_all(draw, at)
    return (*covers, op.DeleteModule(module), op.InitModule(module), *_call_one(draw, at, functions))


def _expect_module(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A line waits for a module that has gone, and the module comes; one of its functions is called."""
    module = _module(draw, at, at.inventory.world.modules)
    goes = (op.DeleteModule(module),) if module in at.inventory.modules else ()
    functions = functions_of(at, module)
    return (*goes, *ftrace.expect_module(draw, at, module), *_call_one(draw, at, functions))


def _call_one(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Operation, ...]:
    return _call_of(pick_any(draw, functions), draw, at) if functions else ()


def _fail(draw: DrawFn, _: Setting) -> op.Fail:
    count = draw(st.integers(5, 40)) if rarely(draw, 10) else pick(draw, (1, 1, 1, 2, 3, 4))
    return op.Fail(pick(draw, FAULTS), count)


FAULTS = ("register", "jit_charge", "alloc", "filter", "register", "jit_charge", "register", "patch")


def _again(draw: DrawFn, at: Setting) -> op.Operation:
    """The last operation once more: a retry, or a double registration."""
    last = at.past.last
    return _call(draw, at) if last is None or isinstance(last, op.BpfProgLoad | op.FtraceOps) else last


def _call(draw: DrawFn, at: Setting) -> op.Operation:
    """A call, some of a function that calls others: depth and nesting show there."""
    return _nested_call(draw, at) if rarely(draw, 4) else _call_if_there(draw, at, a_function(draw, at))


def _nested_call(draw: DrawFn, at: Setting) -> op.Operation:
    """A call of a function that calls others, if there is one."""
    callers = tuple(name for name in favourites(at.inventory.world) if at.inventory.world.by_name[name].callees)
    return _call_if_there(draw, at, pick(draw, callers) if callers else a_function(draw, at))


def _call_if_there(draw: DrawFn, at: Setting, function: str) -> op.Operation:
    if function not in at.inventory.world.by_name or not at.inventory.may_call(function):
        return _site(draw, at)
    return op.Call(function, arguments_for(draw, at.inventory.world.by_name[function].prototype))


def _site(draw: DrawFn, at: Setting) -> op.Operation:
    function = a_function(draw, at)
    return op.ObserveSite(function if function in at.inventory.world.by_name else at.inventory.world.functions[0].name)


def _settle(_draw: DrawFn, _: Setting) -> op.Operation:
    return op.Settle()


def _meet_livepatch(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A livepatched function gets two programs: whether its image shares the site depends on both, and their order."""
    function = pick(draw, at.shared) if at.shared else a_function(draw, at)
    patches = () if function in at.shared else (op.Livepatch(function),)
    return (*patches, *bpf.attach_new(draw, at, function, 2))


CONCEPTS: dict[str, tuple[tuple[type[op.Operation], int, Maker], ...]] = {
    "filters": (
        (op.FtraceSetFilterIp, 8, ftrace.set_filter),
        (op.FtraceOps, 3, ftrace.declare_more),
        (op.FtraceSetNotrace, 4, ftrace.set_notrace),
        (op.FtraceFreeFilter, 1, ftrace.free),
    ),
    "plain": (
        (op.RegisterFtraceFunction, 6, ftrace.register),
        (op.UnregisterFtraceFunction, 2, ftrace.unregister),
        (op.FtraceEnabled, 1, ftrace.switch),
    ),
    "direct": (
        (op.RegisterFtraceDirectMulti, 4, ftrace.register_direct),
        (op.UnregisterFtraceDirectMulti, 2, ftrace.unregister_direct),
        (op.ModifyFtraceDirectMulti, 2, ftrace.modify_direct),
        (op.RegisterFtraceDirect, 3, ftrace.register_single),
        (op.UnregisterFtraceDirect, 2, ftrace.unregister_single),
        (op.ModifyFtraceDirect, 2, ftrace.modify_single),
        (op.UpdateFtraceDirectAdd, 4, ftrace.update_add),
        (op.UpdateFtraceDirectDel, 2, ftrace.update_del),
        (op.UpdateFtraceDirectMod, 3, ftrace.update_mod),
    ),
    "graph": (
        (op.RegisterFtraceGraph, 2, ftrace.register_graph),
        (op.UnregisterFtraceGraph, 1, ftrace.unregister_graph),
        (op.SetFtraceFilter, 3, ftrace.change_graph),
    ),
    "programs": ((op.BpfProgLoad, 1, bpf.load),),
    "attach": ((op.BpfRawTracepointOpen, 1, bpf.attach),),
    "batch": ((op.BpfLinkCreate, 1, bpf.attach_batch),),
    "detach": ((op.BpfLinkDetach, 1, bpf.detach),),
    "kprobes": (
        (op.BpfLinkCreate, 4, kprobes.attach),
        (op.BpfProgLoad, 1, kprobes.load),
        (op.BpfLinkDetach, 2, kprobes.detach),
    ),
    "ipmodify": (
        (op.Livepatch, 3, ftrace.livepatch),
        (op.Unlivepatch, 2, ftrace.unlivepatch),
        (op.RegisterFtraceFunction, 2, ftrace.ipmodify_ops),
    ),
    "modules": ((op.DeleteModule, 1, _delete_module), (op.InitModule, 1, _init_module)),
    "again": ((op.FtraceOps, 1, _again),),
    "call": ((op.Call, 12, _call), (op.ObserveSite, 1, _site), (op.Settle, 1, _settle)),
}
"""The rules of the machines, but for `faults`: each a choice of operations by weight."""

TASKS = "tasks"
"""The rule of schedules, which draws more than one operation."""

POKES = "pokes"
"""The rule of operations that stop while they patch text."""

INTERLEAVED_CONCEPTS = (
    *(f"{TASKS}_{number}" for number in range(1, 9)),
    POKES,
    *("programs", "attach", "detach", "batch", "plain", "filters", "direct", "call"),
)
"""The rules of the machine that interleaves operations with tasks."""

NARROW = 5
"""Examples of eight."""

SWITCHED_OFF = 6
"""Ftrace is turned on again after about so many draws."""

REACH_POINTS = {
    "alloc": ("attach", "batch", "detach", "direct", "filters", "graph"),
    "jit_charge": ("attach", "batch", "detach", "ipmodify"),
    "filter": ("filters", "direct", "attach"),
    "register": ("attach", "batch", "batch", "detach", "ipmodify", "plain", "direct"),
    "patch": ("attach", "batch", "detach", "ipmodify", "plain", "direct", "graph", "filters"),
    "nth": ("attach", "batch", "detach", "ipmodify", "plain", "direct", "graph", "filters", "modules"),
}
"""The concepts whose operations reach each point of FAIL-1, or allocate."""

DIRECT_POINTS = tuple(point for point, concepts in REACH_POINTS.items() if point != "nth" and "direct" in concepts)

MOST_ALLOCATIONS = 40
"""Operations of a few functions make no more, but for the first user of the graph tracer."""

EARLY_ALLOCATIONS = 20
"""Most operations make no more."""

SHORT = 6
"""Of so many draws one is without memory, where the kernel can be made to lack it."""

ENDED = 6
"""Of so many draws of direct calls one begins some and changes or ends them; of failures, one meets such an end."""

REFUSED = 6
"""Of so many draws of programs in wide examples one brings a program that a function refuses to where one is."""

TAKEN_OUT = 12
"""Of so many draws of filters one takes a function out of several."""

FILTERING = frozenset({op.FtraceOps, op.FtraceSetFilterIp, op.FtraceSetFilterIps, op.RegisterFtraceFunction})
COMING = frozenset({op.DeleteModule, op.InitModule})
WAITING = frozenset({op.RegisterFtraceGraph, *ftrace.GRAPH_FILES})
MEETING = frozenset({op.Livepatch, op.BpfProgLoad, op.BpfRawTracepointOpen})
LOSING = frozenset({op.BpfProgLoad, op.BpfRawTracepointOpen, op.BpfLinkDetach, op.Settle})
ON_GRAPH = (op.RegisterFtraceGraph, op.UnregisterFtraceGraph, *ftrace.GRAPH_FILES)


@lru_cache(maxsize=256)
def _makers(concept: str, supports: frozenset[type[op.Operation]]) -> tuple[Maker, ...]:
    """The makers of a concept, each as often as its weight says; a call if the systems support none of them."""
    makers = tuple(maker for kind, weight, maker in CONCEPTS[concept] if kind in supports for _ in range(weight))
    return makers or (_call,)


def _draw_from(draw: DrawFn, concept: str, at: Setting) -> op.Operation:
    return pick(draw, _makers(concept, at.supports))(draw, at)


@st.composite
def operations(
    draw: DrawFn,
    inventory: Inventory,
    semantics: Semantics,
    supports: frozenset[type[op.Operation]],
) -> op.Operation:
    """One operation that the systems support, biased to what exists."""
    at = Setting(inventory, semantics, supports)
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
    """One or more operations of a concept, for the machine that runs and its `inventory`, `past` and so on.

    Often a call follows, of a function that the last one named: what an operation did shows in traces too.
    """
    machine = draw(st.runner())
    at = Setting(machine.inventory, machine.semantics, machine.supports, machine.past, machine.wide, machine.fails_nth)
    concerned = _list_concerned(machine.fell, at) if machine.fell else ()
    probes: bool = bool(concerned) and draw(st.booleans())
    if probes:
        return Drawn(_probe(draw, at, pick(draw, concerned)))
    drawn = _draw_operations(draw, concept, at)
    if concept.startswith(TASKS):
        return Drawn(drawn)
    if isinstance(drawn[-1], op.Settle):
        return Drawn((*drawn, *_call_images(draw, at)))
    return Drawn((*drawn, *_follow(draw, at, drawn[-1])))


def _follow(draw: DrawFn, at: Setting, last: op.Operation) -> tuple[op.Operation, ...]:
    """Often a call that shows what the last operation did; of the graph tracer, one of a function that calls others."""
    if isinstance(last, op.Call | op.ObserveSite):
        return ()
    if isinstance(last, ON_GRAPH) and draw(st.booleans()):
        return (_nested_call(draw, at),)
    named = (*_taken_out(last), *covered_functions(last), *at.past.recent[:1])
    follows: bool = bool(named) and draw(st.booleans())
    return _call_of(named[0], draw, at) if follows else ()


def _taken_out(last: op.Operation) -> tuple[str, ...]:
    """A function that has just left a filter: its site must no longer call the ops."""
    return (last.function,) if isinstance(last, op.FtraceSetFilterIp) and last.remove else ()


def _list_concerned(fell: op.Operation, at: Setting) -> tuple[str, ...]:
    """The functions that an operation which failed was about, some of those that are there."""
    named = (name.text for name in names_of(fell) if name.space == "function")
    linked = at.inventory.links[fell.link].functions if isinstance(fell, op.BpfLinkDetach) else ()
    met = at.past.recent if isinstance(fell, op.RegisterFtraceFunction) else ()
    there = (name for name in dict.fromkeys((*named, *linked, *met)) if at.inventory.loaded(name))
    return tuple(islice(there, MOST_FUNCTIONS))


def _probe(draw: DrawFn, at: Setting, function: str) -> tuple[op.Operation, ...]:
    """What comes to the function, is called there and goes again: flags that a failure has left behind show in it."""
    call = _call_of(function, draw, at)
    program = next((name for name in PROGRAMS if name not in at.inventory.programs), None)
    link = next((name for name in LINKS if name not in at.inventory.links), None)
    patches = function not in at.inventory.livepatches and {op.Livepatch, op.Unlivepatch} <= at.supports
    if patches and (draw(st.booleans()) or not (program and link)):
        return (*call, op.Livepatch(function), *call, op.Unlivepatch(function), *call)
    if not (program and link and op.BpfRawTracepointOpen in at.supports):
        return call
    kind = pick(draw, bpf.attaching_kinds(at.semantics))
    opened = op.BpfRawTracepointOpen(link, program, function)
    return (op.BpfProgLoad(program, kind), opened, *call, op.BpfLinkDetach(link), *call)


def _call_images(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Calls of some functions that have an image: it must still be whole."""
    return tuple(call for name in at.inventory.with_images()[:MOST_FUNCTIONS] for call in _call_of(name, draw, at))


class Beginning(NamedTuple):
    """How an example begins, and whether its draws are wide."""

    wide: bool
    operations: Drawn


@st.composite
def beginnings(draw: DrawFn) -> Beginning:
    """The beginning of an example of the machine that runs: a narrow one begins with nothing, as many wide ones do."""
    machine = draw(st.runner())
    wide = draw(st.integers(0, 7)) >= NARROW if machine.all_wide is None else machine.all_wide
    if not wide:
        return Beginning(False, Drawn())
    return Beginning(True, Drawn(prelude(draw, Setting(machine.inventory, machine.semantics, machine.supports))))


def _draw_operations(draw: DrawFn, concept: str, at: Setting) -> tuple[op.Operation, ...]:
    if isinstance(at.inventory.pending, op.Poke) and concept != "call":
        return pokes.go_on(draw, at)
    if concept.startswith(TASKS):
        return tasks.schedule(draw, at)
    if concept == POKES:
        return _stop(draw, at)
    if at.inventory.off and rarely(draw, SWITCHED_OFF):
        return (op.FtraceEnabled("1"),)
    if concept == "faults" or _is_short(draw, concept, at):
        return _draw_fault(draw, concept, at)
    return _draw_whole(draw, concept, at) or (_draw_from(draw, concept, at),)


def _draw_whole(draw: DrawFn, concept: str, at: Setting) -> tuple[op.Operation, ...]:
    """Rarely several operations that belong together, which would seldom come one by one."""
    match concept:
        case "programs" if rarely(draw, 24):
            return _fill(draw, at)
        case "attach" if at.wide and op.BpfRawTracepointOpen in at.supports and rarely(draw, REFUSED):
            return bpf.refused_beside(draw, at)
        case "filters" if at.supports >= FILTERING and rarely(draw, TAKEN_OUT):
            return ftrace.take_out(draw, at)
        case "direct" if rarely(draw, ENDED):
            return direct_calls(draw, at)
        case "modules" if at.supports >= COMING and rarely(draw, 3):
            return _expect_module(draw, at) if at.supports >= WAITING and rarely(draw, 2) else _reload(draw, at)
        case "ipmodify" if at.supports >= MEETING and rarely(draw, 4):
            return _meet_livepatch(draw, at)
    return ()


def _is_short(draw: DrawFn, concept: str, at: Setting) -> bool:
    """Whether memory is to be lacking, in a kernel that can be made to lack it."""
    return at.fails_nth and concept in REACH_POINTS["nth"] and rarely(draw, SHORT)


def _draw_fault(draw: DrawFn, concept: str, at: Setting) -> tuple[op.Operation, ...]:
    """An injected failure, and nearly always an operation that meets it."""
    if at.fails_nth and (concept != "faults" or draw(st.booleans())):
        return _without_memory(draw, at)
    if at.supports >= LOSING and rarely(draw, 8) and (found := _lose_program(draw, at)):
        return found
    if rarely(draw, ENDED) and (begun := direct_calls(draw, at)):
        return (*begun[:-1], op.Fail(pick(draw, DIRECT_POINTS), pick(draw, (1, 1, 2))), begun[-1])
    fault = _fail(draw, at)
    if fault.point == "patch" and at.supports >= FILTERING and rarely(draw, 4):
        return _die_beside_others(draw, at)
    if rarely(draw, 6):
        return (fault,)
    meets = _draw_from(draw, _reaching(draw, at, fault.point), at)
    return (fault, meets, *_again_rarely(draw, meets))


def _without_memory(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """An operation, perhaps the end of what has just begun, and one of its allocations that fails; few come late."""
    begun = beginning_and_end(draw, at) if rarely(draw, 2) else ()
    operation = begun[-1] if begun else _draw_from(draw, _reaching(draw, at, "nth"), at)
    number = draw(st.integers(1, pick(draw, (EARLY_ALLOCATIONS, MOST_ALLOCATIONS))))
    calls = _call_images(draw, at) if begun else _again_rarely(draw, operation)
    return (*begun[:-1], op.Fail("nth", number), operation, *calls)


def _again_rarely(draw: DrawFn, operation: op.Operation) -> tuple[op.Operation, ...]:
    """Some of what failed is tried once more: nothing that it has left behind may be in its way."""
    return (operation,) if rarely(draw, 4) else ()


def _die_beside_others(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Ftrace dies as an ops is registered where two others are: what they share is called afterwards."""
    names = tuple(islice(unused(OPS, at.inventory.ops), 3))
    made = tuple(op.FtraceOps(name, save_regs=name == names[-1]) for name in names)
    *others, last = (op.RegisterFtraceFunction(name) for name in names)
    return (*made, *others, op.Fail("patch"), last, _call_if_there(draw, at, a_function(draw, at)))


def _lose_program(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """An image loses a program, and there is no memory for the next one: what stays in place must not be freed."""
    function = a_function(draw, at)
    attached = tuple(bpf.attach_new(draw, at, function, 2))
    links = tuple(each.link for each in attached if isinstance(each, op.BpfRawTracepointOpen | op.BpfLinkCreate))
    if len(links) < 2:
        return ()
    fails = op.Fail("jit_charge", pick(draw, (1, 1, 1, 2)))
    return (*attached, fails, op.BpfLinkDetach(pick(draw, links)), op.Settle(), *_call_of(function, draw, at))


def _stop(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """An operation that stops while it patches, where systems can stop, beside tasks or once they are finished."""
    if not at.supports >= POKING or at.inventory.pending is not None:
        return tasks.schedule(draw, at)
    chosen = pick(draw, pokes.CONCEPTS)
    stopping = pokes.stopping(draw, at, _draw_from(draw, chosen if chosen != "batch" or at.batch else "attach", at))
    finished = at.inventory.tasks if rarely(draw, 3) else ()
    return (*map(op.Finish, finished), *stopping)


def _reaching(draw: DrawFn, at: Setting, point: str) -> str:
    """Draw a concept whose operations reach the point."""
    concept = pick(draw, REACH_POINTS[point])
    return concept if concept != "batch" or at.batch else "attach"


def _call_of(function: str, draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A call of the function, or of one that calls it."""
    world = at.inventory.world
    if function not in world.by_name:
        return ()
    callers = (name for name in favourites(world) if any(c.function == function for c in world.by_name[name].callees))
    chosen = world.by_name[pick(draw, (function, *callers))]
    return (op.Call(chosen.name, arguments_for(draw, chosen.prototype)),)


def _fill(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Attach programs to one function up to its limit, or to one or two less; some more come, or one comes again."""
    if any(name.startswith("q") for name in at.inventory.programs):
        return (bpf.attach(draw, at),)
    function, kind = a_function(draw, at), pick(draw, bpf.attaching_kinds(at.semantics))
    taken = sum(function in link.functions for link in at.inventory.links.values())
    room = (at.semantics.max_links - taken) // (2 if kind == "fsession" else 1)
    count = max(room - pick(draw, (0, 0, 1, 2)), 0)
    loads = (op.BpfProgLoad(f"q{number}", kind) for number in range(1, count + 1))
    opens = (op.BpfRawTracepointOpen(f"m{number}", f"q{number}", function) for number in range(1, count + 1))
    again = (op.BpfRawTracepointOpen(f"m{count + 1}", "q1", function),) if draw(st.booleans()) else ()
    return (*loads, *opens, *again, *bpf.attach_new(draw, at, function, pick(draw, (0, 1, 2))))
