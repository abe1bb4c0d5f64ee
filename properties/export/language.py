"""C text: values as C spells them, calls of functions, and the environment of the templates."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from textwrap import wrap

import jinja2

__all__ = ["Action", "Invocation", "Raw", "Value", "fold_text", "identifier", "spell", "templates"]

HERE = Path(__file__).parent
ESCAPES = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t"}
LITERAL = 100
LARGEST_INT = 1 << 31
LARGEST_LONG = 1 << 63


@dataclass(frozen=True, slots=True)
class Raw:
    """C text that stands as it is: a constant, or an expression of it."""

    text: str


@dataclass(frozen=True, slots=True)
class Invocation:
    """A call of a function of the runtime, or as a value what it returns."""

    function: str
    arguments: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Action:
    """A step of a seed as C: its line, its text, and the calls that take it."""

    line: int
    text: str
    statements: tuple[Invocation | Raw, ...]


Value = str | int | bool | None | Raw | Invocation
"""A string, a number, NULL, and what stands for itself."""


def spell(value: Value) -> str:
    """A value as C has it. A string of several lines becomes as many literals, each on a line of its own."""
    match value:
        case None:
            return "NULL"
        case bool():
            return "true" if value else "false"
        case int():
            return _spell_number(value)
        case str():
            return _spell_text(value)
        case Raw():
            return value.text
        case Invocation():
            return f"{value.function}({', '.join(map(spell, value.arguments))})"


def identifier(name: str) -> str:
    """A name as part of an identifier."""
    return "".join(letter if letter.isalnum() else "_" for letter in name)


@cache
def templates() -> jinja2.Environment:
    """The templates of this room, in which `c` spells a value."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader([HERE / "templates", HERE / "runtime"]),
        autoescape=False,  # noqa: S701  # what is made is C and plain text
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters |= {"c": spell, "identifier": identifier, "comment": _spell_comment}
    return environment


def _spell_comment(text: str) -> str:
    """A text that ends no comment of C, and begins none."""
    return text.replace("*/", "* /").replace("/*", "/ *")


def _spell_number(value: int) -> str:
    if -LARGEST_INT < value < LARGEST_INT:
        return str(value)
    return f"{value}ll" if -LARGEST_LONG < value < LARGEST_LONG else f"{value % (2 * LARGEST_LONG):#x}ull"


def _spell_text(text: str) -> str:
    pieces = [piece for line in text.splitlines(keepends=True) for piece in _cut(line)] or [""]
    literals = ['"' + "".join(ESCAPES.get(letter, letter) for letter in piece) + '"' for piece in pieces]
    return "\n\t      ".join(literals)


def _cut(line: str) -> Iterator[str]:
    """A line in pieces of about LITERAL letters, cut behind blanks."""
    piece = ""
    for word in line.split(" "):
        if piece and len(piece) + len(word) > LITERAL:
            yield piece
            piece = ""
        piece += f"{word} "
    yield piece[:-1]


def fold_text(text: str, width: int) -> list[str]:
    """A text in lines of a width; a word is never broken."""
    return wrap(text, width, break_long_words=False, break_on_hyphens=False)
