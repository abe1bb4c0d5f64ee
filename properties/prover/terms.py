"""Bit-vector terms, interned: equal terms are one object, and a constant is a plain int, unsigned at its width.

The constructors simplify, so that what a trampoline only moves stays `is`-identical to what it was. A predicate is a
term of one bit.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, cast

from properties.prover.meaning import apply, signed

__all__ = [
    "Facts",
    "Term",
    "Value",
    "add",
    "and_",
    "ashr",
    "concat",
    "eq",
    "evaluate",
    "extract",
    "forget",
    "ite",
    "linear",
    "lshr",
    "lzcount",
    "mul",
    "neg",
    "not_",
    "one_of",
    "or_",
    "popcount",
    "postorder",
    "sborrow",
    "scarry",
    "sext",
    "shl",
    "slt",
    "sub",
    "symbol",
    "ult",
    "xor",
    "zext",
]


class Term:
    """An operation on bit vectors. bits: the width of its value; args: terms, ints, and an operation's parameters."""

    __slots__ = ("args", "bits", "op", "serial")

    def __init__(self, op: str, bits: int, args: tuple[Any, ...], serial: int) -> None:
        self.op: Final = op
        self.bits: Final = bits
        self.args: Final = args
        self.serial: Final = serial

    def __repr__(self) -> str:
        return str(self.args[0]) if self.op == "symbol" else f"{self.op}{self.bits}{self.args!r}"


Value = Term | int

Facts = Callable[[], Iterable[Value]]
"""Tells which predicates hold; nobody asks where nothing depends on it."""

_TABLE: dict[tuple[object, ...], Term] = {}


def forget() -> None:
    """Empties the table. Terms made before are then equal to none made after: one proof, one table."""
    _TABLE.clear()


def _make(op: str, bits: int, *args: Any) -> Term:
    key = (op, bits, args)
    term = _TABLE.get(key)
    if term is None:
        term = _TABLE[key] = Term(op, bits, args, len(_TABLE))
    return term


def _make_commutative(op: str, bits: int, a: Any, b: Any, *width: int) -> Term:
    """Of a commutative operation: the older argument first."""
    return _make(op, bits, a, b, *width) if a.serial < b.serial else _make(op, bits, b, a, *width)


def symbol(name: str, bits: int) -> Term:
    """An unknown of this width."""
    return _make("symbol", bits, name)


def linear(value: Value) -> tuple[Value, int]:
    """A value as (base, offset): value = base + offset, modulo its width; a constant has base 0."""
    if isinstance(value, int):
        return 0, value
    if value.op == "add" and isinstance(value.args[1], int):
        return value.args[0], value.args[1]
    return value, 0


def add(a: Value, b: Value, bits: int) -> Value:
    """Sum. A constant stands last, and only once."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(b, int):
        if isinstance(a, int):
            return (a + b) % (1 << bits)
        if a.op == "add" and isinstance(a.args[1], int):
            b = (b + a.args[1]) % (1 << bits)
            a = a.args[0]
        return _make("add", bits, a, b) if b else a
    left, first = linear(a)
    right, second = linear(b)
    both = _make_commutative("add", bits, left, right)
    return add(both, first + second, bits)


def neg(a: Value, bits: int) -> Value:
    """Two's complement."""
    return sub(0, a, bits)


def sub(a: Value, b: Value, bits: int) -> Value:
    """Difference."""
    if isinstance(b, int):
        return add(a, -b % (1 << bits), bits)
    left, first = linear(a)
    right, second = linear(b)
    difference = 0 if left is right else _make("sub", bits, left, right)
    return add(difference, (first - second) % (1 << bits), bits)


def mul(a: Value, b: Value, bits: int) -> Value:
    """Product."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int) and isinstance(b, int):
        return a * b % (1 << bits)
    if isinstance(b, int):
        if b == 0:
            return 0
        if b & (b - 1) == 0:
            return shl(a, b.bit_length() - 1, bits)
        return _make("mul", bits, a, b)
    return _make_commutative("mul", bits, a, b)


def and_(a: Value, b: Value, bits: int) -> Value:
    """Conjunction, bit by bit. A mask of low bits is an extraction."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int) and isinstance(b, int):
        return a & b
    if isinstance(b, int):
        if b & (b + 1) == 0:
            low = b.bit_length()
            return zext(extract(a, 0, low), bits) if low else 0
        return _make("and", bits, a, b)
    if a is b:
        return a
    return _conjoin(a, b) if bits == 1 else _make_commutative("and", bits, a, b)


def _conjoin(a: Any, b: Any) -> Value:
    if _are_opposite(a, b):
        return 0
    for one, other in ((a, b), (b, a)):
        if other.op == "and":
            if one in other.args:
                return cast("Value", other)
            if any(_are_opposite(one, part) for part in other.args):
                return 0
    return _make_commutative("and", 1, a, b)


