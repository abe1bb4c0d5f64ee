"""Builds a kernel that massattach can use: Debian's newest source, with a fragment of ours."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from impl.linux.guest.configuration import OPTION, fragment
from impl.linux.guest.packages import host_architecture
from impl.linux.host.apt import Apt
from impl.linux.host.tools import find, run
from spec.errors import BadInputError

__all__ = ["BuildError", "build", "configure", "fetch_source", "require_tools", "unmet"]

SUITE: Final = "trixie-backports"
"""Where Debian's newest kernels are, of a release."""

SOURCE: Final = re.compile(r"linux-source-([0-9]+)\.([0-9]+)")
TOOLS: Final = ("make", "gcc", "flex", "bison", "bc", "pahole", "xz", "tar")
HEADERS: Final[Mapping[str, str]] = {"/usr/include/libelf.h": "libelf-dev", "/usr/include/openssl/ssl.h": "libssl-dev"}
"""Headers of what programs of the build link against, and their packages."""
FRAGMENT: Final = "massattach.config"


class BuildError(Exception):
    """The source does not compile; make has said why."""


def require_tools() -> None:
    """BadInputError names a tool or a header that building needs and this machine lacks, and its package."""
    for tool in TOOLS:
        find(tool)
    for header, package in HEADERS.items():
        if not Path(header).exists():
            raise BadInputError(f"{header} is needed and not there: apt-get install {package}")


def fetch_source(directory: Path, tell: Callable[[str], None]) -> Path:
    """The newest source tree in a directory, fetched and unpacked if none is there; what was edited in it stays."""
    there = {tree: version for tree in directory.glob("linux-source-*") if (version := _version(tree.name))}
    if there:
        return max(there, key=lambda tree: there[tree])
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=directory, prefix=".fetched-") as scratch:
        return _unpack(Path(scratch), directory, tell)


def _version(name: str) -> tuple[int, int] | None:
    """Of a source package, or of its tree."""
    match = SOURCE.fullmatch(name)
    return (int(match[1]), int(match[2])) if match else None


def _unpack(scratch: Path, directory: Path, tell: Callable[[str], None]) -> Path:
    apt = Apt(scratch / "apt", host_architecture().debian)
    packages = apt.packages((SUITE,))
    versions = {name: version for name in packages if (version := _version(name))}
    if not versions:
        raise BadInputError(f"the mirror has no linux-source in {SUITE}")
    name = max(versions, key=lambda name: versions[name])
    tell(f"fetching and unpacking {name} {packages[name].version}: 1.8 GB")
    apt.unpack([packages[name]], scratch / "root")
    run("tar", ["-xf", scratch / "root/usr/src" / f"{name}.tar.xz", "-C", scratch])
    tree = directory / name
    (scratch / name).rename(tree)
    return tree


def configure(source: Path, output: Path, *, debug: bool) -> None:
    """Write the .config of a fragment over `make tinyconfig` into output, unless that was done already."""
    wanted, stamp = fragment(debug=debug), output / FRAGMENT
    if (output / ".config").exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return
    output.mkdir(parents=True, exist_ok=True)
    made = stamp.with_suffix(".new")
    made.write_text(wanted, encoding="utf-8")
    make: list[str | Path] = ["-s", "-C", source, f"O={output}"]
    run("make", [*make, "tinyconfig"])
    run(str(source / "scripts/kconfig/merge_config.sh"), ["-m", "-O", output, output / ".config", made])
    run("make", [*make, "olddefconfig"])
    made.rename(stamp)


def unmet(output: Path, *, debug: bool) -> tuple[str, ...]:
    """The options of a fragment that a .config does not have as they were asked for: `NAME=VALUE is n`."""
    has = dict(OPTION.findall((output / ".config").read_text(encoding="utf-8")))
    asked = dict(OPTION.findall(fragment(debug=debug)))
    pairs = ((name, value, has.get(name, "n")) for name, value in asked.items())
    return tuple(f"{name}={value} is {have}" for name, value, have in pairs if have != value)


def build(source: Path, output: Path, jobs: int) -> Path:
    """Make kernel and modules, whose output goes to the user; the kernel. BuildError if something does not compile."""
    image = output / host_architecture().boot_image
    command = [find("make"), "-s", "-C", str(source), f"O={output}", f"-j{jobs}", image.name, "modules"]
    environment = {**os.environ, "KBUILD_BUILD_USER": "massattach", "KBUILD_BUILD_HOST": "localhost"}
    if subprocess.run(command, env=environment, check=False).returncode:  # noqa: S603
        raise BuildError(f"{source} does not compile, as make says above")
    return image
