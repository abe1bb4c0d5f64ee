"""The verifier looks at more than the lists of hooks in programs of LSM: at what they return (LSM-1, LSM-3)."""

from __future__ import annotations

from typing import Final

from impl.batched.btf import ATTRIBUTES
from impl.batched.faults import Refused
from impl.batched.state import Program, State

__all__ = ["verify"]

HALF: Final = 1 << 31
MAX_ERRNO: Final = 4095


def verify(state: State, program: Program, index: int) -> None:
    """Refuses a program that asks for the function's address, or returns what its hook's callers do not know."""
    if program.func_ip:
        raise Refused("ENOTSUPP")
    if not _may_return(state, program, index):
        raise Refused("EINVAL")


def _may_return(state: State, program: Program, index: int) -> bool:
    """Whether the low half of R0 is within the hook's range; a void hook has none, nor had any in older kernels."""
    named = state.functions.named
    if named.void[index] or not state.facts.lsm_return_checked:
        return True
    value = (program.returns + HALF) % (2 * HALF) - HALF
    return value in {0, 1} if named.attributes[index] & ATTRIBUTES["lsm_bool"] else -MAX_ERRNO <= value <= 0
