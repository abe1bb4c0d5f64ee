"""angr's side of the pipe: images come in, and answers go out, one JSON object a line."""

from __future__ import annotations

import gc
import logging
import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from properties.benchmarks.angr.wire import AngrReply, Request
from spec.reading import decode, encode

if TYPE_CHECKING:
    from properties.benchmarks.angr.angr_prover import AngrProver


def main() -> int:
    """Answers each Request with a Reply, until there are no more."""
    # angr says at its import that it has no unicorn of its own, which nothing here needs.
    logging.getLogger("angr").setLevel(logging.CRITICAL)
    try:
        # Where angr is missing, the prover is too; that is told, like everything else, on the pipe.
        from properties.benchmarks.angr.angr_prover import AngrProver  # noqa: PLC0415
    except ImportError as error:
        _reply(AngrReply(error=f"{sys.executable} has no angr: {error}"))
        return 2
    provers: list[AngrProver] = []
    for line in sys.stdin.buffer:
        request = decode(line, Request)
        if request.images is not None:
            provers = [AngrProver(*image) for image in request.images]
        _reply(_prove([provers[place] for place in request.prove]))
    return 0


def _prove(provers: Sequence[AngrProver]) -> AngrReply:
    """All answers, and the processor's seconds that they took, without the garbage collector as on the other side."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    answers = tuple(prover.prove() for prover in provers)
    seconds = time.process_time() - start
    gc.enable()
    return AngrReply(answers, seconds)


def _reply(reply: AngrReply) -> None:
    sys.stdout.buffer.write(encode(reply) + b"\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
