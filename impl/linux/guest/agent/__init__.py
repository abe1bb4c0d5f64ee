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

SOURCE = Path(__file__).with_name("agent.c")
FLAGS = ("-static", "-O2", "-Wall", "-s")


def build(architecture: Architecture) -> bytes:
    """The program."""
    key = hashlib.sha256(SOURCE.read_bytes() + " ".join((architecture.name, *FLAGS)).encode()).hexdigest()[:16]
    return cache.entry(f"agent-{key}", lambda made: _compile(architecture, made)).joinpath("agent").read_bytes()


def _compile(architecture: Architecture, directory: Path) -> None:
    run(architecture.compiler, [*FLAGS, "-o", directory / "agent", SOURCE])
