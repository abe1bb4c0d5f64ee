"""Temporary directories of running guests, private to the user; those of processes that were killed are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from spec.errors import BadInputError

__all__ = ["RunDirectory"]


class RunDirectory:
    """A directory that lives until `remove`. It is locked while its owner lives, however that ends."""

    def __init__(self) -> None:
        parent = _make_private(Path(tempfile.gettempdir()) / f"massattach-{os.getuid()}")
        # a directory that is not locked yet would look like one of a process that died
        with _lock(parent):
            _remove_orphans(parent)
            self.path = Path(tempfile.mkdtemp(dir=parent))
            self._descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)

    def remove(self) -> None:
        """Remove it and all that is in it."""
        shutil.rmtree(self.path, ignore_errors=True)
        os.close(self._descriptor)


def _make_private(path: Path) -> Path:
    path.mkdir(mode=0o700, exist_ok=True)
    status = path.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise BadInputError("the directory for running machines must be yours, with permissions 700", str(path))
    return path


@contextmanager
def _lock(directory: Path, wait: int = 0) -> Iterator[None]:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | wait)
        yield
    finally:
        os.close(descriptor)


def _remove_orphans(parent: Path) -> None:
    for path in parent.iterdir():
        # its owner may be removing it, or may be alive
        with suppress(FileNotFoundError, BlockingIOError), _lock(path, fcntl.LOCK_NB):
            shutil.rmtree(path, ignore_errors=True)
