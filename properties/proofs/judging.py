"""All that is proved of one image file: the image as it is and while programs are detached, by bytes and whole words.

Bytes decide: a function reads no more of an argument than it has. What whole words add is told beside the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from properties.proofs.image_files import Dump, parse_image
from properties.prover.architecture import Architecture
from properties.prover.detaching import UnplacedError, while_detaching
from properties.prover.goal import Goal, Reading
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.show import summary
from properties.prover.verdicts import Figures, Outcome, Verdict
from properties.prover.x86_64 import X86_64
from spec.abi import SLOT_BYTES
from spec.prototypes import Prototype, Type

__all__ = [
    "DETACHING",
    "NO_PLACE",
    "JudgeUnit",
    "Judgement",
    "Variant",
    "Words",
    "cleared",
    "judge",
    "variants",
]

DETACHING: Final = "while programs are detached"
NO_PLACE: Final = "the place that the kernel patches then is not found"
CLEARED_BYTES: Final = 4
WORST: Final[tuple[Outcome, ...]] = ("refuted", "undecided")


@dataclass(frozen=True, slots=True)
class Variant:
    """One state of an image, and its goal then. name: DETACHING, or empty for the image as it was built.

    lacks: why nothing can be proved of it.
    """

    name: str
    image: Image
    goal: Goal
    architecture: Architecture
    lacks: str = ""

    def prove(self, *, thorough: bool = False) -> Verdict:
        """Proves that the image meets its goal."""
        if self.lacks:
            return Verdict("undecided", {}, Figures(0, 0, 0, 0), {}, reason=self.lacks)
        return prove(self.image, self.goal, thorough=thorough, architecture=self.architecture)


@dataclass(frozen=True, slots=True)
class Words:
    """Whether an image keeps whole words.

    cleared: the argument whose upper half it clears instead, if that is all. told: otherwise, what is wrong.
    """

    outcome: Outcome
    cleared: int | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What was found about one image file.

    told: what is wrong, if it is not proved. detaching: whether the kernel patches the image while it is used. seconds:
    the processor's.
    """

    file: str
    function: str
    outcome: Outcome
    told: str
    detaching: bool
    words: Words
    seconds: float


@dataclass(frozen=True, slots=True)
class JudgeUnit:
    """Texts of image files, each with the path of its file."""

    images: tuple[tuple[str, str], ...]

    def work(self, _: Path) -> tuple[Judgement, ...]:
        """Judge each."""
        return tuple(judge(text, file) for text, file in self.images)


def judge(text: str, file: str) -> Judgement:
    """Proves the text of an image file; BadInputError if it is none."""
    before = time.process_time()
    dump = parse_image(text, file)
    found = variants(dump)
    outcome, told = _prove_all(found)
    words = _judge_words(found)
    return Judgement(file, dump.function, outcome, told, len(found) > 1, words, time.process_time() - before)


def variants(dump: Dump, reading: Reading = "width") -> tuple[Variant, ...]:
    """The image as it is and, if the kernel patches it while tasks are in it, as it is then."""
    goal = dump.goal.read(reading)
    built = Variant("", dump.image, goal, dump.architecture)
    try:
        patched = while_detaching(dump.image, goal, dump.architecture, dump.noted)
    except UnplacedError as error:
        return built, replace(built, name=DETACHING, lacks=f"{NO_PLACE}: {error}")
    return (built,) if patched is None else (built, Variant(DETACHING, *patched, dump.architecture))


def _prove_all(found: Iterable[Variant]) -> tuple[Outcome, str]:
    """The worst of the verdicts, and what it says; nothing if all are proved."""
    told: dict[Outcome, str] = {}
    for variant in found:
        verdict = variant.prove()
        text = summary(verdict)
        told.setdefault(verdict.outcome, f"{variant.name}: {text}" if variant.name else text)
    return next(((outcome, told[outcome]) for outcome in WORST if outcome in told), ("proved", ""))


def _judge_words(found: Sequence[Variant]) -> Words:
    outcome, told = _prove_all(replace(variant, goal=variant.goal.read("strict")) for variant in found)
    argument = cleared(found[0].goal.prototype) if found[0].architecture is X86_64 else None
    if outcome == "refuted" and argument is not None:
        widened = _widen(found[0].goal.prototype, argument)
        others, _ = _prove_all(replace(variant, goal=replace(variant.goal, prototype=widened)) for variant in found)
        if others == "proved":
            return Words(outcome, argument)
    return Words(outcome, None, told)


def cleared(prototype: Prototype) -> int | None:
    """The argument whose word's upper half x86-64 clears: the only one on the stack, if it has at most 4 bytes.

    Source: clean_stack_garbage() of arch/x86/net/bpf_jit_comp.c, since 473e3150e30a ("bpf, x86: allow function
    arguments up to 12 for TRACING"), v6.6.
    """
    stacked = [slot for slot in prototype.slots if slot.stack is not None]
    return stacked[0].argument if len(stacked) == 1 and stacked[0].size <= CLEARED_BYTES else None


def _widen(prototype: Prototype, narrow: int) -> Prototype:
    """The prototype with all types of whole words but one argument's, of half a word.

    By bytes it says of the others what words say of all.
    """
    arguments = [_round_up(kind) for kind in prototype.arguments]
    arguments[narrow] = replace(arguments[narrow], size=CLEARED_BYTES)
    return replace(prototype, arguments=tuple(arguments), returns=_round_up(prototype.returns))


def _round_up(kind: Type) -> Type:
    """The type with a size of whole words."""
    return replace(kind, size=-(-kind.size // SLOT_BYTES) * SLOT_BYTES)
