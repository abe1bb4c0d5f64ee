"""A crew that remembers: what a unit gave is kept in a directory; what no worker has done to its end is tried anew."""

from __future__ import annotations

import os
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Final, TypeVar

from properties.work.crew import LIMIT, Crew, Errand
from properties.work.servant import ServantAnswer
from properties.work.units import Unit, key
from spec.errors import BadInputError
from spec.reading import decode, read_bytes

__all__ = ["Remembering"]

TRIES: Final = 20
"""How often a unit is handed out whose worker dies, each time another's or a new one."""

MOST_BYTES: Final = 64 << 20

U = TypeVar("U", bound=Unit)


class Remembering(Crew):
    """Has units done by another crew. State: the directory, and how many units it has known or kept.

    An answer without a value is not kept: it may have been the machine's fault. BadInputError where an answer cannot be
    written; what was written before stays.
    """

    def __init__(self, crew: Crew, directory: Path) -> None:
        self.width = crew.width
        self.known = self.kept = 0
        self._crew = crew
        self._directory = directory
        self._lock = threading.Lock()
        self._trouble: BadInputError | None = None
        try:
            directory.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise BadInputError(f"is no directory for units: {error.strerror}", str(directory)) from error

    def submit(self, unit: U, limit: float = LIMIT) -> Errand[U]:
        """Hand a unit out, unless it is known."""
        if self._trouble is not None:
            raise self._trouble
        answered: Future[bytes] = Future()
        path = self._directory / f"{key(unit)}.json"
        if path.exists():
            self.known += 1
            answered.set_result(_read(path))
        else:
            self._try(unit, limit, path, answered, TRIES)
        return Errand(unit, answered)

    def close(self) -> None:
        """End all that is still done."""
        self._crew.close()

    def _try(self, unit: Unit, limit: float, path: Path, answered: Future[bytes], tries: int) -> None:
        def take(future: Future[bytes]) -> None:
            error = None if future.cancelled() else future.exception()
            if future.cancelled():
                answered.cancel()
            elif error is not None and tries > 1:
                self._try(unit, limit, path, answered, tries - 1)
            elif error is not None:
                answered.set_exception(error)
            else:
                self._keep(path, future.result())
                answered.set_result(future.result())

        try:
            future = self._crew.submit(unit, limit).future
        except Exception as error:  # noqa: BLE001 - of an executor that has ended; it is told with the unit
            answered.set_exception(error)
        else:
            future.add_done_callback(take)

    def _keep(self, path: Path, answer: bytes) -> None:
        """Write an answer that has a value; it is in its place as a whole, or not at all."""
        reply = decode(answer, ServantAnswer).reply
        if reply is None or reply.lost:
            return
        unfinished = path.with_suffix(f".{os.getpid()}.{threading.get_ident()}.tmp")
        try:
            unfinished.write_bytes(answer)
            unfinished.rename(path)
        except OSError as error:
            unfinished.unlink(missing_ok=True)
            self._trouble = BadInputError(f"cannot be written: {error.strerror}", str(path))
        else:
            with self._lock:
                self.kept += 1


def _read(path: Path) -> bytes:
    """The answer in a file; BadInputError if it is damaged."""
    answer = read_bytes(path, MOST_BYTES)
    decode(answer, ServantAnswer, str(path))
    return answer
