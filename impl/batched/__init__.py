"""The optimized implementation: mass attach as arrays over functions, and interned classes of program sets.

One module a kernel concept, beneath `state`; nothing here may import the model, or loop in Python over a batch.
"""

from __future__ import annotations

from impl.batched.sets import ProgramSets
from impl.batched.system import Batched
from spec.border import bordered
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["Batched", "ProgramSets", "generic", "per_function", "per_shape", "system"]


def per_function(world: World, semantics: Semantics) -> Batched:
    """One image a function."""
    return _behind_border(world, semantics, "per_function")


def per_shape(world: World, semantics: Semantics) -> Batched:
    """One image for each set of programs and shape of the signature."""
    return _behind_border(world, semantics, "per_shape")


def generic(world: World, semantics: Semantics) -> Batched:
    """One image for each set of programs, whatever the arity, while arguments stay in registers."""
    return _behind_border(world, semantics, "generic")


def _behind_border(world: World, semantics: Semantics, sharing: str) -> Batched:
    return bordered(Batched(world, semantics, sharing), world, semantics)


system = per_function
