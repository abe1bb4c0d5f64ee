"""A running guest: batches of system calls go in, replies come out.

How a frame travels. `Batch.encode` lays the batch out as one block of bytes, in which addresses are still offsets.
`Guest.submit` writes it into a socket pair whose other end is a character device of QEMU; QEMU hands the bytes to the
guest's virtio serial port, where the agent, the guest's /init, waits in read(2) on descriptor 3. It places the block in
its memory, turns the offsets into addresses, and makes the calls one after the other, taking the time of each; results
and output buffers gather in a second block, which goes back the same way. There is one frame under way at a time: so a
snapshot, which is taken between two frames, has nothing in flight, and a guest that does not answer in time is dead,
since a late reply would be taken for that of the next frame.
"""

from __future__ import annotations

import re
import shutil
import time
import weakref
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from impl.linux.guest import agent
from impl.linux.guest.batch import Batch, Reply, parse_replies
from impl.linux.guest.drivers import load_order
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.initramfs import pack
from impl.linux.guest.packages import Kernel
from impl.linux.guest.qemu import Qemu, QemuEndedError, Range, Setup
from impl.linux.host.run_directory import RunDirectory
from spec.errors import BadInputError

__all__ = ["Guest", "GuestDiedError", "boot"]

SNAPSHOT = "base"
BOOT_TIMEOUT = 120.0
PATIENCE = 60.0
BETWEEN = 0.01
UNDER_WAY = 3
"""The bits of a sequence number of grace periods that are its state; 0 if none is under way (kernel/rcu/rcu.h)."""

TAIL_LINES = 60
PANIC = re.compile(r"Kernel panic - not syncing: .*")
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
# the channel needs these, and what they depend on
DRIVERS = ("virtio_pci", "virtio_console")


class GuestDiedError(Exception):
    """The guest does not answer any more: `reason`, and the `console`'s last lines."""

    def __init__(self, reason: str, console: str) -> None:
        super().__init__(f"{reason}\n{console}" if console else reason)
        self.reason = reason
        self.console = console


