"""Guests in a virtual machine: booting, system calls, snapshots, deaths, and what is left behind."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from impl.linux.guest import qemu
from impl.linux.guest.batch import AT_FDCWD, Batch, Out, Ref, Reply, Struct
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.host import tools
from impl.linux.probes.btf import Btf
from impl.linux.probes.symbols import parse_kallsyms
from impl.linux.station import prepare
from spec.errors import BadInputError
from spec.worlds import synthetic
from tests.support.stations import KERNELS, kernel_or_skip

pytestmark = pytest.mark.vm

O_RDWR, O_CREAT, POLLIN = 2, 0o100, 1
ENOENT, EFAULT = 2, 14
PATIENCE = 120.0
"""Seconds in which what must come has come, on a machine that has other work."""

# paths in the guest
SCRATCH = "/tmp/" + "scratch"
PROGRAM = """
#include <stdio.h>
#include <stdlib.h>
int main(int count, char **words)
{
    printf("%d %s", count, words[1]);
    fflush(stdout);
    if (count > 2)
        abort();
    return 7;
}
"""
MODULE = """
#include <linux/module.h>
static int __init hello(void) { pr_err("hello from %s\\n", KBUILD_MODNAME); return 0; }
module_init(hello);
MODULE_DESCRIPTION("A module that says hello");
MODULE_LICENSE("Dual MIT/GPL");
"""


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A static program for the guest."""
    path = tmp_path_factory.mktemp("program")
    (path / "program.c").write_text(PROGRAM)
    tools.run("gcc", ["-static", "-o", path / "program", path / "program.c"])
    return (path / "program").read_bytes()


@pytest.fixture(scope="module")
def booted(program: bytes) -> Iterator[Guest]:
    """One guest for this file, with a snapshot of how it was at first."""
    guest = boot(kernel_or_skip("linux-6.1"), extra_files={"/bin/program": program})
    guest.snapshot()
    yield guest
    guest.close()


@pytest.fixture
def guest(booted: Guest) -> Guest:
    """That guest as it was at first."""
    booted.restore()
    booted.console()
    return booted


def one(guest: Guest, batch: Batch) -> Reply:
    """The reply to a batch's only entry."""
    [reply] = guest.submit(batch)
    return reply


def read(guest: Guest, path: str) -> bytes:
    """A file of the guest; nothing if it cannot be read."""
    batch = Batch()
    batch.read_file(path)
    return one(guest, batch).data[0]


def crash(guest: Guest) -> None:
    batch = Batch()
    batch.write_file("/proc/sysrq-trigger", b"c")
    guest.submit(batch)


def sleep(seconds: int) -> Batch:
    batch = Batch()
    batch.syscall("nanosleep", struct.pack("<QQ", seconds, 0), 0)
    return batch


@pytest.mark.parametrize("name", KERNELS)
def test_a_kernel_boots_and_loads_a_module_built_for_it(name: str, tmp_path: Path) -> None:
    """Each kernel says its release within 15 seconds of a processor, has its file systems, and loads what is built."""
    kernel = kernel_or_skip(name)
    assert kernel.headers is not None
    (tmp_path / "hello.c").write_text(MODULE)
    (tmp_path / "Kbuild").write_text("obj-m := hello.o\n")
    tools.run("make", ["-C", kernel.headers, f"M={tmp_path}", "modules"])
    image = (tmp_path / "hello.ko").read_bytes()
    guest = boot(kernel)
    try:
        assert spent(guest._running[0].process.pid) < 15
        assert kernel.release == read(guest, "/proc/sys/kernel/osrelease").decode().strip()
        for path in ("tracing/current_tracer", "debug/clear_warn_once", "btf/vmlinux"):
            assert read(guest, f"/sys/kernel/{path}") or path == "debug/clear_warn_once", path
        batch = Batch()
        batch.syscall("init_module", image, len(image), b"\0")
        assert 0 == one(guest, batch).value
        assert b"hello " == read(guest, "/proc/modules")[:6]
    finally:
        guest.close()


