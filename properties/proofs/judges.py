"""Processes that judge images. One that dies, or takes too long, costs the verdict of its image and nothing else."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from multiprocessing.connection import Connection
from queue import SimpleQueue

from properties.proofs.judging import Judgement, Words, judge

__all__ = ["Judges"]

SECONDS = 300.0
"""For one image, which takes milliseconds; several times what z3's budgets allow."""

# A guest has time limits, and must come first.
NICE = 10


class Judges:
    """As many processes as there are processors. State: which of them are free."""

    def __init__(self, judging: Callable[[str, str], Judgement] = judge, seconds: float = SECONDS) -> None:
        count = len(os.sched_getaffinity(0))
        self._seconds = seconds
        self._processes = [_Process(judging) for _ in range(count)]
        self._free: SimpleQueue[_Process] = SimpleQueue()
        for process in self._processes:
            self._free.put(process)
        self._threads = ThreadPoolExecutor(count)

    def submit(self, text: str, file: str) -> Future[Judgement]:
        """Have the text of an image file judged, while others are."""
        return self._threads.submit(self._judge, text, file)

    def _judge(self, text: str, file: str) -> Judgement:
        process = self._free.get()
        try:
            return process.judged(text, file, self._seconds)
        finally:
            self._free.put(process)

    def close(self) -> None:
        """End the processes; what they have not judged yet is cancelled."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for process in self._processes:
            process.end()
        self._threads.shutdown()


class _Process:
    """One process, and another in its place where it ends before its time."""

    def __init__(self, judging: Callable[[str, str], Judgement]) -> None:
        self._judging = judging
        self._ended = False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, self._judging), daemon=True)
        self._process.start()
        theirs.close()

    def judged(self, text: str, file: str, seconds: float) -> Judgement:
        """The judgement; undecided where the process does not come to one."""
        try:
            self._connection.send((text, file))
            if self._connection.poll(seconds):
                found = self._connection.recv()
                assert isinstance(found, Judgement)
                return found
            reason = f"the prover has not ended after {seconds:g} s"
        except (EOFError, OSError):
            reason = "the prover's process died"
        self._kill()
        if not self._ended:
            self._start()
        return _give_up(file, reason)

    def end(self) -> None:
        """End the process for good."""
        self._ended = True
        self._kill()

    def _kill(self) -> None:
        self._process.kill()
        self._process.join()


def _serve(connection: Connection, judging: Callable[[str, str], Judgement]) -> None:
    """Runs in the process: judges what comes, until the other end is closed. Ctrl-C is for the other end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.nice(NICE)
    while True:
        try:
            text, file = connection.recv()
        except EOFError:
            return
        try:
            found = judging(text, file)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with the prover, the other images are to be judged
            found = _give_up(file, f"the prover failed: {type(error).__name__}: {' '.join(str(error).split())}")
        connection.send(found)


def _give_up(file: str, reason: str) -> Judgement:
    """Makes the judgement of an image that could not be judged."""
    told = f"undecided: {reason}"
    return Judgement(file, "", "undecided", told, detaching=False, words=Words("undecided", told=told), seconds=0.0)
