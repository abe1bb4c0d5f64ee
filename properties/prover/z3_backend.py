"""z3 decides what is not plain. One incremental solver a proof, with a deterministic budget for each question."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any

import z3  # type: ignore[import-untyped]

from properties.prover.terms import Facts, Term, Value, postorder

__all__ = ["Model", "Solver", "UnknownError"]

RESOURCES = 500_000
"""z3's rlimit for one question, about a third of a second; unlike a time limit it does not depend on the machine."""

BUDGET = 20 * RESOURCES
"""For all questions of a proof. It is looked at now and then, since that costs as much as a question."""

NOW_AND_THEN = 16

MOST_WEIGHT = 3_000
"""Of one question. z3's rlimit does not count what it takes to make bits of terms: at this weight that is some seconds,
and half a gigabyte."""

NOTHING = 200
"""A question of this weight takes some milliseconds."""

SECONDS = 20.0
"""The most that one proof may take of the processor; usual ones take milliseconds."""

WEIGHTS = {"mul": 600, "popcount": 60, "lzcount": 60, "shl": 3, "lshr": 3, "ashr": 3}
"""Measured, of terms of 64 bits; that of all others is 1."""

MEGABYTES = 1_500
"""What z3 may have, should a question take more than its weight foretells."""

Model = dict[str, int]
"""Symbols by name."""


class UnknownError(Exception):
    """z3 gave up within its budget."""


z3.set_param("memory_max_size", MEGABYTES)

# z3's own wrappers check and convert their arguments, which takes longer than z3 takes for a question.
_CONTEXT = z3.main_ctx().ref()
_TRUTH = {True: z3.BoolVal(True), False: z3.BoolVal(False)}


@lru_cache(maxsize=4096)
def _make_number(value: int, bits: int) -> Any:
    return z3.BitVecVal(value, bits)


