"""What an operation answers: Ok, or Errno, and whether the kernel warned; or Pending, where it does not end."""

from __future__ import annotations

from dataclasses import dataclass, field

__all__ = ["ERRNOS", "Errno", "Ok", "Outcome", "Pending"]

ERRNOS = frozenset(
    "EAGAIN EBADF EBUSY EEXIST EINVAL ENODEV ENOENT ENOMEM ENOSPC ENOTSUPP EOPNOTSUPP EPERM ESRCH E2BIG".split(),
)


@dataclass(frozen=True, slots=True)
class Ok:
    """Success; `warn`: the kernel prints a WARN all the same."""

    warn: bool = False

    @property
    def harness(self) -> str:
        """No rule: the harness never answers that something was done."""
        return ""

    def __str__(self) -> str:
        return "0 WARN" if self.warn else "0"


@dataclass(frozen=True, slots=True)
class Errno:
    """Failure by an errno's name, without the minus sign.

    harness: the rule by which the harness answered in a system's place; empty where the system itself did.
    """

    name: str
    warn: bool = False
    harness: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"-{self.name} WARN" if self.warn else f"-{self.name}"


@dataclass(frozen=True, slots=True)
class Pending:
    """The operation has taken effect, and waits for a task (TASK-7), or stops while it patches text (POKE-1)."""

    warn: bool = False

    @property
    def harness(self) -> str:
        """No rule: it is the kernel that waits."""
        return ""

    def __str__(self) -> str:
        return "pending"


Outcome = Ok | Errno | Pending
