"""Schedules: tasks that stop where it is dangerous, what happens to their functions meanwhile, and grace periods."""

from __future__ import annotations

from hypothesis.strategies import DrawFn

from properties.hunt.strategies import bpf
from properties.hunt.strategies.drawing import Setting, a_function, arguments_for, fresh, pick, rarely
from spec import operations as op

__all__ = ["schedule"]

TASKS = ("t1", "t2")
PLACES = tuple("body before program enter image exit after-body skip site return".split())
"""Where a task is stopped, the simplest first; those at programs are drawn with one."""

USUAL = ("body", "before", "program", "body", "before", "enter", "program", "skip")
FLAVOURS = ("rcu_tasks", "rcu_tasks", "rcu_tasks", "rcu", "rcu_tasks_trace", "rcu_tasks_rude")
MOVES = tuple("grace_period detach step finish attach grace_period detach step attach".split())


def schedule(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """One or more operations on tasks, or on the functions that they are in."""
    inventory = at.inventory
    if inventory.pending is not None and rarely(draw, 3):
        return (op.Await(inventory.pending),)
    if not inventory.tasks or (len(inventory.tasks) < len(TASKS) and rarely(draw, 5)):
        return _begin(draw, at)
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


def _begin(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """A task on a function that has programs, if there is one; otherwise on any."""
    world = at.inventory.world
    attached = tuple(sorted({name for link in at.inventory.links.values() for name in link.functions})[:12])
    function = pick(draw, attached) if attached and not rarely(draw, 8) else a_function(draw, at)
    if function not in world.by_name:
        function = world.functions[0].name
    task = fresh(draw, TASKS, at.inventory.tasks)
    begun = op.Task(task, function, arguments_for(draw, world.by_name[function].prototype))
    return (begun, _step(draw, at, task, function))


def _step(draw: DrawFn, at: Setting, task: str, function: str) -> op.Step:
    """Stops a task at a point; where it may sleep, it does so every other time."""
    place = pick(draw, PLACES) if rarely(draw, 3) else pick(draw, USUAL)
    if place in {"before", "program", "skip"}:
        own = tuple(link.prog for link in at.inventory.links.values() if function in link.functions)
        programs = own or tuple(at.inventory.programs)
        if not programs:
            return op.Step(task, to="body")
        place = f"{place}:{pick(draw, programs)}"
    sleeps = place.partition(":")[0] in {"body", "program"} and rarely(draw, 2)
    return op.Step(task, to=place, how="sleep" if sleeps else None)


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
