"""P-code, the language into which SLEIGH lifts machine code: what each operation computes, as a function on values."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from pypcode import OpCode

from properties.prover import terms
from properties.prover.terms import Term, Value, extract, not_, zext

__all__ = ["Function", "function", "truth"]

Function = Callable[..., Value]


def truth(value: Value) -> Value:
    """The one bit of a p-code boolean, which is a byte of 0 or 1."""
    return extract(value, 0, 1)


def _byte(predicate: Value) -> Value:
    return zext(predicate, 8) if isinstance(predicate, Term) else predicate


def _arithmetic(name: str) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)
    return lambda out, _: lambda a, b: operation(a, b, out)


def _comparison(name: str, *, swapped: bool = False, negated: bool = False) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)

    def make(_: int, width: int) -> Function:
        def compare(a: Value, b: Value) -> Value:
            result = operation(b, a, width) if swapped else operation(a, b, width)
            return _byte(not_(result) if negated else result)

        return compare

    return make


def _boolean(name: str) -> Callable[[int, int], Function]:
    operation = getattr(terms, name)
    return lambda _, __: lambda a, b: _byte(operation(truth(a), truth(b), 1))


def _shift(name: str) -> Callable[[int, int], Function]:
    """A shift's count has a width of its own; a count that reaches the value's width shifts all out."""
    operation = getattr(terms, name)

    def make(out: int, _: int) -> Function:
        def shift(a: Value, count: Value) -> Value:
            if isinstance(count, int):
                return _value(operation(a, count, out))
            reaches = not_(terms.ult(count, out, count.bits))
            fitted = zext(count, out) if count.bits <= out else extract(count, 0, out)
            limit = terms.ashr(a, out, out) if name == "ashr" else 0
            return terms.ite(reaches, limit, operation(a, fitted, out), out)

        return shift

    return make


def _value(value: Value) -> Value:
    return value


def _piece(out: int, width: int) -> Function:
    return lambda high, low: terms.concat(high, low, out - width, out)


def _carry(_: int, width: int) -> Function:
    return lambda a, b: _byte(terms.ult(terms.add(a, b, width), b, width))


_MAKERS: dict[OpCode, Callable[[int, int], Function]] = {
    OpCode.COPY: lambda _, __: _value,
    OpCode.INT_ADD: _arithmetic("add"),
    OpCode.INT_SUB: _arithmetic("sub"),
    OpCode.INT_MULT: _arithmetic("mul"),
    OpCode.INT_AND: _arithmetic("and_"),
    OpCode.INT_OR: _arithmetic("or_"),
    OpCode.INT_XOR: _arithmetic("xor"),
    OpCode.INT_LEFT: _shift("shl"),
    OpCode.INT_RIGHT: _shift("lshr"),
    OpCode.INT_SRIGHT: _shift("ashr"),
    OpCode.INT_EQUAL: _comparison("eq"),
    OpCode.INT_NOTEQUAL: _comparison("eq", negated=True),
    OpCode.INT_LESS: _comparison("ult"),
    OpCode.INT_LESSEQUAL: _comparison("ult", swapped=True, negated=True),
    OpCode.INT_SLESS: _comparison("slt"),
    OpCode.INT_SLESSEQUAL: _comparison("slt", swapped=True, negated=True),
    OpCode.INT_CARRY: _carry,
    OpCode.INT_SCARRY: _comparison("scarry"),
    OpCode.INT_SBORROW: _comparison("sborrow"),
    OpCode.BOOL_AND: _boolean("and_"),
    OpCode.BOOL_OR: _boolean("or_"),
    OpCode.BOOL_XOR: _boolean("xor"),
    OpCode.BOOL_NEGATE: lambda _, __: lambda a: _byte(not_(truth(a))),
    OpCode.INT_NEGATE: lambda out, _: lambda a: not_(a, out),
    OpCode.INT_2COMP: lambda out, _: lambda a: terms.neg(a, out),
    OpCode.INT_ZEXT: lambda out, _: lambda a: zext(a, out),
    OpCode.INT_SEXT: lambda out, width: lambda a: terms.sext(a, width, out),
    OpCode.POPCOUNT: lambda out, _: lambda a: terms.popcount(a, out),
    OpCode.LZCOUNT: lambda out, width: lambda a: terms.lzcount(a, width, out),
    OpCode.SUBPIECE: lambda out, _: lambda a, low: extract(a, 8 * low, out),
    OpCode.PIECE: _piece,
}


@cache
def function(opcode: OpCode, out: int, width: int) -> Function | None:
    """What an operation computes of its inputs; None if it has no model here.

    out: bits of the result; width: bits of the first input.
    """
    make = _MAKERS.get(opcode)
    return make(out, width) if make else None
