"""The three sharing levels of trampolines: which functions one image may serve (design section 4)."""

from __future__ import annotations

from collections.abc import Hashable

from spec.worlds import Function

__all__ = ["LEVELS", "image_key"]

LEVELS = ("per_function", "per_shape", "generic")


def image_key(level: str, function: Function) -> Hashable:
    """Functions with equal keys and equal program lists share an image at this level.

    `generic` serves every function whose arguments stay in registers by one image; the others have one for each shape.
    """
    if level == "per_function" or function.prototype is None:
        return function.name
    if level == "generic" and function.prototype.in_registers:
        return "generic"
    return function.prototype.shape