def test_entries_are_carried_out_in_order(guest: Guest) -> None:
    """An entry may use the descriptor that an earlier one opened; the first one free is 5."""
    batch = Batch()
    fd = batch.syscall("openat", AT_FDCWD, SCRATCH.encode() + b"\0", O_RDWR | O_CREAT, 0o600)
    vector = Struct(struct.pack("<4Q", 0, 3, 0, 2), {0: b"abc", 16: b"de"})
    batch.syscall("writev", Ref(fd), vector, 2)
    batch.syscall("poll", Struct(struct.pack("<iHH", 0, POLLIN, 0), refs={0: Ref(fd)}, out=True), 1, 0)
    batch.syscall("close", Ref(fd))
    batch.read_file(SCRATCH)

    replies = guest.submit(batch)

    assert [5, 5, 1, 0, 5] == [reply.value for reply in replies]
    assert (5, POLLIN, POLLIN) == struct.unpack("<iHH", replies[2].data[0])
    assert (b"abcde",) == replies[4].data
    assert all(reply.nanoseconds > 0 for reply in replies)


def test_errors_are_negative_and_end_nothing(guest: Guest) -> None:
    """A failed entry does not keep the next from running."""
    batch = Batch()
    batch.syscall("openat", AT_FDCWD, b"/nowhere\0", 0)
    batch.read_file("/nowhere")
    batch.read_file("/")
    batch.syscall("getpid")

    replies = guest.submit(batch)

    assert [-ENOENT, -ENOENT, -21, 1] == [reply.value for reply in replies]
    assert [(), (b"",), (b"",), ()] == [reply.data for reply in replies]


def test_a_file_is_written_in_one_call(guest: Guest) -> None:
    """Writing truncates, appending does not; a file that the kernel does not offer is not there."""
    batch = Batch()
    for path, text, append in ((SCRATCH, b"first", False), (SCRATCH, b"12", False), (SCRATCH, b"34", True)):
        batch.write_file(path, text, append)
    batch.read_file(SCRATCH)
    batch.write_file("/sys/kernel/tracing/no_such_file", b"1")
    batch.write_file("/sys/kernel/tracing/current_tracer", b"no such tracer")

    replies = guest.submit(batch)

    assert [5, 2, 2, 4, -ENOENT, -22] == [reply.value for reply in replies]
    assert (b"1234",) == replies[3].data


def test_a_large_file_is_read_whole(guest: Guest) -> None:
    """Files of /proc have no size: kallsyms, some megabytes, comes to its last line."""
    symbols = read(guest, "/proc/kallsyms")

    assert len(symbols) > 3_000_000
    assert symbols.endswith(b"\n")
    assert b" T schedule\n" in symbols


def address_of(guest: Guest, symbol: str) -> int:
    lines = read(guest, "/proc/kallsyms").decode().splitlines()
    return next(int(line.split()[0], 16) for line in lines if line.split()[2] == symbol)


def test_kernel_memory_is_read_and_written(guest: Guest) -> None:
    """Memory is read by virtual address, modules' too, and changed by poke; an address without memory fails."""
    banner = address_of(guest, "linux_banner")
    driver = address_of(guest, "virtcons_probe")
    guest.poke(banner, b"LINUX")
    batch = Batch()
    batch.read_memory(banner, 13)
    batch.read_memory(driver, 5)
    batch.read_memory(4096, 8)

    replies = guest.submit(batch)

    assert Reply(13, replies[0].nanoseconds, (b"LINUX version",)) == replies[0]
    # a function that can be traced begins with a nop of five bytes
    assert (bytes.fromhex("0f1f440000"),) == replies[1].data
    assert (-EFAULT, (b"",)) == (replies[2].value, replies[2].data)


