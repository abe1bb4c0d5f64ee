"""The drivers that a guest loads before its agent can talk: kernel modules, in the order of their dependencies."""

from __future__ import annotations

import gzip
import lzma
import re
from collections.abc import Callable, Mapping
from pathlib import Path

from impl.linux.host.tools import run
from spec.errors import BadInputError

__all__ = ["load_order"]

PACKED: Mapping[str, Callable[[bytes], bytes]] = {
    "": bytes,
    ".gz": gzip.decompress,
    ".xz": lzma.decompress,
    ".zst": lambda packed: run("zstd", ["-dc"], stdin=packed),
}


def load_order(directory: Path, names: tuple[str, ...]) -> list[bytes]:
    """The modules of these names and all that they depend on, in an order in which they load; no built-in ones."""
    builtin = _read_list(directory, "modules.builtin")
    files = _read_list(directory, "modules.order")
    ordered: dict[str, bytes] = {}

    def visit(name: str) -> None:
        if name in ordered or name in builtin:
            return
        if name not in files:
            raise BadInputError(f"neither a module nor built in: {name}", str(directory))
        content = _read(directory, files[name])
        for dependency in _read_dependencies(content):
            visit(dependency)
        ordered[name] = content

    for name in names:
        visit(name)
    return list(ordered.values())


def _read_dependencies(module: bytes) -> list[str]:
    """What a module's own .modinfo says that it depends on."""
    found = re.search(rb"\0depends=([!-~]*)\0", module)
    return [name.replace("-", "_") for name in found[1].decode().split(",") if name] if found else []


def _read_list(directory: Path, listing: str) -> dict[str, str]:
    path = directory / listing
    if not path.exists():
        raise BadInputError(f"there is no {listing}: write the kernel's directory lib/modules/RELEASE", str(directory))
    lines = path.read_text().split()
    return {Path(line).name.partition(".")[0].replace("-", "_"): line for line in lines}


def _read(directory: Path, name: str) -> bytes:
    for suffix, unpack in PACKED.items():
        path = directory / f"{name}{suffix}"
        if path.exists():
            return unpack(path.read_bytes())
    raise BadInputError(f"listed in modules.order and not there: {name}", str(directory))