class Solver:
    """Asks about predicates, under facts that hold throughout. asked: how many questions there were."""

    def __init__(self, facts: Facts) -> None:
        self.asked = 0
        self._translated: dict[Term, Any] = {}
        self._weights: dict[Term, int] = {}
        self._symbols: dict[str, Any] = {}
        self._facts = facts
        self._free: Any = None
        self._bound: Any = None
        self._before = 0
        self._deadline: float | None = None

    def model(self, predicates: Iterable[Value], differing: tuple[Value, Value, int] | None = None) -> Model | None:
        """Symbols under which all predicates hold, and two values differ in so many low bits; None if there are none.

        UnknownError when z3 gives up. What is impossible without the facts is so with them, and that takes z3 less; but
        where one question of a proof needs them, most others do.
        """
        self.asked += 1
        asked = tuple(predicates)
        self._weigh((*asked, *differing[:2]) if differing else asked)
        free = self._start()
        if self.asked % NOW_AND_THEN == 0 and self._count_spent() > BUDGET:
            raise UnknownError("z3 has used up its budget for one proof")
        try:
            question = [self._translate_predicate(predicate) for predicate in asked]
            if differing:
                question.append(self._translate_difference(*differing))
            if self._bound is None and _ask(free, question)[0] == z3.Z3_L_FALSE:
                return None
            answer, model = _ask(self._bind(), question)
        except z3.Z3Exception as error:
            raise UnknownError(f"z3 gives up: {error}") from error
        if answer == z3.Z3_L_UNDEF:
            raise UnknownError("z3 has used up its budget for one question")
        return self._read(model) if model is not None else None

    def _bind(self) -> Any:
        """The solver that has the facts."""
        if self._bound is None:
            self._bound = _make_solver()
            self._bound.add(*(self._translate_predicate(fact) for fact in self._facts()))
            # What z3 makes of the facts then stays.
            self._bound.check()
        return self._bound

    def _weigh(self, asked: Iterable[Value]) -> None:
        """Refuses a question whose terms would take too much memory, and too much time, as bits."""
        terms = [value for value in asked if isinstance(value, Term)]
        if sum(map(self._weigh_written_out, terms)) <= NOTHING:
            return
        weights: dict[Term, int] = {}
        for value in terms:
            for term in postorder(value, weights):
                weights[term] = _weigh_term(term)
        weight = sum(weights.values())
        if weight > MOST_WEIGHT:
            raise UnknownError("what z3 would be asked is too large")
        if weight > NOTHING:
            self.check_time()

    def _weigh_written_out(self, value: Term) -> int:
        """The weight of a term with its parts, each as often as it occurs: what is small so is small."""
        weights = self._weights
        if value not in weights:
            for term in postorder(value, weights):
                parts = sum(weights[arg] for arg in term.args if isinstance(arg, Term))
                weights[term] = min(_weigh_term(term) + parts, MOST_WEIGHT)
        return weights[value]

    def check_time(self) -> None:
        """UnknownError if the proof has taken too long since this was asked first."""
        now = time.process_time()
        self._deadline = now + SECONDS if self._deadline is None else self._deadline
        if now > self._deadline:
            raise UnknownError(f"the proof has taken {SECONDS:g} s of the processor")

    def _start(self) -> Any:
        if self._free is None:
            self._free = _make_solver()
            self._before = self._count_spent()
        return self._free

    def _count_spent(self) -> int:
        """Counts the resources that z3 has used since this solver began; z3 counts those of the whole process."""
        statistics = self._free.statistics()
        found = statistics.stats
        # The count is among the last of the statistics.
        places = reversed(range(z3.Z3_stats_size(_CONTEXT, found)))
        place = next(place for place in places if z3.Z3_stats_get_key(_CONTEXT, found, place) == "rlimit count")
        return int(z3.Z3_stats_get_uint_value(_CONTEXT, found, place)) - self._before

    def _translate_difference(self, one: Value, other: Value, bits: int) -> Any:
        first, second = (self._translate_low(value, bits) for value in (one, other))
        same = z3.Z3_mk_eq(_CONTEXT, first.as_ast(), second.as_ast())
        return z3.BoolRef(z3.Z3_mk_not(_CONTEXT, same))

    def _translate_low(self, value: Value, bits: int) -> Any:
        if isinstance(value, int):
            return _make_number(value, bits)
        self._translate(value)
        made = self.vector(value, value.bits)
        return made if bits == value.bits else z3.Extract(bits - 1, 0, made)

    def _read(self, model: Any) -> Model:
        return {
            name: value.as_long()
            for name, symbol in self._symbols.items()
            if (value := model.eval(symbol)) is not None and z3.is_bv_value(value)
        }

    def _translate_predicate(self, predicate: Value) -> Any:
        if isinstance(predicate, int):
            return _TRUTH[predicate == 1]
        self._translate(predicate)
        return self._translated[predicate]

    def _translate(self, value: Term) -> None:
        for term in postorder(value, self._translated):
            self._translated[term] = self._translate_term(term)

    def _translate_term(self, term: Term) -> Any:
        """Translates a term: of one bit to a Bool, any other to a bit vector."""
        if term.op == "symbol":
            name = str(term.args[0])
            symbol = self._symbols[name] = z3.BitVec(name, term.bits)
            return symbol == 1 if term.bits == 1 else symbol
        if term.op in _COMPARISONS:
            return _COMPARISONS[term.op](*self._translate_operands(term.args[:2], term.args[2]))
        if term.bits == 1:
            return self._translate_bit(term)
        return _VECTORS[term.op](self, term)

    def _translate_bit(self, term: Term) -> Any:
        if term.op in _BOOLEANS:
            return _BOOLEANS[term.op](*(self._translate_boolean(arg) for arg in term.args))
        return _VECTORS[term.op](self, term) == 1

    def _translate_boolean(self, value: Value) -> Any:
        return _TRUTH[value == 1] if isinstance(value, int) else self._translated[value]

    def vector(self, value: Value, bits: int) -> Any:
        """A value, at this width, as a bit vector."""
        if isinstance(value, int):
            return _make_number(value, bits)
        made = self._translated[value]
        return z3.If(made, _make_number(1, 1), _make_number(0, 1)) if value.bits == 1 else made

    def _translate_operands(self, values: Iterable[Value], bits: int) -> list[Any]:
        return [self.vector(value, bits) for value in values]


def _make_solver() -> Any:
    solver = z3.SimpleSolver()
    solver.set("rlimit", RESOURCES)
    return solver


def _ask(solver: Any, question: Iterable[Any]) -> tuple[Any, Any]:
    """Asks whether predicates can hold together: z3's answer, and its model if there is one."""
    z3.Z3_solver_push(_CONTEXT, solver.solver)
    try:
        for predicate in question:
            z3.Z3_solver_assert(_CONTEXT, solver.solver, predicate.as_ast())
        answer = z3.Z3_solver_check(_CONTEXT, solver.solver)
        return answer, solver.model() if answer == z3.Z3_L_TRUE else None
    finally:
        z3.Z3_solver_pop(_CONTEXT, solver.solver, 1)


