"""What goes over the pipe, one JSON object a line: images with their goals, and what angr says of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from properties.prover.goal import Goal
from properties.prover.image import Image

__all__ = ["AngrAnswer", "AngrReply", "Request", "request_images"]


@dataclass(frozen=True, slots=True)
class Request:
    """images: those to have, in place of those before. prove: those to prove once more, by their places."""

    images: tuple[tuple[Image, Goal], ...] | None = None
    prove: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class AngrAnswer:
    """What angr says of an image: as a Verdict has it. broken: the obligation that does not hold."""

    outcome: str
    obligations: Mapping[str, int]
    paths: int
    broken: str = ""


@dataclass(frozen=True, slots=True)
class AngrReply:
    """seconds: of the processor, for all answers. error: why there are none."""

    answers: tuple[AngrAnswer, ...] = ()
    seconds: float = 0.0
    error: str = ""


def request_images(images: Sequence[tuple[Image, Goal]]) -> Request:
    """The request to have these images. ValueError for those that angr's side does not prove."""
    for _, goal in images:
        if goal.lookup is not None or goal.patches or goal.shares_ipmodify or goal.reading != "width":
            raise ValueError("the peer proves images of one function only, as they are built, in the reading width")
    return Request(images=tuple(images))
