"""Tools of this machine: where they are, how they are run, and what is said when one is missing or fails."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from spec.errors import BadInputError

__all__ = ["PACKAGES", "find", "run"]

# the package of each tool, but of an architecture's emulator
PACKAGES = {
    "apt-cache": "apt",
    "apt-config": "apt",
    "apt-get": "apt",
    "bc": "bc",
    "bison": "bison",
    "dpkg-deb": "dpkg",
    "flex": "flex",
    "gcc": "gcc libc6-dev",
    "ldd": "libc-bin",
    "make": "make",
    "objcopy": "binutils",
    "pahole": "dwarves",
    "qemu-img": "qemu-utils",
    "setpriv": "util-linux",
    "tar": "tar",
    "xz": "xz-utils",
    "zstd": "zstd",
}


def find(tool: str, package: str = "") -> str:
    """The path of a tool; BadInputError says how to install it: from `package`, or from its line in PACKAGES."""
    path = shutil.which(tool)
    if path is None:
        raise BadInputError(f"{tool} is needed and not installed: apt-get install {package or PACKAGES[tool]}")
    return path


def run(
    tool: str,
    arguments: Sequence[str | Path],
    *,
    stdin: bytes = b"",
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
) -> bytes:
    """What a tool prints; its warnings go to stderr. If it fails, its last complaint is part of the sentence."""
    command = [find(tool), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, cwd=cwd, env=env, check=False)  # noqa: S603
    if done.returncode:
        raise BadInputError(f"{tool} failed: {_last_line(done.stderr) or f'exit status {done.returncode}'}")
    sys.stderr.write(done.stderr.decode(errors="replace"))
    return done.stdout


def _last_line(text: bytes) -> str:
    """The last line with anything in it, or nothing."""
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