def _weigh_term(term: Term) -> int:
    """The weight of a term without its parts. A multiplication by a number is a sum, a shift by one moves bits."""
    simple = term.op in {"mul", "shl", "lshr", "ashr"} and isinstance(term.args[1], int)
    width = max(term.bits // 64, 1)
    return width * width * (1 if simple else WEIGHTS.get(term.op, 1))


def _find_width(term: Term) -> int:
    inner = term.args[0]
    return inner.bits if isinstance(inner, Term) else term.bits


def _overflow_sum(a: Any, b: Any) -> Any:
    return z3.Or(z3.Not(z3.BVAddNoOverflow(a, b, True)), z3.Not(z3.BVAddNoUnderflow(a, b)))


def _overflow_difference(a: Any, b: Any) -> Any:
    return z3.Or(z3.Not(z3.BVSubNoOverflow(a, b)), z3.Not(z3.BVSubNoUnderflow(a, b, True)))


_COMPARISONS: dict[str, Callable[..., Any]] = {
    "eq": lambda a, b: a == b,
    "ult": z3.ULT,
    "slt": lambda a, b: a < b,
    "scarry": _overflow_sum,
    "sborrow": _overflow_difference,
}
_BOOLEANS: dict[str, Callable[..., Any]] = {
    "not": z3.Not,
    "and": z3.And,
    "or": z3.Or,
    "xor": z3.Xor,
    "ite": z3.If,
}


def _make_binary(operation: Callable[[Any, Any], Any]) -> Callable[[Solver, Term], Any]:
    return lambda solver, term: operation(
        solver.vector(term.args[0], term.bits), solver.vector(term.args[1], term.bits)
    )


def _extract(solver: Solver, term: Term) -> Any:
    value, low = term.args
    return z3.Extract(low + term.bits - 1, low, solver.vector(value, value.bits))


def _concat(solver: Solver, term: Term) -> Any:
    high, low, low_bits = term.args
    return z3.Concat(solver.vector(high, term.bits - low_bits), solver.vector(low, low_bits))


def _make_extension(extend: Callable[[int, Any], Any]) -> Callable[[Solver, Term], Any]:
    def make(solver: Solver, term: Term) -> Any:
        return extend(term.bits - _find_width(term), solver.vector(term.args[0], _find_width(term)))

    return make


def _choose(solver: Solver, term: Term) -> Any:
    condition, yes, no = term.args
    return z3.If(solver.vector(condition, 1) == 1, solver.vector(yes, term.bits), solver.vector(no, term.bits))


def _count_bits(solver: Solver, term: Term) -> Any:
    value = solver.vector(term.args[0], _find_width(term))
    bits = [z3.ZeroExt(term.bits - 1, z3.Extract(bit, bit, value)) for bit in range(_find_width(term))]
    return z3.Sum(bits)


def _count_zeros(solver: Solver, term: Term) -> Any:
    width = _find_width(term)
    value = solver.vector(term.args[0], width)
    count = z3.BitVecVal(width, term.bits)
    for bit in range(width):
        count = z3.If(z3.Extract(bit, bit, value) == 1, z3.BitVecVal(width - 1 - bit, term.bits), count)
    return count


_VECTORS: dict[str, Callable[[Solver, Term], Any]] = {
    "add": _make_binary(lambda a, b: a + b),
    "sub": _make_binary(lambda a, b: a - b),
    "mul": _make_binary(lambda a, b: a * b),
    "and": _make_binary(lambda a, b: a & b),
    "or": _make_binary(lambda a, b: a | b),
    "xor": _make_binary(lambda a, b: a ^ b),
    "shl": _make_binary(lambda a, b: a << b),
    "lshr": _make_binary(z3.LShR),
    "ashr": _make_binary(lambda a, b: a >> b),
    "not": lambda solver, term: ~solver.vector(term.args[0], term.bits),
    "extract": _extract,
    "concat": _concat,
    "zext": _make_extension(z3.ZeroExt),
    "sext": _make_extension(z3.SignExt),
    "ite": _choose,
    "popcount": _count_bits,
    "lzcount": _count_zeros,
}
