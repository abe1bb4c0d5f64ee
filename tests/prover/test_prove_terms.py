"""Terms mean what their operations mean, whatever is simplified; z3 agrees; cells are bytes; paths know what holds."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest

from properties.prover import terms
from properties.prover.cells import Cells
from properties.prover.meaning import apply
from properties.prover.paths import Path
from properties.prover.terms import Term, Value, evaluate, symbol
from properties.prover.z3_backend import Solver

WIDTHS = (1, 8, 16, 32, 64)
BINARY = {name.rstrip("_"): getattr(terms, name) for name in "add sub mul and_ or_ xor shl lshr ashr".split()}
COMPARED = {name: getattr(terms, name) for name in "eq ult slt scarry sborrow".split()}
Pair = tuple[Value, int]
"""A value, and what it must be for the symbols of the run."""


class Draw:
    """Random terms, each made by the constructors, beside its value by the bare operations."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.symbols = {f"s{bits}{letter}": (bits, self.number(bits)) for bits in WIDTHS for letter in "ab"}
        self.made: dict[int, list[Pair]] = {bits: [] for bits in WIDTHS}

    def number(self, bits: int) -> int:
        """A constant: often one at an edge."""
        edges = (0, 1, (1 << bits) - 1, 1 << (bits - 1), self.random.getrandbits(bits))
        return self.random.choice(edges) % (1 << bits)

    def value(self, bits: int) -> Pair:
        """A constant, a symbol, or a term made before."""
        kind = self.random.randrange(5)
        if kind == 0:
            number = self.number(bits)
            return number, number
        if kind > 1 and self.made[bits]:
            return self.random.choice(self.made[bits][-20:])
        name = f"s{bits}{self.random.choice('ab')}"
        return symbol(name, bits), self.symbols[name][1]

    def step(self) -> Pair:
        """One more term."""
        bits = self.random.choice(WIDTHS)
        make = self.random.choice((self.binary, self.compared, self.resized, self.chosen, self.counted))
        made, result = make(bits)
        width = made[0].bits if isinstance(made[0], Term) else result
        self.made.setdefault(width, []).append(made)
        return made

    def binary(self, bits: int) -> tuple[Pair, int]:
        """An arithmetic operation, or one bit by bit."""
        name = self.random.choice(sorted(BINARY))
        (a, x), (b, y) = self.value(bits), self.value(bits)
        if name in {"shl", "lshr", "ashr"} and self.random.randrange(2):
            b = y = self.random.randrange(bits + 2) % (1 << bits)
        return (BINARY[name](a, b, bits), apply(name, bits, [x, y])), bits

    def compared(self, bits: int) -> tuple[Pair, int]:
        """A comparison."""
        name = self.random.choice(sorted(COMPARED))
        (a, x), (b, y) = self.value(bits), self.value(bits)
        return (COMPARED[name](a, b, bits), apply(name, 1, [x, y, bits])), 1

    def resized(self, bits: int) -> tuple[Pair, int]:
        """A part of a term, or a wider one."""
        other = self.random.choice([width for width in WIDTHS if width != bits])
        value, number = self.value(bits)
        if other < bits:
            low = self.random.randrange(bits - other + 1)
            return (terms.extract(value, low, other), apply("extract", other, [number, low])), other
        if self.random.randrange(2) or other != 2 * bits:
            signed = self.random.randrange(2)
            made = terms.sext(value, bits, other) if signed else terms.zext(value, other)
            return (made, apply("sext", other, [number, bits]) if signed else number), other
        low, least = self.value(bits)
        return (terms.concat(value, low, bits, other), apply("concat", other, [number, least, bits])), other

    def chosen(self, bits: int) -> tuple[Pair, int]:
        """A choice between two terms."""
        (c, z), (a, x), (b, y) = self.value(1), self.value(bits), self.value(bits)
        return (terms.ite(c, a, b, bits), x if z else y), bits

    def counted(self, bits: int) -> tuple[Pair, int]:
        """An operation on one term."""
        value, number = self.value(bits)
        name = self.random.choice(("not", "neg", "popcount", "lzcount"))
        if name == "not":
            return (terms.not_(value, bits), apply("not", bits, [number])), bits
        if name == "neg":
            return (terms.neg(value, bits), apply("sub", bits, [0, number])), bits
        if name == "popcount":
            return (terms.popcount(value, 8), number.bit_count()), 8
        return (terms.lzcount(value, bits, 8), bits - number.bit_length()), 8


