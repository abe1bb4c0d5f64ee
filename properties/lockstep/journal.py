"""The journal: a seed file that has each step before it is executed, so that a dead process leaves its steps behind."""

from __future__ import annotations

from pathlib import Path

from spec.seeds import Seed, Step, print_seed

__all__ = ["Journal"]

COMMENT = "steps as they were executed; the last one may not have ended"


class Journal:
    """Writes the steps of one run after another into one file; `begin` starts it anew.

    world: the name that seeds of the search have; a run may be of another.
    """

    def __init__(self, path: Path, world: str, semantics: str) -> None:
        self.path = path
        self._world, self._semantics = world, semantics
        self._file = path.open("w", encoding="utf-8")
        self.begin()

    def begin(self, world: str | None = None) -> None:
        """Forget the steps of the run before; those of the next one are of this world."""
        self._file.seek(0)
        self._file.truncate()
        self._file.write(print_seed(Seed(world or self._world, self._semantics, ()), [COMMENT]))
        self._file.flush()

    def write(self, step: Step) -> None:
        """Write a step; the file has it when this returns."""
        self._file.write(f"{step}\n")
        self._file.flush()

    def close(self) -> None:
        """Keep the file as it is."""
        self._file.close()

    def remove(self) -> None:
        """Close, and delete the file: the search came to its end."""
        self._file.close()
        self.path.unlink(missing_ok=True)
