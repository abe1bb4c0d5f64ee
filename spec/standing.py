"""Where a task may stand in an image: at each of its instructions, which counts for the rules as a point of TASK-2."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

__all__ = ["END", "Instruction", "Span", "Stand", "Standable", "make_stands"]

END: Final = 1 << 64
"""Behind everything."""

Instruction = tuple[int, str]
"""An instruction's offset in its image, and how a disassembler shows it."""

Span = tuple[int, str]
"""A point, and the offset through which a task that has left the spans before it counts as standing at it."""


@dataclass(frozen=True, slots=True)
class Stand:
    """An instruction at which a task may stand.

    offset: from the image's first byte. points: those as which it may count, the nearest first, each with how often a
    task comes to it until then: to those of a session twice. The nearest one that the call comes to is the one.
    """

    offset: int
    text: str
    points: tuple[tuple[str, int], ...]


class Standable(Protocol):
    """A system whose tasks can be stopped at any instruction of an image."""

    def stands(self, function: str) -> Sequence[Stand]:
        """Every instruction of the image that a function's site leads to, in order; none without an image."""

    def stand_at(self, offset: int) -> None:
        """The next step of a task stops at this offset of its image, in the place of the point that it names."""


def make_stands(instructions: Iterable[Instruction], spans: Iterable[Span]) -> tuple[Stand, ...]:
    """The stands of an image. spans: in the order of addresses.

    Rules speak of points, between which nothing changes: what is before a call, or a nop that is patched, is like
    standing at it. Only a program's read section has an end that is no point, so its span goes on to there.
    """
    seen: dict[str, int] = {}
    turns: list[tuple[int, tuple[str, int]]] = []
    for end, name in spans:
        seen[name] = seen.get(name, 0) + 1
        turns.append((end, (name, seen[name])))
    return tuple(
        Stand(offset, text, tuple(point for end, point in turns if offset <= end)) for offset, text in instructions
    )
