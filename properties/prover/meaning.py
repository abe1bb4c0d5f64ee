"""What each operation on bit vectors means on numbers, unsigned at their width."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

__all__ = ["MODULUS", "apply", "signed"]

MODULUS: Final = 1 << 64
"""Of arithmetic on words and addresses."""


def signed(value: int, bits: int) -> int:
    """The number that these bits are in two's complement."""
    return value - (1 << bits) if value >> (bits - 1) else value


def _overflows(value: int, bits: int) -> int:
    return int(not -(1 << (bits - 1)) <= value < 1 << (bits - 1))


_MEANING: dict[str, Callable[..., int]] = {
    "add": lambda _, a, b: a + b,
    "sub": lambda _, a, b: a - b,
    "mul": lambda _, a, b: a * b,
    "and": lambda _, a, b: a & b,
    "or": lambda _, a, b: a | b,
    "xor": lambda _, a, b: a ^ b,
    "not": lambda _, a: ~a,
    "shl": lambda bits, a, b: a << b if b < bits else 0,
    "lshr": lambda bits, a, b: a >> b if b < bits else 0,
    "ashr": lambda bits, a, b: signed(a, bits) >> min(b, bits),
    "eq": lambda _, a, b, __: a == b,
    "ult": lambda _, a, b, __: a < b,
    "slt": lambda _, a, b, width: signed(a, width) < signed(b, width),
    "ite": lambda _, condition, yes, no: yes if condition else no,
    "concat": lambda _, high, low, low_bits: high << low_bits | low,
    "extract": lambda _, value, low: value >> low,
    "zext": lambda _, value: value,
    "sext": lambda _, value, width: signed(value, width),
    "popcount": lambda _, value: value.bit_count(),
    "lzcount": lambda _, value, width: width - value.bit_length(),
    "scarry": lambda _, a, b, width: _overflows(signed(a, width) + signed(b, width), width),
    "sborrow": lambda _, a, b, width: _overflows(signed(a, width) - signed(b, width), width),
}


def apply(op: str, bits: int, args: list[Any]) -> int:
    """An operation on numbers: what each term means."""
    return _MEANING[op](bits, *args) % (1 << bits)
