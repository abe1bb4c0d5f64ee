"""How records are written: a file is there whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import msgspec

from spec.errors import BadInputError
from spec.reading import encode

__all__ = ["make_directory", "write_lines", "write_record", "write_whole"]


def make_directory(path: Path) -> None:
    """Make a directory, and those above it, if it is missing; BadInputError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInputError(f"is no directory, and cannot be made: {error.strerror}", str(path)) from error


def write_record(record: object, path: Path) -> None:
    """Write a record as JSON; the file is there whole or not at all."""
    write_whole(msgspec.json.format(encode(record), indent=1) + b"\n", path)


def write_lines(records: Iterable[object], path: Path) -> None:
    """Write records as lines of JSON, into a directory that is made: whole or not at all."""
    make_directory(path.parent)
    write_whole(b"".join(encode(record) + b"\n" for record in records), path)


def write_whole(content: bytes, path: Path) -> None:
    """Write a file under another name, and rename it; BadInputError if that cannot be done.

    What is there and no file, such as a pipe or /dev/stdout, is written as it is, and not replaced by a file.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)
        else:
            _replace(path.resolve(), content)
    except OSError as error:
        raise BadInputError(f"cannot be written: {error.strerror}", str(path)) from error


def _replace(path: Path, content: bytes) -> None:
    unfinished = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.rename(path)
    except OSError:
        with suppress(OSError):
            unfinished.unlink()
        raise
