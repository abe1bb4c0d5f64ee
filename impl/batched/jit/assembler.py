"""Assembler text to x86-64 code, by keystone."""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import Any, Final

import keystone  # type: ignore[import-untyped]

__all__ = ["assemble"]


DECIMAL: Final = re.compile(r"(?<!\w)[0-9]+\b")


def _hexadecimal(number: re.Match[str]) -> str:
    return hex(int(number[0]))


@cache
def _keystone() -> Any:
    return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)


@lru_cache(maxsize=4096)
def assemble(text: str, address: int) -> bytes:
    """The code of a text with local labels, as it is at an address."""
    try:
        # keystone 0.9.2 leaves the radix of its parser to chance: now and then "16" is 0x16.
        code, _ = _keystone().asm(DECIMAL.sub(_hexadecimal, text), address, as_bytes=True)
    except keystone.KsError as error:
        raise ValueError(f"{error}:\n{text}") from error
    if code is None:
        raise ValueError(f"no instruction:\n{text}")
    return bytes(code)
