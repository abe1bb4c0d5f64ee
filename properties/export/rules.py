"""The rules of spec/README.md as texts with their sources, to be cited where nobody has that file at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache

from spec import documents
from spec.documents import Rule

__all__ = ["cited_in", "rules", "rules_of"]

CITATION = re.compile(r"\b[A-Z]+-[0-9]+\b")


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its number, in the order of spec/README.md, without marks."""
    return {rule.id: replace(rule, text=rule.text.replace("`", "")) for rule in documents.rules()}


def cited_in(text: str) -> tuple[str, ...]:
    """The rules that a text cites, each once, as it cites them."""
    return tuple(dict.fromkeys(number for number in CITATION.findall(text) if number in rules()))


def rules_of(numbers: Iterable[str]) -> tuple[Rule, ...]:
    """The rules of these numbers."""
    return tuple(rules()[number] for number in numbers)
