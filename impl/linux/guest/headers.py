"""Adapts Debian's kernel headers, which were not installed, so that `make -C HEADERS M=DIRECTORY modules` works.

Three things stand in the way: absolute paths in their Makefile; tools (modpost, objtool) that were linked against a
newer C library than the machine has; and a configuration that names the compiler and the pahole of their build.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from impl.linux.architectures import Architecture
from impl.linux.host.tools import find

__all__ = ["needs_newer_libraries", "prepare", "use_libraries"]

WRAPPER = """#!/bin/sh
here=$(dirname "$(readlink -f "$0")")
libraries=$here/{libraries}
exec "$libraries/{loader}" --library-path "$libraries" "$here/{tool}" "$@"
"""


def prepare(root: Path, release: str) -> Path:
    """Adapt the headers in a tree of unpacked packages; the tree may be moved afterwards."""
    headers = root / "usr/src" / f"linux-headers-{release}"
    _make_relative(headers / "Makefile")
    _choose_compiler(headers)
    _choose_pahole(headers)
    return headers


def needs_newer_libraries(root: Path) -> list[Path]:
    """The build tools in the tree that do not start on this machine."""
    return [tool for tool in _list_tools(root) if b"not found" in _ldd(tool)]


def use_libraries(root: Path, tools: list[Path], architecture: Architecture) -> None:
    """Make these tools start with the C library that was unpacked into the same tree; architecture: this machine's."""
    loader = Path(architecture.loader).name
    for tool in tools:
        program = tool.rename(tool.with_name(f"{tool.name}.bin"))
        up = "/".join([".."] * len(tool.parent.relative_to(root).parts))
        tool.write_text(
            WRAPPER.format(libraries=f"{up}/usr/lib/{architecture.multiarch}", loader=loader, tool=program.name)
        )
        tool.chmod(0o755)


def _list_tools(root: Path) -> Iterator[Path]:
    for directory in sorted((root / "usr/lib").glob("linux-kbuild-*")):
        for path in sorted(directory.rglob("*")):
            if path.is_file() and not path.is_symlink() and _is_elf(path):
                yield path


def _is_elf(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


def _ldd(tool: Path) -> bytes:
    done = subprocess.run([find("ldd"), tool], capture_output=True, check=False)  # noqa: S603
    return done.stdout + done.stderr


def _make_relative(makefile: Path) -> None:
    # kbuild's makefiles find their sources from where they are themselves, and are included again from elsewhere
    here = "$(dir $(realpath $(lastword $(MAKEFILE_LIST))))"
    text = makefile.read_text()
    lines = [f"here := {here}", *text.replace("/usr/src/", "$(here)../").splitlines()]
    makefile.write_text("\n".join(lines) + "\n")


def _choose_compiler(headers: Path) -> None:
    """Use the compiler of the build if it is here, else this machine's, without the options that it does not know."""
    variables = headers / ".kernelvariables"
    compiler = re.search(r"\)(gcc-[0-9]+)$", variables.read_text(), re.MULTILINE)
    if compiler is None or shutil.which(compiler[1]):
        return
    variables.write_text(variables.read_text().replace(compiler[0], ")gcc"))
    if not _accepts("-fmin-function-alignment=16"):
        _configure(headers, "CC_HAS_MIN_FUNCTION_ALIGNMENT", None)


def _accepts(option: str) -> bool:
    command = [find("gcc"), option, "-E", "-x", "c", "/dev/null"]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0  # noqa: S603


def _choose_pahole(headers: Path) -> None:
    """Use pahole with the options of this machine's version; without it, make gives modules no BTF."""
    pahole = shutil.which("pahole")
    if pahole is None:
        _configure(headers, "DEBUG_INFO_BTF_MODULES", None)
        return
    printed = subprocess.run([pahole, "--version"], capture_output=True, text=True, check=True).stdout  # noqa: S603
    _configure(headers, "PAHOLE_VERSION", printed.strip().removeprefix("v").replace(".", ""))


def _configure(headers: Path, name: str, value: str | None) -> None:
    """Set a value of the configuration as make reads it, or with None remove it."""
    path = headers / "include/config/auto.conf"
    line = f"CONFIG_{name}={value}\n" if value else ""
    path.write_text(re.sub(rf"^CONFIG_{name}=.*\n", line, path.read_text(), flags=re.MULTILINE))
