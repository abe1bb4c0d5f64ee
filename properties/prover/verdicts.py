"""The verdict of a proof, its figures, and the counterexample."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from properties.prover.image import Patch

__all__ = ["Counterexample", "Figures", "Outcome", "Verdict"]

Outcome = Literal["proved", "refuted", "undecided"]


@dataclass(frozen=True, slots=True)
class Counterexample:
    """Values under which the image, executed, breaks an obligation.

    obligation: its name. at: the address of the instruction at which it shows; culprit: of the one that last wrote what
    is wrong, if that is known. got and expected: the two values, where it is about two. values: the symbols.
    path: the addresses executed. stands: where the task stood while the kernel patched the image, and patches: what it
    put in place; nothing if it did not.
    """

    obligation: str
    at: int
    values: Mapping[str, int] = field(hash=False)
    path: tuple[int, ...]
    got: int | None = None
    expected: int | None = None
    culprit: int | None = None
    stands: int | None = None
    patches: tuple[Patch, ...] = ()


@dataclass(frozen=True, slots=True)
class Figures:
    """What a proof cost. plain: decisions without the solver; asked: questions to it; paths: after merging.

    instructions: executed, over all paths. stands: how many different ones, at each of which a task may stand.
    places: how many of those that are patched control comes to.
    """

    plain: int
    asked: int
    paths: int
    instructions: int
    stands: int = 0
    places: int = 0


@dataclass(frozen=True, slots=True)
class Verdict:
    """obligations: how often each that was met has been decided, by name, in order. reason: why undecided.

    bindings: the constants that the goal left open, as the image has them.
    """

    outcome: Outcome
    obligations: Mapping[str, int] = field(hash=False)
    figures: Figures
    bindings: Mapping[str, int] = field(hash=False)
    counterexample: Counterexample | None = None
    reason: str | None = None
