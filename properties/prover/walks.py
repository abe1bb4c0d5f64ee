"""Walks over terms, and their value for given symbols."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from properties.prover.meaning import apply
from properties.prover.terms import Term, Value

__all__ = ["evaluate", "postorder"]


def postorder(value: Value, done: Mapping[Term, object]) -> Iterator[Term]:
    """The terms below a value that are not done yet, each after its arguments; the caller marks each done."""
    stack = [value] if isinstance(value, Term) else []
    while stack:
        term = stack[-1]
        missing = [arg for arg in term.args if isinstance(arg, Term) and arg not in done]
        if missing and term not in done:
            stack.extend(missing)
            continue
        stack.pop()
        if term not in done:
            yield term


def evaluate(value: Value, symbols: Callable[[str, int], int]) -> int:
    """The value for given symbols; symbols(name, bits) tells each."""
    done: dict[Term, int] = {}
    for term in postorder(value, done):
        if term.op == "symbol":
            done[term] = symbols(str(term.args[0]), term.bits)
        else:
            done[term] = apply(term.op, term.bits, [done[arg] if isinstance(arg, Term) else arg for arg in term.args])
    return done[value] if isinstance(value, Term) else value
