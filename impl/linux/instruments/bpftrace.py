"""bpftrace as a client: Debian's program in the guest, where it attaches to a wildcard and goes again."""

from __future__ import annotations

import re
import shutil
import signal
import struct
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from impl.linux.architectures import Architecture
from impl.linux.guest.batch import Batch, Ref, Struct
from impl.linux.host import cache
from impl.linux.host.apt import Apt, required
from impl.linux.host.tools import run
from impl.linux.instruments.grace import Reading
from impl.linux.instruments.measure import PATIENCE, Bench, Measured, Phase
from spec.errors import BadInputError

__all__ = ["MEMORY", "Client", "fetch", "trace"]

MEMORY = 2048
"""MiB of a guest that has LLVM in its initramfs and runs it."""

LAYOUT = 1
PROGRAM = "usr/bin/bpftrace"
LIBRARY = re.compile(r"^\s*(?:\S+ => )?(?P<path>/\S+) \(0x[0-9a-f]+\)$", re.MULTILINE)
OUTPUT = "/bpftrace.out"
POLL = 0.1
"""Seconds between two looks at the sites."""

STACK = "/proc/{}/stack"
WAITS = re.compile(rb"\bdo_epoll_p?wait\b")
"""In its stack when it waits for events of its programs, which it does once all are attached, and not before."""

HEEDED = 10_000
"""Milliseconds after which nothing is detached only if an interrupt had no effect."""

POLLFD, POLLIN, WNOHANG = struct.Struct("<ihh"), 1, 1


@dataclass(frozen=True, slots=True)
class Client:
    """bpftrace and what it needs, by the guest's paths."""

    version: str
    files: Mapping[str, bytes]


def fetch(suite: str, architecture: Architecture) -> Client:
    """The bpftrace of one of Debian's suites, bookworm or trixie; fetched into the cache once, nothing is installed."""
    made = cache.entry(f"bpftrace-{suite}-{LAYOUT}", lambda made: _make(suite, architecture, made))
    files = made / "files"
    found = {f"/{path.relative_to(files)}": path.read_bytes() for path in sorted(files.rglob("*")) if path.is_file()}
    return Client((made / "version").read_text(), found)


def _make(suite: str, architecture: Architecture, made: Path) -> None:
    print(f"bpftrace: fetching it from {suite}", file=sys.stderr, flush=True)
    scratch, root = made / "apt", made / "root"
    apt = Apt(scratch, architecture.debian)
    packages = apt.packages([suite])
    if "bpftrace" not in packages:
        raise BadInputError(f"the mirror has no package bpftrace in {suite}")
    apt.unpack(required(packages, ["bpftrace"]), root)
    for guest_path, path in _find_files(root, architecture):
        target = made / "files" / guest_path
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    (made / "version").write_text(packages["bpftrace"].version)
    shutil.rmtree(scratch)
    shutil.rmtree(root)


def _find_files(root: Path, architecture: Architecture) -> Iterator[tuple[str, Path]]:
    """The program, its loader, and the libraries that this loader finds, each with its place in the guest."""
    name = Path(architecture.loader).name
    loader = next(path for path in sorted(root.rglob(name)) if path.is_file())
    directories = {path.parent for path in root.rglob("*.so*")}
    arguments = ["--library-path", ":".join(sorted(map(str, directories))), "--list", str(root / PROGRAM)]
    listed = run(str(loader), arguments).decode()
    yield PROGRAM, root / PROGRAM
    yield architecture.loader, loader
    for library in LIBRARY.finditer(listed):
        path = Path(library["path"])
        if path.name != name:
            yield f"lib/{architecture.multiarch}/{path.name}", path


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
    seconds, attached, settled = _await_attach(bench, process)
    detach = _interrupt(bench, process, attached)
    return Measured(Phase(seconds, settled.since(start)), detach, attached, bench.enabled(), _read_complaints(bench))


def _await_attach(bench: Bench, process: int) -> tuple[float, frozenset[str], Reading]:
    """Wait until it waits for events: seconds from the first change of the sites to the last, and what is attached."""
    sites: frozenset[str] = frozenset()
    first = last = began = time.monotonic()
    waits = False
    while not (sites and waits):
        time.sleep(POLL)
        waits = _waits_for_events(bench, process)
        now = bench.enabled()
        if now != sites:
            last = time.monotonic()
            first = first if sites else last
            sites = now
        if _has_ended(bench, process) or time.monotonic() - began > PATIENCE:
            raise BadInputError(f"bpftrace attached nothing: {_read_output(bench) or 'it said nothing'}")
    batch = Batch()
    read = bench.watch.read(batch)
    return last - first, sites, read(bench.guest.submit(batch))


def _waits_for_events(bench: Bench, process: int) -> bool:
    batch = Batch()
    stack = batch.read_file(STACK.format(process))
    return WAITS.search(bench.guest.submit(batch)[stack].data[0]) is not None


def _has_ended(bench: Bench, process: int) -> bool:
    batch = Batch()
    batch.syscall("wait4", process, 0, WNOHANG, 0)
    return bench.guest.submit(batch)[0].value == process


def _interrupt(bench: Bench, process: int, attached: frozenset[str]) -> Phase:
    """Interrupt bpftrace until it ends, and count from the one that it heeds: 0.17 loses some outside of its wait."""
    deadline = time.monotonic() + PATIENCE
    start: Reading | None = None
    seconds = 0.0
    while time.monotonic() < deadline:
        batch = Batch()
        started = bench.watch.start(batch) if start is None or bench.enabled() == attached else None
        if started:
            batch.syscall("kill", process, signal.SIGINT)
        waited, ended = _wait_for_end(batch, process), bench.watch.read(batch)
        replies = bench.guest.submit(batch)
        start, seconds = (started(replies), 0.0) if started else (start, seconds)
        seconds += replies[waited].nanoseconds / 1e9
        if start and replies[waited].value:
            return Phase(seconds, ended(replies).since(start))
    raise BadInputError(f"bpftrace does not end within {PATIENCE:.0f} s, though it is interrupted")


def _wait_for_end(batch: Batch, process: int) -> int:
    """The entry that waits, for HEEDED at most, until a process has ended; its value is 0 if it has not."""
    descriptor = batch.syscall("pidfd_open", process, 0)
    watched = Struct(POLLFD.pack(0, POLLIN, 0), refs={0: Ref(descriptor)})
    waited = batch.syscall("poll", watched, 1, HEEDED)
    batch.syscall("close", Ref(descriptor))
    batch.syscall("wait4", process, 0, WNOHANG, 0)
    return waited


def _read_output(bench: Bench) -> str:
    batch = Batch()
    batch.read_file(OUTPUT)
    return bench.guest.submit(batch)[0].data[0].decode(errors="replace").strip()


def _read_complaints(bench: Bench) -> dict[str, str]:
    lines = [line for line in _read_output(bench).splitlines() if re.match(r"(WARNING|ERROR|Error)", line)]
    return {"": lines[0]} if lines else {}
