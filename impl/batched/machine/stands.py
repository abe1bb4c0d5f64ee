"""Every instruction of an image at which a task may stand, and as which point of TASK-2 that counts."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

import capstone  # type: ignore[import-untyped]

from impl.batched.jit.template import Skip
from impl.batched.machine.images import PlacedImage
from spec.standing import END, Instruction, Span, Stand, make_stands

__all__ = ["image_stands"]

DECODER: Final = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def image_stands(image: PlacedImage, code: bytes, name: Callable[[int], str]) -> tuple[Stand, ...]:
    """The stands of an image. name: a program's by its number."""
    return make_stands(_decode(image, code), sorted(_list_spans(image, name), key=lambda span: span[0]))


def _decode(image: PlacedImage, code: bytes) -> Iterator[Instruction]:
    for at, _, mnemonic, operands in DECODER.disasm_lite(code, image.address):
        yield at - image.address, f"{mnemonic} {operands}".rstrip()


def _list_spans(image: PlacedImage, name: Callable[[int], str]) -> Iterator[Span]:
    """The points of the image, each with the last byte at which a task counts as standing there."""
    made = image.made
    yield 0, "image"
    for skip in made.skips:
        yield from _list_run(skip, name(image.programs[skip.run.link]))
    if made.enters is None or made.returned is None or made.after_call is None:
        yield END, "body"
        return
    yield made.enters, "enter"
    yield made.returned - 1, "body"
    yield made.after_call, "after-body"
    yield END, "exit"


def _list_run(skip: Skip, name: str) -> Iterator[Span]:
    yield skip.at, f"skip:{name}"
    yield skip.enters, f"before:{name}"
    yield skip.behind - 1, f"program:{name}"
