"""A table as a value: its headings and lines, and nothing of how it is shown."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Column", "Grid", "Line"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column. right: it is aligned to the right. wrap: where a long cell is broken; `fold` breaks words, too."""

    heading: str
    right: bool = False
    wrap: Literal["words", "fold", "never"] = "words"


@dataclass(frozen=True, slots=True)
class Line:
    """A line, one cell for each column, which may be left out at its end. new_section: a rule is drawn above it."""

    cells: tuple[str, ...]
    style: str = ""
    new_section: bool = False


@dataclass(frozen=True, slots=True)
class Grid:
    """A table. centred: its title is."""

    title: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    centred: bool = False
