"""A program's context and the words below it: what trampolines' obligations demand, and helpers' contracts rely on."""

from __future__ import annotations

from typing import Final

__all__ = ["COOKIE_INDEX", "COUNT_BITS", "FUNCTION_IP", "INDEX_BITS", "IS_RETURN", "META", "WORD"]

WORD: Final = 8
"""Bytes of a slot; ctx[n] is at WORD * n from the context's address."""

META: Final = -WORD
"""Of ctx[-1]: the number of slots, and where there are sessions also the following."""

FUNCTION_IP: Final = -2 * WORD
"""Of ctx[-2], the function's address."""

COUNT_BITS: Final = 8
"""Of ctx[-1], those that are the number of slots."""

COOKIE_INDEX: Final = 8
INDEX_BITS: Final = 8
"""From bit COOKIE_INDEX on so many are how many words below the context a session's cookie is."""

IS_RETURN: Final = 63
"""The bit that is set when a session runs at the return."""
