"""The cache directory: an entry is there entirely or not at all, however many processes make it or are interrupted."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from spec.errors import BadInputError

__all__ = ["directory", "entry", "prune"]

RECENT = 3600.0
"""Seconds in which another process may still use what it has found in the cache."""


def directory() -> Path:
    """$XDG_CACHE_HOME/massattach, or ~/.cache/massattach."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "massattach"


def entry(name: str, make: Callable[[Path], None]) -> Path:
    """The directory `name` of the cache. If it is not there, `make` fills an empty directory, which then becomes it."""
    path = directory() / name
    if path.is_dir():
        return path
    try:
        with _lock(name):
            if not path.is_dir():
                _make(path, make)
    except OSError as error:
        raise BadInputError(f"the cache cannot be written: {error.strerror}", error.filename or str(path)) from error
    return path


def prune(prefix: str, most: int, used: Path) -> None:
    """Remove the entries of this prefix that were used longest ago, but for so many and those of the last hour.

    used: the entry that is used now.
    """
    os.utime(used)
    entries = sorted(directory().glob(f"{prefix}*"), key=_last_use, reverse=True)
    for path in entries[most:]:
        if time.time() - _last_use(path) > RECENT:
            shutil.rmtree(path, ignore_errors=True)


def _last_use(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:
        # another process has removed it
        return 0.0


@contextmanager
def _lock(name: str) -> Iterator[None]:
    # the lock ends with the process that holds it, so that its file may stay
    locks = directory() / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    with (locks / name).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _make(path: Path, make: Callable[[Path], None]) -> None:
    # only the holder of the lock makes this entry, so that any leftover is that of a process that died
    for leftover in path.parent.glob(f".{path.name}.*"):
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent, ignore_cleanup_errors=True) as made:
        content = Path(made) / "content"
        content.mkdir()
        make(content)
        content.rename(path)
