"""Kernels to boot: Debian's, fetched into the cache, or a developer's own files."""

from __future__ import annotations

import hashlib
import re
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from impl.linux.guest import cache, headers, vmlinux
from impl.linux.guest.apt import Apt, Package
from spec.errors import BadInputError

__all__ = ["Kernel", "fetch", "from_files", "newest", "required"]

# part of a cache entry's name: what was unpacked in another way is not looked at
LAYOUT = 1
# what the build tools of a newer Debian are linked against
LIBRARIES = ("libc6", "libelf1t64", "libssl3t64", "libzstd1", "zlib1g")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The files of one kernel.

    `release` is what `uname -r` prints; `vmlinux` an ELF file; `modules` the directory lib/modules/RELEASE, or None
    where all that the guest needs is built in; `headers` a build tree for `make -C`, or None.
    """

    name: str
    release: str
    vmlinux: Path
    modules: Path | None
    headers: Path | None


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a kernel is: suites, the pattern of its image's package with the release, and where newer libraries are."""

    suites: tuple[str, ...]
    image: re.Pattern[str]
    library_suite: str


IMAGE_6_1 = re.compile(r"linux-image-(6\.1\.[0-9]+-[0-9]+-amd64)")
IMAGE_6_12 = re.compile(r"linux-image-(6\.12\.[0-9.]+\+deb12-amd64)")
IMAGE_7 = re.compile(r"linux-binary-(7\.[0-9.]+\+deb13-amd64)")
SOURCES = {
    "linux-6.1": _Source(("bookworm", "bookworm-security"), IMAGE_6_1, "bookworm"),
    "linux-6.12": _Source(("bookworm-security", "bookworm-backports"), IMAGE_6_12, "bookworm"),
    "linux-7.3": _Source(("trixie-backports",), IMAGE_7, "trixie"),
}


def fetch(name: str) -> Kernel:
    """One of Debian's kernels by the name of its semantics: the newest when it was fetched into the cache.

    Progress goes to stderr.
    """
    if name not in SOURCES:
        raise BadInputError(f"{name} is no kernel that can be fetched: write one of {', '.join(SOURCES)}")
    directory = cache.entry(f"{name}-{LAYOUT}", lambda made: _make(name, SOURCES[name], made))
    release = (directory / "release").read_text()
    headers_tree = directory / "root/usr/src" / f"linux-headers-{release}"
    return Kernel(name, release, directory / "vmlinux", _modules(directory / "root", release), headers_tree)


def from_files(bzimage: Path, modules: Path | None) -> Kernel:
    """A developer's own kernel: a bzImage, or an ELF file; `modules` is its lib/modules/RELEASE, if it has modules.

    Its headers are the tree that it was built in, where that is still there.
    """
    try:
        image = bzimage.read_bytes()
    except OSError as error:
        raise BadInputError(f"the kernel cannot be read: {error.strerror}", str(bzimage)) from error
    key = hashlib.sha256(image).hexdigest()[:16]
    elf = cache.entry(f"files-{key}", lambda made: _keep_elf(made, image, str(bzimage))) / "vmlinux"
    release = vmlinux.release_of(elf.read_bytes(), str(bzimage))
    return Kernel(bzimage.name, release, elf, modules, _build_tree(bzimage.resolve(), modules))


def _build_tree(bzimage: Path, modules: Path | None) -> Path | None:
    """Where a kernel was built: what its modules say, or what arch/x86/boot/bzImage lies in."""
    places = [modules / "build"] if modules else []
    places += list(bzimage.parents)[3:4]
    return next((place.resolve() for place in places if (place / "Module.symvers").exists()), None)


def newest(names: Iterable[str], pattern: re.Pattern[str]) -> str | None:
    """The newest release among the packages that a pattern matches, by the numbers in it."""
    releases = [match[1] for name in names if (match := pattern.fullmatch(name))]
    return max(releases, key=lambda release: [int(number) for number in re.findall(r"[0-9]+", release)], default=None)


def required(packages: Mapping[str, Package], names: Sequence[str]) -> list[Package]:
    """These packages and what they depend on, as far as that belongs to the kernel."""
    wanted: dict[str, Package] = {}
    waiting = list(names)
    while waiting:
        name = waiting.pop()
        if name in packages and name not in wanted and name.startswith("linux-") and re.search("[0-9]", name):
            wanted[name] = packages[name]
            waiting += packages[name].depends
    return list(wanted.values())


def _make(name: str, source: _Source, made: Path) -> None:
    scratch = made / "apt"
    apt = Apt(scratch)
    _say(f"{name}: looking for the newest release")
    packages = apt.packages(source.suites)
    release = newest(packages, source.image)
    if release is None:
        raise BadInputError(f"the mirror has no package for {name} in {', '.join(source.suites)}")
    parts = [f"linux-{part}-{release}" for part in ("image", "binary", "modules", "headers")]
    _say(f"{name}: fetching {release}")
    apt.unpack(required(packages, parts), made / "root")
    _unpack_image(made, release)
    _prepare_headers(apt, source, made / "root", release)
    shutil.rmtree(scratch)
    _say(f"{name}: ready")


def _keep_elf(made: Path, image: bytes, name: str) -> None:
    (made / "vmlinux").write_bytes(vmlinux.extract(image, name))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _unpack_image(made: Path, release: str) -> None:
    root = made / "root"
    paths = [root / "boot" / f"vmlinuz-{release}", root / "usr/lib/modules" / release / "vmlinuz"]
    image = next(path for path in paths if path.exists())
    (made / "vmlinux").write_bytes(vmlinux.extract(image.read_bytes(), str(image)))
    (made / "release").write_text(release)


def _prepare_headers(apt: Apt, source: _Source, root: Path, release: str) -> None:
    headers.prepare(root, release)
    tools = headers.needs_newer_libraries(root)
    if tools:
        packages = apt.packages([source.library_suite])
        apt.unpack([packages[name] for name in LIBRARIES if name in packages], root)
        headers.use_libraries(root, tools)


def _modules(root: Path, release: str) -> Path:
    path = root / "lib/modules" / release
    return path if path.exists() else root / "usr/lib/modules" / release
