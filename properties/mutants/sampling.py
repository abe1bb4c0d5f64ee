"""Which mutants are made: a sample that is the same for the same random seed, whatever else there is."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase

from impl.linux.architectures import Change
from impl.linux.instruments.mutants import Mutant
from spec.errors import BadInputError

__all__ = ["eligible", "in_function", "sample"]

ONE_SIDED = frozenset({Change.ALWAYS, Change.NEVER})


def eligible(mutants: Iterable[Mutant], executed: frozenset[int]) -> tuple[Mutant, ...]:
    """Those in blocks that are executed.

    A jump that goes one way in all runs has one mutant, which goes the other way: always or never jumping would be the
    same one, or none.
    """
    return tuple(
        mutant
        for mutant in mutants
        if mutant.block in executed and (mutant.change not in ONE_SIDED or executed.issuperset(mutant.ways))
    )


def in_function(mutants: Iterable[Mutant], pattern: str) -> tuple[Mutant, ...]:
    """Those of functions whose names, with or without suffixes, a glob matches; BadInputError if there is none."""
    found = tuple(mutant for mutant in mutants if any(fnmatchcase(n, pattern) for n in (mutant.stem, mutant.function)))
    if not found:
        raise BadInputError(f"no fixed run executes an instruction of a function '{pattern}' that could be changed")
    return found


def sample(mutants: Sequence[Mutant], count: int, random_seed: int) -> tuple[Mutant, ...]:
    """So many of them, in the order in which they are drawn: a larger sample begins with the smaller one.

    The place of each depends on the seed and on itself alone, so that a few candidates more or less move no other.
    """
    return tuple(sorted(mutants, key=lambda mutant: _draw(mutant, random_seed))[:count])


def _draw(mutant: Mutant, random_seed: int) -> bytes:
    return hashlib.sha256(f"{random_seed} {mutant.function} {mutant.at} {mutant.change}".encode()).digest()
