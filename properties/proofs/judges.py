"""Processes that judge images. If one dies, or takes too long, only the verdict of its image is lost."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from pebble import ProcessPool

from properties.proofs.isolation import explain
from properties.proofs.judging import Judgement, Words, judge

__all__ = ["Judged", "Judges"]

SECONDS = 300.0
"""The limit for one image, which usually takes milliseconds: several times what z3's budgets allow."""

# A guest has time limits, so it comes first.
NICE = 10


@dataclass(frozen=True, slots=True)
class Judged:
    """A judgement to come. seconds: the limit that its process has."""

    file: str
    seconds: float
    _judging: Future[Judgement]

    def result(self) -> Judgement:
        """The judgement; undecided if the process does not come to one."""
        try:
            return self._judging.result()
        except Exception as error:  # noqa: BLE001 - a bug of the prover must not stop the other images
            told = f"undecided: {explain(error, self.seconds)}"
        words = Words("undecided", told=told)
        return Judgement(self.file, "", "undecided", told, detaching=False, words=words, seconds=0.0)


class Judges:
    """One process for each processor; another takes the place of one that ends before its time. State: all futures."""

    def __init__(self, judging: Callable[[str, str], Judgement] = judge, seconds: float = SECONDS) -> None:
        self._judging, self._seconds = judging, seconds
        context = multiprocessing.get_context("spawn")
        self._futures: list[Future[Judgement]] = []
        self._pool = ProcessPool(len(os.sched_getaffinity(0)), initializer=_begin, context=context)

    def submit(self, text: str, file: str) -> Judged:
        """Have the text of an image file judged in a free process."""
        future = self._pool.schedule(self._judging, args=(text, file), timeout=self._seconds)
        self._futures.append(future)
        return Judged(file, self._seconds, future)

    def close(self) -> None:
        """End the processes; what they have not judged yet is undecided."""
        for future in self._futures:
            future.cancel()
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()


def _begin() -> None:
    """In each process: Ctrl-C is left to the process that asks."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
