"""Assembler text to x86-64 code, by keystone."""

from __future__ import annotations

from functools import cache
from typing import Any

import keystone  # type: ignore[import-untyped]

__all__ = ["assemble"]


@cache
def _keystone() -> Any:
    return keystone.Ks(keystone.KS_ARCH_X86, keystone.KS_MODE_64)


def assemble(text: str, address: int) -> bytes:
    """The code of a text with local labels, as it is at an address."""
    try:
        code, _ = _keystone().asm(text, address, as_bytes=True)
    except keystone.KsError as error:
        raise ValueError(f"{error}:\n{text}") from error
    if code is None:
        raise ValueError(f"no instruction:\n{text}")
    return bytes(code)
