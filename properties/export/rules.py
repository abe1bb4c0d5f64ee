"""The rules of spec/README.md as texts with their sources, to be cited where nobody has that file at hand."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import spec

__all__ = ["Rule", "cited_in", "rules", "rules_of"]

RULE = re.compile(r"^- \*\*([A-Z]+-[0-9]+)\*\* (.+) \[([^\[\]]+)\]$", re.MULTILINE)
CITATION = re.compile(r"\b[A-Z]+-[0-9]+\b")


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: its number, its text without marks, and the source that it cites."""

    number: str
    text: str
    source: str


@cache
def rules() -> Mapping[str, Rule]:
    """Every rule by its number, in the order of spec/README.md."""
    text = (Path(spec.__file__).parent / "README.md").read_text(encoding="utf-8")
    return {number: Rule(number, said.replace("`", ""), source) for number, said, source in RULE.findall(text)}


def cited_in(text: str) -> tuple[str, ...]:
    """The rules that a text cites, each once, as it cites them."""
    return tuple(dict.fromkeys(number for number in CITATION.findall(text) if number in rules()))


def rules_of(numbers: Iterable[str]) -> tuple[Rule, ...]:
    """The rules of these numbers."""
    return tuple(rules()[number] for number in numbers)
