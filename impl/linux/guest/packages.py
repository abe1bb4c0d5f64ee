"""Kernels to boot: Debian's, fetched into the cache, or a developer's own files."""

from __future__ import annotations

import hashlib
import platform
import re
import shutil
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from impl.linux.architectures import Architecture
from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest import headers
from impl.linux.guest.configuration import find_options, missing_options
from impl.linux.host import cache
from impl.linux.host.apt import Apt, required
from spec.errors import BadInputError

__all__ = ["Kernel", "fetch", "from_files", "host_architecture", "is_part", "newest", "release_of"]

# part of the name of a cache entry: entries that were unpacked in another way are not looked at
LAYOUT = 1
# entries of developers' own kernels: a rebuilt kernel is another one, and only the last are kept
OWN, MOST_OWN = "files-", 4
# what the build tools of a newer Debian are linked against
LIBRARIES = ("libc6", "libelf1t64", "libssl3t64", "libzstd1", "zlib1g")


@dataclass(frozen=True, slots=True)
class Kernel:
    """The files of one kernel.

    `release` is what `uname -r` prints; `vmlinux` what QEMU boots, an ELF file; `modules` the directory
    lib/modules/RELEASE, or None where all that the guest needs is built in; `headers` a build tree for `make -C`, or
    None. `build` tells kernels of one name and release apart; it is empty where these do. `parameters` are words that
    it is told beside its machine's.
    """

    name: str
    release: str
    vmlinux: Path
    modules: Path | None
    headers: Path | None
    architecture: Architecture
    build: str = ""
    parameters: str = ""


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a kernel is: suites, the pattern of its image's package, and the suite that has newer libraries.

    The pattern's group, together with the architecture that follows it, is the release.
    """

    suites: tuple[str, ...]
    image: str
    library_suite: str
    architecture: Architecture = X86_64

    @property
    def package(self) -> re.Pattern[str]:
        """The pattern of the whole name; its group is the release."""
        return re.compile(rf"linux-(?:image|binary)-({self.image}-{self.architecture.debian})")


SOURCES = {
    "linux-6.1": _Source(("bookworm", "bookworm-security"), r"6\.1\.[0-9]+-[0-9]+", "bookworm"),
    "linux-6.12": _Source(("bookworm-security", "bookworm-backports"), r"6\.12\.[0-9.]+\+deb12", "bookworm"),
    "linux-7.3": _Source(("trixie-backports",), r"7\.[0-9.]+\+deb13", "trixie"),
}


def fetch(name: str) -> Kernel:
    """One of Debian's kernels by the name of its semantics: the newest when it was fetched into the cache.

    Progress goes to stderr.
    """
    if name not in SOURCES:
        raise BadInputError(f"{name} is no kernel that can be fetched: write one of {', '.join(SOURCES)}")
    source = SOURCES[name]
    directory = cache.entry(f"{name}-{LAYOUT}", lambda made: _make(name, source, made))
    release = (directory / "release").read_text()
    headers_tree = directory / "root/usr/src" / f"linux-headers-{release}"
    modules = _find_modules(directory / "root", release)
    return Kernel(name, release, directory / "vmlinux", modules, headers_tree, source.architecture)


def from_files(bzimage: Path, modules: Path | None) -> Kernel:
    """A developer's own kernel: a bzImage, or an ELF file; `modules` is its lib/modules/RELEASE, if it has modules.

    Its headers are the tree that it was built in, where that is still there. BadInputError names the options that it
    lacks, if its configuration is known.
    """
    try:
        image = bzimage.read_bytes()
    except OSError as error:
        raise BadInputError(f"the kernel cannot be read: {error.strerror}", str(bzimage)) from error
    key = hashlib.sha256(image).hexdigest()[:16]
    directory = cache.entry(f"{OWN}{key}", lambda made: _unpack(image, str(bzimage), made, X86_64))
    cache.prune(OWN, MOST_OWN, directory)
    elf = directory / "vmlinux"
    content = elf.read_bytes()
    release = release_of(content, str(bzimage))
    build = _find_build(bzimage.resolve(), modules)
    files = [bzimage.with_name(f"config-{release}"), *([build / ".config"] if build else [])]
    _check_options(content, bzimage, files, modules)
    return Kernel(bzimage.name, release, elf, modules, build, X86_64, key)


def _check_options(vmlinux: bytes, bzimage: Path, files: Iterable[Path], modules: Path | None) -> None:
    """BadInputError names every needed option that a kernel lacks."""
    options = find_options(vmlinux, *files)
    missing = missing_options(options, modules=modules is not None) if options is not None else ()
    if missing:
        lacks = f"the kernel was built without {', '.join(missing)}"
        raise BadInputError(f"{lacks}: `massattach linux --config` prints a fragment that has all", str(bzimage))


def host_architecture() -> Architecture:
    """The architecture of this machine; BadInputError if nothing is known of it."""
    if platform.machine() != X86_64.name:
        raise BadInputError(f"this machine is {platform.machine()}, and only the code of {X86_64.name} is known")
    return X86_64


def _find_build(bzimage: Path, modules: Path | None) -> Path | None:
    """Where a kernel was built: what its modules say, or the tree in whose arch/ARCH/boot it lies."""
    places = [modules / "build"] if modules else []
    places += list(bzimage.parents)[3:4]
    return next((place.resolve() for place in places if (place / "Module.symvers").exists()), None)


def newest(names: Iterable[str], pattern: re.Pattern[str]) -> str | None:
    """The newest release among the packages that a pattern matches, by the numbers in it."""
    releases = [match[1] for name in names if (match := pattern.fullmatch(name))]
    return max(releases, key=lambda release: [int(number) for number in re.findall(r"[0-9]+", release)], default=None)


def release_of(kernel: bytes, name: str) -> str:
    """What `uname -r` prints, from the kernel's banner. name: for the error."""
    banner = re.search(rb"Linux version ([!-~]+) \(", kernel)
    if banner is None:
        raise BadInputError("there is no `Linux version` in the kernel", name)
    return banner[1].decode()


