"""Assembler text to machine code, by keystone, and back, by capstone."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, Final

import capstone  # type: ignore[import-untyped]
import keystone  # type: ignore[import-untyped]

from spec.errors import BadInputError

__all__ = ["ARM64", "X86_64", "Dialect", "assemble", "disassembler"]

Dialect = tuple[str, str]
"""The names of a machine and its mode, in both tools."""

X86_64: Final[Dialect] = ("X86", "64")
ARM64: Final[Dialect] = ("ARM64", "LITTLE_ENDIAN")
DECIMAL: Final = re.compile(r"(?<!\w)[0-9]+\b")


@lru_cache(maxsize=4096)
def assemble(text: str, address: int = 0, dialect: Dialect = X86_64) -> bytes:
    """Assembles a text with local labels for an address. BadInputError where the text is no code."""
    try:
        # keystone 0.9.2 leaves the radix of its parser to chance: now and then "16" is 0x16.
        code, _ = _make_keystone(dialect).asm(DECIMAL.sub(_to_hexadecimal, text), address, as_bytes=True)
    except keystone.KsError as error:
        raise BadInputError(f"keystone does not assemble '{text}': {error}") from error
    if code is None:
        raise BadInputError(f"keystone does not assemble '{text}': there is no instruction")
    return bytes(code)


def _to_hexadecimal(number: re.Match[str]) -> str:
    return hex(int(number[0]))


@cache
def _make_keystone(dialect: Dialect) -> Any:
    machine, mode = dialect
    return keystone.Ks(getattr(keystone, f"KS_ARCH_{machine}"), getattr(keystone, f"KS_MODE_{mode}"))


@cache
def disassembler(dialect: Dialect) -> Any:
    """The process's capstone.Cs of this dialect."""
    machine, mode = dialect
    return capstone.Cs(getattr(capstone, f"CS_ARCH_{machine}"), getattr(capstone, f"CS_MODE_{mode}"))
