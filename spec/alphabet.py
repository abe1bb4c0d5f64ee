"""Which operations a kernel's semantics have, among those that run to their end in one call."""

from __future__ import annotations

from spec import operations as op
from spec.semantics import Semantics

__all__ = ["alphabet"]

_SINGLE_DIRECT = frozenset({op.RegisterFtraceDirect, op.UnregisterFtraceDirect, op.ModifyFtraceDirect})
_HASH_DIRECT = frozenset({op.UpdateFtraceDirectAdd, op.UpdateFtraceDirectDel, op.UpdateFtraceDirectMod})
_INTERLEAVED = frozenset({op.Task, op.Step, op.Finish, op.Poke, op.PokeStep, op.GracePeriod})


def alphabet(semantics: Semantics) -> frozenset[type[op.Operation]]:
    """Every operation but those that the semantics lack (DIRECT-1) and those that stop inside an operation."""
    missing = _INTERLEAVED
    if not semantics.single_direct:
        missing |= _SINGLE_DIRECT
    if not semantics.hash_direct:
        missing |= _HASH_DIRECT
    return frozenset(op.OPERATIONS.values()) - missing
