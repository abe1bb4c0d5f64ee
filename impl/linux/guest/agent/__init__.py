"""The guest's /init, a static program in C, which is compiled here once for every version of its source.

Its own descriptors are 0 to 4 (console, channel, /proc/kcore); those from 5 on are what batches have opened.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from impl.linux.architectures import Architecture
from impl.linux.host import cache
from impl.linux.host.tools import run

__all__ = ["build"]

UNITS = tuple(Path(__file__).with_name(name) for name in ("agent.c", "threads.c"))
HEADER = Path(__file__).with_name("threads.h")
FLAGS = ("-static", "-pthread", "-O2", "-Wall", "-s")


def build(architecture: Architecture) -> bytes:
    """The program."""
    texts = b"\0".join(source.read_bytes() for source in (*UNITS, HEADER))
    key = hashlib.sha256(texts + " ".join((architecture.name, *FLAGS)).encode()).hexdigest()[:16]
    return cache.entry(f"agent-{key}", lambda made: _compile(architecture, made)).joinpath("agent").read_bytes()


def _compile(architecture: Architecture, directory: Path) -> None:
    run(architecture.compiler, [*FLAGS, "-o", directory / "agent", *UNITS])
