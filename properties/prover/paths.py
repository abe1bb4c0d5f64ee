"""The condition under which control is where it is: predicates that hold, and what is plain from them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from properties.prover.terms import Term, Value, and_, or_

__all__ = ["Path"]

DEPTH: Final = 6
"""How far into a predicate a path looks; terms share their parts, so that all of it may be a great deal."""


class Path:
    """A conjunction of predicates, in the order in which branches were taken."""

    __slots__ = ("_known", "predicates")

    def __init__(self, predicates: tuple[Term, ...] = (), known: dict[Term, bool] | None = None) -> None:
        self.predicates = predicates
        self._known = {} if known is None else known

    def known(self, predicate: Value, depth: int = DEPTH) -> bool | None:
        """Whether a predicate is plainly true or false on this path; None if that takes a solver."""
        if isinstance(predicate, int):
            return predicate == 1
        if predicate.op == "not":
            inner = self.known(predicate.args[0], depth)
            return None if inner is None else not inner
        known = self._known.get(predicate)
        if known is None and depth and predicate.op in {"and", "or"} and self._known:
            return self._combine(predicate, depth)
        return known

    def _combine(self, predicate: Term, depth: int) -> bool | None:
        """A conjunction or disjunction, by what is known of its parts."""
        decisive = predicate.op == "or"
        parts = [self.known(part, depth - 1) for part in predicate.args]
        if decisive in parts:
            return decisive
        return None if None in parts else not decisive

    def where(self, predicate: Value) -> Path | None:
        """The path on which a predicate holds as well; None if it plainly does not."""
        known = self.known(predicate)
        if known is not None or isinstance(predicate, int):
            return self if known else None
        learned = self._known.copy()
        for term, holds in _list_parts(predicate, holds=True):
            if learned.setdefault(term, holds) is not holds:
                return None
        return Path((*self.predicates, predicate), learned)

    def merged(self, other: Path) -> tuple[Path, Value]:
        """The path of both, which exclude each other, and the predicate that tells this one from the other."""
        mine, others = self.predicates, other.predicates
        shared = 0
        for one, two in zip(mine, others, strict=False):
            if one is not two:
                break
            shared += 1
        here, there = _conjoin(mine[shared:]), _conjoin(others[shared:])
        either = or_(here, there, 1)
        predicates = mine[:shared] if isinstance(either, int) else (*mine[:shared], either)
        known = {term: holds for predicate in predicates for term, holds in _list_parts(predicate, holds=True)}
        return Path(predicates, known), here


def _list_parts(predicate: Term, *, holds: bool) -> Iterator[tuple[Term, bool]]:
    """What is plain when a predicate holds, or does not."""
    if predicate.op == "not":
        yield from _list_parts(predicate.args[0], holds=not holds)
        return
    yield predicate, holds
    if (predicate.op, holds) in {("and", True), ("or", False)}:
        for part in predicate.args:
            yield from _list_parts(part, holds=holds)


def _conjoin(predicates: tuple[Term, ...]) -> Value:
    result: Value = 1
    for predicate in predicates:
        result = and_(result, predicate, 1)
    return result
