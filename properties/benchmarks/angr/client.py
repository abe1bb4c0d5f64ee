"""The prover's side of the pipe: an angr in an interpreter of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import properties
from properties.benchmarks.angr.wire import described
from properties.prover.goal import Goal
from properties.prover.image import Image
from spec.errors import BadInputError

__all__ = ["Peer", "PeerAnswer"]

ROOT: Final = Path(properties.__file__).parents[1]
INSTALL: Final = "give the interpreter in which `pip install -r properties/benchmarks/angr/requirements.txt` was run"


@dataclass(frozen=True, slots=True)
class PeerAnswer:
    """angr's verdict on an image, in the words of a Verdict. broken: the obligation that does not hold."""

    outcome: str
    obligations: Mapping[str, int]
    paths: int
    broken: str


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
                text=True,
            )
        except OSError as error:
            raise BadInputError(f"cannot be run: {error.strerror}; {INSTALL}", python) from error

    def take(self, images: Sequence[tuple[Image, Goal]]) -> None:
        """Gives the peer images in place of those that it has."""
        self._ask({"images": [described(*image) for image in images]})

    def prove(self, places: Iterable[int]) -> tuple[float, list[PeerAnswer]]:
        """Proves those at these places: the processor's seconds that it took, and the answers."""
        reply = self._ask({"prove": list(places)})
        return reply["seconds"], [PeerAnswer(**answer) for answer in reply["answers"]]

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        # If the process has ended, its last reply says why.
        with suppress(BrokenPipeError):
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise BadInputError("ended before it answered; what it said is above", self._python)
        reply: dict[str, Any] = json.loads(line)
        if "error" in reply:
            raise BadInputError(f"{reply['error']}; {INSTALL}", self._python)
        return reply

    def close(self) -> None:
        """Ends the process."""
        self._process.terminate()
        self._process.communicate()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
