"""arm64 images for tests: what the generator makes of some programs, and what it would make with a bug in it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from impl.batched.jit.arm64 import ARM64 as ISA
from impl.batched.jit.generate import assemble, statements
from impl.batched.jit.isa import Instruction, Label, Statement
from impl.batched.jit.plan import ImagePlan, TrampLink
from properties.proofs.generated import bound, generated, goal_of
from properties.prover.arm64 import ARM64, MODELLED
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.verdicts import Verdict
from spec.prototypes import Prototype
from tests.support.prove_images import of_kinds

KINDS = (
    ("fentry",),
    ("fexit",),
    ("fmod_ret",),
    ("fsession",),
    ("fentry", "fmod_ret", "fexit"),
    ("fentry", "fentry", "fsession", "fmod_ret", "fmod_ret", "fexit", "fexit", "fsession"),
)
Edit = Callable[[list[Statement]], None]

ANY_INSTRUCTION = replace(ISA, mnemonics=ISA.mnemonics | MODELLED | {"fmov", "msr", "paciasp", "udf"})
"""The Isa, for which a mutant may have instructions that no image has."""


def image_of(prototype: Prototype, *kinds: str, **fields: Any) -> tuple[Image, Goal]:
    """The image and the goal of programs of these kinds."""
    given = {name: fields.pop(name) for name in ("cookies", "sleepable") if name in fields}
    return generated(prototype, of_kinds(*kinds, **given), isa=ISA, architecture=ARM64, **fields)


def edited(prototype: Prototype, kinds: Sequence[str], edit: Edit, *, cookies: bool = False, **plan: Any) -> Image:
    """The image of the same programs, after an edit of its statements."""
    programs = of_kinds(*kinds, cookies=cookies)
    shape = None if plan.pop("generic", False) else prototype.shape
    planned = ImagePlan(shape, tuple(TrampLink(program.kind) for program in programs), **plan)  # type: ignore[arg-type]
    made = statements(planned, ISA)
    edit(made)
    template = assemble(planned, made, ANY_INSTRUCTION)
    return bound(template, goal_of(prototype, programs, planned, ARM64), ARM64)


def proof(image: Image, goal: Goal, **options: Any) -> Verdict:
    """The verdict on an arm64 image."""
    return prove(image, goal, architecture=ARM64, **options)


def place_of(made: list[Statement], text: str, nth: int = 0) -> int:
    """The place of the nth instruction whose text begins so, or of the label of this name."""
    found = [place for place, one in enumerate(made) if _text(one).startswith(text)]
    return found[nth]


def _text(one: Statement) -> str:
    return f"{one.name}:" if isinstance(one, Label) else one.text


def put(text: str, other: str, nth: int = 0) -> Edit:
    """Other instructions, a line each, in an instruction's place; `other` begins with + to stand before it."""

    def edit(made: list[Statement]) -> None:
        place = place_of(made, text, nth)
        lines = [Instruction(line) for line in other.removeprefix("+").split("\n") if line]
        made[place : place + (not other.startswith("+"))] = lines

    return edit


def in_text(text: str, old: str, new: str, nth: int = 0) -> Edit:
    """Changes part of the text of an instruction."""

    def edit(made: list[Statement]) -> None:
        place = place_of(made, text, nth)
        one = made[place]
        assert isinstance(one, Instruction)
        assert old in one.text
        made[place] = replace(one, text=one.text.replace(old, new))

    return edit


def coded(text: str, code: str, nth: int = 0) -> Edit:
    """Changes an instruction that is given as bytes, and keeps its hole."""

    def edit(made: list[Statement]) -> None:
        place = place_of(made, text, nth)
        one = made[place]
        assert isinstance(one, Instruction)
        assert one.code
        made[place] = replace(one, code=bytes.fromhex(code))

    return edit


def symbol(old: str, new: str, nth: int = 0) -> Edit:
    """Another symbol for the nth hole of a symbol."""

    def edit(made: list[Statement]) -> None:
        places = [place for place, one in enumerate(made) if isinstance(one, Instruction) and one.symbol == old]
        one = made[places[nth]]
        assert isinstance(one, Instruction)
        made[places[nth]] = replace(one, symbol=new)

    return edit


def both(*edits: Edit) -> Edit:
    """One edit after the other."""

    def edit(made: list[Statement]) -> None:
        for one in edits:
            one(made)

    return edit
