"""A step is refused before it is taken where semantics or world do not have it."""

from __future__ import annotations

from spec.alphabet import STOPPING, alphabet
from spec.errors import BadInputError
from spec.operations import Call, ObserveSite, Poke, Task
from spec.operations import Step as TaskStep
from spec.seeds import Step
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["UnsupportedError", "check_step"]

MOST_WORDS_WITHOUT_PROTOTYPE = 6


class UnsupportedError(BadInputError):
    """A step that the semantics or the system do not have, or whose function or arguments the world does not have."""


def check_step(step: Step, world: World, semantics: Semantics) -> None:
    """UnsupportedError if these semantics lack the operation, or the world what it observes."""
    operation = step.operation
    if isinstance(operation, Poke):
        check_step(Step(operation.operation), world, semantics)
    elif type(operation) not in STOPPING and type(operation) not in alphabet(semantics):
        raise UnsupportedError(f"'{operation.verb}' does not exist in the semantics {semantics.name}")
    if isinstance(operation, TaskStep) and (operation.to is None or operation.count > 1):
        raise UnsupportedError("'step': only points mean the same everywhere: write to=POINT, and no number")
    if isinstance(operation, Call | Task | ObserveSite) and operation.function not in world.by_name:
        raise UnsupportedError(f"'{operation.verb}': the world {world.name} has no function '{operation.function}'")
    if isinstance(operation, Call | Task):
        _check_arguments(operation, world)


def _check_arguments(call: Call | Task, world: World) -> None:
    prototype, given = world.by_name[call.function].prototype, len(call.arguments)
    if prototype is None and given > MOST_WORDS_WITHOUT_PROTOTYPE:
        raise UnsupportedError(
            f"'{call.verb}': {call.function} has no prototype, and takes at most 6 words, not {given}"
        )
    if prototype is not None and given != len(prototype.slots):
        wanted = f"{len(prototype.slots)} words, one for each 8 bytes of each argument"
        raise UnsupportedError(f"'{call.verb}': {call.function} takes {wanted}, not {given}")
