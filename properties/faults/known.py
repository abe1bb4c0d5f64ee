"""Findings that are known: what a kernel does wrong under a fault, and stands in spec/DEFECTS.md."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

__all__ = ["KNOWN", "KnownFinding", "defect_of"]


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """operation: the beginning of its line; told: something in the finding's text. Both are regular expressions."""

    defect: str
    operation: str
    told: str


KNOWN: Final[tuple[KnownFinding, ...]] = ()


def defect_of(operation: str, told: str, known: Iterable[KnownFinding] = KNOWN) -> str:
    """The defect that a finding shows; empty if it is none of them."""
    found = (each.defect for each in known if re.match(each.operation, operation) and re.search(each.told, told))
    return next(found, "")
