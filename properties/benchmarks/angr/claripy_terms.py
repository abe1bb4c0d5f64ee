"""Terms of the obligations as claripy's, and claripy's as terms of the obligations."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any, Final

import claripy  # type: ignore[import-not-found]

from properties.prover.terms import Term, Value, add, symbol

__all__ = ["ClaripyTerms"]

COMPARISONS: Final[dict[str, Callable[[Any, Any], Any]]] = {"eq": operator.eq, "ult": claripy.ULT}
BOOLEANS: Final[dict[str, Callable[..., Any]]] = {"and": claripy.And, "or": claripy.Or, "not": claripy.Not}
ARITHMETIC: Final[dict[str, Callable[..., Any]]] = {"add": operator.add, "sub": operator.sub}
TRUTH: Final = (claripy.false(), claripy.true())


class ClaripyTerms:
    """Both ways, for one proof. A term of one bit is a claripy Bool, any other a bit vector.

    What claripy has made stands for itself, as a symbol of the obligations, unless it is a number, one of their own
    symbols, or one of these plus a number.
    """

    def __init__(self) -> None:
        self._made: dict[Term, Any] = {}
        self._understood: dict[int, Value] = {}

    def predicate(self, value: Value) -> Any:
        """A predicate."""
        return TRUTH[value] if isinstance(value, int) else self._translate(value)

    def vector(self, value: Value, bits: int) -> Any:
        """A value of this width."""
        if isinstance(value, int):
            return claripy.BVV(value, bits)
        made = self._translate(value)
        return claripy.If(made, claripy.BVV(1, 1), claripy.BVV(0, 1)) if value.bits == 1 else made

    def understand(self, made: Any) -> Value:
        """What claripy has made."""
        key = made.hash()
        known = self._understood.get(key)
        if known is None:
            known = self._understood[key] = self._read(made)
        return known

    def _read(self, made: Any) -> Value:
        if made.op == "BVV":
            return int(made.args[0])
        if made.op in {"__add__", "__sub__"} and all(part.op == "BVV" for part in made.args[1:]):
            number = sum(part.args[0] for part in made.args[1:])
            sign = 1 if made.op == "__add__" else -1
            return add(self.understand(made.args[0]), sign * number % (1 << made.length), made.length)
        term = symbol(f"claripy's {len(self._understood)}", made.length)
        self._made[term] = made
        return term

    def _translate(self, term: Term) -> Any:
        known = self._made.get(term)
        if known is None:
            known = self._made[term] = self._make(term)
        return known

    def _make(self, term: Term) -> Any:
        if term.op == "symbol":
            return self._name(term)
        if term.op in COMPARISONS:
            one, other, width = term.args
            return COMPARISONS[term.op](self.vector(one, width), self.vector(other, width))
        if term.op == "extract":
            value, low = term.args
            cut = claripy.Extract(low + term.bits - 1, low, self.vector(value, value.bits))
            return cut == 1 if term.bits == 1 else cut
        if term.op == "zext":
            (value,) = term.args
            return claripy.ZeroExt(term.bits - value.bits, self.vector(value, value.bits))
        if term.bits == 1:
            return BOOLEANS[term.op](*map(self.predicate, term.args))
        return ARITHMETIC[term.op](*(self.vector(value, term.bits) for value in term.args))

    def _name(self, term: Term) -> Any:
        made = claripy.BVS(str(term.args[0]), term.bits, explicit_name=True)
        self._understood[made.hash()] = term
        return made == 1 if term.bits == 1 else made
