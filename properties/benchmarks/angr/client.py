"""The prover's side of the pipe: an angr in an interpreter of its own."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

import properties
from properties.benchmarks.angr.wire import AngrAnswer, AngrReply, Request, request_images
from properties.prover.goal import Goal
from properties.prover.image import Image
from spec.errors import BadInputError
from spec.reading import decode, encode

__all__ = ["AngrAnswer", "Peer"]

ROOT: Final = Path(properties.__file__).parents[1]
INSTALL: Final = "give the interpreter in which `pip install -r properties/benchmarks/angr/requirements.txt` was run"


class Peer:
    """A process with angr. BadInputError if the interpreter has none, or ends."""

    def __init__(self, python: str) -> None:
        self._python = python
        try:
            self._process = subprocess.Popen(  # noqa: S603 - the interpreter that the user names
                [python, "-m", "properties.benchmarks.angr"],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
            )
        except OSError as error:
            raise BadInputError(f"cannot be run: {error.strerror}; {INSTALL}", python) from error

    def take(self, images: Sequence[tuple[Image, Goal]]) -> None:
        """Gives the peer images in place of those that it has. ValueError for those that it cannot prove."""
        self._ask(request_images(images))

    def prove(self, places: Iterable[int]) -> tuple[float, list[AngrAnswer]]:
        """Proves those at these places: the processor's seconds that it took, and the answers."""
        reply = self._ask(Request(prove=tuple(places)))
        return reply.seconds, list(reply.answers)

    def _ask(self, request: Request) -> AngrReply:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # If the process has ended, its output says why.
        with suppress(BrokenPipeError):
            process.stdin.write(encode(request) + b"\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BadInputError("ended before it answered; what it said is above", self._python)
        reply = decode(line, AngrReply, self._python)
        if reply.error:
            raise BadInputError(f"{reply.error}; {INSTALL}", self._python)
        return reply

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
