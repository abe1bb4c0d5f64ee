"""Other ways to do what some steps do, with fewer; a sequence that stays longer than it need be lacks one of these."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from spec import operations as op
from spec.operations import Operation

__all__ = ["Steps", "fewer"]

Steps = tuple[Operation, ...]

OF_TASKS = op.Task, op.Step, op.Finish, op.Await, op.GracePeriod


def fewer(steps: Steps) -> Iterator[Steps]:
    """Sequences that may do the same; some are shorter only where they end."""
    yield from _let_programs_call(steps)
    yield from _join_links(steps)
    yield from _aim(steps)
    yield from _fail_earlier(steps)


def _let_programs_call(steps: Steps) -> Iterator[Steps]:
    """A program calls the function itself, in place of a second task that comes while the first stands in it."""
    tasks = [step for step in steps if isinstance(step, op.Task)]
    others = tuple(step for step in steps if not isinstance(step, OF_TASKS))
    for task in tasks[:1]:
        for at, load in _loads(others):
            calls = replace(load, calls=task.function)
            yield (*others[:at], calls, *others[at + 1 :], op.Call(task.function, task.arguments))


def _join_links(steps: Steps) -> Iterator[Steps]:
    """One link of several functions, in place of several links of a program."""
    for at, load in _loads(steps):
        opened = [step for step in steps if isinstance(step, op.BpfRawTracepointOpen) and step.prog == load.prog]
        targets = tuple((step.function, step.cookie) for step in opened if step.function is not None)
        if len(targets) > 1 and len(targets) == len(opened):
            joined = op.BpfLinkCreate(opened[0].link, load.prog, targets)
            made = (*steps[:at], replace(load, multi=True), *steps[at + 1 :])
            yield tuple(joined if step is opened[0] else step for step in made if step not in opened[1:])


def _aim(steps: Steps) -> Iterator[Steps]:
    """The function is named where a program is loaded, and refused there, in place of where it is attached."""
    for at, load in _loads(steps):
        for step in steps[at:]:
            if isinstance(step, op.BpfRawTracepointOpen) and step.prog == load.prog and step.function is not None:
                yield (*steps[:at], replace(load, target=step.function))


def _fail_earlier(steps: Steps) -> Iterator[Steps]:
    """A failure comes one time earlier, since a step that met it is left out."""
    for at, fail in enumerate(steps):
        if isinstance(fail, op.Fail) and fail.count > 1:
            earlier = (*steps[:at], replace(fail, count=fail.count - 1), *steps[at + 1 :])
            yield from (earlier[:gone] + earlier[gone + 1 :] for gone in range(len(steps)) if gone != at)


def _loads(steps: Steps) -> Iterator[tuple[int, op.BpfProgLoad]]:
    return ((at, step) for at, step in enumerate(steps) if isinstance(step, op.BpfProgLoad))
