"""Copies within an instruction, forwarded: SLEIGH takes most operands through a temporary, which costs an operation.

An instruction without them means the same. Those with jumps within are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from properties.prover.operations import Op, OpKind, Place, Space
from properties.prover.pcode import copy

__all__ = ["without_copies"]

PRODUCERS = frozenset({OpKind.COMPUTE, OpKind.LOAD})


def without_copies(ops: Sequence[Op]) -> list[Op]:
    """The operations of an instruction without skips, where what is only copied is read, or written, at once."""
    return _write_at_once(_read_at_once(ops))


def _read_at_once(ops: Iterable[Op]) -> list[Op]:
    """Operations that read what a temporary is a copy of; the copy itself stays, and may have lost its readers."""
    copied: dict[Place, Place] = {}
    done: list[Op] = []
    for kind, function, output, inputs in ops:
        read = tuple(copied.get(place, place) for place in inputs)
        done.append((kind, function, output, read))
        if output is None:
            continue
        copied = {one: other for one, other in copied.items() if not (_share(one, output) or _share(other, output))}
        if function is copy and output[0] == Space.UNIQUE and read[0][2] == output[2]:
            copied[output] = read[0]
    return done


def _write_at_once(ops: Sequence[Op]) -> list[Op]:
    """Operations that write to a register what was made in a temporary just before, and only to be copied there."""
    done: list[Op] = []
    for place, op in enumerate(ops):
        _, function, register, inputs = op
        if done and function is copy and done[-1][2] == inputs[0] and done[-1][0] in PRODUCERS:
            kind, made, temporary, read = done[-1]
            others = (*ops[:place], *ops[place + 1 :])
            if temporary and temporary[0] == Space.UNIQUE and not _is_read(temporary, others):
                done[-1] = kind, made, register, read
                continue
        done.append(op)
    return done


def _is_read(place: Place, ops: Iterable[Op]) -> bool:
    return any(_share(place, read) for op in ops for read in op[3])


def _share(one: Place, other: Place) -> bool:
    """Whether two places have a byte in common."""
    return one[0] == other[0] != Space.CONSTANT and one[1] < other[1] + other[2] and other[1] < one[1] + one[2]
