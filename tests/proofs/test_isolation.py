"""A process of its own for each file: what ends it, or never ends, is one sentence, and the next file is proved."""

from __future__ import annotations

import ctypes
import os
import time

import pytest

from properties.proofs.isolation import FailedError, Isolated


def double(number: int) -> int:
    return 2 * number


def fail(text: str) -> int:
    raise AssertionError(text)


def die(status: int) -> int:
    os._exit(status)


def crash() -> int:
    return ctypes.string_at(0)[0]


def sleep() -> None:
    time.sleep(1000)


def test_what_is_done_is_told() -> None:
    """The result comes back, and so does what went wrong; the process is used again, or another takes its place."""
    told = []
    with Isolated(60) as process:
        for function, args in ((fail, ("x\ny",)), (die, (1,)), (crash, ())):
            with pytest.raises(FailedError) as error:
                process.run(function, *args)  # type: ignore[arg-type]
            told.append(str(error.value))
            assert 42 == process.run(double, 21)

    assert ["the prover failed: AssertionError: x y", *(["the prover's process died"] * 2)] == told


def test_what_does_not_end_is_ended() -> None:
    """After its time the process is killed, and another does what comes next."""
    with Isolated(1.5) as process:
        with pytest.raises(FailedError, match=r"the prover has not ended after 1\.5 s"):
            process.run(sleep)

        assert 4 == process.run(double, 2)
