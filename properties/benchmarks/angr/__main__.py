"""angr's side of the pipe: images come in, and answers go out, one JSON object a line."""

from __future__ import annotations

import gc
import json
import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from properties.benchmarks.angr.wire import understood

if TYPE_CHECKING:
    from properties.benchmarks.angr.angr_prover import AngrProver


def main() -> int:
    """{"images": [...]} gives images, and {"prove": [...]} proves once more those at these places."""
    # At its import angr warns that it has no unicorn, which nothing here needs.
    logging.getLogger("angr").setLevel(logging.CRITICAL)
    try:
        # Where angr is missing, that is told on the pipe.
        from properties.benchmarks.angr.angr_prover import AngrProver  # noqa: PLC0415
    except ImportError as error:
        _reply({"error": f"{sys.executable} has no angr: {error}"})
        return 2
    provers: list[AngrProver] = []
    for line in sys.stdin:
        request = json.loads(line)
        if "images" in request:
            provers = [AngrProver(*understood(task)) for task in request["images"]]
            _reply({"images": len(provers)})
        else:
            _reply(_prove([provers[place] for place in request["prove"]]))
    return 0


def _prove(provers: Sequence[AngrProver]) -> dict[str, Any]:
    """Proves all, and counts the processor's seconds; the garbage collector is off, as on the other side."""
    gc.collect()
    gc.disable()
    start = time.process_time()
    answers = [prover.prove() for prover in provers]
    seconds = time.process_time() - start
    gc.enable()
    return {"seconds": seconds, "answers": [asdict(answer) for answer in answers]}


def _reply(reply: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(reply) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
