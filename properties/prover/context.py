"""A program's context and the words below it, which obligations demand and the contracts of helpers rely on.

ctx[n] is at SLOT_BYTES * n from the context's address.
"""

from __future__ import annotations

from typing import Final

from spec.abi import SLOT_BYTES

__all__ = ["COOKIE_INDEX", "COUNT_BITS", "FUNCTION_IP", "INDEX_BITS", "IS_RETURN", "META"]

META: Final = -SLOT_BYTES
"""The offset of ctx[-1]: the number of slots and, where there are sessions, what follows here."""

FUNCTION_IP: Final = -2 * SLOT_BYTES
"""The offset of ctx[-2], which is the function's address."""

COUNT_BITS: Final = 8
"""The low bits of ctx[-1] that are the number of slots."""

COOKIE_INDEX: Final = 8
INDEX_BITS: Final = 8
"""A session's cookie is as many words below the context as INDEX_BITS bits of ctx[-1], from COOKIE_INDEX on, say."""

IS_RETURN: Final = 63
"""The bit that is set when a session runs at the return."""
