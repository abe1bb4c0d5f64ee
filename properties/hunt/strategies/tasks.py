"""Schedules: tasks that stop where it is dangerous, what happens to their functions meanwhile, and grace periods."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice
from typing import NamedTuple

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf
from properties.hunt.strategies.drawing import Setting, a_function, arguments_for, fresh, pick, rarely, unused
from spec import operations as op
from spec.alphabet import POKING

__all__ = ["go_on", "schedule"]

TASKS = ("t1", "t2")
PLACES = tuple("body before program enter image exit after-body skip return".split())
"""Where a task is stopped, the simplest first; those at programs are drawn with one."""

USUAL = ("body", "before", "program", "body", "before", "enter", "program", "skip")


class Life(NamedTuple):
    """Images whose life a task shares.

    kinds: of their programs, () for all. first: where the task is when they change. later: where it goes on to.
    """

    kinds: tuple[str, ...]
    first: tuple[str, ...]
    later: tuple[str, ...]


AROUND = Life(
    (),
    ("body", "image", "program", "before", "body", "image", "program", "site", "exit"),
    ("body", "exit", "program", "body", "exit", "program", "after-body"),
)
ENTRIES = Life(("fentry",), ("image", "program", "before", "image", "program", "site"), ("program", "body", "program"))
"""An image of these programs alone does not call the original, is put in another way, and has been left at the body."""

LIVES = (AROUND, AROUND, ENTRIES)

FLAVOURS = ("rcu_tasks", "rcu_tasks", "rcu_tasks", "rcu", "rcu_tasks_trace", "rcu_tasks_rude")
EVERY_FLAVOUR = tuple(dict.fromkeys(FLAVOURS))
AT_PROGRAMS = frozenset({"before", "program", "skip"})
MOVES = tuple("grace_period detach step finish attach grace_period detach step attach".split())


def schedule(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """One or more operations on tasks, or on the functions that they are in."""
    inventory = at.inventory
    if inventory.pending is not None and rarely(draw, 3):
        return (op.Await(inventory.pending),)
    if not inventory.tasks or (len(inventory.tasks) < len(TASKS) and rarely(draw, 5)):
        return _begin(draw, at) if rarely(draw, 3) else _stand(draw, at)
    task = pick(draw, tuple(inventory.tasks))
    match pick(draw, MOVES):
        case "grace_period":
            return (op.GracePeriod(pick(draw, FLAVOURS)),)
        case "detach":
            return (_detach(draw, at, inventory.tasks[task].function),)
        case "attach":
            return (_attach(draw, at, inventory.tasks[task].function),)
        case "step":
            return (_step(draw, at, task, inventory.tasks[task].function),)
    return (op.Finish(task),)


def go_on(draw: DrawFn, at: Setting) -> op.Operation:
    """A task goes on, or a grace period elapses, while an operation has stopped."""
    task = pick(draw, tuple(at.inventory.tasks))
    match pick(draw, ("step", "finish", "step", "grace_period")):
        case "step":
            return _step(draw, at, task, at.inventory.tasks[task].function)
        case "finish":
            return op.Finish(task)
    return op.GracePeriod(pick(draw, FLAVOURS))


def _begin(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A task on a function that has programs, if there is one; otherwise on any."""
    attached = _attached(at)
    function = pick(draw, attached) if attached and not rarely(draw, 8) else _known_function(draw, at)
    task = fresh(draw, TASKS, at.inventory.tasks)
    return (_task(draw, at, task, function), _step(draw, at, task, function))


