"""Valid texts with random edits."""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies.drawing import pick

__all__ = ["mutated"]

PIECES = tuple("->;-> 0;-> -EBUSY WARN;#;---;world;semantics;fail alloc;foo1:1;a=b;0x;-1;*;\x00;\u2028;é; ".split(";"))


@st.composite
def mutated(draw: DrawFn, text: str) -> str:
    """The text after one to four edits: lines or stretches dropped, doubled, swapped, or something put in."""
    for _ in range(draw(st.integers(1, 4))):
        edit = pick(draw, (_drop, _double, _insert, _swap_lines))
        text = edit(draw, text)
    return text


def _stretch(draw: DrawFn, text: str) -> tuple[int, int]:
    start = draw(st.integers(0, len(text)))
    return start, min(len(text), start + draw(st.integers(1, 12)))


def _drop(draw: DrawFn, text: str) -> str:
    start, end = _stretch(draw, text)
    return text[:start] + text[end:]


def _double(draw: DrawFn, text: str) -> str:
    start, end = _stretch(draw, text)
    return text[:end] + text[start:]


def _insert(draw: DrawFn, text: str) -> str:
    start, _ = _stretch(draw, text)
    return text[:start] + draw(st.sampled_from(PIECES) | st.text(max_size=4)) + text[start:]


def _swap_lines(draw: DrawFn, text: str) -> str:
    lines = text.split("\n")
    first, second = draw(st.integers(0, len(lines) - 1)), draw(st.integers(0, len(lines) - 1))
    lines[first], lines[second] = lines[second], lines[first]
    return "\n".join(lines)
