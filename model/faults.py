"""Injected failures: the points that an operation reaches, counted down to the one that fails (FAIL-1, FAIL-2)."""

from __future__ import annotations

from dataclasses import replace

from model.endings import Refused
from model.rules import cite
from model.state import State
from spec import operations as op

__all__ = ["fail", "fails", "reach"]

ERRNOS = {"alloc": "ENOMEM", "filter": "EINVAL", "register": "EBUSY", "jit_charge": "EPERM"}


def fail(state: State, operation: op.Fail) -> State:
    """FAIL-1: the count-th time from here that the point is reached, it fails; FAIL-4: some are not seen."""
    if operation.point in op.UNSEEN:
        cite("FAIL-4")
        return state
    cite("FAIL-1")
    return replace(state, armed={**state.armed, operation.point: operation.count})


def fails(state: State, point: str) -> tuple[State, bool]:
    """Reach a point: the state in which it is counted, and whether it fails this time."""
    left = state.armed.get(point)
    if left is None:
        return state, False
    armed = {**state.armed, point: left - 1}
    if left > 1:
        return replace(state, armed=armed), False
    del armed[point]
    return replace(state, armed=armed), True


def reach(state: State, point: str, *rules: str) -> State:
    """Reach a point; Refused by FAIL-2, and by these rules, if it fails this time."""
    state, failed = fails(state, point)
    if failed:
        raise Refused(state, ERRNOS[point], "FAIL-2", *rules)
    return state
