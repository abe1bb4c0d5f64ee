"""Writes files: each is there entirely or as it was before."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from spec.errors import BadInputError

__all__ = ["write_files"]


def write_files(directory: Path, files: Mapping[str, str]) -> None:
    """Write texts to paths below a directory, which are made if they are missing; BadInputError if that fails."""
    try:
        for name, text in files.items():
            path = directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            temporary = path.with_name(f".{path.name}.new")
            temporary.write_text(text, encoding="utf-8")
            temporary.rename(path)
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", error.filename or str(directory)) from error