class Guest:
    """A machine with the agent in it. After a GuestDiedError only `restore`, `console` and `close` do anything.

    patience: seconds in which it must answer, or it is dead.
    """

    def __init__(self, kernel: Kernel, setup: Setup, directory: RunDirectory) -> None:
        self.kernel = kernel
        self._setup = setup
        self._console_read = 0
        self._console_start = 0
        self._alive = True
        self._watched: Sequence[Range] = ()
        self._executed: set[int] = set()
        self._changes: Sequence[tuple[int, bytes]] = ()
        self.patience = PATIENCE
        # the process that runs, or none; a list, as the finalizer needs it when we are gone
        self._running: list[Qemu] = []
        self._release = weakref.finalize(self, _release, self._running, directory)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def submit(self, batch: Batch, timeout: float | None = None) -> tuple[Reply, ...]:
        """Carry a batch out: one reply for each entry. `timeout` is in seconds; without it, our patience lasts."""
        qemu, frame = self._living(), batch.encode(self.kernel.architecture.syscalls)
        # an exception between request and reply, Ctrl-C too, leaves a channel that nobody can use any more
        self._alive = False
        try:
            body = _exchange(qemu, frame, self.patience if timeout is None else timeout)
        except QemuEndedError as error:
            raise self._bury(error) from None
        self._alive = True
        return parse_replies(body)

    def read(self, *paths: str) -> list[bytes]:
        """The content of files; BadInputError if one cannot be read."""
        batch = Batch()
        for path in paths:
            batch.read_file(path)
        replies = self.submit(batch)
        for path, reply in zip(paths, replies, strict=True):
            if reply.value < 0:
                raise BadInputError(f"the kernel does not show {path}: {errno_name(reply.value)}")
        return [reply.data[0] for reply in replies]

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The kernel's memory at each address and of each length; no bytes where there is none."""
        batch = Batch()
        for address, length in places:
            batch.read_memory(address, length)
        return [reply.data[0] for reply in self.submit(batch)] if places else []

    def console(self) -> str:
        """What the console printed since the last call.

        Where the console has a thread of its own (in 7.3 it has, in 6.1 and 6.12 not), plain messages may come after
        the reply to what caused them; a warning or an oops is printed before the kernel goes on.
        """
        text = self._read_since(self._console_read)
        self._console_read += len(text)
        return _decode(text)

    def printed(self) -> str:
        """What the console printed since the guest was restored."""
        return _decode(self._read_since(self._console_start))

    def snapshot(self, grace_periods: int | None = None) -> None:
        """Keep the guest's whole state, in place of what was kept before.

        grace_periods: the address of the sequence number of RCU's grace periods, in a moment without one the snapshot
        is taken then. The clock of a guest does not go back with it (cpu_get_ticks in QEMU's system/cpu-timers.c), so
        that a grace period in the snapshot would have lasted as long as the machine runs, and be told as a stall.
        """
        try:
            if grace_periods is not None:
                self._stop_between(grace_periods)
            self._monitor(f"savevm {SNAPSHOT}")
        finally:
            if self._alive:
                self._monitor("cont")

    def _stop_between(self, grace_periods: int) -> None:
        """Stop the machine while a sequence number's state is that of none under way."""
        deadline = time.monotonic() + self.patience
        while time.monotonic() < deadline:
            self._monitor("stop")
            if not self._living().read_word(grace_periods) & UNDER_WAY:
                return
            self._monitor("cont")
            time.sleep(BETWEEN)
        raise BadInputError(f"the kernel had a grace period of RCU under way for {self.patience:g} s without an end")

    def restore(self) -> None:
        """Go back to the snapshot; the console's text stays. A guest that died comes back in a new process."""
        self._console_start = self._setup.console.stat().st_size
        if self._alive:
            self._monitor(f"loadvm {SNAPSHOT}")
        else:
            self._start(SNAPSHOT)
        for address, code in self._changes:
            self.poke(address, code)

    def change(self, code: Sequence[tuple[int, bytes]]) -> None:
        """From the next `restore` on the kernel's memory has these bytes at these addresses, until it is told other."""
        self._changes = code

    def watch(self, code: Sequence[Range]) -> None:
        """Go back to the snapshot in a new process, which notes what is executed of the code at these addresses."""
        self._watched = code
        self._start(SNAPSHOT)
        self.executed()

    def executed(self) -> set[int]:
        """The addresses of the watched instructions that were executed since the last call.

        What was told before is told again only if it is executed after a `restore`.
        """
        if self._alive:
            self._executed |= self._running[0].executed()
        told, self._executed = self._executed, set()
        return told

    def poke(self, address: int, data: bytes) -> None:
        """Store bytes in the guest's kernel memory at a virtual address, text or not."""
        qemu = self._living()
        try:
            qemu.write_memory(address, data)
        except QemuEndedError as error:
            raise self._bury(error) from None

    def close(self) -> None:
        """End the machine, and remove all that it left. Called twice, it does nothing."""
        self._alive = False
        self._release()

    def _start(self, snapshot: str | None = None) -> None:
        self._kill()
        try:
            self._running.append(Qemu(self._setup, snapshot=snapshot, watched=self._watched))
        except QemuEndedError as error:
            raise self._bury(error) from None
        self._alive = True
        self.submit(Batch(), timeout=BOOT_TIMEOUT)

    def _kill(self) -> None:
        # what the process wrote down goes with it
        for qemu in self._running:
            self._executed |= qemu.executed()
        _kill(self._running)

    def _living(self) -> Qemu:
        if not self._alive:
            raise GuestDiedError("the guest died before, and was not restored since", "")
        return self._running[0]

    def _monitor(self, command: str) -> None:
        qemu = self._living()
        try:
            complaint = qemu.monitor(command)
        except QemuEndedError as error:
            raise self._bury(error) from None
        if complaint:
            # a full disk is no more than an input/output error to QEMU
            free = shutil.disk_usage(self._setup.directory).free >> 20
            why = f"QEMU cannot {command}, with {free} MiB free: {complaint.splitlines()[-1]}"
            raise BadInputError(why, str(self._setup.directory))

    def _read_since(self, start: int) -> bytes:
        with self._setup.console.open("rb") as file:
            file.seek(start)
            return file.read()

    def _bury(self, error: QemuEndedError) -> GuestDiedError:
        self._alive = False
        self._kill()
        console = _decode(self._read_since(self._console_start))
        panic = PANIC.search(console)
        tail = "\n".join(console.splitlines()[-TAIL_LINES:])
        return GuestDiedError(panic[0] if panic else str(error), tail)


def boot(kernel: Kernel, *, memory: int = 256, extra_files: Mapping[str, bytes] = NO_FILES) -> Guest:
    """Start a kernel, and wait until its agent answers. `memory` is in MiB; `extra_files` by absolute path.

    The machine ends with the thread that started it, at the latest.
    """
    drivers = load_order(kernel.modules, DRIVERS) if kernel.modules else []
    modules = {f"/modules/{place}.ko": module for place, module in enumerate(drivers)}
    files = {"/init": agent.build(kernel.architecture), **modules, **extra_files}
    directory = RunDirectory()
    setup = Setup(kernel, directory.path / "initramfs", memory, directory.path)
    try:
        setup.prepare(pack(files))
    except BaseException:
        directory.remove()
        raise
    return Guest(kernel, setup, directory)


def _decode(console: bytes) -> str:
    return console.decode(errors="replace").replace("\r\n", "\n")


def _release(running: list[Qemu], directory: RunDirectory) -> None:
    _kill(running)
    directory.remove()


def _kill(running: list[Qemu]) -> None:
    while running:
        running.pop().kill()


def _exchange(qemu: Qemu, frame: bytes, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    try:
        qemu.channel.settimeout(timeout)
        qemu.channel.sendall(frame)
        length = int.from_bytes(_receive(qemu, 4, deadline), "little")
        return _receive(qemu, length, deadline)
    except TimeoutError:
        raise QemuEndedError(f"no answer within {timeout:g} s") from None
    except ConnectionError:
        raise QemuEndedError(qemu.reason()) from None


def _receive(qemu: Qemu, length: int, deadline: float) -> bytes:
    received = bytearray(length)
    view = memoryview(received)
    while view:
        qemu.channel.settimeout(max(0.001, deadline - time.monotonic()))
        count = qemu.channel.recv_into(view)
        if not count:
            raise ConnectionResetError
        view = view[count:]
    return bytes(received)
