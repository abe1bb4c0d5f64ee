"""Every instruction of an image at which a task may stand, and as which point of TASK-2 that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import takewhile

from impl.linux.architectures import Architecture, ImageInstruction, Meaning
from impl.linux.probes.disassembly import Helpers
from spec.standing import END, Span, Stand, make_stands

__all__ = ["image_stands"]


def image_stands(
    architecture: Architecture, address: int, code: bytes, known: Helpers, program: Callable[[int], str | None]
) -> tuple[Stand, ...]:
    """The stands of the image at an address. program: a program's name by the address of its code."""
    instructions = tuple(architecture.read_image(address, code))
    return make_stands(((each.offset, each.text) for each in instructions), _list_spans(instructions, known, program))


def _list_spans(
    instructions: Sequence[ImageInstruction], known: Helpers, program: Callable[[int], str | None]
) -> Iterator[Span]:
    """The points of the image, each with the last instruction that counts as it."""
    calls = [place for place, each in enumerate(instructions) if each.meaning is Meaning.CALL]
    targets = {place: instructions[place].number for place in calls}
    name: str | None = None
    entered = original = False
    yield 0, "image"
    for place in calls:
        at, target = instructions[place].offset, targets[place]
        if target in known.tramp_enter:
            yield at, "enter"
        elif target in known.tramp_exit:
            continue
        elif target in known.prog_enter:
            entered = True
            name = program(next(targets[later] or 0 for later in calls if later > place))
            if (room := _find_room(instructions, place)) is not None:
                yield room, f"skip:{name}"
            yield at, f"before:{name}"
        elif target in known.prog_exit:
            entered = False
            yield at, f"program:{name}"
        elif not entered:
            original = True
            yield at, "body"
            yield _find_after_call(instructions, place), "after-body"
    yield END, "exit" if original else "body"


def _find_room(instructions: Sequence[ImageInstruction], entered: int) -> int | None:
    """The offset of the nop before a program's run, behind the call before it; None where there is none."""
    for each in reversed(instructions[:entered]):
        if each.meaning is Meaning.CALL:
            return None
        if each.meaning in {Meaning.ROOM, Meaning.SKIP}:
            return each.offset
    return None


def _find_after_call(instructions: Sequence[ImageInstruction], called: int) -> int:
    """The offset of ip_after_call, the first nop behind the call of the original, which putting an image patches.

    Where images have none, or a call comes before a nop, only what is right behind the original counts.
    """
    behind = instructions[called + 1 :]
    places = takewhile(lambda each: each.meaning is not Meaning.CALL, behind)
    return next((each.offset for each in places if each.meaning in {Meaning.ROOM, Meaning.SKIP}), behind[0].offset)
