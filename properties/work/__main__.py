"""A process that does units: one request a line on its input, one reply a line on its output.

It ends when its input does, whatever it is doing then: nobody waits for it any more.
"""

from __future__ import annotations

import os
import queue
import shutil
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import BinaryIO

import msgspec

from properties.work.ending import TerminatedError, give_back_when_terminated
from properties.work.units import UnitReply, UnitRequest, unit_of
from spec.errors import BadInputError
from spec.reading import decode, encode

ENDING_SECONDS = 10.0
"""What a unit may take to give back what it holds, such as a virtual machine."""


def main(niceness: int, aside: Path) -> None:
    """Do what is asked for until there is no more. aside: the asker's directory, which goes with an asker that died."""
    replies = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    # What a unit prints is not to come between replies.
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    give_back_when_terminated()
    os.nice(niceness)
    asked: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    left_alone = threading.Event()
    threading.Thread(target=_listen, args=(sys.stdin.buffer, asked, left_alone), daemon=True).start()
    try:
        while line := asked.get():
            replies.write(encode(_answer(line)) + b"\n")
            replies.flush()
    finally:
        if left_alone.is_set():
            shutil.rmtree(aside, ignore_errors=True)


def _listen(requests: BinaryIO, asked: queue.SimpleQueue[bytes], left_alone: threading.Event) -> None:
    for line in requests:
        asked.put(line)
    left_alone.set()
    asked.put(b"")
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ENDING_SECONDS)
    os._exit(1)


def _answer(line: bytes) -> UnitReply:
    start = time.monotonic()
    try:
        asked = decode(line, UnitRequest)
        value = unit_of(asked).work(Path(asked.journal))
    except BadInputError as error:
        return UnitReply(time.monotonic() - start, lost="refused", told=str(error))
    except Exception as error:  # noqa: BLE001 - it must not end the process, and the asker is told
        told = f"{type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
        return UnitReply(time.monotonic() - start, lost="raised", told=f"{told}\n{traceback.format_exc()}")
    return UnitReply(time.monotonic() - start, value=msgspec.Raw(encode(value)))


if __name__ == "__main__":
    try:
        main(int(sys.argv[1]), Path(sys.argv[2]))
    except TerminatedError:
        sys.exit(1)
