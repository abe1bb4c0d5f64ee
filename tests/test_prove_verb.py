"""The verb `prove`: its exit status, what it prints, and how a counterexample is shown."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import pytest

import properties.proofs
from properties import prove

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
    assert printed[0].startswith(f"{GOOD}: bpf_modify_return_test2 of 6.12, fentry fmod_ret fexit: proved, 1")
    assert printed[1].startswith(f"{GOOD}: while programs are detached: proved, 1")


def test_refuted(mutated: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """A counterexample has the obligation, the values, and the machine code with the fault marked; the status is 1."""
    # mov [rbp - 0x30], rdx becomes mov [rbp - 0x38], rdx.
    status = run(mutated("488955d0", "488955c8"))
    printed = capsys.readouterr().out.splitlines()

    assert 1 == status
    assert printed[0].endswith(": refuted: fentry 1: ctx[1] is argument 1")
    assert printed[1].startswith("  it is 0x")
    assert any(line.startswith("    rsi  ") for line in printed)
    assert "    +0x0028  488955c8              mov qword ptr [rbp - 0x38], rdx               <- at fault" in printed
    assert "    +0x0083  e8c8faffff            call 0xffffffffc0000690 (program of fentry 1)  <- here" in printed
    assert not any("while programs are detached" in line for line in printed)


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
    assert f"{path}: args: is missing\n" == printed.err
    assert 2 == printed.out.count("proved")


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
