"""bpftrace as a client: Debian's program in the guest, where it attaches to a wildcard and goes again."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from impl.linux.guest import cache
from impl.linux.guest.apt import Apt, Package
from impl.linux.guest.frames import Batch, Out
from impl.linux.guest.guest import GuestDiedError
from impl.linux.guest.tools import run
from impl.linux.instruments.grace import Reading
from impl.linux.instruments.measure import PATIENCE, Bench, Measured, Phase
from spec.errors import BadInputError

__all__ = ["MEMORY", "Client", "fetch", "needed", "trace"]

MEMORY = 2048
"""MiB of a guest that has LLVM in its initramfs and runs it."""

LAYOUT = 1
PROGRAM, LOADER = "usr/bin/bpftrace", "ld-linux-x86-64.so.2"
LIBRARY = re.compile(r"^\s*(?:\S+ => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
OUTPUT = "/bpftrace.out"
SYS_WAIT4, SYS_KILL = 61, 62
POLL, SETTLED = 0.1, 1.0
"""Seconds between two looks at the sites, and how long they must not have changed."""


@dataclass(frozen=True, slots=True)
class Client:
    """bpftrace and what it needs, by the guest's paths."""

    version: str
    files: Mapping[str, bytes]


def fetch(suite: str) -> Client:
    """The bpftrace of one of Debian's suites, bookworm or trixie; fetched into the cache once, nothing is installed."""
    made = cache.entry(f"bpftrace-{suite}-{LAYOUT}", lambda made: _make(suite, made))
    files = made / "files"
    found = {f"/{path.relative_to(files)}": path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}
    return Client((made / "version").read_text(), found)


def _make(suite: str, made: Path) -> None:
    print(f"bpftrace: fetching it from {suite}", file=sys.stderr, flush=True)
    scratch, root = made / "apt", made / "root"
    apt = Apt(scratch)
    packages = apt.packages([suite])
    if "bpftrace" not in packages:
        raise BadInputError(f"the mirror has no package bpftrace in {suite}")
    apt.unpack(list(needed(packages, "bpftrace")), root)
    for guest_path, path in _files(root):
        target = made / "files" / guest_path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (made / "version").write_text(packages["bpftrace"].version)
    shutil.rmtree(scratch)
    shutil.rmtree(root)


def needed(packages: Mapping[str, Package], name: str) -> Iterable[Package]:
    """A package and all that it depends on, without those that are only virtual."""
    found: dict[str, Package] = {}
    waiting = [name]
    while waiting:
        package = packages.get(waiting.pop())
        if package and package.name not in found:
            found[package.name] = package
            waiting += package.depends
    return found.values()


def _files(root: Path) -> Iterator[tuple[str, Path]]:
    """The program, its loader, and the libraries that this loader finds, each with its place in the guest."""
    loader = next(path for path in sorted(root.rglob(LOADER)) if path.is_file())
    directories = {path.parent for path in root.rglob("*.so*")}
    arguments = ["--library-path", ":".join(sorted(map(str, directories))), "--list", str(root / PROGRAM)]
    listed = run(str(loader), arguments).decode()
    yield PROGRAM, root / PROGRAM
    yield f"lib64/{LOADER}", loader
    for library in LIBRARY.finditer(listed):
        path = Path(library["path"])
        if path.name != LOADER:
            yield f"lib/x86_64-linux-gnu/{path.name}", path


def trace(bench: Bench, script: str) -> Measured:
    """Run a script until it has attached, then interrupt it and wait for its end.

    The attach takes from the first site to the last, as they are looked at ten times a second; the detach from the
    interrupt to the end of the process. refused: what bpftrace says of probes that it could not attach, under "".
    """
    batch = Batch()
    started = bench.watch.start(batch)
    spawned = batch.spawn(f"/{PROGRAM}", ["-e", script], OUTPUT, wait=False)
    replies = bench.guest.submit(batch)
    process, start = replies[spawned].value, started(replies)
    if process < 0:
        raise BadInputError("the guest does not start bpftrace")
    seconds, attached, settled = _attached(bench, process)
    detach = _interrupted(bench, process)
    return Measured(Phase(seconds, settled.since(start)), detach, attached, bench.enabled(), _complaints(bench))


def _attached(bench: Bench, process: int) -> tuple[float, frozenset[str], Reading]:
    """Wait until the sites do not change any more: seconds from the first change to the last, and what is attached."""
    sites: frozenset[str] = frozenset()
    first = last = began = time.monotonic()
    while not sites or time.monotonic() - last < SETTLED:
        time.sleep(POLL)
        now = bench.enabled()
        if now != sites:
            last = time.monotonic()
            first = first if sites else last
            sites = now
        if _ended(bench, process) or time.monotonic() - began > PATIENCE:
            raise BadInputError(f"bpftrace attached nothing: {_output(bench) or 'it said nothing'}")
    batch = Batch()
    read = bench.watch.read(batch)
    return last - first, sites, read(bench.guest.submit(batch))


def _ended(bench: Bench, process: int) -> bool:
    batch = Batch()
    batch.syscall(SYS_WAIT4, process, 0, 1, 0)
    return bench.guest.submit(batch)[0].value == process


def _interrupted(bench: Bench, process: int) -> Phase:
    batch = Batch()
    started = bench.watch.start(batch)
    batch.syscall(SYS_KILL, process, signal.SIGINT)
    waited = batch.syscall(SYS_WAIT4, process, Out(4), 0, 0)
    ended = bench.watch.read(batch)
    try:
        replies = bench.guest.submit(batch, PATIENCE)
    except GuestDiedError as error:
        raise BadInputError(f"bpftrace does not end when it is interrupted: {error.reason}") from error
    return Phase(replies[waited].nanoseconds / 1e9, ended(replies).since(started(replies)))


def _output(bench: Bench) -> str:
    batch = Batch()
    batch.read_file(OUTPUT)
    return bench.guest.submit(batch)[0].data[0].decode(errors="replace").strip()


def _complaints(bench: Bench) -> dict[str, str]:
    lines = [line for line in _output(bench).splitlines() if re.match(r"(WARNING|ERROR|Error)", line)]
    return {"": lines[0]} if lines else {}
