"""Whether this machine has what a kernel in a virtual machine needs. Nothing is fetched or started here."""

from __future__ import annotations

import shutil

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest import packages
from impl.linux.host import cache, tools
from impl.linux.laboratory import build
from spec.errors import BadInputError

__all__ = ["is_fetched", "missing_kernel", "missing_tools", "require_tools"]

FETCH = "python -m properties linux --fetch"
TOOLS = (X86_64.qemu, "qemu-img", "setpriv", *build.tools_for(X86_64))
PACKAGES = {**tools.PACKAGES, X86_64.qemu: X86_64.qemu_package}


def missing_tools() -> str:
    """A sentence that names every missing tool and the command that installs them; empty if there is none."""
    absent = [tool for tool in TOOLS if shutil.which(tool) is None]
    if not absent:
        return ""
    wanted = dict.fromkeys(package for tool in absent for package in PACKAGES[tool].split())
    verb = "is" if len(absent) == 1 else "are"
    return f"{', '.join(absent)} {verb} needed and not installed: apt-get install {' '.join(wanted)}"


def is_fetched(name: str) -> bool:
    """Whether the files of one of Debian's kernels are in the cache."""
    return (cache.directory() / f"{name}-{packages.LAYOUT}").is_dir()


def missing_kernel(name: str) -> str:
    """A sentence that says why a kernel cannot be run without fetching anything; empty if it can."""
    return missing_tools() or ("" if is_fetched(name) else f"its files are not in the cache: {FETCH} --kernel {name}")


def require_tools() -> None:
    """BadInputError if a tool is missing."""
    if sentence := missing_tools():
        raise BadInputError(sentence)
