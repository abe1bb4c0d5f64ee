"""What machine code costs: proofs of images with many programs, and relocating a template against assembling it."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from impl.batched.jit.generate import assembled, template
from impl.batched.jit.plan import MOST_LINKS, ImagePlan, TrampLink
from properties.benchmarks.figures import Figure, Measure, taking_turns, worked
from properties.proofs.generated import generated
from properties.proofs.matrix import KINDS, long
from properties.prover.goal import Goal, Kind, Program
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.verdicts import Verdict

__all__ = ["measures"]

ARITY: Final = 8
ALL: Final = KINDS["all three"]
ADDRESS: Final = 0xFFFFFFFFC0010000
RELOCATIONS: Final = 100
"""How many make one measurement, since one alone takes microseconds."""


def measures() -> list[Measure]:
    """The figures."""
    return [growth_with_programs, relocation]


def growth_with_programs() -> Figure:
    """Proofs of an image of each kind with as many programs as it may have, against those of images with one."""
    most, one = ([_image(kind, count) for kind in ALL] for count in (MOST_LINKS, 1))
    many, few = taking_turns(15, partial(_proofs_time, most), partial(_proofs_time, one))
    name = f"proofs of {MOST_LINKS} programs of each kind, slower than of one"
    return Figure(name, many / few, 60, "lower", "times")


def relocation() -> Figure:
    """A template with one program of each kind: put at an address, against assembled anew."""
    plan = ImagePlan(long(ARITY).shape, tuple(TrampLink(kind) for kind in ("fentry", "fmod_ret", "fexit")))
    made = template(plan)
    symbols = {symbol: ADDRESS - 0x100 * place for place, symbol in enumerate(sorted(made.symbols), 1)}

    def relocated() -> None:
        for _ in range(RELOCATIONS):
            made.relocate(ADDRESS, symbols)

    slow, fast = taking_turns(15, partial(worked, lambda: assembled(plan)), partial(worked, relocated))
    return Figure("relocating an image, faster than assembling it", slow / (fast / RELOCATIONS), 20, "higher", "times")


def _image(kind: Kind, count: int) -> tuple[Image, Goal]:
    return generated(long(ARITY), [Program(kind, 0)] * count)


def _proofs_time(images: Sequence[tuple[Image, Goal]]) -> float:
    """The time that it takes to prove all images."""
    return worked(lambda: [_prove(*image) for image in images])


def _prove(image: Image, goal: Goal) -> Verdict:
    verdict = prove(image, goal)
    assert verdict.outcome == "proved", verdict
    return verdict
