"""P-code, the language into which SLEIGH lifts machine code: what each operation computes, as a function on values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pypcode import OpCode

from properties.prover import terms
from properties.prover.terms import Term, Value, extract, not_, zext

__all__ = ["Function", "copy", "function", "truth"]

Function = Callable[..., Value]


def copy(value: Value) -> Value:
    """A copy computes its operand."""
    return value


def truth(value: Value) -> Value:
    """The one bit of a p-code boolean, which is a byte of 0 or 1."""
    return extract(value, 0, 1)


def _widen(predicate: Value) -> Value:
    return zext(predicate, 8) if isinstance(predicate, Term) else predicate


def _make_arithmetic(name: str) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)
    return lambda out, _: lambda a, b: operation(a, b, out)


def _make_comparison(name: str, *, swapped: bool = False, negated: bool = False) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)

    def make(_: int, width: int) -> Function:
        def compare(a: Value, b: Value) -> Value:
            result = operation(b, a, width) if swapped else operation(a, b, width)
            return _widen(not_(result) if negated else result)

        return compare

    return make


def _make_boolean(name: str) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)
    return lambda _, __: lambda a, b: _widen(operation(truth(a), truth(b), 1))


def _make_shift(name: str) -> Callable[[int, int], Function]:
    """Makes a shift, whose count has a width of its own. A count that reaches the value's width shifts all bits out."""
    operation = getattr(terms, name)

    def make(out: int, _: int) -> Function:
        def shift(a: Value, count: Value) -> Value:
            if isinstance(count, int):
                return operation(a, count, out)  # type: ignore[no-any-return]
            reaches = not_(terms.ult(count, out, count.bits))
            fitted = zext(count, out) if count.bits <= out else extract(count, 0, out)
            limit = terms.ashr(a, out, out) if name == "ashr" else 0
            return terms.ite(reaches, limit, operation(a, fitted, out), out)

        return shift

    return make


def _make_piece(out: int, width: int) -> Function:
    return lambda high, low: terms.concat(high, low, out - width, out)


def _make_carry(_: int, width: int) -> Function:
    return lambda a, b: _widen(terms.ult(terms.add(a, b, width), b, width))


_MAKERS: dict[OpCode, Callable[[int, int], Function]] = {
    OpCode.COPY: lambda _, __: copy,
    OpCode.INT_ADD: _make_arithmetic("add"),
    OpCode.INT_SUB: _make_arithmetic("sub"),
    OpCode.INT_MULT: _make_arithmetic("mul"),
    OpCode.INT_AND: _make_arithmetic("and_"),
    OpCode.INT_OR: _make_arithmetic("or_"),
    OpCode.INT_XOR: _make_arithmetic("xor"),
    OpCode.INT_LEFT: _make_shift("shl"),
    OpCode.INT_RIGHT: _make_shift("lshr"),
    OpCode.INT_SRIGHT: _make_shift("ashr"),
    OpCode.INT_EQUAL: _make_comparison("eq"),
    OpCode.INT_NOTEQUAL: _make_comparison("eq", negated=True),
    OpCode.INT_LESS: _make_comparison("ult"),
    OpCode.INT_LESSEQUAL: _make_comparison("ult", swapped=True, negated=True),
    OpCode.INT_SLESS: _make_comparison("slt"),
    OpCode.INT_SLESSEQUAL: _make_comparison("slt", swapped=True, negated=True),
    OpCode.INT_CARRY: _make_carry,
    OpCode.INT_SCARRY: _make_comparison("scarry"),
    OpCode.INT_SBORROW: _make_comparison("sborrow"),
    OpCode.BOOL_AND: _make_boolean("and_"),
    OpCode.BOOL_OR: _make_boolean("or_"),
    OpCode.BOOL_XOR: _make_boolean("xor"),
    OpCode.BOOL_NEGATE: lambda _, __: lambda a: _widen(not_(truth(a))),
    OpCode.INT_NEGATE: lambda out, _: lambda a: not_(a, out),
    OpCode.INT_2COMP: lambda out, _: lambda a: terms.neg(a, out),
    OpCode.INT_ZEXT: lambda out, _: lambda a: zext(a, out),
    OpCode.INT_SEXT: lambda out, width: lambda a: terms.sext(a, width, out),
    OpCode.POPCOUNT: lambda out, _: lambda a: terms.popcount(a, out),
    OpCode.LZCOUNT: lambda out, width: lambda a: terms.lzcount(a, width, out),
    OpCode.SUBPIECE: lambda out, _: lambda a, low: extract(a, 8 * low, out),
    OpCode.PIECE: _make_piece,
}


@cache
def function(opcode: OpCode, out: int, width: int) -> Function | None:
    """What an operation computes of its inputs; None if it has no model here.

    out: bits of the result; width: bits of the first input.
    """
    make = _MAKERS.get(opcode)
    return make(out, width) if make else None
