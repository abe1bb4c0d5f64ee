"""Operations that stop while they patch text, and what is called at each stop."""

from __future__ import annotations

from hypothesis.strategies import DrawFn

from properties.hunt.strategies import tasks
from properties.hunt.strategies.drawing import Setting, arguments_for, covered_functions, pick, rarely
from spec import operations as op
from spec.border import POKED
from spec.names import names_of

__all__ = ["CONCEPTS", "go_on", "stopping"]

CONCEPTS = ("attach", "attach", "detach", "plain", "direct", "filters", "batch")
MOST_CALLS = 3


def stopping(draw: DrawFn, at: Setting, operation: op.Operation) -> tuple[op.Operation, ...]:
    """An operation that stops if it may, and a call at its first stop of a function that it is about."""
    if not isinstance(operation, POKED):
        return (operation,)
    return (op.Poke(operation), *_calls(draw, at, _functions_of(operation, at)))


def go_on(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """An operation that has stopped goes on, to a call at its next stop, or to its end; or a task goes on meanwhile."""
    assert at.inventory.pending is not None
    if at.inventory.tasks and rarely(draw, 2):
        return (tasks.go_on(draw, at),)
    if rarely(draw, 5):
        return (op.Await(at.inventory.pending),)
    return (op.PokeStep(), *_calls(draw, at, at.past.recent))


def _functions_of(operation: op.Operation, at: Setting) -> tuple[str, ...]:
    """Some functions whose sites an operation may change."""
    inventory = at.inventory
    if isinstance(operation, op.BpfLinkDetach) and operation.link in inventory.links:
        return tuple(sorted(inventory.links[operation.link].functions))
    ops = tuple(name.text for name in names_of(operation, "uses") if name.space == "ops")
    filtered = tuple(name for text in ops if text in inventory.ops for name in inventory.ops[text].filter)
    return (*covered_functions(operation), *filtered) or at.past.recent


def _calls(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> tuple[op.Call, ...]:
    world = at.inventory.world
    known = tuple(name for name in functions[:MOST_CALLS] if name in world.by_name and at.inventory.may_call(name))
    if not known:
        return ()
    name = pick(draw, known)
    return (op.Call(name, arguments_for(draw, world.by_name[name].prototype)),)
