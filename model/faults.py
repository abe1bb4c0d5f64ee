"""Injected failures: the points that an operation reaches, counted down to the one that fails (FAIL-1)."""

from __future__ import annotations

from collections.abc import Mapping

from model.rules import Refused, cite

__all__ = ["Faults"]

ERRNOS = {"alloc": "ENOMEM", "filter": "EINVAL", "register": "EBUSY", "jit_charge": "EPERM", "patch": "ENODEV"}


class Faults:
    """How often each armed point may still be reached; it lives through one operation and is handed on to the next."""

    def __init__(self, armed: Mapping[str, int]) -> None:
        self.armed = dict(armed)

    def arm(self, point: str, count: int) -> None:
        """Let the count-th reaching from here fail."""
        cite("FAIL-1")
        self.armed[point] = count

    def fails(self, point: str) -> bool:
        """Reach a point; whether it fails this time."""
        left = self.armed.get(point)
        if left is None:
            return False
        if left > 1:
            self.armed[point] = left - 1
            return False
        del self.armed[point]
        return True

    def reach(self, point: str) -> None:
        """Reach a point; Refused if it fails this time."""
        if self.fails(point):
            raise Refused(ERRNOS[point], "FAIL-2")
