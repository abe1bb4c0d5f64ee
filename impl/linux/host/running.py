"""The kernel that runs on this machine: its files, and its memory as /proc/kcore shows it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from spec.errors import BadInputError

__all__ = ["RunningKernel"]

KCORE = Path("/proc/kcore")
TRACEFS = "/sys/kernel/tracing"


class RunningKernel:
    """Reads what root may read."""

    def read(self, *paths: str) -> list[bytes]:
        """The content of files; BadInputError if one cannot be read."""
        return [_read_file(path) for path in paths]

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The kernel's memory at each address and of each length; no bytes where it cannot be read."""
        try:
            return list(_read_kcore(places))
        except (OSError, ELFError):
            return [b""] * len(places)


def _read_file(path: str) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise BadInputError(f"{path} cannot be read: {error.strerror}{_hint(path)}") from error


def _hint(path: str) -> str:
    if os.geteuid():
        return "; run this as root"
    return f"; mount -t tracefs nodev {TRACEFS}" if path.startswith(TRACEFS) else ""


def _read_kcore(places: Sequence[tuple[int, int]]) -> Iterator[bytes]:
    with KCORE.open("rb") as file:
        segments = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD")]
        for address, length in places:
            offset = next(
                (
                    one["p_offset"] + address - one["p_vaddr"]
                    for one in segments
                    if one["p_vaddr"] <= address < one["p_vaddr"] + one["p_memsz"]
                ),
                None,
            )
            yield b"" if offset is None else os.pread(file.fileno(), length, offset)
