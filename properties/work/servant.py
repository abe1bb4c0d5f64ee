"""A process that does one unit after another for this one. If it dies, or takes too long, only that unit is lost."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec

import properties
from properties.work.units import UnitReply, UnitRequest
from spec.reading import decode, encode

__all__ = ["EndedError", "Servant", "ServantAnswer"]

ROOT: Final = Path(properties.__file__).parents[1]
ENDING_SECONDS: Final = 15.0
TOLD: Final = 2_000
"""Characters of what a process has said last that are told when it has died."""


class ServantAnswer(msgspec.Struct, frozen=True):
    """What became of a request. died: the process has not answered, and why; journal: what it had written down."""

    reply: UnitReply | None = None
    died: str = ""
    hung: bool = False
    journal: str = ""


class EndedError(Exception):
    """The servant has been closed."""


class Servant:
    """Starts the process when it is first needed, and another if it has ended. niceness: how far it stands back."""

    def __init__(self, niceness: int = 0) -> None:
        self._niceness = niceness
        self._process: subprocess.Popen[bytes] | None = None
        self._closed = False
        self._aside = tempfile.TemporaryDirectory(prefix="massattach-work-")
        self._journal = Path(self._aside.name, "journal")
        self._said = Path(self._aside.name, "said")

    def do(self, asked: UnitRequest, limit: float) -> ServantAnswer:
        """Have the unit done, for at most so many seconds."""
        if self._closed:
            raise EndedError
        self._journal.unlink(missing_ok=True)
        process = self._find_process()
        assert process.stdin is not None
        assert process.stdout is not None
        hung = threading.Event()

        def give_up() -> None:
            hung.set()
            self._end()

        timer = threading.Timer(min(limit, threading.TIMEOUT_MAX), give_up)
        timer.start()
        try:
            with suppress(BrokenPipeError):
                process.stdin.write(encode(msgspec.structs.replace(asked, journal=str(self._journal))) + b"\n")
                process.stdin.flush()
            line = process.stdout.readline()
        finally:
            timer.cancel()
        if line.endswith(b"\n"):
            return ServantAnswer(decode(line, UnitReply))
        self._end()
        if self._closed:
            raise EndedError
        told = f"it has not ended after {limit:g} s" if hung.is_set() else f"its process {self._tell_end(process)}"
        return ServantAnswer(died=told, hung=hung.is_set(), journal=self._read(self._journal))

    def close(self) -> None:
        """End the process, whatever it does."""
        self._closed = True
        self._end()
        self._aside.cleanup()

    def _find_process(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            with self._said.open("wb") as said:
                self._process = subprocess.Popen(  # noqa: S603 - this project's own module
                    [sys.executable, "-m", "properties.work", str(self._niceness), self._aside.name],
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    stderr=said,
                    # A terminal's Ctrl-C is for the one who asks. Sets have one order in all processes.
                    start_new_session=True,
                    env=os.environ | {"PYTHONHASHSEED": "0", "PYTHONPATH": _search_path()},
                )
        return self._process

    def _end(self) -> None:
        process = self._process
        if process is None:
            return
        self._process = None
        process.terminate()
        try:
            process.wait(ENDING_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        for pipe in process.stdin, process.stdout:
            assert pipe is not None
            # Whoever waits for an answer reads its end first.
            with suppress(BrokenPipeError):
                pipe.close()

    def _tell_end(self, process: subprocess.Popen[bytes]) -> str:
        status = process.returncode
        how = f"was ended by signal {-status}" if status < 0 else f"ended with status {status}"
        said = self._read(self._said)[-TOLD:].strip()
        return f"{how}\n{said}" if said else how

    def _read(self, path: Path) -> str:
        try:
            return path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""


def _search_path() -> str:
    """Where modules are found, the directory of the project first: a servant may import what its asker can."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
