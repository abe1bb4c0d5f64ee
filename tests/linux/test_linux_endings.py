"""However a verb that runs a kernel ends, nothing of it stays: no process, no socket, no directory."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.stations import kernel_or_skip

pytestmark = pytest.mark.vm

ROOT = Path(__file__).parents[2]
KERNEL = "linux-6.12"
PATIENCE = 120.0


@pytest.fixture(autouse=True)
def _available() -> None:
    kernel_or_skip(KERNEL)


@contextmanager
def running(tmp_path: Path, *words: str) -> Iterator[subprocess.Popen[str]]:
    """A verb whose machines have their directories in `machines`."""
    (tmp_path / "machines").mkdir()
    environment = {**os.environ, "TMPDIR": str(tmp_path / "machines")}
    command = [sys.executable, "-m", "properties", *words]
    with subprocess.Popen(
        command,
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def machines(pid: int) -> list[int]:
    """The QEMUs that a process or a servant of its started, and that are no zombies."""
    return [machine for parent in [pid, *servants(pid)] for machine in children(parent, "qemu-system")]


def servants(pid: int) -> list[int]:
    """The processes that do the units of another."""
    return children(pid, "python")


def children(pid: int, beginning: str) -> list[int]:
    """The processes that one started, that are no zombies, and whose names begin so."""
    found = []
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            name, _, rest = status.read_text().partition("(")[2].rpartition(")")
        except OSError:
            continue
        state, parent = rest.split()[:2]
        if int(parent) == pid and name.startswith(beginning) and state != "Z":
            found.append(int(status.parent.name))
    return found


def is_gone(pid: int) -> bool:
    """Whether there is no such process; a zombie is one that only its parent could remove."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(true: object) -> bool:
    """Whether something becomes true in time."""
    assert callable(true)
    deadline = time.monotonic() + PATIENCE
    while not true() and time.monotonic() < deadline:
        time.sleep(0.1)
    return bool(true())


def machine_of(process: subprocess.Popen[str], tmp_path: Path) -> int:
    """The QEMU of a search that has made steps, as its servant's journal tells."""

    def has_steps() -> bool:
        return any(journal.read_text().count("\n") > 6 for journal in (tmp_path / "machines").glob("*-work-*/journal"))

    assert eventually(has_steps)
    [machine] = machines(process.pid)
    return machine


def left(tmp_path: Path) -> list[Path]:
    """What is in the directories of machines."""
    return list((tmp_path / "machines").glob(f"massattach-{os.getuid()}/*"))


def explore(tmp_path: Path) -> list[str]:
    return [
        "explore",
        "--system",
        KERNEL,
        "--budget",
        "60",
        "--save",
        str(tmp_path),
        "--random-seed",
        "1",
        "--jobs",
        "1",
    ]


@pytest.mark.parametrize(("end", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_everything(end: signal.Signals, status: int, tmp_path: Path) -> None:
    """After Ctrl-C, and after a plain kill, QEMU and its directory are gone, and no journal stays."""
    with running(tmp_path, *explore(tmp_path)) as process:
        machine = machine_of(process, tmp_path)
        process.send_signal(end)
        printed, complaint = process.communicate(timeout=PATIENCE)

        assert status == process.returncode, printed + complaint
        assert "Traceback" not in complaint
        assert is_gone(machine)
        assert [] == left(tmp_path)
        assert [] == list(tmp_path.glob("*.seed"))


def test_the_verb_linux_ends_by_a_signal(tmp_path: Path) -> None:
    """As it does in the middle of its first check."""
    with running(tmp_path, "linux", "--kernel", KERNEL, "--junit", str(tmp_path / "l.xml")) as process:
        assert eventually(lambda: machines(process.pid))
        [machine] = machines(process.pid)
        process.terminate()
        _, complaint = process.communicate(timeout=PATIENCE)

        assert (143, "terminated\n") == (process.returncode, complaint)
        assert eventually(lambda: is_gone(machine))
        assert [] == left(tmp_path)


def test_the_death_of_a_machine_is_a_finding(tmp_path: Path) -> None:
    """A QEMU that is killed in the middle of a run is a crash with its seed, and leaves nothing either."""
    with running(tmp_path, *explore(tmp_path)) as process:
        machine = machine_of(process, tmp_path)
        os.kill(machine, signal.SIGKILL)
        printed, complaint = process.communicate(timeout=2 * PATIENCE)

        assert 1 == process.returncode, complaint
        assert " diverges in crash at step " in printed
        assert [f"{KERNEL}-crash"] == [path.name.rpartition("-")[0] for path in tmp_path.glob("*.seed")]
        assert [] == machines(process.pid)
        assert [] == left(tmp_path)


def test_after_a_sudden_death_nothing_stays(tmp_path: Path) -> None:
    """Of a process that was killed the servants give back what they hold."""
    with running(tmp_path, *explore(tmp_path)) as process:
        machine = machine_of(process, tmp_path)
        process.kill()

        assert eventually(lambda: is_gone(machine))
        assert eventually(lambda: not left(tmp_path))
        assert [] == list((tmp_path / "machines").glob("*-work-*"))


def test_after_the_sudden_death_of_all_the_next_start_cleans_up(tmp_path: Path) -> None:
    """Where its servant was killed too, QEMU goes at once, and its directory with the next start."""
    with running(tmp_path, *explore(tmp_path)) as process:
        machine = machine_of(process, tmp_path)
        [servant] = [servant for servant in servants(process.pid) if children(servant, "qemu-system")]
        process.send_signal(signal.SIGSTOP)
        os.kill(servant, signal.SIGKILL)
        process.kill()

        assert eventually(lambda: is_gone(machine))
    stale = left(tmp_path)
    seed = tmp_path / "a.seed"
    seed.write_text(f"world laboratory-6.12\nsemantics {KERNEL}\n---\nftrace_ops o1 -> 0\nfail alloc 2\n")
    environment = {**os.environ, "TMPDIR": str(tmp_path / "machines")}
    command = [sys.executable, "-m", "properties", "replay", str(seed), "--system", KERNEL]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)

    assert stale
    assert [] == left(tmp_path)
    told = f"{seed}:5: the system {KERNEL} can only make a point fail when it is reached next\n"
    assert (2, told) == (done.returncode, done.stderr)
