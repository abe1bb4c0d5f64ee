"""Crews: executors of concurrent.futures that have units done, here or on other machines, and what becomes of each."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, CancelledError, Executor, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Final, Generic, Self, TypeVar

from properties.work.servant import EndedError, Servant, ServantAnswer
from properties.work.units import Done, Lost, Outcome, Unit, UnitRequest, request, value_of
from spec.reading import decode, encode

__all__ = ["LIMIT", "Crew", "Errand", "Hands", "processors"]

LIMIT: Final = 600.0
"""Seconds that a unit may take, where its maker does not know better: units are to take a few."""

U = TypeVar("U", bound=Unit)
Tag = TypeVar("Tag")


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0))


@dataclass(frozen=True, slots=True)
class Errand(Generic[U]):
    """A unit that was handed out."""

    unit: U
    future: Future[bytes]

    def result(self) -> Outcome:
        """What becomes of it, when it is done."""
        try:
            answer = decode(self.future.result(), ServantAnswer)
        except (CancelledError, EndedError):
            return Lost("unreached", "it was not done any more")
        except Exception as error:  # noqa: BLE001 - whatever happens to an executor is told, and ends no other unit
            return Lost("unreached", f"{type(error).__name__}: {' '.join(str(error).split())}")
        reply = answer.reply
        if reply is None:
            return Lost("hung" if answer.hung else "died", answer.died, answer.journal)
        if reply.lost:
            return Lost(reply.lost, reply.told)
        return Done(value_of(self.unit, bytes(reply.value)), reply.seconds)


class Hands:
    """Servants, one for each thread that asks. State: those that were hired, and whether more may be."""

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._own = threading.local()
        self._servants: list[Servant] = []
        self._lock = threading.Lock()
        self._closed = False

    def perform(self, asked: bytes, limit: float) -> bytes:
        """Have a request done by this thread's servant; the answer, as JSON."""
        servant = getattr(self._own, "servant", None)
        if servant is None:
            servant = self._own.servant = self._hire()
        return encode(servant.do(decode(asked, UnitRequest), limit))

    def close(self) -> None:
        """End them all; none comes after them."""
        with self._lock:
            self._closed = True
        for servant in self._servants:
            servant.close()

    def _hire(self) -> Servant:
        with self._lock:
            if self._closed:
                raise EndedError
            servant = Servant(self._niceness)
            self._servants.append(servant)
        return servant


class Crew:
    """Has units done by an executor, so many at a time.

    perform: what the executor calls, with a request and the seconds that it may take. end: ends what still works.
    """

    def __init__(
        self, executor: Executor, width: int, perform: Callable[[bytes, float], bytes], end: Callable[[], None]
    ) -> None:
        self.width = width
        self._executor = executor
        self._perform = perform
        self._end = end

    @classmethod
    def here(cls, jobs: int, niceness: int = 0) -> Self:
        """A crew of processes of this machine."""
        hands, executor = Hands(niceness), ThreadPoolExecutor(jobs)

        def end() -> None:
            executor.shutdown(wait=False, cancel_futures=True)
            hands.close()
            executor.shutdown()

        return cls(executor, jobs, hands.perform, end)

    def submit(self, unit: U, limit: float = LIMIT) -> Errand[U]:
        """Hand a unit out. limit: seconds that it may take."""
        return Errand(unit, self._executor.submit(self._perform, encode(request(unit)), limit))

    def outcomes(
        self, take: Callable[[], tuple[Tag, U] | None], limit: float = LIMIT, until: float = math.inf
    ) -> Iterator[tuple[Tag, U, Outcome]]:
        """What becomes of each unit, with what it was tagged by, as they come to their ends.

        take: gives the next one, whenever somebody is free to do it; None if there is none, or none until others have
        come to their ends. until: a time.monotonic() at which nobody waits for the rest any more.
        """
        tasks: dict[Future[bytes], tuple[Tag, Errand[U]]] = {}
        while True:
            while len(tasks) < self.width and (tagged := take()) is not None:
                tag, unit = tagged
                task = self.submit(unit, limit)
                tasks[task.future] = tag, task
            left = None if until == math.inf else max(0.0, until - time.monotonic())
            done = wait(tasks, left, FIRST_COMPLETED).done
            if not done:
                return
            for future in done:
                tag, task = tasks.pop(future)
                yield tag, task.unit, task.result()

    def close(self) -> None:
        """End all that is still done: nobody asks for it any more."""
        self._end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