def check_meaning(seed: int, count: int, use: Callable[[Draw, Pair], None]) -> None:
    for part in range(count // 200):
        terms.forget()
        draw = Draw(seed + part)
        for _ in range(200):
            made = draw.step()
            value = evaluate(made[0], lambda name, _, draw=draw: draw.symbols[name][1])

            assert made[1] == value, made
            use(draw, made)


def test_what_is_simplified_means_the_same() -> None:
    """2,000 random terms have the value that their operations give."""
    check_meaning(1, 2_000, lambda _, __: None)


@pytest.mark.proof
def test_what_is_simplified_means_the_same_at_length() -> None:
    """The same of 60,000."""
    check_meaning(1_000, 60_000, lambda _, __: None)


@pytest.mark.parametrize("count", [200, pytest.param(3_000, marks=pytest.mark.proof)])
def test_z3_means_the_same(count: int) -> None:
    """z3 finds no other value for random terms, their symbols given."""

    def ask(draw: Draw, made: Pair) -> None:
        given = [terms.eq(symbol(name, bits), value, bits) for name, (bits, value) in draw.symbols.items()]
        width = made[0].bits if isinstance(made[0], Term) else 64

        assert Solver(lambda: given).model([], (made[0], made[1], width)) is None

    check_meaning(7, count, ask)


def test_equal_terms_are_one() -> None:
    """However often it is built, a term is the same object; and another one is not."""
    terms.forget()
    a, b = symbol("a", 64), symbol("b", 64)

    assert terms.add(a, b, 64) is terms.add(b, a, 64)
    assert terms.add(terms.add(a, 8, 64), -16 % 2**64, 64) is terms.sub(a, 8, 64)
    assert terms.sub(terms.add(a, 24, 64), a, 64) == 24
    assert terms.concat(terms.extract(a, 32, 32), terms.extract(a, 0, 32), 32, 64) is a
    assert terms.add(a, 1, 64) is not terms.add(b, 1, 64)
    assert terms.eq(terms.ite(terms.ult(a, b, 64), 0, a, 64), 0, 64) is not terms.eq(a, 0, 64)


@pytest.mark.parametrize("seed", range(8))
def test_cells_are_bytes(seed: int) -> None:
    """Random overlapping writes, reads and drops agree with an array of bytes."""
    draw = random.Random(seed)
    cells = Cells()
    known: dict[int, int] = {}

    def unknown(offset: int, size: int) -> int:
        for at in range(offset, offset + size):
            known.setdefault(at, 0xA0 + at % 16)
        return int.from_bytes(bytes(known[at] for at in range(offset, offset + size)), "little")

    for _ in range(600):
        offset, size = draw.randrange(-40, 40), draw.choice((1, 2, 4, 8))
        action = draw.randrange(4)
        if action == 0:
            value = draw.getrandbits(8 * size)
            cells.write(offset, size, value)
            known.update(zip(range(offset, offset + size), value.to_bytes(size, "little"), strict=True))
        elif action == 1:
            cells.drop(offset, size)
            for at in range(offset, offset + size):
                known.pop(at, None)
        elif action == 2 and draw.randrange(20) == 0:
            cells.drop_below(offset)
            known = {at: byte for at, byte in known.items() if at >= offset}
        else:
            found = cells.read(offset, size, unknown)

            assert unknown(offset, size) == found


def test_an_unknown_cell_is_asked_for_once() -> None:
    """Bytes without value get one when they are read, and keep it."""
    cells = Cells()
    cells.write(0, 8, None)
    asked: list[tuple[int, int]] = []

    def unknown(offset: int, size: int) -> int:
        asked.append((offset, size))
        return 0x1122334455667788

    assert 0x55667788 == cells.read(0, 4, unknown)
    assert 0x11223344 == cells.read(4, 4, unknown)
    assert [(0, 8)] == asked


@pytest.mark.parametrize("seed", range(20))
def test_what_a_path_knows_holds(seed: int) -> None:
    """Where a path's predicates hold, what it knows holds; and two that part, merged, are told apart."""
    draw = Draw(seed)
    bits = [symbol(f"s1{letter}", 1) for letter in "ab"] + [terms.eq(symbol("s8a", 8), 3, 8)]

    def predicate(depth: int) -> Value:
        if depth == 0 or draw.random.randrange(3) == 0:
            return draw.random.choice(bits)
        operation = draw.random.choice((terms.and_, terms.or_))
        made = operation(predicate(depth - 1), predicate(depth - 1), 1)
        return terms.not_(made) if draw.random.randrange(2) else made

    base = Path().where(predicate(2)) or Path()
    fork = predicate(2)
    sides = [side for side in (base.where(fork), base.where(terms.not_(fork))) if side is not None]
    paths = [base, *sides]
    if len(sides) == 2:
        merged, here = sides[0].merged(sides[1])
        paths.append(merged)
    for values in ((a, b, c) for a in (0, 1) for b in (0, 1) for c in (3, 4)):
        env = dict(zip(("s1a", "s1b", "s8a"), values, strict=True))

        def true(value: Value, env: dict[str, int] = env) -> bool:
            return evaluate(value, lambda name, _: env[name]) == 1

        holding = [all(map(true, path.predicates)) for path in paths]
        for path, holds in zip(paths, holding, strict=True):
            asked = predicate(3)
            if holds and path.known(asked) is not None:
                assert true(asked) == path.known(asked)
        if len(sides) == 2:
            assert holding[3] == (holding[1] or holding[2])
            if holding[3]:
                assert true(here) == holding[1]
