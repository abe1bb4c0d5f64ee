"""What a search found: a shrunk seed with its divergence, and how it is written down."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from properties.lockstep.divergence import Divergence
from properties.report.writing import make_directory, write_whole
from spec.seeds import Seed, parse_seed, print_seed

__all__ = ["Found", "save", "save_journal", "save_seed"]

LAST = "steps as they were executed; the last one may not have ended"


@dataclass(frozen=True, slots=True)
class Found:
    """A divergence that a search found.

    seed: shrunk. steps_to_find: operations executed, in examples, until it diverged first; seconds: until then, without
    shrinking. original: operations of the example that diverged, before shrinking.
    """

    seed: Seed
    divergence: Divergence
    steps_to_find: int
    examples: int
    seconds: float
    random_seed: int
    original: int


def save(found: Found, directory: Path) -> Path:
    """Write the seed of a finding, with comments that tell how it was found; its path."""
    comments = (
        str(found.divergence),
        f"explore, random seed {found.random_seed}, {found.steps_to_find} operations in {found.examples} examples",
        f"{found.original} operations before shrinking",
    )
    return save_seed(found.seed, found.divergence.aspect, comments, directory)


def save_journal(journal: str, told: str, directory: Path) -> Path:
    """Write the steps of an example in which the process ended, told why, as a seed; its path."""
    return save_seed(parse_seed(journal, "the journal"), "died", (*told.splitlines(), LAST), directory)


def save_seed(seed: Seed, aspect: str, comments: Sequence[str], directory: Path) -> Path:
    """Write a seed that diverges in this aspect, under a name that tells what it is.

    A world that is a file is named as the seed sees it.
    """
    if Path(seed.world).is_file():
        seed = replace(seed, world=os.path.relpath(seed.world, directory))
    digest = hashlib.sha256(print_seed(seed).encode()).hexdigest()[:8]
    path = directory / f"{seed.semantics}-{aspect}-{digest}.seed"
    make_directory(directory)
    write_whole(print_seed(seed, comments).encode(), path)
    return path
