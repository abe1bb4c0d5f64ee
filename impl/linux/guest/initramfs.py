"""An initramfs: files as a cpio archive of the kind newc, which the kernel unpacks at boot (its buffer-format.rst)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import PurePosixPath

__all__ = ["pack"]

DIRECTORY, FILE, DEVICE = 0o040755, 0o100755, 0o020600
CONSOLE = (5, 1)
END = "TRAILER!!!"


def pack(files: Mapping[str, bytes]) -> bytes:
    """An archive of these files by absolute path, all executable, their directories, and /dev/console.

    Without that node, init has no standard output.
    """
    names = {name.strip("/"): content for name, content in files.items()}
    entries = [_pack_entry(name, DIRECTORY) for name in sorted({"dev", *_list_directories(names)})]
    entries.append(_pack_entry("dev/console", DEVICE, device=CONSOLE))
    entries += [_pack_entry(name, FILE, content) for name, content in names.items()]
    return b"".join(entries) + _pack_entry(END, 0)


def _list_directories(names: Mapping[str, bytes]) -> Iterator[str]:
    for name in names:
        yield from (str(parent) for parent in PurePosixPath(name).parents if str(parent) != ".")


def _pack_entry(name: str, mode: int, content: bytes = b"", device: tuple[int, int] = (0, 0)) -> bytes:
    # ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor, rdevmajor, rdevminor, namesize, check
    encoded = name.encode() + b"\0"
    fields = (0, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(encoded), 0)
    header = b"070701" + b"".join(b"%08x" % number for number in fields)
    return _pad(header + encoded) + _pad(content)


def _pad(block: bytes) -> bytes:
    return block + bytes(-len(block) % 4)
