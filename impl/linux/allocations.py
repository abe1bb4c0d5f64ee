"""Making the n-th allocation of an operation fail, in a kernel that has CONFIG_FAULT_INJECTION and CONFIG_FAILSLAB.

/proc/self/fail-nth takes a number: so many allocations later, counting those of the task that wrote it alone, one
fails. It is written, and read again, in the same frame as the call, so that nothing else of the agent is counted.
Sources: should_fail_ex() of lib/fault-inject.c, should_failslab(), should_fail_alloc_page().
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Final, Protocol, TypeVar

from impl.linux.guest.batch import AT_FDCWD, Batch, Out, Reply
from impl.linux.guest.guest import Guest
from impl.linux.injection import Injector
from impl.linux.probes.reports import without_stamps
from impl.linux.threads import PROMISED, AgentThread
from spec.operations import Fail

__all__ = ["Allocations", "failed_at", "open_fail_nth"]

FILE: Final = b"/proc/self/fail-nth\0"
DEBUG: Final = "/sys/kernel/debug"
SETTINGS: Final = {
    f"{DEBUG}/failslab/ignore-gfp-wait": b"N",
    f"{DEBUG}/failslab/verbose": b"2",
    f"{DEBUG}/fail_page_alloc/ignore-gfp-wait": b"N",
    f"{DEBUG}/fail_page_alloc/ignore-gfp-highmem": b"N",
    f"{DEBUG}/fail_page_alloc/min-order": b"0",
    f"{DEBUG}/fail_page_alloc/verbose": b"2",
}
"""Allocations that may sleep fail too, and pages as well as slab objects; each prints where it was."""

HASH: Final = Fail("hash")
NUMBER_BYTES: Final = 16
STACK: Final = re.compile(r" *(\w[\w.]*)\+0x[0-9a-f]+/0x[0-9a-f]+(?: \[\w+\])?")
"""A function that the unwinder is sure of; a module's name may follow."""

INJECTED: Final = "should_fail_ex"
ALLOCATORS: Final = re.compile(
    r"(?:should_fail|_*slab_|_*k[mzv]*alloc|krealloc|kvrealloc|_*kmem_cache_alloc|kmemdup|kstrdup|memdup|_*v[mz]alloc"
    r"|_*alloc_(?:frozen_)?page|_*alloc_frozen|prepare_alloc_page|_*get_free_page|get_zeroed_page|_*folio_alloc"
    r"|_*alloc_percpu|pcpu_|_*vmap_|_*vm_area_alloc)\w*(?:\.\w+)*"
)
SYSTEM_CALL: Final = re.compile(r"do_syscall_64|el0_svc\w*")
"""What the callers of every allocation end with."""

Added = TypeVar("Added")


class Carriers(Protocol):
    """Threads that carry operations out."""

    def begin(self, batch: Batch, /) -> None:
        """Add what comes before an operation."""

    def start(self, batch: Batch, index: int, /) -> AgentThread:
        """Have a batch carried out whose entry is for a thread."""

    def wait(self, thread: AgentThread, /) -> int | None:
        """Wait for the answer of a thread; None if it does not answer yet."""


def open_fail_nth(guest: Guest) -> int | None:
    """A descriptor of the file, and settings with which every allocation counts; None if the kernel has it not."""
    batch = Batch()
    opened = batch.syscall("openat", AT_FDCWD, FILE, os.O_RDWR, 0)
    descriptor = guest.submit(batch)[opened].value
    if descriptor < 0:
        return None
    batch = Batch()
    for path, value in SETTINGS.items():
        batch.write_file(path, value)
    guest.submit(batch)
    return descriptor


@dataclass(slots=True)
class Allocations:
    """Of one run. armed: which allocation of the next operation fails, 0 for none; hashes: those of hashes do.

    failed: one has failed.

    threads: the operation is carried out in one of them, since tasks stand, or it stops; held: one that they hold up,
    or that has stopped.
    """

    guest: Guest
    descriptor: int | None
    injector: Injector
    armed: int = 0
    hashes: bool = False
    failed: bool = False
    threads: Carriers | None = None
    held: AgentThread | None = None

    def submit(self, add: Callable[[Batch], Added]) -> tuple[Added, tuple[Reply, ...]]:
        """Have what is added to a batch carried out, with the fault if it is armed; what add() returned, and replies.

        The same count goes on in a further batch of the operation, if it was not used up.
        """
        if self.threads is not None:
            return self._submit_beside(self.threads, add)
        if self.hashes:
            return self._submit_without_hashes(add)
        batch = Batch()
        if self.descriptor is None or not self.armed:
            added = add(batch)
            return added, self.guest.submit(batch)
        self._write(batch, self.armed)
        added = add(batch)
        left = batch.syscall("pread64", self.descriptor, Out(NUMBER_BYTES), NUMBER_BYTES - 1, 0)
        self._write(batch, 0)
        replies = self.guest.submit(batch)
        self._note(replies[left])
        return added, replies

    def disarm(self) -> None:
        """The operation is over."""
        self.armed, self.hashes = 0, False

    def _submit_without_hashes(self, add: Callable[[Batch], Added]) -> tuple[Added, tuple[Reply, ...]]:
        batch, points = Batch(), {HASH.point}
        added = add(batch)
        with self.injector.failing(points, HASH):
            replies = self.guest.submit(batch)
        self.failed = not points
        self.hashes = not self.failed
        return added, replies

    def _submit_beside(self, threads: Carriers, add: Callable[[Batch], Added]) -> tuple[Added, tuple[Reply, ...]]:
        """A thread carries out the one entry that is added; one that is held up has answered PROMISED so far."""
        batch = Batch()
        threads.begin(batch)
        added = add(batch)
        assert isinstance(added, int), "beside tasks an operation is one call"
        thread = threads.start(batch, added)
        value = threads.wait(thread)
        self.held = thread if value is None else None
        before = (Reply(0, 0, ()),) * added
        return added, (*before, Reply(PROMISED if value is None else value, 0, ()))

    def _write(self, batch: Batch, number: int) -> None:
        text = str(number).encode()
        batch.syscall("pwrite64", self.descriptor or 0, text, len(text), 0)

    def _note(self, reply: Reply) -> None:
        self.armed = int(reply.data[0].split(b"\0", 1)[0])
        self.failed = not self.armed


def failed_at(console: str) -> str:
    """Where the allocation failed that a console tells of, or nothing: the function that made it, and all its callers.

    A kernel says nothing of an allocation with __GFP_NOWARN.
    """
    return " < ".join(_find_callers(without_stamps(console).splitlines()))


def _find_callers(lines: Sequence[str]) -> list[str]:
    at = next((place for place, line in enumerate(lines) if INJECTED in line), len(lines))
    matches = (STACK.fullmatch(line) for line in lines[at:])
    names = takewhile(lambda name: not SYSTEM_CALL.fullmatch(name), (match[1] for match in matches if match))
    return [name for name in names if not ALLOCATORS.fullmatch(name)]
