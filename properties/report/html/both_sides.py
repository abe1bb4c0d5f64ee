"""Two sides of a divergence as HTML: the words in which they differ are marked."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Final

from markupsafe import Markup, escape

__all__ = ["compare"]

WORD: Final = re.compile(r"\s+|[\w.]+|[^\w\s]")
MOST_WORDS: Final = 1500
"""Longer texts are shown as they are: comparing takes the square of their length."""


def compare(one: str, other: str) -> tuple[Markup, Markup]:
    """Both texts, escaped, what differs inside mark elements."""
    words = WORD.findall(one), WORD.findall(other)
    if max(map(len, words)) > MOST_WORDS:
        return escape(one), escape(other)
    same = SequenceMatcher(None, *words, autojunk=False).get_matching_blocks()
    first = _mark(words[0], [(block.a, block.a + block.size) for block in same])
    second = _mark(words[1], [(block.b, block.b + block.size) for block in same])
    return Markup("").join(first), Markup("").join(second)


def _mark(words: Sequence[str], same: Sequence[tuple[int, int]]) -> Iterator[Markup]:
    """The words, those marked that stand in no block that is the same."""
    done = 0
    for start, end in same:
        differing = "".join(words[done:start])
        if differing.strip():
            yield Markup("<mark>{}</mark>").format(differing)
        else:
            yield escape(differing)
        yield escape("".join(words[start:end]))
        done = end
