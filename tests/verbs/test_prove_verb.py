"""The verb `prove`: its exit status, what it prints, and how a counterexample is shown."""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import properties.proofs
from properties.verbs import prove

FOLDER = Path(properties.proofs.__file__).parent / "images"
GOOD = FOLDER / "linux-6.12.bpf_modify_return_test2.fentry1_fmod_ret1_fexit1.cookie.ip.json"
Write = Callable[[str, str], Path]


@pytest.fixture
def mutated(tmp_path: Path) -> Write:
    """Writes the good file, with some bytes of its image exchanged for others."""

    def make(old: str, new: str) -> Path:
        value = json.loads(GOOD.read_text())
        assert old in value["image_hex"]
        value["image_hex"] = value["image_hex"].replace(old, new, 1)
        path = tmp_path / "image.json"
        path.write_text(json.dumps(value))
        return path

    return make


def run(*words: str | Path) -> int:
    parser = argparse.ArgumentParser()
    prove.add_arguments(parser)
    return prove.run(parser.parse_args(list(map(str, words))))


def test_proved(capsys: pytest.CaptureFixture[str]) -> None:
    """Each file has a line for the image as it is, and one for it while programs are detached; the status is 0."""
    status = run(GOOD)
    printed = capsys.readouterr().out.splitlines()

    assert 0 == status
    assert 2 == len(printed)
    assert printed[0].startswith(f"{GOOD}: bpf_modify_return_test2 of 6.12, fentry fmod_ret fexit: proved, 2")
    assert printed[1].startswith(f"{GOOD}: while programs are detached: proved, 2")


