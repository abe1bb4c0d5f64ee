"""What goes over the pipe, one JSON object a line: images with their goals, and what angr says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from properties.prover.goal import Goal
from properties.prover.image import Image

__all__ = ["Answer", "Reply", "Request"]


@dataclass(frozen=True, slots=True)
class Request:
    """images: those to have, in place of those before. prove: those to prove once more, by their places."""

    images: tuple[tuple[Image, Goal], ...] | None = None
    prove: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Answer:
    """What angr says of an image: as a Verdict has it. broken: the obligation that does not hold."""

    outcome: str
    obligations: Mapping[str, int]
    paths: int
    broken: str = ""


@dataclass(frozen=True, slots=True)
class Reply:
    """seconds: of the processor, for all answers. error: why there are none."""

    answers: tuple[Answer, ...] = ()
    seconds: float = 0.0
    error: str = ""