def is_part(name: str) -> bool:
    """Whether a package belongs to one release of the kernel."""
    return name.startswith("linux-") and re.search("[0-9]", name) is not None


def _make(name: str, source: _Source, made: Path) -> None:
    scratch = made / "apt"
    apt = Apt(scratch, source.architecture.debian)
    _say(f"{name}: looking for the newest release")
    packages = apt.packages(source.suites)
    release = newest(packages, source.package)
    if release is None:
        raise BadInputError(f"the mirror has no package for {name} in {', '.join(source.suites)}")
    parts = [f"linux-{part}-{release}" for part in ("image", "binary", "modules", "headers")]
    _say(f"{name}: fetching {release}")
    apt.unpack(required(packages, parts, is_part), made / "root")
    _unpack_image(made, release, source.architecture)
    _prepare_headers(apt, source, made / "root", release)
    shutil.rmtree(scratch)
    _say(f"{name}: ready")


def _unpack(image: bytes, name: str, made: Path, architecture: Architecture) -> None:
    (made / "vmlinux").write_bytes(architecture.unpack_kernel(image, name))


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _unpack_image(made: Path, release: str, architecture: Architecture) -> None:
    root = made / "root"
    paths = [root / "boot" / f"vmlinuz-{release}", root / "usr/lib/modules" / release / "vmlinuz"]
    image = next(path for path in paths if path.exists())
    _unpack(image.read_bytes(), str(image), made, architecture)
    (made / "release").write_text(release)


def _prepare_headers(apt: Apt, source: _Source, root: Path, release: str) -> None:
    headers.prepare(root, release)
    tools = headers.needs_newer_libraries(root)
    if tools:
        packages = apt.packages([source.library_suite])
        apt.unpack([packages[name] for name in LIBRARIES if name in packages], root)
        headers.use_libraries(root, tools, source.architecture)


def _find_modules(root: Path, release: str) -> Path:
    path = root / "lib/modules" / release
    return path if path.exists() else root / "usr/lib/modules" / release
