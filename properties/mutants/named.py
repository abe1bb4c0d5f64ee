"""Bugs that the kernel once had, as mutants of the machine code in which they are mended.

Each is one change of one instruction, found by what stands there and never by its address, so that other builds of the
same code have it, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

from impl.linux.architectures import Change
from impl.linux.instruments.mutants import Mutant
from spec.errors import BadInputError

__all__ = ["NAMED", "Named", "Place", "find_named", "named_like"]


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instruction stands, and what is done to it.

    function: a glob of its name without suffixes. target: of what is called; text: of the instruction. here, there and
    behind: of what is called in its block, in the one that a jump leads to, and in the one behind it. All of these are
    regular expressions that match as a whole. which: of several such places, in the order of their addresses, the
    one that counts.
    """

    function: str
    change: Change
    target: str = ""
    text: str = ""
    here: str = ""
    there: str = ""
    behind: str = ""
    which: int = 0

    def matches(self, mutant: Mutant) -> bool:
        """Whether a mutant is of such a place."""
        near = (*mutant.near, (), ())
        return (
            mutant.change == self.change
            and fnmatchcase(mutant.stem, self.function)
            and _matches(self.target, (mutant.target,))
            and _matches(self.text, (mutant.text,))
            and all(_matches(*each) for each in zip((self.here, self.there, self.behind), near, strict=False))
        )


@dataclass(frozen=True, slots=True)
class Named:
    """A bug of the kernel. commit and subject: of what mended it. planted: the bug of impl/planted that is like it.

    kernels: those of Debian's in which the places were seen. places: the first one that a kernel has is taken.
    """

    name: str
    commit: str
    subject: str
    planted: str
    kernels: tuple[str, ...]
    places: tuple[Place, ...]


def named_like(pattern: str) -> tuple[Named, ...]:
    """The bugs whose names a glob matches; BadInputError if there is none."""
    found = tuple(bug for bug in NAMED if fnmatchcase(bug.name, pattern))
    if not found:
        raise BadInputError(f"no bug is named '{pattern}': write one of {', '.join(bug.name for bug in NAMED)}")
    return found


def find_named(bug: Named, mutants: Iterable[Mutant]) -> Mutant | None:
    """The mutant that a bug is in a kernel with these mutants; None if no place is like it."""
    every = list(mutants)
    for place in bug.places:
        found = sorted((mutant for mutant in every if place.matches(mutant)), key=lambda mutant: mutant.address)
        if place.which < len(found):
            return found[place.which]
    return None


def _matches(pattern: str, texts: Iterable[str]) -> bool:
    return not pattern or any(re.fullmatch(pattern, text) for text in texts)


NAMED: Final[tuple[Named, ...]] = ()