def test_a_program_runs(guest: Guest) -> None:
    """Its status or 128 and its signal comes back, its output is in a file; what cannot be started says why."""
    batch = Batch()
    batch.spawn("/bin/program", ["a b"], output=SCRATCH)
    batch.read_file(SCRATCH)
    batch.spawn("/bin/program", ["a", "b"], output=SCRATCH)
    batch.spawn("/bin/nothing", [])
    pid = batch.spawn("/bin/program", ["c"], output=SCRATCH, wait=False)
    batch.syscall("wait4", Ref(pid), Out(4), 0, 0)
    batch.read_file(SCRATCH)

    replies = guest.submit(batch)

    assert [7, 5, 128 + signal.SIGABRT, -ENOENT] == [reply.value for reply in replies[:4]]
    assert (b"2 a b",) == replies[1].data
    assert replies[4].value > 1
    assert (replies[4].value, 7 << 8) == (replies[5].value, int.from_bytes(replies[5].data[0], "little"))
    assert (b"2 c",) == replies[6].data


def test_the_console_is_read_piece_by_piece(guest: Guest) -> None:
    """Each text comes once, and going back in time does not unwrite it."""
    batch = Batch()
    batch.write_file("/dev/kmsg", b"<3>first message\n")
    guest.submit(batch)
    first = guest.console()
    guest.restore()
    guest.submit(batch)

    assert 1 == first.count("first message\n")
    assert 1 == guest.console().count("first message\n")
    assert not guest.console()


def test_a_snapshot_is_restored(guest: Guest) -> None:
    """Everything is as it was, any number of times."""
    for _ in range(3):
        batch = Batch()
        batch.read_file(SCRATCH)
        batch.write_file(SCRATCH, b"changed")
        batch.syscall("openat", AT_FDCWD, b"/\0", 0)

        assert [-ENOENT, 7, 5] == [reply.value for reply in guest.submit(batch)]
        guest.restore()


def test_no_grace_period_is_in_a_snapshot(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine is stopped and let go again until none is under way; one that has always one is told, and goes on."""
    told: list[str] = []
    monitor, states = qemu.Qemu.monitor, iter([5, 6, 8])

    def listen(machine: qemu.Qemu, command: str) -> str:
        told.append(command.split(" ", maxsplit=1)[0])
        return monitor(machine, command)

    with closing(boot(kernel_or_skip("linux-6.1"))) as guest:
        symbols, vmlinux = parse_kallsyms(read(guest, "/proc/kallsyms")), Btf(guest.read("/sys/kernel/btf/vmlinux")[0])
        sequence = symbols.address("rcu_state") + vmlinux.member_offset("rcu_state", "gp_seq")
        monkeypatch.setattr(qemu.Qemu, "monitor", listen)
        guest.snapshot(sequence)
        guest.restore()
        assert [told[0], *told[-4:]] == ["stop", "x", "savevm", "cont", "loadvm"]

        told.clear()
        with monkeypatch.context() as patched:
            patched.setattr(qemu.Qemu, "read_word", lambda _machine, _address: next(states))
            guest.snapshot(sequence)
        assert told == ["stop", "cont", "stop", "cont", "stop", "savevm", "cont"]

        guest.patience = 0.5
        with pytest.raises(BadInputError, match=r"grace period of RCU under way for 0\.5 s"):
            guest.snapshot(symbols.address("linux_banner") + len("L"))
        assert read(guest, "/proc/version").startswith(b"Linux")


def test_what_is_executed_is_noted() -> None:
    """Of watched code each instruction once, and again after a restore; what a guest did that died is not lost."""
    with closing(boot(kernel_or_skip("linux-6.1"))) as guest:
        symbols = parse_kallsyms(read(guest, "/proc/kallsyms"))
        (start,) = symbols.addresses("__x64_sys_getpid")
        guest.snapshot()
        guest.watch([(start, start + 16)])
        asking = Batch()
        asking.syscall("getpid")

        assert set() == guest.executed()
        guest.submit(asking)
        told = guest.executed()
        assert start in told
        assert told <= set(range(start, start + 64))
        guest.submit(asking)
        assert set() == guest.executed()
        guest.restore()
        assert set() == guest.executed()
        guest.submit(asking)
        with pytest.raises(GuestDiedError):
            crash(guest)
        assert told == guest.executed()
        guest.restore()
        guest.submit(asking)
        assert told == guest.executed()


def test_a_coarse_clock_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that stands still for a tick, events could not be put in order."""
    kernel = kernel_or_skip("linux-6.12")
    monkeypatch.setattr(qemu, "COMMAND_LINE", f"{qemu.COMMAND_LINE} clocksource=jiffies highres=off nohz=off")
    with pytest.raises(BadInputError, match="the kernel's clock is jiffies, too coarse for the order of events: build"):
        prepare(kernel, synthetic())


def test_a_panic_is_the_guests_death(guest: Guest) -> None:
    """The error has the panic as its reason and the console; the guest is of no use until it is restored."""
    with pytest.raises(GuestDiedError) as caught:
        crash(guest)

    assert "Kernel panic - not syncing: sysrq triggered crash" == caught.value.reason
    assert "sysrq_handle_crash" in caught.value.console
    assert "sysrq_handle_crash" in guest.console()
    for use in (lambda: read(guest, "/proc/version"), guest.snapshot, lambda: guest.poke(0, b"")):
        with pytest.raises(GuestDiedError, match="the guest died before, and was not restored since"):
            use()
    guest.restore()
    assert b"Linux version" == read(guest, "/proc/version")[:13]


def test_a_guest_that_does_not_answer_is_dead(guest: Guest) -> None:
    """After the timeout the guest is dead, and comes back from its snapshot."""
    with pytest.raises(GuestDiedError, match="no answer within 0.2 s"):
        guest.submit(sleep(30), timeout=0.2)

    guest.restore()
    assert b"Linux version" == read(guest, "/proc/version")[:13]


def interrupt_batch(guest: Guest) -> None:
    """Send Ctrl-C once a batch is under way, of which a guest that answers says so."""
    while guest._alive:
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)


