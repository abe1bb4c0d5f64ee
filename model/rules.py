"""Citing the rules of spec/README.md, so that a run can tell which of them it reached."""

from __future__ import annotations

from collections import Counter
from contextvars import ContextVar

__all__ = ["CITATIONS", "Citations", "cite"]


class Citations:
    """What has been cited: totals, and the rules of the operation under way, in order and each once."""

    def __init__(self) -> None:
        self.totals: Counter[str] = Counter()
        self.current: dict[str, None] = {}

    def begin(self) -> None:
        """Start the next operation."""
        self.current = {}

    def add(self, rules: tuple[str, ...]) -> None:
        """Count each rule for the operation under way, however often it is cited."""
        for rule in rules:
            if rule not in self.current:
                self.current[rule] = None
                self.totals[rule] += 1


CITATIONS: ContextVar[Citations] = ContextVar("CITATIONS")


def cite(*rules: str) -> None:
    """These rules decided what happens here."""
    CITATIONS.get().add(rules)
