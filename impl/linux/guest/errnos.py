"""Names of the kernel's error numbers."""

from __future__ import annotations

import errno

__all__ = ["errno_name"]

# ENOTSUPP is the kernel's own, include/linux/errno.h; of EOPNOTSUPP's two names Python prefers the other
_NAMES: dict[int, str] = {**errno.errorcode, errno.EOPNOTSUPP: "EOPNOTSUPP", 524: "ENOTSUPP"}


def errno_name(value: int) -> str:
    """The name of what a call returned, -errno: EINVAL for -22. A number without a name is E and the number."""
    return _NAMES.get(-value, f"E{-value}")
