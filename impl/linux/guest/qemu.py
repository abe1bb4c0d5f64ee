"""One QEMU process: how it is started, its monitor, its end."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from impl.linux.guest.packages import Kernel
from impl.linux.host.tools import find, run

__all__ = ["Qemu", "QemuEndedError", "Range", "Setup"]

Range = tuple[int, int]
"""Addresses from the first to the one before the last."""

# `quiet` alone would hide the backtraces of warnings
COMMAND_LINE = "quiet loglevel=5 panic=-1 nokaslr"
MONITOR_TIMEOUT = 60.0
COMPLAINT = "complaint"
DISK_SIZE = "16G"
TRANSLATED = "translated"
"""QEMU's log of the code that it translates, which it does when it is about to run it."""

AN_INSTRUCTION = re.compile(rb"^0x([0-9a-f]+):", re.MULTILINE)


class QemuEndedError(Exception):
    """QEMU no longer answers. The text is the reason."""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a machine is made of: kernel, initial file system, memory in MiB, and a directory for its files."""

    kernel: Kernel
    initramfs: Path
    memory: int
    directory: Path

    @property
    def console(self) -> Path:
        """What the serial port printed, of all processes that ran this machine."""
        return self.directory / "console"

    @property
    def disk(self) -> Path:
        """Where snapshots are kept."""
        return self.directory / "snapshots.qcow2"

    @property
    def debugger(self) -> Path:
        """QEMU's socket for gdb."""
        return self.directory / "gdb"

    def prepare(self, initramfs: bytes) -> None:
        """Write what a machine needs before it is started. The guest never sees the disk."""
        self.initramfs.write_bytes(initramfs)
        self.console.touch()
        run("qemu-img", ["create", "-q", "-f", "qcow2", self.disk, DISK_SIZE])


class Qemu:
    """A process whose channel and monitor are on socket pairs, so that nobody else can connect to them.

    watched: of the code at these addresses it is noted what is executed.
    """

    def __init__(self, setup: Setup, *, snapshot: str | None = None, watched: Sequence[Range] = ()) -> None:
        self.setup = setup
        self._watched = watched
        self._log_read = 0
        program = _program(setup)
        self.channel, channel_end = socket.socketpair()
        self._monitor, monitor_end = socket.socketpair()
        with channel_end, monitor_end:
            descriptors = (channel_end.fileno(), monitor_end.fileno())
            options = [*_options(setup, *descriptors), *_watch(watched), *(("-loadvm", snapshot) if snapshot else ())]
            self.process = _start([*program, *options], setup.directory, descriptors)
        self._monitor.settimeout(MONITOR_TIMEOUT)
        self._lines = self._monitor.makefile("rb")
        try:
            self._execute("qmp_capabilities")
        except QemuEndedError:
            self.kill()
            raise

    def monitor(self, command: str) -> str:
        """What a command of the human monitor prints, which is mostly nothing if all went well."""
        printed: str = self._execute("human-monitor-command", **{"command-line": command})
        return printed.strip()

    def read_word(self, address: int) -> int:
        """The eight bytes at a virtual address of the kernel."""
        return int(self.monitor(f"x /1gx {address:#x}").rpartition(":")[2], 16)

    def write_memory(self, address: int, data: bytes) -> None:
        """Store bytes at a virtual address, through QEMU's debugger, which stops the machine meanwhile."""
        try:
            with _connect(self.setup.debugger) as debugger:
                _exchange(debugger, f"M{address:x},{len(data):x}:{data.hex()}", "OK")
                _exchange(debugger, "D", "OK")
        except OSError as error:
            raise QemuEndedError(f"QEMU's debugger does not answer: {error.strerror or error}") from None

    def executed(self) -> set[int]:
        """The addresses of watched instructions that were translated since the last call, and so executed.

        QEMU translates from one jump to the next, and a stretch that begins in watched code is told as a whole.
        What was translated before is not told again, until a snapshot is loaded: that forgets all translations.
        """
        if not self._watched:
            return set()
        with (self.setup.directory / TRANSLATED).open("rb") as log:
            log.seek(self._log_read)
            text = log.read()
        whole = text[: text.rfind(b"\n") + 1]
        self._log_read += len(whole)
        return {int(address, 16) for address in AN_INSTRUCTION.findall(whole)}

    def kill(self) -> None:
        """End the process, in whatever state it is."""
        self.process.kill()
        self.process.wait()
        self._lines.close()
        self._monitor.close()
        self.channel.close()

    def _execute(self, command: str, **arguments: Any) -> Any:
        request = json.dumps({"execute": command, "arguments": arguments}).encode()
        try:
            self._monitor.sendall(request)
            for line in self._lines:
                answer = json.loads(line)
                if "error" in answer:
                    raise QemuEndedError(f"QEMU's monitor: {answer['error']['desc']}")
                if "return" in answer:
                    return answer["return"]
        except TimeoutError:
            raise QemuEndedError(f"QEMU's monitor did not answer within {MONITOR_TIMEOUT:g} s") from None
        except ConnectionError:
            raise QemuEndedError(self.reason()) from None
        raise QemuEndedError(self.reason())

    def reason(self) -> str:
        """Why the process has ended, or is about to, as its sockets are closed."""
        status = self.process.wait()
        complaint = (self.setup.directory / COMPLAINT).read_text(errors="replace").strip()
        return f"QEMU ended with status {status}" + (f": {complaint.splitlines()[-1]}" if complaint else "")


