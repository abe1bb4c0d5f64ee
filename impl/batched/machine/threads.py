"""Tasks that stand in the middle of a call: registers, a stack and records of their own, over the text of all.

A task stops at the points of its own call alone, which its stack tells from those of calls made in it: an image's frame
lies right below the return addresses that the call began with.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from impl.batched.machine import addresses as at
from impl.batched.machine.cpu import Context
from impl.batched.machine.entries import body_address, site_offset
from impl.batched.machine.images import PlacedImage, code_address
from impl.batched.machine.memory import PAGE, MemoryRegion
from impl.batched.machine.tables import SavedTask

__all__ = ["AtPoint", "Thread", "list_places", "task_memory"]

WORD: Final = 8
STACK_SPACE: Final = 1 << 17
SPACE: Final = 1 << 20
TOP: Final = STACK_SPACE - PAGE
"""Where the return address of the call is."""


class AtPoint(NamedTuple):
    """A point (TASK-2). program: the number of the program that a point names, else 0.

    offset: of the instruction of the image that stands for the point, if one does.
    """

    kind: str
    program: int = 0
    offset: int | None = None


@dataclass
class Thread:
    """One task.

    index: of its function; given: how many words it was called with. begun: it has passed the site. image: the one that
    it was sent to there; None before, and where there was none. former: the one before text was patched, where patching
    is not over. returned: its call is over.
    """

    index: int
    given: int
    region: MemoryRegion
    context: Context
    saved: SavedTask
    begun: bool = False
    image: PlacedImage | None = None
    former: PlacedImage | None = None
    returned: bool = False

    @property
    def stack(self) -> int:
        """The address of its call's return address."""
        return self.region.address + TOP

    @property
    def records(self) -> int:
        """The address of the records of its call."""
        return self.region.address + STACK_SPACE

    def recorded(self) -> list[int]:
        """The records of its call so far."""
        end = int(self.saved[0][1][0]) - self.region.address
        words: list[int] = self.region.u64[STACK_SPACE // WORD : end // WORD].tolist()
        return words

    def stands_at(self, point: AtPoint, rsp: int, rbp: int) -> bool:
        """Whether it is its own call that has come to a point, where the stack is so."""
        in_frame = rbp in {self.stack - WORD, self.stack - 2 * WORD}
        if point.offset is not None:
            return in_frame or rsp >= self.stack - 2 * WORD
        match point.kind:
            case "site":
                return rsp == self.stack
            case "image":
                return rsp in {self.stack, self.stack - WORD}
            case "body":
                return rsp == self.stack or in_frame
        return in_frame


def task_memory(slot: int) -> MemoryRegion:
    """The memory of one task at a time: its stack, and the records behind it."""
    return MemoryRegion(at.TASKS + 2 * SPACE * slot, SPACE)


def list_places(thread: Thread, point: AtPoint, image: PlacedImage | None) -> Iterator[int]:
    """The addresses of a point in the call of a task that goes, or went, through this image."""
    if point.offset is not None and image is not None:
        yield image.address + point.offset
    elif point.kind == "site":
        yield at.TEXT + site_offset(thread.index)
    elif point.kind == "body":
        yield from (body_address(thread.index), at.PATCHED + at.FUNCTION_BYTES * thread.index)
    elif image is not None:
        yield from (image.address + offset for offset in _list_offsets(image, point))
        if point.kind == "program" and point.program in image.programs:
            yield code_address(point.program)


def _list_offsets(image: PlacedImage, point: AtPoint) -> Iterator[int]:
    made = image.made
    single = {"image": 0, "enter": made.enters, "after-body": made.returned, "exit": made.exited}.get(point.kind)
    if single is not None:
        yield single
    for skip in made.skips:
        if image.programs[skip.run.link] == point.program and point.kind in {"skip", "before"}:
            yield skip.at if point.kind == "skip" else skip.enters
