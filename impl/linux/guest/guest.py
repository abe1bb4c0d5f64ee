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
from collections.abc import Mapping
from types import MappingProxyType

from impl.linux.guest import agent
from impl.linux.guest.frames import Batch, Reply, parse_replies
from impl.linux.guest.initramfs import pack
from impl.linux.guest.modules import closure
from impl.linux.guest.packages import Kernel
from impl.linux.guest.qemu import Machine, MachineEndedError, Setup
from impl.linux.guest.rundir import RunDirectory
from spec.errors import BadInputError

__all__ = ["Guest", "GuestDiedError", "boot"]

SNAPSHOT = "base"
BOOT_TIMEOUT = 120.0
TAIL_LINES = 60
PANIC = re.compile(r"Kernel panic - not syncing: .*")
# what the channel needs; all else comes with them
NO_FILES: Mapping[str, bytes] = MappingProxyType({})
DRIVERS = ("virtio_pci", "virtio_console")


class GuestDiedError(Exception):
    """The guest does not answer any more: `reason`, and the `console`'s last lines."""

    def __init__(self, reason: str, console: str) -> None:
        super().__init__(f"{reason}\n{console}" if console else reason)
        self.reason = reason
        self.console = console


class Guest:
    """A machine with the agent in it. After a GuestDiedError only `restore`, `console` and `close` are of use."""

    def __init__(self, kernel: Kernel, setup: Setup, directory: RunDirectory) -> None:
        self.kernel = kernel
        self._setup = setup
        self._console_read = 0
        self._console_start = 0
        self._alive = True
        # the one that runs, or none; a list, for it outlives us until the finalizer has run
        self._machines: list[Machine] = []
        self._release = weakref.finalize(self, _release, self._machines, directory)
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def submit(self, batch: Batch, timeout: float = 60) -> tuple[Reply, ...]:
        """Carry a batch out: one reply for each entry. `timeout` is in seconds."""
        machine, frame = self._running(), batch.encode()
        # an exception between request and reply, Ctrl-C too, leaves a channel that is of no more use
        self._alive = False
        try:
            body = _exchange(machine, frame, timeout)
        except MachineEndedError as error:
            raise self._died(error) from None
        self._alive = True
        return parse_replies(body)

    def console(self) -> str:
        """What the console printed since the last call.

        Where the console has a thread of its own (in 7.3 it has, in 6.1 and 6.12 not), plain messages may come after
        the reply to what caused them; a warning or an oops is printed before the kernel goes on.
        """
        text = self._printed_since(self._console_read)
        self._console_read += len(text)
        return _readable(text)

    def snapshot(self) -> None:
        """Keep the guest's whole state, in place of what was kept before."""
        self._monitor(f"savevm {SNAPSHOT}")

    def restore(self) -> None:
        """Go back to the snapshot; the console's text stays. A guest that died comes back in a new process."""
        self._console_start = self._setup.console.stat().st_size
        if self._alive:
            self._monitor(f"loadvm {SNAPSHOT}")
        else:
            self._start(SNAPSHOT)

    def poke(self, address: int, data: bytes) -> None:
        """Store bytes in the guest's kernel memory at a virtual address, text or not."""
        machine = self._running()
        try:
            machine.write_memory(address, data)
        except MachineEndedError as error:
            raise self._died(error) from None

    def close(self) -> None:
        """End the machine, and remove all that it left. Called twice, it does nothing."""
        self._alive = False
        self._release()

    def _start(self, snapshot: str | None = None) -> None:
        _kill(self._machines)
        try:
            self._machines.append(Machine(self._setup, snapshot=snapshot))
        except MachineEndedError as error:
            raise self._died(error) from None
        self._alive = True
        self.submit(Batch(), timeout=BOOT_TIMEOUT)

    def _running(self) -> Machine:
        if not self._alive:
            raise GuestDiedError("the guest died before, and was not restored since", "")
        return self._machines[0]

    def _monitor(self, command: str) -> None:
        machine = self._running()
        try:
            complaint = machine.monitor(command)
        except MachineEndedError as error:
            raise self._died(error) from None
        if complaint:
            # a full disk is no more than an input/output error to QEMU
            free = shutil.disk_usage(self._setup.directory).free >> 20
            why = f"QEMU cannot {command}, with {free} MiB free: {complaint.splitlines()[-1]}"
            raise BadInputError(why, str(self._setup.directory))

    def _printed_since(self, start: int) -> bytes:
        with self._setup.console.open("rb") as file:
            file.seek(start)
            return file.read()

    def _died(self, error: MachineEndedError) -> GuestDiedError:
        self._alive = False
        _kill(self._machines)
        console = _readable(self._printed_since(self._console_start))
        panic = PANIC.search(console)
        tail = "\n".join(console.splitlines()[-TAIL_LINES:])
        return GuestDiedError(panic[0] if panic else str(error), tail)


def boot(kernel: Kernel, *, memory: int = 256, extra_files: Mapping[str, bytes] = NO_FILES) -> Guest:
    """Start a kernel, and wait until its agent answers. `memory` is in MiB; `extra_files` by absolute path.

    The machine ends with the thread that started it, at the latest.
    """
    drivers = closure(kernel.modules, DRIVERS) if kernel.modules else []
    modules = {f"/modules/{place}.ko": module for place, module in enumerate(drivers)}
    files = {"/init": agent.build(), **modules, **extra_files}
    directory = RunDirectory()
    setup = Setup(kernel.vmlinux, directory.path / "initramfs", memory, directory.path)
    try:
        setup.prepare(pack(files))
    except BaseException:
        directory.remove()
        raise
    return Guest(kernel, setup, directory)


def _readable(console: bytes) -> str:
    return console.decode(errors="replace").replace("\r\n", "\n")


def _release(machines: list[Machine], directory: RunDirectory) -> None:
    _kill(machines)
    directory.remove()


def _kill(machines: list[Machine]) -> None:
    while machines:
        machines.pop().kill()


def _exchange(machine: Machine, frame: bytes, timeout: float) -> bytes:
    deadline = time.monotonic() + timeout
    try:
        machine.channel.settimeout(timeout)
        machine.channel.sendall(frame)
        length = int.from_bytes(_receive(machine, 4, deadline), "little")
        return _receive(machine, length, deadline)
    except TimeoutError:
        raise MachineEndedError(f"no answer within {timeout:g} s") from None
    except ConnectionError:
        raise MachineEndedError(machine.reason()) from None


def _receive(machine: Machine, length: int, deadline: float) -> bytes:
    received = bytearray(length)
    view = memoryview(received)
    while view:
        machine.channel.settimeout(max(0.001, deadline - time.monotonic()))
        count = machine.channel.recv_into(view)
        if not count:
            raise ConnectionResetError
        view = view[count:]
    return bytes(received)
