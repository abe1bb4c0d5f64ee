"""Compiles massattach.ko and a world's modules against a kernel's headers, and gives them BTF; cached."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from impl.linux.architectures import Architecture
from impl.linux.guest.packages import Kernel
from impl.linux.host import cache, tools
from impl.linux.laboratory.module_btf import add_btf, read_base
from impl.linux.laboratory.sources import functions_of, functions_text, module_text
from spec.errors import BadInputError
from spec.worlds import World

__all__ = ["CORE", "Modules", "build", "tools_for"]

CORE = "massattach"
"""Our module that has the functions of no module."""

# part of the key of cache entries: how the objects are changed after make
LAYOUT = 1
# entries for developers' own kernels, of which only the last are kept: a few worlds for each kernel
OWN, MOST_OWN = "own-modules-", 16
SOURCES = Path(__file__).parent / "module"
MODULE_NAME = re.compile(r"[a-z][a-z0-9_]*\Z")
MEMORY_KIB = 4 << 20
"""The most memory of a build, which takes a tenth of it, as genksyms was seen to take all that there is."""


@dataclass(frozen=True, slots=True)
class Modules:
    """Modules as files, for one kernel.

    massattach is loaded first, others by their names in the world after it. imports: functions of the kernel whose
    addresses are parameters of massattach (`control.parameters`).
    """

    massattach: bytes
    others: Mapping[str, bytes]
    release: str
    imports: tuple[str, ...]


def tools_for(architecture: Architecture) -> tuple[str, ...]:
    """The tools that a build starts."""
    return architecture.compiler, "make", architecture.objcopy, "pahole"


def build(kernel: Kernel, world: World, absent: frozenset[str] = frozenset()) -> Modules:
    """Compile the modules that hold a world's functions; `absent` are those that the kernel has itself.

    BadInputError where a tool or the headers are missing, or where a function cannot be said in C.
    """
    texts = _write_sources(world, absent)
    prefix = OWN if kernel.build else "modules-"
    directory = cache.entry(
        f"{prefix}{_hash_sources(kernel, texts)}", lambda made: _make(kernel, world, absent, texts, made)
    )
    if kernel.build:
        cache.prune(OWN, MOST_OWN, directory)
    massattach = (directory / f"{CORE}.ko").read_bytes()
    others = {name: (directory / f"{name}.ko").read_bytes() for name in world.modules}
    imports = tuple(name.decode() for name in re.findall(rb"\0parmtype=(\w+):ulong", massattach))
    return Modules(massattach, others, kernel.release, imports)


def _write_sources(world: World, absent: frozenset[str]) -> dict[str, str]:
    for name in world.modules:
        if not MODULE_NAME.match(name) or name == CORE:
            raise BadInputError(f"no module of a world can be called {name}: write a C identifier in small letters")
    own = {path.name: path.read_text() for path in sorted(SOURCES.iterdir())}
    modules = {f"functions_{name}.c": module_text(world, name, absent) for name in world.modules}
    return {**own, "functions.c": functions_text(world, None, absent), **modules}


def _hash_sources(kernel: Kernel, texts: Mapping[str, str]) -> str:
    identity = [kernel.name, kernel.release, *([kernel.build] if kernel.build else [])]
    parts = [str(LAYOUT), *identity, *texts, *texts.values()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _make(kernel: Kernel, world: World, absent: frozenset[str], texts: Mapping[str, str], made: Path) -> None:
    if kernel.headers is None:
        raise BadInputError(f"no modules can be compiled for {kernel.name}: its headers are not known")
    for tool in tools_for(kernel.architecture):
        tools.find(tool)
    with tempfile.TemporaryDirectory() as scratch:
        directory = Path(scratch)
        for name, text in texts.items():
            (directory / name).write_text(text)
        _compile(kernel.headers, directory, world.modules, kernel.architecture)
        base = directory / "vmlinux.btf"
        vmlinux = read_base(kernel.vmlinux, base)
        for module in (None, *world.modules):
            ko = directory / f"{module or CORE}.ko"
            add_btf(ko, base, vmlinux, functions_of(world, module, absent), kernel.architecture)
            shutil.copy(ko, made)


def _compile(headers: Path, directory: Path, modules: tuple[str, ...], architecture: Architecture) -> None:
    words = ["-C", str(headers), f"M={directory}", f"MASSATTACH_MODULES={' '.join(modules)}", "modules"]
    # without BTF, for which some packages of headers lack what make needs
    limited = [
        "sh",
        "-c",
        f'ulimit -v {MEMORY_KIB} && exec make "$@"',
        "make",
        "CONFIG_DEBUG_INFO_BTF_MODULES=",
        *architecture.make,
        *words,
    ]
    done = subprocess.run(limited, capture_output=True, text=True, check=False)  # noqa: S603
    if done.returncode:
        complaints = [line for line in done.stderr.splitlines() if "rror" in line] or [f"exit status {done.returncode}"]
        raise BadInputError(f"the modules cannot be compiled: {complaints[0].strip()}")
