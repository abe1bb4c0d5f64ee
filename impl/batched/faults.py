"""Injected failures (FAIL-1, FAIL-2), and how an operation is refused."""

from __future__ import annotations

from typing import Final

from spec.outcomes import Errno

__all__ = ["ERRNO_OF", "Faults", "Refused"]

ERRNO_OF: Final = {"alloc": "ENOMEM", "filter": "EINVAL", "register": "EBUSY", "jit_charge": "EPERM"}


class Refused(Exception):  # noqa: N818 - an answer of the kernel, not an error of ours
    """The operation fails with this errno, and nothing has been changed."""

    def __init__(self, errno: str, *, warn: bool = False) -> None:
        super().__init__(errno)
        self.outcome = Errno(errno, warn)


class Faults:
    """Counts down, for each point, to the time at which reaching it fails."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}

    def arm(self, point: str, count: int) -> None:
        """The count-th time from here fails, once; it replaces an earlier order for the point."""
        self._left[point] = count

    def due(self, point: str) -> int:
        """How often the point must be reached until it fails; 0 if it will not."""
        return self._left.get(point, 0)

    def reach(self, point: str, times: int = 1) -> int:
        """Reach a point several times; which of these fails, counted from 1, or 0."""
        left = self._left.get(point)
        if left is None or not times:
            return 0
        if left > times:
            self._left[point] = left - times
            return 0
        del self._left[point]
        return left

    def stop_at(self, point: str, times: int = 1) -> None:
        """Reach a point up to `times` times; raises Refused if one of them fails."""
        if self.reach(point, times):
            raise Refused(ERRNO_OF[point])