def test_refuted(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A counterexample has the obligation, the values, and the machine code with the fault marked; the status is 1."""
    # mov [rbp - 0x30], rdx becomes mov [rbp - 0x38], rdx.
    status = run(mutated("488955d0", "488955c8"))
    printed = capsys.readouterr().out.splitlines()

    assert 1 == status
    assert printed[0].endswith(": refuted: fentry 1: ctx[1] is argument 1")
    assert printed[1].startswith("  it is 0x")
    assert printed[1].endswith(" (rsi)")
    assert "    +0x0028  488955c8              mov qword ptr [rbp - 0x38], rdx               <- at fault" in printed
    assert "    +0x0083  e8c8faffff            call 0xffffffffc0000690 (program of fentry 1)  <- here" in printed
    assert not any("while programs are detached" in line for line in printed)


def test_only_values_that_matter_are_shown(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """Where some results of an enter helper leave a program out, such a result is all that is told, and the branch."""
    # test rax, rax becomes test eax, eax.
    status = run(mutated("4885c0", "4085c0"))
    printed = capsys.readouterr().out.splitlines()

    assert 1 == status
    assert printed[0].endswith(" is reached")
    assert ("  where", "  in") == (printed[1], printed[3])
    assert printed[2].startswith("    fentry 1: enter returned  0x")
    assert any(line.endswith(", taken") for line in printed)


def test_what_the_disassembler_shows_is_no_address(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """An instruction with two numbers, and bytes that are none, are shown as they are."""
    # push rbp becomes enter 0xbf, -0x58; mov rbp, rsp begins with what is no instruction.
    first = run(mutated("554889e5", "c8bf00a8"))
    second = run(mutated("554889e5", "550624e5"))
    printed = capsys.readouterr().out

    assert (1, 1) == (first, second)
    assert "enter 0xbf, -0x58" in printed
    assert "(no instruction)" in printed


def test_a_value_from_elsewhere_is_named(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong value is told by its number, and by the register from which it comes."""
    # mov rdx, qword ptr [rbp - 0x30], before the original, becomes mov rsi, of the same place.
    status = run(mutated("488b55d0", "488b75d0"))
    printed = capsys.readouterr().out.splitlines()

    assert 1 == status
    assert "reaches the original" in printed[0]
    assert printed[1].startswith("  it is 0x")
    assert printed[1].endswith(" (rsi)")


def test_a_place_to_patch_that_is_not_found(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """An image that calls the original has one; that of which none is found is undecided, not proved."""
    # The nop behind the original becomes another nop.
    status = run(mutated("0f1f440000", "0f1f440001"))
    printed = capsys.readouterr().out.splitlines()

    assert 3 == status
    assert printed[0].endswith("places")
    assert printed[1].endswith(
        "while programs are detached: undecided: the place that the kernel patches then is not found: "
        "there is no nop behind the original"
    )


def test_directories(mutated: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """All image files of a directory are proved, in order, and a last line counts; one without any is bad input."""
    mutated("488955d0", "488955c8")
    (tmp_path / "good.json").write_bytes(GOOD.read_bytes())
    (tmp_path / "readme").write_text("no image")
    (empty := tmp_path / "empty").mkdir()
    first = run(tmp_path)
    printed = capsys.readouterr().out.splitlines()
    second = run(GOOD, empty)
    failed = capsys.readouterr()

    assert (1, 2) == (first, second)
    assert "2 files: 1 proved, 1 refuted" == printed[-1]
    assert printed[0].startswith(f"{tmp_path}/good.json: ")
    assert f"{empty}: has no image files (*.json)\n" == failed.err
    assert failed.out.endswith("2 files: 1 proved, 1 unusable\n")


def test_the_byte_at_fault_is_found(capsys: pytest.CaptureFixture[str]) -> None:
    """Of a word written in parts, the instruction marked is that which wrote the part that is wrong."""
    status = run("--reading", "strict", GOOD)
    printed = capsys.readouterr().out

    assert 1 == status
    assert "mov dword ptr [rbp - 0xc], 0                  <- at fault" in printed


def test_undecided(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """An instruction without a model is told, and the status is 3."""
    # The nop behind the original: out dx, al among nops.
    status = run(mutated("0f1f440000", "ee90909090"))
    printed = capsys.readouterr().out

    assert 3 == status
    assert ": undecided: the instruction at +0x12b: the operation out has no model\n" in printed


def test_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A file that cannot be used is a sentence on stderr; the others are proved still, and the status is 2."""
    path = tmp_path / "bad.json"
    path.write_text("{}")
    status = run(path, GOOD)
    printed = capsys.readouterr()

    assert 2 == status
    assert f"{path}: kernel: is missing\n" == printed.err
    assert 2 == printed.out.count(": proved, ")


def test_the_worst_status_counts(mutated: Write) -> None:
    """Bad input before refuted, refuted before undecided, undecided before proved."""
    undecided = mutated("0f1f440000", "ee90909090")
    kept = undecided.rename(undecided.with_name("undecided.json"))
    refuted = mutated("488955d0", "488955c8")

    assert 3 == run(GOOD, kept)
    assert 1 == run(kept, refuted, GOOD)
    assert 2 == run(kept, refuted, GOOD.with_name("none.json"))


def test_thorough(capsys: pytest.CaptureFixture[str]) -> None:
    """All decisions can be z3's, and the line says how many were."""
    status = run("--thorough", FOLDER / "linux-7.3.bpf_fentry_test1.fentry1.ip.json")
    printed = capsys.readouterr().out

    assert 0 == status
    assert " by z3\n" in printed


def test_what_is_no_regular_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A FIFO is not waited for, neither named nor in a directory; a name may be too long, or no text."""
    fifo = tmp_path / "fifo.json"
    os.mkfifo(fifo)
    shutil.copy(GOOD, tmp_path / "good.json")
    long = tmp_path / ("a" * 300)
    broken = Path(os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe.json"))
    statuses = [run(place) for place in (fifo, tmp_path, long, broken, Path("/dev/zero"))]
    told = capsys.readouterr().err.splitlines()

    assert [2] * 5 == statuses
    assert [f"{fifo}: is no regular file"] * 2 == told[:2]
    assert [f"{long}: cannot be read: File name too long", "/dev/zero: is no regular file"] == [told[2], told[4]]
    assert told[3].endswith(".json: cannot be read: No such file or directory")


@pytest.mark.parametrize("megabytes", [6_000, 1_500, 900])
def test_little_memory(megabytes: int) -> None:
    """Under a limit of its address space, as by `ulimit -v`, the command does its work or says that it cannot."""
    done = subprocess.run(
        [sys.executable, "-m", "properties", "prove", str(GOOD)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (megabytes << 20, megabytes << 20)),
    )

    assert done.returncode in {0, 2}, done
    assert "Traceback" not in done.stderr
    assert done.returncode == 0 or done.stderr


HOSTILE = {
    "nops, and a loop": b"\x90" * 65_000 + b"\xeb\xfe",
    "a multiplication of itself, often": b"\x48\x0f\xaf\xc0\x48\x01\xc8" * 60 + b"\x48\x39\xc1\x74\x01\xcc",
    "sums and shifts, often": b"\x48\x01\xc8\x48\xd3\xe0\x48\x31\xd0" * 7_000 + b"\x48\x85\xc0\x75\x01\xcc",
    "branches on everything": b"\x48\x01\xc8\x75\x01\x90" * 4_000,
    "an unknown address, often": b"\x48\x01\xc8\x48\x89\x44\x04\x10" * 2_000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_image_has_an_end(name: str, tmp_path: Path) -> None:
    """In less than a minute and two gigabytes it is refuted, or undecided."""
    code = HOSTILE[name]
    value = json.loads(GOOD.read_text())
    value |= {"image_hex": code.hex(), "used_bytes": len(code)}
    path = tmp_path / "image.json"
    path.write_text(json.dumps(value))
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    status = run(path)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    print(f"{name}: exit {status}, {after.ru_utime - before:.1f} s, at most {after.ru_maxrss >> 10} MiB so far")

    assert status in {1, 3}
    assert after.ru_utime - before < 60
    assert after.ru_maxrss < 2 << 20
