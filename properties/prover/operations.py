"""Instructions as the prover runs them: operations on registers, temporaries and memory."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from properties.prover.machine import Departure
from properties.prover.pcode import Function

__all__ = ["LiftedInstruction", "Op", "OpKind", "Place", "Space"]


class Space(IntEnum):
    """Where an operand is. A CONSTANT's offset is its value."""

    CONSTANT = 0
    REGISTER = 1
    UNIQUE = 2


class OpKind(IntEnum):
    """What an operation does. GOTO leaves the instruction, SKIP moves within it; both may depend on a condition."""

    COMPUTE = 0
    LOAD = 1
    STORE = 2
    GOTO = 3
    GOTO_IF = 4
    SKIP = 5
    SKIP_IF = 6
    NOTHING = 7


Place = tuple[int, int, int]
"""(Space, offset, size in bytes)."""

Op = tuple[OpKind, Function | None, Place | None, tuple[Place, ...]]
"""(kind, what COMPUTE computes, where its result goes, inputs).

LOAD has the address; STORE the address and the value; GOTO the target; GOTO_IF target and condition; SKIP the index of
the next operation, as a constant; SKIP_IF index and condition.
"""


@dataclass(frozen=True, slots=True)
class LiftedInstruction:
    """departure: what SLEIGH takes it for, if it is a branch. undefined: flags that it leaves undefined.

    unmodelled: why its effect is not known, in words; None if it is.
    """

    size: int
    ops: tuple[Op, ...]
    departure: Departure = "jump"
    undefined: tuple[str, ...] = ()
    unmodelled: str | None = None
