"""What a seed file says of itself: the comment at its head."""

from __future__ import annotations

from itertools import takewhile
from pathlib import Path

from spec.errors import BadInputError

__all__ = ["about"]


def about(path: Path) -> str:
    """The comment before the first line of a seed, as one paragraph; empty if there is none."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BadInputError("cannot be read as UTF-8 text", str(path)) from error
    head = takewhile(lambda line: line.startswith("#"), lines)
    return " ".join(" ".join(line.removeprefix("#") for line in head).split())
