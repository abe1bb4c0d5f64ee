"""Faults planted in images of each architecture, each with the obligation that must fall."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

from properties.prover.goal import Goal
from properties.prover.image import Image
from tests.support import arm64_faults, x86_64_faults
from tests.support.arm64_images import edited, image_of
from tests.support.prove_images import Trampoline

__all__ = ["FAULTS", "Fault"]


@dataclass(frozen=True)
class Fault:
    """What makes the image with the fault, and the one without; what is to be proved; and what must fall."""

    broken: Callable[[], Image]
    whole: Callable[[], Image]
    goal: Goal
    obligation: str


def _plant_x86_64(name: str) -> Fault:
    goal, edit, obligation = x86_64_faults.BROKEN[name]
    trampoline = Trampoline(goal)
    return Fault(partial(trampoline.image, edit), trampoline.image, goal, obligation)


def _plant_arm64(name: str) -> Fault:
    (prototype, kinds, fields), edit, obligation = arm64_faults.BROKEN[name]
    image, goal = image_of(prototype, *kinds, **fields)
    return Fault(partial(edited, prototype, kinds, edit, **fields), lambda: image, goal, obligation)


FAULTS: Mapping[str, Mapping[str, Fault]] = {
    "x86-64": {name: _plant_x86_64(name) for name in x86_64_faults.BROKEN},
    "arm64": {name: _plant_arm64(name) for name in arm64_faults.BROKEN},
}
"""By the architecture's name, and the fault's."""