def _program(setup: Setup) -> list[str]:
    # the kernel kills QEMU when the thread that started it ends, and so when we die for whatever reason
    architecture = setup.kernel.architecture
    qemu = find(architecture.qemu, architecture.qemu_package)
    return [find("setpriv"), "--pdeathsig", "KILL", "--", qemu]


def _start(command: Sequence[str | Path], directory: Path, descriptors: tuple[int, int]) -> subprocess.Popen[bytes]:
    with (directory / COMPLAINT).open("wb") as complaint:
        return subprocess.Popen(  # noqa: S603
            command,
            stdin=subprocess.DEVNULL,
            stdout=complaint,
            stderr=complaint,
            # commas separate QEMU's options, and names without a directory have none
            cwd=directory,
            pass_fds=descriptors,
            # Ctrl-C is for us to handle
            start_new_session=True,
        )


def _options(setup: Setup, channel: int, monitor: int) -> list[str | Path]:
    """No second CPU: with one, emulated in a thread of its own, code that is patched while it runs livelocks QEMU."""
    architecture = setup.kernel.architecture
    command_line = f"{architecture.command_line} {COMMAND_LINE} {setup.kernel.parameters}".rstrip()
    return [
        *("-accel", "tcg", *architecture.machine, "-smp", "1", "-m", str(setup.memory)),
        *("-nodefaults", "-no-user-config", "-no-reboot", "-display", "none"),
        *("-kernel", setup.kernel.vmlinux.absolute(), "-initrd", setup.initramfs.name, "-append", command_line),
        *("-chardev", f"file,id=console,append=on,path={setup.console.name}", "-serial", "chardev:console"),
        *("-chardev", f"socket,id=monitor,fd={monitor}", "-mon", "chardev=monitor,mode=control"),
        *("-chardev", f"socket,id=channel,fd={channel}", "-device", "virtio-serial-pci"),
        *("-device", "virtserialport,chardev=channel,name=channel"),
        *("-drive", f"file={setup.disk.name},format=qcow2,if=none,id=snapshots"),
        *("-gdb", f"unix:{setup.debugger.name},server=on,wait=off"),
    ]


def _watch(ranges: Sequence[Range]) -> list[str]:
    wanted = ",".join(f"{start:#x}+{end - start:#x}" for start, end in ranges)
    return ["-d", "in_asm", "-D", TRANSLATED, "-dfilter", wanted] if ranges else []


@contextmanager
def _connect(path: Path) -> Iterator[socket.socket]:
    """A connection to a socket in whatever directory: a socket's own path may have 107 bytes, and $TMPDIR more."""
    directory = os.open(path.parent, os.O_PATH)
    try:
        with socket.socket(socket.AF_UNIX) as debugger:
            debugger.settimeout(MONITOR_TIMEOUT)
            debugger.connect(f"/proc/self/fd/{directory}/{path.name}")
            yield debugger
    finally:
        os.close(directory)


def _exchange(debugger: socket.socket, packet: str, expected: str) -> None:
    """One packet of gdb's remote protocol: $packet#checksum, acknowledged by +, answered the same way."""
    debugger.sendall(b"$%s#%02x" % (packet.encode(), sum(packet.encode()) % 256))
    received = b""
    # connecting stops the machine, and a T packet that tells so may come first
    while not (answers := re.findall(rb"\$([^T#][^#]*)#..", received)):
        more = debugger.recv(4096)
        if not more:
            raise QemuEndedError("QEMU's debugger hung up")
        received += more
    debugger.sendall(b"+")
    if answers[0].decode() != expected:
        raise QemuEndedError(f"QEMU's debugger answered {answers[0].decode()} to {packet[:40]}")
