"""The one way in which bad input is reported: a sentence that names file, line and mistake."""

from __future__ import annotations

__all__ = ["BadInputError", "clip"]

MOST_SHOWN = 100


class BadInputError(Exception):
    """Input that cannot be used. Its text is one sentence; the front door prints it and exits with 2."""

    def __init__(self, mistake: str, file: str | None = None, line: int | None = None) -> None:
        place = f"{file}: " if file and line is None else f"{file}:{line}: " if file else ""
        super().__init__("".join(map(_printable, f"{place}{mistake}")))


def clip(text: str) -> str:
    """Input as an error may quote it: its beginning."""
    return text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}…"


def _printable(letter: str) -> str:
    """The letter as a terminal may get it: errors quote input, which may hold control characters."""
    return letter if letter.isprintable() else ascii(letter)[1:-1]
