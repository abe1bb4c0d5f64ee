"""Draws for a kernel in which the n-th allocation can be made to fail."""

from __future__ import annotations

from typing import Any

from impl.batched import per_function
from properties.hunt.search import Search
from spec import operations as op
from spec.semantics import PRESETS, Semantics
from spec.system import System
from spec.worlds import World, synthetic

MOST_OPERATIONS = 4_000
ENDS = {op.BpfLinkDetach, op.UnregisterFtraceGraph}


class FailsNth:
    """A system that has it, as far as anybody can see (FAIL-4). met: the operations that came behind the fault."""

    fails_nth = True
    met: list[type[op.Operation]]
    armed = False

    def __init__(self, inner: System) -> None:
        self._inner = inner

    def apply(self, operation: op.Operation) -> Any:
        """Note what comes behind a fault."""
        if self.armed:
            self.met.append(type(operation))
        self.armed = isinstance(operation, op.Fail) and operation.point == "nth"
        return self._inner.apply(operation)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


def test_what_serves_several_functions_ends_without_memory() -> None:
    """Links of several functions go, and users of the graph tracer; many operations lack memory."""

    class Short(FailsNth):
        met: list[type[op.Operation]] = []  # noqa: RUF012 - of all its runs together

    def make(world: World, semantics: Semantics) -> System:
        return Short(per_function(world, semantics))  # type: ignore[return-value]

    search = Search(synthetic(), PRESETS["linux-7.3"], [make], 1, operations=MOST_OPERATIONS)
    while search.tally.steps < MOST_OPERATIONS and not set(Short.met) >= ENDS:
        assert search.round(float("inf"), 1.0) is None

    assert set(Short.met) >= ENDS
    assert len(Short.met) > search.tally.steps / 80