def or_(a: Value, b: Value, bits: int) -> Value:
    """Disjunction, bit by bit."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int) and isinstance(b, int):
        return a | b
    if isinstance(b, int):
        if b == 0:
            return a
        return b if b == (1 << bits) - 1 else _make("or", bits, a, b)
    if a is b:
        return a
    return _disjoin(a, b) if bits == 1 else _make_commutative("or", bits, a, b)


def _disjoin(a: Any, b: Any) -> Value:
    """Where one path branches off another, what they come to together must stay simple."""
    if _are_opposite(a, b):
        return 1
    if a.op == "not" and b.op == "not":
        return not_(and_(a.args[0], b.args[0], 1))
    for one, other in ((a, b), (b, a)):
        if other.op == "and":
            for part, rest in (other.args, other.args[::-1]):
                if _are_opposite(one, part):
                    return or_(one, rest, 1)
    return _make_commutative("or", 1, a, b)


def _are_opposite(a: Any, b: Any) -> bool:
    return (a.op == "not" and a.args[0] is b) or (b.op == "not" and b.args[0] is a)


def xor(a: Value, b: Value, bits: int) -> Value:
    """Exclusive or, bit by bit."""
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int) and isinstance(b, int):
        return a ^ b
    if isinstance(b, int):
        if b == 0:
            return a
        return not_(a, bits) if b == (1 << bits) - 1 else _make("xor", bits, a, b)
    if a is b:
        return 0
    return _make_commutative("xor", bits, a, b)


def not_(a: Value, bits: int = 1) -> Value:
    """Complement, bit by bit."""
    if isinstance(a, int):
        return a ^ ((1 << bits) - 1)
    inner: Value = a.args[0] if a.op == "not" else _make("not", bits, a)
    return inner


def shl(a: Value, count: Value, bits: int) -> Value:
    """Shift to the left; 0 when count reaches the width."""
    if isinstance(count, int):
        if count >= bits:
            return 0
        return concat(extract(a, 0, bits - count), 0, count, bits) if count else a
    return _make("shl", bits, a, count)


def lshr(a: Value, count: Value, bits: int) -> Value:
    """Shift to the right, filled with zeros."""
    if isinstance(count, int):
        return 0 if count >= bits else zext(extract(a, count, bits - count), bits)
    return _make("lshr", bits, a, count)


def ashr(a: Value, count: Value, bits: int) -> Value:
    """Shift to the right, filled with the sign."""
    if isinstance(count, int):
        kept = max(bits - count, 1)
        return sext(extract(a, bits - kept, kept), kept, bits)
    return _make("ashr", bits, a, count)


def eq(a: Value, b: Value, bits: int) -> Value:
    """Whether a == b: one bit."""
    if a is b:
        return 1
    if isinstance(a, int):
        a, b = b, a
    if isinstance(a, int):
        return int(a == b)
    if isinstance(b, int):
        return _compare_constant(a, b, bits)
    left, first = linear(a)
    right, second = linear(b)
    if left is right:
        return int(first == second)
    return _make_commutative("eq", 1, a, b, bits)


def _compare_constant(a: Term, b: int, bits: int) -> Value:
    if a.op == "add" and isinstance(a.args[1], int):
        return eq(a.args[0], (b - a.args[1]) % (1 << bits), bits)
    if a.op == "zext" and isinstance(a.args[0], Term):
        return 0 if b >> a.args[0].bits else eq(a.args[0], b, a.args[0].bits)
    if bits == 1:
        return a if b else not_(a)
    if a.op == "ite":
        condition, yes, no = a.args
        first, second = eq(yes, b, bits), eq(no, b, bits)
        if isinstance(first, int) or isinstance(second, int):
            return ite(condition, first, second, 1)
    return _make("eq", 1, a, b, bits)


def one_of(value: Value, constants: Iterable[int], bits: int) -> Value:
    """Whether a value is one of these: one bit."""
    found: Value = 0
    for constant in constants:
        found = or_(found, eq(value, constant, bits), 1)
    return found


def ult(a: Value, b: Value, bits: int) -> Value:
    """Whether a < b, unsigned: one bit."""
    if isinstance(a, int) and isinstance(b, int):
        return int(a < b)
    if a is b or (isinstance(b, int) and b == 0):
        return 0
    if isinstance(b, int) and b == 1:
        return eq(a, 0, bits)
    return _make("ult", 1, a, b, bits)


def slt(a: Value, b: Value, bits: int) -> Value:
    """Whether a < b, signed: one bit. Against 0 it is the sign."""
    if isinstance(a, int) and isinstance(b, int):
        return int(signed(a, bits) < signed(b, bits))
    if a is b:
        return 0
    if isinstance(b, int) and b == 0:
        return extract(a, bits - 1, 1)
    return _make("slt", 1, a, b, bits)


def ite(condition: Value, yes: Value, no: Value, bits: int) -> Value:
    """The value `yes` where the one bit of the condition is set, else `no`."""
    if isinstance(condition, int):
        return yes if condition else no
    if yes == no:
        return yes
    if condition.op == "not":
        return ite(condition.args[0], no, yes, bits)
    yes, no = _simplify_branch(condition, yes, 1), _simplify_branch(condition, no, 2)
    if bits == 1:
        return _choose_bit(condition, yes, no)
    return _make("ite", bits, condition, yes, no)


def _simplify_branch(condition: Term, value: Value, side: int) -> Value:
    """What an inner choice by the same condition comes to."""
    same = isinstance(value, Term) and value.op == "ite" and value.args[0] is condition
    inner: Value = value.args[side] if same and isinstance(value, Term) else value
    return inner


def _choose_bit(condition: Term, yes: Value, no: Value) -> Value:
    if isinstance(yes, int) and isinstance(no, int):
        return yes if yes == no else condition if yes else not_(condition)
    if isinstance(yes, int):
        return or_(condition, no, 1) if yes else and_(not_(condition), no, 1)
    if isinstance(no, int):
        return or_(not_(condition), yes, 1) if no else and_(condition, yes, 1)
    return yes if yes is no else _make("ite", 1, condition, yes, no)


def concat(high: Value, low: Value, low_bits: int, bits: int) -> Value:
    """The bits of high above those of low, which has low_bits of them."""
    if isinstance(high, int) and isinstance(low, int):
        return high << low_bits | low
    if isinstance(high, int) and high == 0:
        return zext(low, bits)
    upper, lower = _piece(high, bits - low_bits), _piece(low, low_bits)
    if upper[0] is lower[0] and upper[1] == lower[1] + low_bits and isinstance(high, Term):
        return extract(upper[0], lower[1], bits)
    if isinstance(high, Term) and high.op == "zext" and isinstance(high.args[0], Term):
        return zext(concat(high.args[0], low, low_bits, high.args[0].bits + low_bits), bits)
    return _make("concat", bits, high, low, low_bits)


def _piece(value: Value, bits: int) -> tuple[Value, int]:
    """A value as an extraction: (of what, from which bit)."""
    if isinstance(value, Term) and value.op == "extract":
        return value.args[0], value.args[1]
    return (value, 0) if isinstance(value, Term) else (value << bits, -1)


def extract(value: Value, low: int, bits: int) -> Value:
    """The bits [low, low + bits) of a value."""
    if isinstance(value, int):
        return value >> low & ((1 << bits) - 1)
    if low == 0 and bits == value.bits:
        return value
    rule = _EXTRACT.get(value.op)
    return rule(value, low, bits) if rule else _make("extract", bits, value, low)


def _extract_extract(value: Term, low: int, bits: int) -> Value:
    return extract(value.args[0], low + value.args[1], bits)


def _extract_concat(value: Term, low: int, bits: int) -> Value:
    upper, lower, width = value.args
    assert isinstance(width, int)
    if low >= width:
        return extract(upper, low - width, bits)
    if low + bits <= width:
        return extract(lower, low, bits)
    kept = width - low
    return concat(extract(upper, 0, bits - kept), extract(lower, low, kept), kept, bits)


def _extract_zext(value: Term, low: int, bits: int) -> Value:
    inner = value.args[0]
    assert isinstance(inner, Term)
    if low >= inner.bits:
        return 0
    if low + bits <= inner.bits:
        return extract(inner, low, bits)
    return zext(extract(inner, low, inner.bits - low), bits)


def _extract_ite(value: Term, low: int, bits: int) -> Value:
    condition, yes, no = value.args
    return ite(condition, extract(yes, low, bits), extract(no, low, bits), bits)


_EXTRACT: dict[str, Callable[[Term, int, int], Value]] = {
    "extract": _extract_extract,
    "concat": _extract_concat,
    "zext": _extract_zext,
    "ite": _extract_ite,
}


def zext(value: Value, bits: int) -> Value:
    """The value at a greater width, filled with zeros."""
    if isinstance(value, int) or value.bits == bits:
        return value
    if value.op == "zext":
        return zext(value.args[0], bits)
    return _make("zext", bits, value)


def sext(value: Value, width: int, bits: int) -> Value:
    """A value of this width at a greater one, filled with its sign."""
    if isinstance(value, int):
        return signed(value, width) % (1 << bits)
    return value if width == bits else _make("sext", bits, value, width)


def popcount(value: Value, bits: int) -> Value:
    """How many bits of the value are set, as a value of `bits`."""
    return value.bit_count() if isinstance(value, int) else _make("popcount", bits, value)


def lzcount(value: Value, width: int, bits: int) -> Value:
    """How many zeros lead in a value of this width, as a value of `bits`."""
    return width - value.bit_length() if isinstance(value, int) else _make("lzcount", bits, value, width)


def scarry(a: Value, b: Value, bits: int) -> Value:
    """Whether a + b overflows, signed: one bit."""
    if isinstance(a, int) and isinstance(b, int):
        return apply("scarry", 1, [a, b, bits])
    return _make("scarry", 1, a, b, bits)


def sborrow(a: Value, b: Value, bits: int) -> Value:
    """Whether a - b overflows, signed: one bit."""
    if isinstance(a, int) and isinstance(b, int):
        return apply("sborrow", 1, [a, b, bits])
    return 0 if isinstance(b, int) and b == 0 else _make("sborrow", 1, a, b, bits)


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
