"""A process that does one thing after another for this one. If it dies, or takes too long, only that thing is lost."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, Self, TypeVar

from pebble import ProcessExpired, ProcessPool

__all__ = ["FailedError", "Isolated", "explain"]

Given = ParamSpec("Given")
Result = TypeVar("Result")


class FailedError(Exception):
    """It was not done; the text says why, of `the prover`."""


class Isolated:
    """Starts the process when it is first needed, and another if it has died. seconds: for each thing."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._pool = ProcessPool(1, context=multiprocessing.get_context("spawn"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._pool.stop()  # type: ignore[no-untyped-call]
        self._pool.join()

    def run(self, function: Callable[Given, Result], *args: Given.args, **_: Given.kwargs) -> Result:
        """Run the function there, and return its result; FailedError if it raises, or does not return."""
        try:
            future = self._pool.schedule(function, args=args, timeout=self._seconds)
            return future.result()
        except Exception as error:  # whatever happens there must not happen here
            raise FailedError(explain(error, self._seconds)) from error


def explain(error: BaseException, seconds: float) -> str:
    """Why a process has not come to its end, of `the prover`."""
    if isinstance(error, TimeoutError):
        return f"the prover has not ended after {seconds:g} s"
    if isinstance(error, ProcessExpired):
        return "the prover's process died"
    return f"the prover failed: {type(error).__name__}: {' '.join(str(error).split())}".removesuffix(": ")
