"""What stays in place while all else comes to rest (SETTLE-1), and how images reach the original (IMAGE-3)."""

from __future__ import annotations

from collections.abc import Mapping

from model.rules import cite
from model.sites import has_direct_ops
from model.state import State
from spec import operations as op

__all__ = ["originals", "settle"]


def settle(state: State, _: op.Settle) -> State:
    """SETTLE-1: nothing changes."""
    cite("SETTLE-1")
    return state


def originals(state: State) -> Mapping[str, str]:
    """By the functions whose site shows an image that calls the original."""
    calling = (name for name, image in state.images.items() if image.fmod_ret or image.fexit)
    shown = (name for name in calling if not state.off and has_direct_ops(state, name))
    return {name: "stack" if state.images[name].orig_stack else "address" for name in shown}