def test_an_interrupted_batch_leaves_no_answer_to_the_next(guest: Guest) -> None:
    """After Ctrl-C in the middle of a batch the guest must be restored, and can be."""
    interrupter = threading.Thread(target=interrupt_batch, args=(guest,))
    interrupter.start()
    with pytest.raises(KeyboardInterrupt):
        guest.submit(sleep(30))
    interrupter.join()
    with pytest.raises(GuestDiedError):
        read(guest, "/proc/version")

    guest.restore()
    assert b"Linux version" == read(guest, "/proc/version")[:13]


def test_a_restore_without_a_snapshot_is_told() -> None:
    """There is nothing to go back to before the first snapshot."""
    guest = boot(kernel_or_skip("linux-6.1"))
    try:
        with pytest.raises(BadInputError, match="QEMU cannot loadvm base, with .* MiB free: .*base.* does not exist"):
            guest.restore()
    finally:
        guest.close()


OWNER = """
import sys, time
from impl.linux.guest.guest import boot
from impl.linux.guest.packages import fetch
guest = boot(fetch("linux-6.1"))
print(guest._running[0].process.pid, guest._setup.directory, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGINT])
def test_a_machine_does_not_outlive_its_owner(end: signal.Signals) -> None:
    """QEMU ends with the process that started it; its directory is gone then, or after the next start."""
    kernel = kernel_or_skip("linux-6.1")
    with subprocess.Popen([sys.executable, "-c", OWNER], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as owner:
        assert owner.stdout is not None
        qemu, directory = owner.stdout.readline().split()
        assert Path(f"/proc/{int(qemu)}").exists()
        owner.send_signal(end)
    deadline = time.monotonic() + PATIENCE
    while runs(int(qemu)) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not runs(int(qemu))
    if end == signal.SIGKILL:
        boot(kernel).close()
    assert not Path(os.fsdecode(directory)).exists()


def spent(pid: int) -> float:
    """The seconds of a processor that a process has had, which other work on the machine does not add to."""
    user, system = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:13]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")


def runs(pid: int) -> bool:
    """Whether a process is there and no zombie, which only its parent, that is gone, could remove."""
    status = Path(f"/proc/{pid}/stat")
    return status.exists() and status.read_text().rpartition(")")[2].split()[0] != "Z"
