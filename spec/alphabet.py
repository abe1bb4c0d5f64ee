"""Which operations a kernel's semantics have: those that run to their end in one call, those of tasks, and pokes."""

from __future__ import annotations

from spec import operations as op
from spec.semantics import Semantics

__all__ = ["INTERLEAVED", "POKING", "STOPPING", "alphabet"]

_SINGLE_DIRECT = frozenset({op.RegisterFtraceDirect, op.UnregisterFtraceDirect, op.ModifyFtraceDirect})
_HASH_DIRECT = frozenset({op.UpdateFtraceDirectAdd, op.UpdateFtraceDirectDel, op.UpdateFtraceDirectMod})
INTERLEAVED = frozenset({op.Task, op.Step, op.Finish, op.Await, op.GracePeriod})
"""Operations on tasks that stand in the middle of a call (TASK-1): a system may support all of them, or none."""

POKING = frozenset({op.Poke, op.PokeStep, op.Await})
"""Operations that stop behind each synchronisation of text patching (POKE-1): a system supports all or none."""

STOPPING = INTERLEAVED | POKING
"""What stops in the middle, which is no call of a kernel's."""


def alphabet(semantics: Semantics) -> frozenset[type[op.Operation]]:
    """Every operation but those that the semantics lack (DIRECT-1) and those that stop inside an operation."""
    missing = STOPPING
    if not semantics.single_direct:
        missing |= _SINGLE_DIRECT
    if not semantics.hash_direct:
        missing |= _HASH_DIRECT
    return frozenset(op.OPERATIONS.values()) - missing