def _stand(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A whole life of an image: tasks stop in it, it is exchanged, grace periods elapse, and the tasks go on.

    What is freed too early shows in few orders of these, which steps that are drawn one by one seldom make.
    """
    attached = _attached(at)
    function = pick(draw, attached) if attached and rarely(draw, 3) else _known_function(draw, at)
    life = pick(draw, LIVES)
    made = tuple(bpf.attach_new(draw, at, function, pick(draw, (1, 2)), may_sleep=True, only=life.kinds))
    own = {name: link.prog for name, link in at.inventory.links.items() if function in link.functions}
    own |= {one.link: one.prog for one in made if isinstance(one, op.BpfRawTracepointOpen | op.BpfLinkCreate)}
    loaded = {one.prog: one for one in made if isinstance(one, op.BpfProgLoad)}
    programs = {name: loaded.get(name) or at.inventory.programs[name] for name in own.values()}
    tasks = tuple(islice(unused(TASKS, at.inventory.tasks), pick(draw, (1, 1, 2))))
    poked = at.supports >= POKING and rarely(draw, 3)
    first = _stop(draw, tasks[0], "site" if poked and rarely(draw, 2) else pick(draw, life.first), programs)
    begun = (line for task in tasks for line in (_task(draw, at, task, function), *_at_first(first, task)))
    leaves = op.BpfLinkDetach(pick(draw, tuple(own)))
    *before, change = bpf.attach_new(draw, at, function, 1, beside=made) if rarely(draw, 4) else (leaves,)
    meanwhile = tuple(_meanwhile(draw, tasks, life.later, programs))
    begins, ends = _stopping(draw, change) if poked else ((change,), ())
    return (*made, *begun, *before, *begins, *meanwhile, *ends, *map(op.Finish, tasks))


def _stopping(draw: DrawFn, change: op.Operation) -> tuple[tuple[op.Operation, ...], tuple[op.Operation, ...]]:
    """The operation as far as one of its stops, and the rest of it."""
    poke = op.Poke(change)
    return (poke, *pick(draw, (0, 1, 3)) * (op.PokeStep(),)), (op.Await(poke),)


def _at_first(first: op.Step, task: str) -> Iterator[op.Step]:
    """The step of a task to its first place; it begins at its site."""
    if first.to != "site":
        yield replace(first, task=task)


def _meanwhile(
    draw: DrawFn, tasks: tuple[str, ...], places: tuple[str, ...], programs: Mapping[str, op.BpfProgLoad]
) -> Iterator[op.Operation]:
    """In turn grace periods elapse, as many as can or those of one flavour, and a task goes on to one of the places."""
    waits: bool = draw(st.booleans())
    for _ in range(pick(draw, (2, 3, 4))):
        if waits:
            one = rarely(draw, 4)
            flavours = [pick(draw, FLAVOURS)] if one else 2 * draw(st.permutations(EVERY_FLAVOUR))
            yield from map(op.GracePeriod, flavours)
        else:
            yield _stop(draw, pick(draw, tasks), pick(draw, places), programs)
        waits = not waits


def _attached(at: Setting) -> tuple[str, ...]:
    """Some functions that have programs."""
    return tuple(sorted({name for link in at.inventory.links.values() for name in link.functions})[:12])


def _known_function(draw: DrawFn, at: Setting) -> str:
    world, function = at.inventory.world, a_function(draw, at)
    return function if function in world.by_name else world.functions[0].name


def _task(draw: DrawFn, at: Setting, task: str, function: str) -> op.Task:
    return op.Task(task, function, arguments_for(draw, at.inventory.world.by_name[function].prototype))


def _step(draw: DrawFn, at: Setting, task: str, function: str) -> op.Step:
    """Stops a task at a point, mostly at one of its own programs where it is at one."""
    place = pick(draw, PLACES) if rarely(draw, 3) else pick(draw, USUAL)
    loaded = at.inventory.programs
    own = {link.prog: loaded[link.prog] for link in at.inventory.links.values() if function in link.functions}
    return _stop(draw, task, place, own or loaded)


def _stop(draw: DrawFn, task: str, place: str, programs: Mapping[str, op.BpfProgLoad]) -> op.Step:
    """Stops a task at a place, perhaps at one of these programs, in those that sleep twice as often.

    Where it may sleep, it mostly does so.
    """
    may_sleep = place == "body"
    if place in AT_PROGRAMS:
        if not programs:
            return op.Step(task, to="body")
        sleepers = tuple(name for name, program in programs.items() if program.sleepable and place == "program")
        name = pick(draw, (*programs, *sleepers))
        may_sleep = name in sleepers
        place = f"{place}:{name}"
    return op.Step(task, to=place, how="sleep" if may_sleep and not rarely(draw, 3) else None)


def _detach(draw: DrawFn, at: Setting, function: str) -> op.Operation:
    """Takes a program off the function of a task, if it has one."""
    own = tuple(name for name, link in at.inventory.links.items() if function in link.functions)
    return op.BpfLinkDetach(pick(draw, own)) if own else bpf.attach(draw, at)


def _attach(draw: DrawFn, at: Setting, function: str) -> op.Operation:
    """Attaches a program that the function of a task has not, if there is one."""
    links = at.inventory.links
    own = {link.prog for link in links.values() if function in link.functions}
    others = tuple(name for name, program in at.inventory.programs.items() if name not in own and not program.multi)
    if not others:
        return bpf.load(draw, at)
    name = next(f"l{number}" for number in range(1, len(links) + 2) if f"l{number}" not in links)
    return op.BpfRawTracepointOpen(name, pick(draw, others), function)
