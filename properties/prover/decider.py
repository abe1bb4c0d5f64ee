"""Whether an obligation holds on a path: plainly, by the identity of terms, or else by the solver."""

from __future__ import annotations

from collections import defaultdict

from properties.prover.machine import InfeasibleError
from properties.prover.paths import Path
from properties.prover.terms import Facts, Value, eq, extract, not_
from properties.prover.z3_backend import Model, Solver

__all__ = ["Decider", "RefutedError"]


class RefutedError(Exception):
    """An obligation does not hold: under these symbols control gets there, and it is broken."""

    def __init__(self, obligation: str, model: Model) -> None:
        super().__init__(obligation)
        self.obligation = obligation
        self.model = model


class Decider:
    """obligations: how often each was decided, by name, in order. plain: how many decisions took no solver.

    thorough: every decision is the solver's.
    """

    def __init__(self, facts: Facts, *, thorough: bool) -> None:
        self.obligations: dict[str, int] = defaultdict(int)
        self.plain = 0
        self.solver = Solver(facts)
        self._thorough = thorough

    def demand(self, path: Path, obligation: str, predicate: Value) -> None:
        """Decides whether a predicate holds. RefutedError if not; InfeasibleError if the path turns out to be none."""
        self.obligations[obligation] += 1
        known = predicate == 1 if isinstance(predicate, int) else path.known(predicate)
        if known and not self._thorough:
            self.plain += 1
            return
        model = self.solver.model([*path.predicates, not_(predicate)])
        if model is not None:
            raise RefutedError(obligation, model)
        if known is False:
            raise InfeasibleError

    def same(self, path: Path, obligation: str, got: Value, expected: Value, bits: int) -> None:
        """Decides whether the low bits of two values are equal."""
        if self._thorough:
            self._solve(path, obligation, got, expected, bits)
        elif got is expected or not bits:
            self.obligations[obligation] += 1
            self.plain += 1
        else:
            self.demand(path, obligation, eq(extract(got, 0, bits), extract(expected, 0, bits), bits))

    def _solve(self, path: Path, obligation: str, got: Value, expected: Value, bits: int) -> None:
        self.obligations[obligation] += 1
        model = self.solver.model(path.predicates, (got, expected, bits)) if bits else None
        if model is not None:
            raise RefutedError(obligation, model)

    def feasible(self, path: Path) -> Model:
        """Symbols that lead control here; InfeasibleError if there are none."""
        model = self.solver.model(path.predicates)
        if model is None:
            raise InfeasibleError
        return model
