"""The verb `linux`, and kernels as systems of other verbs, on a machine on which nothing can be booted."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from impl.linux.guest import packages
from properties.__main__ import main
from properties.kernels import needs
from properties.kernels.checks import Job, Random, job_checks
from properties.report.results import CheckVerdict
from properties.systems.naming import KERNELS
from properties.verbs import checks
from spec.errors import BadInputError
from spec.laboratory import laboratory
from spec.semantics import PRESETS

ROOT = Path(__file__).parents[2]
INSTALL = "apt-get install qemu-system-x86 qemu-utils util-linux gcc libc6-dev make binutils dwarves"


def without_tools(tmp_path: Path, *words: str) -> subprocess.CompletedProcess[str]:
    """Runs a verb where no tool is in the path, and no kernel in the cache."""
    command = [sys.executable, "-m", "properties", *words]
    environment = {"PATH": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize(
    ("words", "mistake"),
    [
        ("--bzimage b --kernel linux-6.1", "--kernel are for Debian's kernels"),
        ("--bzimage b --cost --fetch", "--cost and --fetch are for Debian's kernels: leave --bzimage out"),
        ("--modules d", "--modules belong to a kernel of your own: write --bzimage FILE, too"),
        ("--semantics linux-6.1", "--semantics belong to a kernel of your own"),
        ("--kernel linux-5.4", "invalid choice: 'linux-5.4'"),
        ("--operations -3", "'-3' is no number of operations: write 0 or more"),
        ("--budget 0", "'0' is no number of seconds: write one above 0"),
        ("--semantics proposal-2021", "invalid choice: 'proposal-2021'"),
        ("--config all", "invalid choice: 'all'"),
        ("--system linux-6.1", "'linux-6.1' is no kernel of your own: write bzimage:FILE, or --kernel"),
        ("--system bzimage:", "'bzimage:' names no file: write bzimage:FILE, or bzimage:FILE,MODULES"),
        ("--system bzimage:b --kernel linux-6.1", "--kernel are for Debian's kernels"),
        ("--coverage c --fetch", "--coverage notes what runs execute, and --fetch makes none: leave one out"),
    ],
)
def test_bad_options(words: str, mistake: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Options that do not fit are told, and the status is 2."""
    try:
        status = main(["linux", *words.split()])
    except SystemExit as ending:
        status = ending.code
    printed = capsys.readouterr()

    assert (2, "") == (status, printed.out)
    assert mistake in printed.err


@pytest.mark.parametrize(
    "words", ["explore --bzimage nowhere/bzImage", "replay a.seed --system bzimage:nowhere/bzImage"]
)
def test_a_kernel_of_ones_own_that_is_not_there(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb that takes one tells it in a sentence, before anything is begun."""
    assert 2 == main(words.split())
    assert "nowhere/bzImage: the kernel cannot be read: No such file or directory" in capsys.readouterr().err


def test_the_fragment_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """`linux --config` needs no tool, and prints what can be given to merge_config.sh."""
    assert 0 == main(["linux", "--config"])
    plain = capsys.readouterr().out
    assert 0 == main(["linux", "--config", "debug"])
    debug = capsys.readouterr().out

    assert "\nCONFIG_DEBUG_INFO_BTF=y\n" in plain
    assert debug.startswith(plain)
    assert "\nCONFIG_PROVE_LOCKING=y\n" in debug


def test_what_is_missing_is_told_before_anything_is_done(tmp_path: Path) -> None:
    """Without QEMU and compiler one sentence names them, and the command that installs them."""
    done = without_tools(tmp_path, "linux", "--junit", str(tmp_path / "l.xml"))

    assert (2, "") == (done.returncode, done.stdout)
    assert done.stderr.startswith("qemu-system-x86_64, qemu-img, setpriv, gcc, make, objcopy, pahole are needed")
    assert done.stderr.endswith(f"{INSTALL}\n")
    assert [] == list(tmp_path.iterdir())


@pytest.mark.parametrize("verb", ["explore", "replay"])
def test_a_kernel_that_cannot_be_had_is_bad_input(verb: str, tmp_path: Path) -> None:
    """As a system of another verb it is one sentence, too, and no journal is left."""
    (tmp_path / "s").mkdir()
    seed = tmp_path / "a.seed"
    seed.write_text("world synthetic\nsemantics linux-6.12\n---\nftrace_ops o1\n")
    words = ["--save", str(tmp_path / "s")] if verb == "explore" else [str(seed)]
    done = without_tools(tmp_path, verb, *words, "--system", "linux-6.12")

    assert 2 == done.returncode
    assert "is needed and not installed: apt-get install" in done.stderr
    assert "Traceback" not in done.stderr
    assert [] == list((tmp_path / "s").iterdir())


def test_verify_tells_which_kernels_it_leaves_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """One line a kernel, with the command that helps; nothing is fetched."""
    monkeypatch.setattr(needs, "TOOLS", ())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "massattach" / f"linux-6.12-{packages.LAYOUT}").mkdir(parents=True)
    ready, left_out = checks.kernels()

    assert ["a real kernel agrees: linux-6.12"] == [check.name for check in ready]
    fetch = "its files are not in the cache: python -m properties linux --fetch --kernel"
    assert [f"the real {name} is left out: {fetch} {name}" for name in ("linux-6.1", "linux-7.3")] == left_out


def test_a_missing_tool_is_told_for_each_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without QEMU no kernel is checked, however many are in the cache."""
    monkeypatch.setenv("PATH", str(tmp_path))
    ready, left_out = checks.kernels()

    assert [] == ready
    assert len(KERNELS) == len(left_out)
    assert all(line.endswith(INSTALL) for line in left_out)


def test_a_kernel_that_cannot_be_fetched_is_not_run() -> None:
    """Its checks say why, and none of them holds."""

    def files() -> packages.Kernel:
        raise BadInputError("the mirror is away")

    job = Job("linux-6.12", files, PRESETS["linux-6.12"], laboratory("laboratory-6.12"), ("OPS-1",))
    fixed, *_, last = job_checks(job, Random(10, 1.0, 1, Path()))

    with pytest.raises(BadInputError, match="the mirror is away"):
        fixed.run()
    assert (CheckVerdict.NOT_RUN, "no run of this kernel was made") == (last.run().verdict, last.run().detail)
    assert job.evidence is None


def test_a_terminated_verb_says_so(tmp_path: Path) -> None:
    """SIGTERM ends a verb as Ctrl-C does, with a status of its own."""
    command = [sys.executable, "-m", "properties", "explore", "--budget", "60", "--save", str(tmp_path)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline().startswith("explore: ")
        process.terminate()
        _, complaint = process.communicate(timeout=60)

    assert (143, "terminated\n") == (process.returncode, complaint)
    assert [] == list(tmp_path.iterdir())
