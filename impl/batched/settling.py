"""Coming to rest (SETTLE-1): what nothing uses any more is freed at once, so that there is nothing to wait for."""

from __future__ import annotations

from impl.batched.state import State
from spec import operations as op

__all__ = ["settle"]


def settle(_state: State, _operation: op.Settle) -> None:
    """Leaves everything as it is."""
