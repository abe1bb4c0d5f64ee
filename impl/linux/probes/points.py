"""Where a task may stand in the call of a function (TASK-2), as addresses found in the calls of its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping

from impl.linux.architectures import Architecture, Meaning
from impl.linux.probes.disassembly import Helpers

__all__ = ["Points", "image_points"]

Points = Mapping[str, tuple[int, ...]]
"""The addresses of each point, as seeds write it; a session is called twice."""


def image_points(
    architecture: Architecture,
    address: int,
    code: bytes,
    known: Helpers,
    program: Callable[[int], str | None],
    *,
    skips: bool,
) -> Points:
    """The points of the image at an address. program: a program's name by the address of its code.

    skips: whether the kernel passes over programs that were detached, so that a nop stands before each for that.
    """
    found: dict[str, list[int]] = defaultdict(list)
    found["image"].append(address)
    room = entered = 0
    for instruction in architecture.read_image(address, code):
        at, target = address + instruction.offset, instruction.number
        behind = at + instruction.size
        if instruction.meaning in {Meaning.ROOM, Meaning.SKIP}:
            room = at
        elif instruction.meaning is not Meaning.CALL:
            continue
        elif target in known.prog_enter:
            entered = at
        elif target in known.prog_exit:
            room = entered = 0
        elif entered:
            name = program(target or 0)
            found[f"before:{name}"].append(entered)
            found[f"program:{name}"].append(target or 0)
            if skips and room:
                found[f"skip:{name}"].append(room)
        elif target in known.tramp_enter:
            found["enter"].append(at)
        elif target in known.tramp_exit:
            found["exit"].append(behind)
        else:
            found["after-body"].append(behind)
    return {name: tuple(dict.fromkeys(places)) for name, places in found.items()}
