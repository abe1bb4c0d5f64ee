"""All that is proved of one image file: the image as it is and while programs are detached, by bytes and whole words.

Bytes decide: a function reads no more of an argument than it has. What whole words add is told beside the verdict.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from properties.proofs.image_files import parse_image
from properties.prover.architecture import Architecture
from properties.prover.detaching import while_detaching
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.show import summary
from properties.prover.verdicts import Outcome
from properties.prover.x86_64 import X86_64
from spec.abi import SLOT_BYTES
from spec.prototypes import Prototype, Type

__all__ = ["DETACHING", "NO_PLACE", "Judgement", "Words", "cleared", "judge", "lacks_place", "variants"]

DETACHING: Final = "while programs are detached"
NO_PLACE: Final = "undecided: the place that the kernel patches then is not found"
CLEARED_BYTES: Final = 4
WORST: Final[tuple[Outcome, ...]] = ("refuted", "undecided")

Task = tuple[str, Image, Goal]
"""A name, and what is to be proved under it."""


@dataclass(frozen=True, slots=True)
class Words:
    """Whether an image keeps whole words.

    cleared: the argument whose upper half it clears instead, if that is all; otherwise, told is what is wrong.
    """

    outcome: Outcome
    cleared: int | None = None
    told: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """told: what is wrong, if it is not proved. detaching: whether the kernel patches the image while it is used.

    seconds: the processor's.
    """

    file: str
    function: str
    outcome: Outcome
    told: str
    detaching: bool
    words: Words
    seconds: float


def judge(text: str, file: str) -> Judgement:
    """Proves the text of an image file; BadInputError if it is none."""
    before = time.process_time()
    dump = parse_image(text, file)
    goal = dump.goal
    tasks = list(variants(dump.image, goal))
    outcome, told = _find_worst(tasks)
    if outcome == "proved" and lacks_place(tasks):
        outcome, told = "undecided", f"{DETACHING}: {NO_PLACE}"
    words = _judge_words(goal.prototype, tasks)
    return Judgement(file, dump.function, outcome, told, len(tasks) > 1, words, time.process_time() - before)


def variants(image: Image, goal: Goal, architecture: Architecture = X86_64) -> Iterator[Task]:
    """The image as it is, under an empty name, and as the kernel patches it while it is used, if it does."""
    yield "", image, goal
    patched = while_detaching(image, goal, architecture)
    if patched is not None:
        yield (DETACHING, *patched)


def lacks_place(tasks: Sequence[Task]) -> bool:
    """Whether a patched variant is missing: every kernel patches an image that calls the original."""
    return len(tasks) == 1 and tasks[0][2].calls_original


def _find_worst(tasks: Iterable[Task]) -> tuple[Outcome, str]:
    """The worst of the verdicts, and what it says; nothing if it is proved."""
    found: dict[Outcome, str] = {}
    for name, image, goal in tasks:
        verdict = prove(image, goal)
        found.setdefault(verdict.outcome, f"{name}: {summary(verdict)}" if name else summary(verdict))
    return next(((outcome, found[outcome]) for outcome in WORST if outcome in found), ("proved", ""))


def _judge_words(prototype: Prototype, tasks: Sequence[Task]) -> Words:
    outcome, told = _find_worst((name, image, goal.read("strict")) for name, image, goal in tasks)
    argument = cleared(prototype)
    if outcome == "refuted" and argument is not None:
        widened = _widen(prototype, argument)
        others, _ = _find_worst((name, image, replace(goal, prototype=widened)) for name, image, goal in tasks)
        if others == "proved":
            return Words(outcome, argument)
    return Words(outcome, None, told)


def cleared(prototype: Prototype) -> int | None:
    """The argument whose word's upper half Linux clears: the only one on the stack, if it has at most 4 bytes.

    Source: clean_stack_garbage() of arch/x86/net/bpf_jit_comp.c, since 473e3150e30a ("bpf, x86: allow function
    arguments up to 12 for TRACING"), v6.6.
    """
    stacked = [slot for slot in prototype.slots if slot.stack is not None]
    return stacked[0].argument if len(stacked) == 1 and stacked[0].size <= CLEARED_BYTES else None


def _widen(prototype: Prototype, narrow: int) -> Prototype:
    """The prototype with all types of whole words but one argument's, of half a word.

    By bytes it says of the others what words say of all.
    """
    arguments = [_widen_type(kind) for kind in prototype.arguments]
    arguments[narrow] = replace(arguments[narrow], size=CLEARED_BYTES)
    return replace(prototype, arguments=tuple(arguments), returns=_widen_type(prototype.returns))


def _widen_type(kind: Type) -> Type:
    return replace(kind, size=-(-kind.size // SLOT_BYTES) * SLOT_BYTES)
