"""The guest's /init: a static program in C, compiled here once for every version of its source.

Its own descriptors are 0 to 4 (console, channel, /proc/kcore); close_range from 5 on drops what batches have opened.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from impl.linux.guest import cache
from impl.linux.guest.tools import run

__all__ = ["build"]

SOURCE = Path(__file__).with_name("agent.c")
FLAGS = ("-static", "-O2", "-Wall", "-s")


def build() -> bytes:
    """The program."""
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join(FLAGS).encode()).hexdigest()[:16]
    return cache.entry(f"agent-{key}", _compile).joinpath("agent").read_bytes()


def _compile(directory: Path) -> None:
    run("gcc", [*FLAGS, "-o", directory / "agent", SOURCE])
