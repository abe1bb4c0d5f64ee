"""A mutant as a unit of work: the fixed runs that execute it, then random search."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, Literal

from properties.kernels.conformance import Conforming
from properties.mutants.judging import DOUBTFUL, Kill, kill_of_difference, kill_of_error
from properties.mutants.subject import Subject
from properties.runs.corpus import FixedRun

__all__ = ["Judged", "MutantUnit"]

STALLED: Final = "the emulator is too slow"
"""A run that was left is noted so, if the kernel complained of the time that something took."""

NO_SHRINKING: Final = 0.0
"""A seed that shows a mutant is not kept, so that it need not be short."""


@dataclass(frozen=True, slots=True)
class Judged:
    """What became of a mutant.

    aspect and run: how it was killed, and by what; empty if it survived. runs: fixed ones that were taken; steps: of
    the search. told: what was seen.
    """

    verdict: Literal["killed", "survived"]
    aspect: str
    run: str
    runs: int
    steps: int
    told: str


@dataclass(frozen=True, slots=True)
class MutantUnit:
    """A mutant: bytes, as hex, by address.

    runs: names of fixed runs, which are taken in this order until so many seconds are over; budget: seconds of search.
    """

    subject: Subject
    changes: tuple[tuple[int, str], ...]
    runs: tuple[str, ...]
    fixed_seconds: float
    budget: float
    random_seed: int

    def work(self, _: Path) -> Judged:
        """Judge it."""
        deadline = time.monotonic() + self.fixed_seconds
        taken = 0
        for name in self.runs:
            if time.monotonic() >= deadline:
                break
            taken += 1
            if kill := self._try_run(self.subject.runs[name]):
                return Judged("killed", kill.aspect, name, taken, 0, kill.told)
        kill, steps = self._search()
        if kill:
            return Judged("killed", kill.aspect, f"random seed {self.random_seed}", taken, steps, kill.told)
        return Judged("survived", "", "", taken, steps, "")

    def _try_run(self, run: FixedRun) -> Kill | None:
        """Take a run; one that could not be taken counts only if the kernel without the mutation takes it."""
        kill = self._take(run, self.changes)
        return None if kill and kill.aspect in DOUBTFUL and self._take(run, ()) else kill

    def _take(self, run: FixedRun, changes: tuple[tuple[int, str], ...]) -> Kill | None:
        conforming = self._begin()
        with self.subject.changed(run.world, changes):
            return _judge(conforming, lambda: conforming.fixed([run], shrink_seconds=NO_SHRINKING))

    def _search(self) -> tuple[Kill | None, int]:
        """Take random runs; how the mutant was killed, and the operations until then.

        What the kernel shows without the mutation, too, is no kill, and the search goes on with another random seed.
        """
        deadline, random_seed, steps = time.monotonic() + self.budget, self.random_seed, 0
        while True:
            conforming, left = self._begin(), deadline - time.monotonic()
            search = partial(conforming.random, math.inf, left, random_seed, shrink_seconds=NO_SHRINKING)
            with self.subject.changed(self.subject.lab, self.changes):
                kill = _judge(conforming, search)
            steps += conforming.evidence.steps
            if not (kill and self._is_no_mutants(conforming)):
                return kill, steps
            if time.monotonic() >= deadline:
                return None, steps
            random_seed += 1

    def _is_no_mutants(self, conforming: Conforming) -> bool:
        """Whether the kernel without the mutation shows the first difference of a search."""
        found = conforming.collected.differences[:1]
        return any(self._take(FixedRun(one.run, self.subject.lab, one.seed), ()) for one in found)

    def _begin(self) -> Conforming:
        return Conforming(self.subject.kernel, self.subject.rules, self.subject.lab)


def _judge(conforming: Conforming, take: Callable[[], object]) -> Kill | None:
    """Take some runs; the kill if they differ from the model, or cannot be taken to their ends."""
    try:
        take()
    except Exception as error:  # noqa: BLE001 - whatever a broken kernel makes of the harness shows that it is broken
        return kill_of_error(error)
    collected = conforming.collected
    if collected.differences:
        return kill_of_difference(collected.differences[0].divergence)
    stalled = [line for line in collected.left if STALLED in line]
    return Kill("hang", stalled[0]) if stalled else None
