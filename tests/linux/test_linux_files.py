"""The parts of impl/linux that need no virtual machine: archives, frames, package lists, the cache, missing tools."""

from __future__ import annotations

import gzip
import lzma
import os
import shutil
import struct
import subprocess
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.guest import agent, configuration, headers, packages
from impl.linux.guest.batch import ENTRY, HEADER, OUT, POINTER, REF, Batch, Out, Ref, Reply, Struct, parse_replies
from impl.linux.guest.drivers import load_order
from impl.linux.guest.guest import boot
from impl.linux.guest.initramfs import pack
from impl.linux.guest.packages import from_files, is_part, newest, release_of
from impl.linux.guest.qemu import Qemu, Setup
from impl.linux.host import cache, run_directory, tools
from impl.linux.host.apt import Mirrors, Package, find_mirrors, parse_packages, parse_uris, required
from spec.errors import BadInputError

BANNER = b"\x7fELF...Linux version 7.9.1-mine (me@here) (gcc) #1"


@pytest.fixture(autouse=True)
def _own_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache-home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))


# archives


def unpacked(archive: bytes) -> dict[str, tuple[int, tuple[int, int], bytes]]:
    """Name -> mode, device, content, by the format's description."""
    entries = {}
    while True:
        assert b"070701" == archive[:6]
        fields = [int(archive[6 + 8 * place : 14 + 8 * place], 16) for place in range(13)]
        name = archive[110 : 110 + fields[11] - 1].decode()
        start = (110 + fields[11] + 3) // 4 * 4
        end = start + fields[6]
        entries[name] = (fields[1], (fields[9], fields[10]), archive[start:end])
        archive = archive[(end + 3) // 4 * 4 :]
        if name == "TRAILER!!!":
            assert not archive
            return entries


def test_an_archive_holds_its_files_directories_and_the_console() -> None:
    """Every directory comes before what is in it, and /dev/console is a character device 5:1."""
    entries = unpacked(pack({"/init": b"program", "/a/b/c": b"", "/a/d": b"12345"}))

    assert ["a", "a/b", "dev", "dev/console", "init", "a/b/c", "a/d", "TRAILER!!!"] == list(entries)
    assert (0o040755, (0, 0), b"") == entries["a/b"]
    assert (0o020600, (5, 1), b"") == entries["dev/console"]
    assert (0o100755, (0, 0), b"12345") == entries["a/d"]


# frames

BASE = 0x10000


def placed(frame: bytes) -> tuple[bytearray, list[tuple[int, ...]], list[tuple[int, ...]], list[tuple[int, ...]]]:
    """The memory of a frame at BASE with its pointers stored, then its entries, refs and outs."""
    _, sent, size, *counts, _ = HEADER.unpack_from(frame)
    assert len(frame) == sent
    tables = []
    at = HEADER.size
    for row, count in zip((ENTRY, POINTER, REF, OUT), counts, strict=True):
        tables.append([row.unpack_from(frame, at + row.size * place) for place in range(count)])
        at += row.size * count
    memory = bytearray(frame.ljust(size, b"\0"))
    for place, target in tables[1]:
        struct.pack_into("<Q", memory, place, BASE + target)
    entries = [ENTRY.unpack_from(memory, HEADER.size + ENTRY.size * place) for place in range(counts[0])]
    assert not any(thread or idle or unused for _, thread, idle, unused, *_ in entries)
    return memory, [(kind, *rest) for kind, _, _, _, *rest in entries], tables[2], tables[3]


def at(memory: bytearray, address: int, size: int) -> bytes:
    """What is at an address."""
    return bytes(memory[address - BASE : address - BASE + size])


def test_a_system_call_has_its_numbers_and_the_addresses_of_its_buffers() -> None:
    """An integer is passed as it is, modulo 2^64; bytes and output buffers by address, the latter zero and not sent."""
    batch = Batch()

    assert 0 == batch.syscall("openat", -100, b"/path\0", Out(4096))

    memory, [entry], _, outs = placed(batch.encode(X86_64.syscalls))
    assert (0, 257, 2**64 - 100) == entry[:3]
    assert b"/path\0" == at(memory, entry[3], 6)
    assert bytes(4096) == at(memory, entry[4], 4096)
    assert [(0, entry[4] - BASE, 4096)] == outs
    assert len(batch.encode(X86_64.syscalls)) < 4096


def test_a_struct_points_to_its_members() -> None:
    """The address of each pointer's target is stored at its offset, at any depth; with `out` the struct is returned."""
    inner = Struct(bytes(16), {8: b"deep"})
    batch = Batch()
    batch.syscall("bpf", 5, Struct(b"\x01" * 32, {8: inner, 24: Out(3)}, out=True), 32)

    memory, [entry], _, outs = placed(batch.encode(X86_64.syscalls))
    first, second, third, fourth = struct.unpack("<4Q", at(memory, entry[3], 32))
    assert (0x0101010101010101,) * 2 == (first, third)
    assert b"deep" == at(memory, struct.unpack("<Q", at(memory, second + 8, 8))[0], 4)
    assert [(0, entry[3] - BASE, 32), (0, fourth - BASE, 3)] == outs


def test_results_of_earlier_entries_are_arguments() -> None:
    """A Ref is 8 bytes wide as an argument, and 4 inside a struct."""
    batch = Batch()
    first = batch.syscall("write")
    batch.syscall("close", 7, Ref(first))
    batch.syscall("bpf", Struct(bytes(8), refs={4: Ref(1)}))

    _, entries, refs, _ = placed(batch.encode(X86_64.syscalls))
    argument = HEADER.size + ENTRY.size + 8 + 8
    assert [(1, argument, 0, 8), (2, entries[2][2] - BASE + 4, 1, 4)] == refs


def test_mistakes_in_a_batch_are_told() -> None:
    """A result of a later entry, a member outside its struct, a seventh argument: each is a ValueError."""
    later, outside = Batch(), Batch()
    later.syscall("write", Ref(0))
    outside.syscall("write", Struct(bytes(8), {4: b""}))

    with pytest.raises(ValueError, match="entry 0 refers to the result of entry 0, which is not an earlier one"):
        later.encode(X86_64.syscalls)
    with pytest.raises(ValueError, match="8 bytes at 4 are not inside a struct of 8 bytes"):
        outside.encode(X86_64.syscalls)
    with pytest.raises(ValueError, match="at most six arguments"):
        Batch().syscall("write", *range(7))


def test_a_program_gets_its_arguments() -> None:
    """`spawn` passes path, argument vector with the path first and 0 last, output, and whether to wait."""
    batch = Batch()
    batch.spawn("/bin/x", ["-a", "b c"], output="/tmp/" + "out")

    memory, [entry], _, _ = placed(batch.encode(X86_64.syscalls))
    vector = struct.unpack("<4Q", at(memory, entry[3], 32))
    assert (4, 1) == (entry[0], entry[5])
    assert (b"/bin/x\0", b"-a\0") == (at(memory, vector[0], 7), at(memory, vector[1], 3))
    assert (b"b c\0", 0) == (at(memory, vector[2], 4), vector[3])
    assert b"out\0" == at(memory, entry[4] + 5, 4)


def test_replies_have_value_time_and_buffers() -> None:
    """Each entry's reply is parsed, with as many buffers as it has."""
    body = struct.pack("<qQII", -2, 500, 0, 0)
    body += struct.pack("<qQII", 7, 600, 2, 0) + struct.pack("<I", 3) + b"abc" + struct.pack("<I", 0)

    assert (Reply(-2, 500, ()), Reply(7, 600, (b"abc", b""))) == parse_replies(body)
    assert () == parse_replies(b"")


# kernels' files


def bzimage(payload: bytes) -> bytes:
    """As little of a bzImage as is read: two sectors of setup, then the payload at 16."""
    setup = bytearray(1024)
    setup[0x1F1] = 1
    setup[0x202:0x206] = b"HdrS"
    struct.pack_into("<II", setup, 0x248, 16, len(payload))
    return bytes(setup) + bytes(16) + payload + b"what follows"


@pytest.mark.parametrize(
    "payload", [gzip.compress(BANNER, mtime=0), lzma.compress(BANNER, lzma.FORMAT_XZ) + b"\0\0\0\1"]
)
def test_a_bzimage_holds_an_elf_file(payload: bytes) -> None:
    """The payload of a bzImage is unpacked, and an ELF file is taken as it is; its banner tells the release."""
    assert BANNER == X86_64.unpack_kernel(bzimage(payload), "bzImage")
    assert BANNER == X86_64.unpack_kernel(BANNER, "vmlinux")
    assert "7.9.1-mine" == release_of(BANNER, "vmlinux")


@pytest.mark.skipif(shutil.which("zstd") is None, reason="zstd is not installed")
def test_a_bzimage_may_be_packed_by_zstd() -> None:
    """Debian's are, since 6.12; four bytes of length follow the payload."""
    packed = subprocess.run(["zstd", "-c"], input=BANNER, capture_output=True, check=True).stdout

    assert BANNER == X86_64.unpack_kernel(bzimage(packed + b"\0\0\0\1"), "bzImage")


@pytest.mark.parametrize(
    ("image", "sentence"),
    [
        (b"text", "k: neither a bzImage nor an ELF file"),
        (bzimage(b"LZ4!"), "k: the bzImage is packed by none of xz, zstd and gzip (it starts with b'LZ4!')"),
        (bzimage(gzip.compress(b"text", mtime=0)), "k: the bzImage's payload is no ELF file"),
        (bzimage(gzip.compress(BANNER, mtime=0)[:-9]), "k: the bzImage's payload is damaged"),
        (bzimage(lzma.compress(BANNER, lzma.FORMAT_XZ)[:-40]), "k: the bzImage's payload is damaged"),
    ],
)
def test_what_is_no_kernel_is_told(image: bytes, sentence: str) -> None:
    """A file that is no kernel, or not one that can be read, is one sentence."""
    with pytest.raises(BadInputError) as caught:
        X86_64.unpack_kernel(image, "k")

    assert sentence == str(caught.value)


def test_a_kernel_without_a_banner_is_told() -> None:
    """Without its banner the release is not known."""
    with pytest.raises(BadInputError, match="k: there is no `Linux version` in the kernel"):
        release_of(b"\x7fELF", "k")


def test_a_developers_kernel_is_read_from_its_files(tmp_path: Path) -> None:
    """The release comes from the image, the headers from the tree around it."""
    image = tmp_path / "tree/arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    image.write_bytes(bzimage(gzip.compress(BANNER, mtime=0)))
    outside = from_files(image, None)
    (tmp_path / "tree/Module.symvers").touch()

    kernel = from_files(image, None)

    assert None is outside.headers
    assert ("bzImage", "7.9.1-mine", None) == (kernel.name, kernel.release, kernel.modules)
    assert (tmp_path / "tree", BANNER) == (kernel.headers, kernel.vmlinux.read_bytes())


def test_builds_of_one_release_are_told_apart(tmp_path: Path) -> None:
    """A rebuilt kernel has another key, by which its modules are compiled anew; the same image has the same."""
    image, other = tmp_path / "bzImage", tmp_path / "other"
    image.write_bytes(bzimage(gzip.compress(BANNER, mtime=0)))
    first = from_files(image, None)
    other.write_bytes(image.read_bytes())
    image.write_bytes(bzimage(gzip.compress(BANNER + b"changed", mtime=0)))
    second = from_files(image, None)

    assert (first.name, first.release) == (second.name, second.release)
    assert first.build != second.build
    assert first.build == from_files(other, None).build


@pytest.mark.parametrize("where", ["inside", "beside", "in the tree"])
def test_what_a_kernel_was_built_without_is_told(where: str, tmp_path: Path) -> None:
    """By its own configuration, or the file beside it or in its tree; every option is named, modules count if given."""
    config = configuration.fragment(debug=False).replace("CONFIG_PVH=y", "# CONFIG_PVH is not set")
    config = config.replace("CONFIG_VIRTIO_PCI=y", "CONFIG_VIRTIO_PCI=m")
    image = tmp_path / "arch/x86/boot/bzImage"
    image.parent.mkdir(parents=True)
    (tmp_path / "Module.symvers").touch()
    packed = b"IKCFG_ST" + gzip.compress(config.encode(), mtime=0) + b"IKCFG_ED"
    image.write_bytes(bzimage(gzip.compress(BANNER + packed * (where == "inside"), mtime=0)))
    files = {"beside": image.with_name("config-7.9.1-mine"), "in the tree": tmp_path / ".config"}
    if where in files:
        files[where].write_text(config)

    lacks = "bzImage: the kernel was built without CONFIG_PVH, CONFIG_VIRTIO_PCI: `massattach linux --config` prints"
    with pytest.raises(BadInputError, match=lacks):
        from_files(image, None)
    with pytest.raises(BadInputError, match="was built without CONFIG_PVH: "):
        from_files(image, tmp_path)


def test_the_fragments() -> None:
    """The plain one has all that is needed, each option once; the debug one goes on behind it."""
    plain, debug = (configuration.fragment(debug=debug) for debug in (False, True))
    options = configuration.OPTION.findall(plain)

    assert () == configuration.missing_options(dict(options), modules=False)
    assert len(options) == len(dict(options))
    assert debug.startswith(plain)
    assert {"CONFIG_KASAN": "y", "CONFIG_PREEMPT_LAZY": "n"}.items() <= dict(
        configuration.OPTION.findall(debug)
    ).items()
    assert {"CONFIG_DYNAMIC_FTRACE", "CONFIG_CROSS_MEMORY_ATTACH"} < set(configuration.needed_options())
    assert None is configuration.find_options(b"IKCFG_ST\x1f\x8bIKCFG_ED")
    assert None is configuration.find_options(BANNER, Path("nowhere"))


def test_old_entries_of_the_cache_go(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a kind so many stay, those that were used last; what was used within the hour stays in any case."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    made = [cache.entry(f"files-{number}", lambda _: None) for number in range(5)]
    other = cache.entry("modules-0", lambda _: None)
    for number, path in enumerate(made):
        os.utime(path, (number * 100, number * 100))
    cache.prune("files-", 2, made[1])

    assert [made[1], made[4], other] == sorted(
        path for path in (tmp_path / "massattach").iterdir() if path.name != "locks"
    )
    cache.prune("files-", 0, made[4])
    assert [made[1], made[4]] == sorted((tmp_path / "massattach").glob("files-*"))


def test_a_kernel_that_is_not_there_is_told(tmp_path: Path) -> None:
    """A missing file, and a name that no package has, are each one sentence."""
    with pytest.raises(BadInputError, match="nowhere: the kernel cannot be read: No such file or directory"):
        from_files(tmp_path / "nowhere", None)
    with pytest.raises(BadInputError, match="linux-5 is no kernel that can be fetched: write one of linux-6.1, "):
        packages.fetch("linux-5")


def write_modules(directory: Path, files: Mapping[str, bytes], builtin: str = "") -> None:
    for name, content in files.items():
        (directory / name).parent.mkdir(parents=True, exist_ok=True)
        (directory / name).write_bytes(content)
    order = "\n".join(name.removesuffix(".xz").removesuffix(".gz") for name in files)
    (directory / "modules.order").write_text(f"{order}\n")
    (directory / "modules.builtin").write_text(builtin)


def module(name: str, depends: str) -> bytes:
    return b"\x7fELF\0license=GPL\0depends=" + depends.encode() + b"\0name=" + name.encode() + b"\0"


def test_modules_come_after_what_they_depend_on(tmp_path: Path) -> None:
    """Packed or not, each module once, built-in ones not at all; - and _ are the same in a name."""
    a, b, c = module("a", "b-1,c"), module("b_1", "c,built"), module("c", "")
    files = {"kernel/a.ko.xz": lzma.compress(a), "kernel/x/b-1.ko": b, "kernel/c.ko.gz": gzip.compress(c, mtime=0)}
    write_modules(tmp_path, files, "kernel/built.ko\n")

    assert [c, b, a] == load_order(tmp_path, ("a", "built", "c"))


def test_a_missing_module_is_told(tmp_path: Path) -> None:
    """A module that is not there, and a directory that is none of modules, are each one sentence."""
    write_modules(tmp_path / "m", {"kernel/a.ko": module("a", "b")})

    with pytest.raises(BadInputError, match="m: neither a module nor built in: b"):
        load_order(tmp_path / "m", ("a",))
    with pytest.raises(BadInputError, match="no modules.builtin: write the kernel's directory lib/modules/RELEASE"):
        load_order(tmp_path, ("a",))


# packages

INDEX = """\
Package: linux-image-6.1.0-9-amd64
Version: 6.1.27-1
Description: text
 Depends: not, this

Package: linux-headers-6.1.0-10-amd64
Version: 6.1.38-1
Depends: linux-headers-6.1.0-10-common (= 6.1.38-1), linux-kbuild-6.1 | other, libc6 (>= 2), gcc-12:any, linux-base
"""


def test_an_index_is_parsed() -> None:
    """Of each stanza the name, the version, and the first alternative of each dependency."""
    parsed = parse_packages(INDEX)

    depends = ("linux-headers-6.1.0-10-common", "linux-kbuild-6.1", "libc6", "gcc-12", "linux-base")
    headers_package = Package("linux-headers-6.1.0-10-amd64", "6.1.38-1", depends)
    assert [Package("linux-image-6.1.0-9-amd64", "6.1.27-1", ()), headers_package] == list(parsed.values())


def test_what_a_kernel_requires_is_of_the_kernel() -> None:
    """Dependencies are followed as far as they name a kernel's version."""
    names = ("linux-headers-1", "linux-kbuild-1", "linux-base", "libc6")
    depends = {"linux-headers-1": ("linux-kbuild-1", "linux-base", "libc6"), "linux-kbuild-1": ("linux-headers-1",)}
    index = {name: Package(name, "1", depends.get(name, ())) for name in names}

    found = required(index, ["linux-headers-1", "no-1"], is_part)

    assert ["linux-headers-1", "linux-kbuild-1"] == [each.name for each in found]


def test_the_newest_release_is_by_numbers() -> None:
    """9 is older than 10; real-time, cloud and unsigned kernels do not count."""
    source = packages.SOURCES["linux-6.12"]
    releases = "6.12.95+deb12 6.12.117+deb12 6.12.9+deb12 6.12.117+deb12-rt 6.12.999+deb13 6.13.1+deb12"
    names = [f"linux-image-{release}-amd64" for release in releases.split()]

    assert "6.12.117+deb12-amd64" == newest(names, source.package)
    assert None is newest(["linux-image-6.12.200+deb12-amd64-unsigned", "linux-image-6.12-amd64"], source.package)


def test_debians_mirrors_are_told_from_others() -> None:
    """Others may have suites of the same names; a security mirror is told by its suite."""
    printed = """\
'http://m.example/repo/dists/bookworm/main/binary-amd64/Packages.xz' x 0
'http://m.example/linux/debian/dists/bookworm/stable/binary-amd64/Packages.xz' x 0
'http://m.example/debian/dists/bookworm/InRelease' x 0
'http://m.example/debian-security/dists/bookworm-security/main/binary-amd64/Packages.xz' x 0
'http://n.example/a/debian/dists/bookworm-updates/main/binary-amd64/Packages.xz' x 0
"""

    assert Mirrors("http://n.example/a/debian", "http://m.example/debian-security") == parse_uris(printed)
    with pytest.raises(BadInputError, match="apt's configuration has no Debian mirror: add one to"):
        parse_uris("")


def test_a_suite_without_a_mirror_is_left_out() -> None:
    """A machine need not have a mirror for security."""
    lines = Mirrors("http://m.example/debian", None).sources(["bookworm", "bookworm-security"], "amd64")

    assert [("deb", "http://m.example/debian bookworm main")] == [
        (line.split(" ", 1)[0], line.partition("] ")[2]) for line in lines
    ]


ONE_LINE = """\
deb http://one.example/debian bookworm main contrib
deb-src http://two.example/debian bookworm main
deb [arch=amd64] http://one.example/debian-security bookworm-security main
"""
DEB822 = """\
Types: deb
URIs: http://one.example/debian/
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://one.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
Enabled: no
"""


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="apt is not installed")
@pytest.mark.parametrize(("name", "content"), [("a.list", ONE_LINE), ("a.sources", DEB822)])
def test_apt_reads_both_forms_of_sources(tmp_path: Path, name: str, content: str) -> None:
    """The mirrors are found in the one-line form and in deb822's."""
    (tmp_path / "parts").mkdir()
    (tmp_path / "parts" / name).write_text(content)
    (tmp_path / "lists").mkdir()
    sources = ["Dir::Etc::sourcelist=/dev/null", f"Dir::Etc::sourceparts={tmp_path / 'parts'}"]
    options = [word for setting in (*sources, "APT::Architecture=amd64") for word in ("-o", setting)]

    found = find_mirrors(tmp_path / "lists", options)

    assert Mirrors("http://one.example/debian", "http://one.example/debian-security") == found


# headers


def test_headers_are_made_to_work_where_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The Makefile loses its absolute path; compiler and pahole become what the machine has."""
    tree = tmp_path / "usr/src/linux-headers-7"
    (tree / "include/config").mkdir(parents=True)
    (tree / "Makefile").write_text("include /usr/src/linux-headers-7-common/Makefile\n")
    (tree / ".kernelvariables").write_text("CC = $(CROSS_COMPILE)gcc-99\noverride ARCH = x86\n")
    configuration = tree / "include/config/auto.conf"
    configuration.write_text("CONFIG_PAHOLE_VERSION=130\nCONFIG_DEBUG_INFO_BTF_MODULES=y\nCONFIG_X=y\n")
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    monkeypatch.setattr(shutil, "which", lambda name: None if name in {"gcc-99", "pahole"} else f"/usr/bin/{name}")
    monkeypatch.setattr(headers, "_accepts", lambda option: option == "-fmin-function-alignment=16")

    assert tree == headers.prepare(tmp_path, "7")
    assert "include $(here)../linux-headers-7-common/Makefile" == (tree / "Makefile").read_text().splitlines()[1]
    assert "CC = $(CROSS_COMPILE)gcc\noverride ARCH = x86\n" == (tree / ".kernelvariables").read_text()
    assert "CONFIG_PAHOLE_VERSION=130\nCONFIG_X=y\n" == configuration.read_text()


def test_a_tool_starts_with_the_libraries_beside_it(tmp_path: Path) -> None:
    """A tool is replaced by a script that starts it through the tree's own loader, wherever the tree is."""
    tool = tmp_path / "a/usr/lib/linux-kbuild-7/scripts/tool"
    loader = tmp_path / "a/usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2"
    for path, text in ((tool, "the tool"), (loader, '#!/bin/sh\necho "$@"\n')):
        path.parent.mkdir(parents=True)
        path.write_text(text)
        path.chmod(0o755)

    headers.use_libraries(tmp_path / "a", [tool], X86_64)
    (tmp_path / "a").rename(tmp_path / "b")

    there = tmp_path / "b/usr/lib/linux-kbuild-7/scripts"
    words = subprocess.run([there / "tool", "x y"], capture_output=True, text=True, check=True).stdout.split(" ", 3)
    assert ["--library-path", str(there / "tool.bin"), "x y\n"] == [words[0], *words[2:]]
    assert loader.parent.name == Path(words[1]).resolve().name


# the cache


def test_an_entry_is_made_once() -> None:
    """Two that want the same entry at once: one makes it, both have it."""
    made = []

    def make(directory: Path) -> None:
        made.append(directory)
        time.sleep(0.2)
        (directory / "file").write_text("content")

    threads = [threading.Thread(target=cache.entry, args=("e", make)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert 1 == len(made)
    assert "content" == (cache.entry("e", make) / "file").read_text()


def test_what_was_interrupted_is_not_there() -> None:
    """An entry whose making failed is not in the cache, nor is what it left when its process was killed."""

    def fail(directory: Path) -> None:
        (directory / "half").touch()
        raise KeyboardInterrupt

    killed = cache.directory() / ".e.abc"
    killed.mkdir(parents=True)
    with pytest.raises(KeyboardInterrupt):
        cache.entry("e", fail)

    assert ["locks"] == [path.name for path in cache.directory().iterdir()]


def test_a_cache_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence names the file."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))

    with pytest.raises(BadInputError, match="the cache cannot be written: Not a directory"):
        cache.entry("e", Path.touch)


# directories of machines


def test_a_directory_of_a_dead_process_is_removed() -> None:
    """The next start removes what is not locked, and nothing else."""
    living = run_directory.RunDirectory()
    orphan = living.path.with_name("orphan")
    orphan.mkdir()
    (orphan / "file").touch()

    later = run_directory.RunDirectory()

    assert not orphan.exists()
    assert living.path.exists()
    living.remove()
    later.remove()
    assert [] == list(living.path.parent.iterdir())


def test_the_directory_must_be_private(tmp_path: Path) -> None:
    """A directory that others may write is refused."""
    shared = tmp_path / f"massattach-{os.getuid()}"
    shared.mkdir()
    shared.chmod(0o755)

    with pytest.raises(BadInputError, match="the directory for running machines must be yours, with permissions 700"):
        run_directory.RunDirectory()


# tools


@pytest.mark.parametrize(
    ("tool", "package"),
    [
        ("qemu-img", "qemu-utils"),
        ("setpriv", "util-linux"),
        ("gcc", "gcc libc6-dev"),
        ("zstd", "zstd"),
        ("apt-get", "apt"),
        ("dpkg-deb", "dpkg"),
    ],
)
def test_a_missing_tool_is_told_with_its_package(tool: str, package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence is a command to type."""
    monkeypatch.setenv("PATH", "/nonexistent")

    with pytest.raises(BadInputError) as caught:
        tools.find(tool)

    assert f"{tool} is needed and not installed: apt-get install {package}" == str(caught.value)


def test_a_missing_emulator_is_told_with_its_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its package is the architecture's to say."""
    kernel = packages.Kernel("k", "1", tmp_path / "vmlinux", None, None, X86_64)
    monkeypatch.setattr(shutil, "which", lambda tool: None if tool.startswith("qemu-system") else f"/bin/{tool}")

    with pytest.raises(
        BadInputError, match="^qemu-system-x86_64 is needed and not installed: apt-get install qemu-syst"
    ):
        Qemu(Setup(kernel, tmp_path / "initramfs", 1, tmp_path))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_a_failing_tool_is_told_with_its_complaint() -> None:
    """Of what it complains, the last line."""
    with pytest.raises(BadInputError, match="^gcc failed: ") as caught:
        tools.run("gcc", ["-c", "-x", "c", "/nonexistent/file.c"])

    assert "\n" not in str(caught.value)


def test_a_machine_without_qemu_is_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A boot that cannot start leaves no directory behind."""
    monkeypatch.setattr(agent, "build", lambda _: b"")
    monkeypatch.setenv("PATH", "/nonexistent")
    kernel = packages.Kernel("k", "1", tmp_path / "vmlinux", None, None, X86_64)

    with pytest.raises(BadInputError, match="qemu-img is needed and not installed: apt-get install qemu-utils"):
        boot(kernel)

    assert [] == list((tmp_path / f"massattach-{os.getuid()}").iterdir())


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed")
def test_the_agent_is_compiled_once() -> None:
    """The program is static, and comes from the cache the second time."""
    first = agent.build(X86_64)
    [entry] = cache.directory().glob("agent-*")
    (entry / "agent").write_bytes(first + b"kept")

    assert b"\x7fELF" == first[:4]
    assert first + b"kept" == agent.build(X86_64)
