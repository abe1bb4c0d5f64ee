"""What ends a process from outside: SIGTERM becomes an exception, so that everything is given back."""

from __future__ import annotations

import signal
from typing import NoReturn

__all__ = ["TerminatedError", "give_back_when_terminated"]


class TerminatedError(KeyboardInterrupt):
    """SIGTERM: everything is given back, as after Ctrl-C."""


def give_back_when_terminated() -> None:
    """From now on SIGTERM raises TerminatedError."""
    signal.signal(signal.SIGTERM, _terminate)


def _terminate(_signal: int, _frame: object) -> NoReturn:
    raise TerminatedError
