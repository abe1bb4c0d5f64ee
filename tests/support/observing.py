"""What an execution of an image shows to all who look, whatever the obligations make of it."""

from __future__ import annotations

import random

from properties.prover.architecture import Architecture
from properties.prover.confirm import Emulation
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.steps import COUNT
from properties.prover.terms import Value
from properties.prover.x86_64 import X86_64

__all__ = ["Observed", "observations"]


class Observed(Emulation):
    """An execution that writes down all that is outside the image to see, whatever the obligations make of it."""

    def run(self) -> None:
        """As ever; `seen` has where control goes, and what each callee reads, cut to what the goal compares."""
        self.seen: list[object] = []
        super().run()

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """What is read, before it is judged."""
        self.seen.append((obligation, self.constant(got) % (1 << bits)))
        super().same(obligation, got, expected, bits)

    def demand(self, obligation: str, predicate: Value) -> None:
        """The same of a predicate."""
        self.seen.append((obligation, predicate))
        super().demand(obligation, predicate)


def observations(image: Image, goal: Goal, seed: int, architecture: Architecture = X86_64) -> list[object]:
    """What one execution shows, the unknowns being random: what runs and returns, and which patches are in."""
    draw = random.Random(seed)
    values = {}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        values[f"{run.place}: enter returned"] = draw.choice((0, 1, draw.getrandbits(64)))
        values[f"{run.place}: program returned"] = draw.choice((0, 0, 1, 1 << 32, draw.getrandbits(64)))
    for name in (*architecture.convention.arguments, *architecture.convention.preserved, "the original returned"):
        values[name] = draw.choice((0, (1 << 64) - 1, draw.getrandbits(64)))
    values |= {name: draw.getrandbits(1) for name in sorted(goal.patches)}
    if goal.counts:
        values[COUNT] = draw.choice(goal.counts)
    execution = Observed(image, goal, architecture, goal.known, values)
    execution.run()
    return execution.seen
