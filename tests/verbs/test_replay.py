"""Replay prints each step, and its status tells whether all sides agree, one diverges, or a file cannot be used."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from properties.verbs import replay

HEADER = "world synthetic\nsemantics linux-6.12\n---\n"
LINES = ("ftrace_ops o1 -> 0", "ftrace_set_filter_ip o1 foo1", "register_ftrace_function o1")
GOOD = "\n".join([f"{HEADER}{LINES[0]}", *LINES[1:], "call foo1 1 -> ops:o1 body =1", "site foo1", ""])
FAKES = Path(__file__).parents[1] / "support" / "lockstep_fakes.py"


@pytest.fixture
def write(tmp_path: Path) -> object:
    def make(text: str, name: str = "one.seed") -> str:
        path = tmp_path / name
        path.write_text(text, encoding="utf-8")
        return str(path)

    return make


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    replay.add_arguments(parser)
    return replay.run(parser.parse_args(words))


def test_agreement(write: object, capsys: pytest.CaptureFixture[str]) -> None:
    """Every step is printed with what the model observed, then one line for the file; the status is 0."""
    path = write(GOOD)
    status = run(path, "--system", "model", "--system", f"{FAKES}:Honest")
    printed = capsys.readouterr().out

    assert 0 == status
    assert f"{path}: world synthetic, semantics linux-6.12, model, honest\n" in printed
    assert "     4  ftrace_ops o1 -> 0\n" in printed
    assert "     7  call foo1 1 -> ops:o1 body =1\n" in printed
    assert "     8  site foo1 -> ops:o1\n" in printed
    assert printed.endswith(f"{path}: 5 steps, all agree\n")


@pytest.mark.parametrize("flaw", "WrongOutcome WrongSites WrongTrace WrongCost DoesNotStart CannotClose".split())
def test_divergence(write: object, capsys: pytest.CaptureFixture[str], flaw: str) -> None:
    """A system that differs is shown with both sides, and the status is 1."""
    status = run(write(GOOD), "--system", f"{FAKES}:{flaw}", "--system", f"{FAKES}:Honest")
    printed = capsys.readouterr().out

    assert 1 == status
    assert "diverges in" in printed
    assert "the model says:" in printed
    assert printed.endswith("5 steps, 1 divergence\n")


def test_an_expectation_that_the_model_does_not_meet(write: object, capsys: pytest.CaptureFixture[str]) -> None:
    """The seed's own expectations are held against all sides."""
    status = run(write(GOOD.replace("body =1", "body =2")), "--system", "model")
    printed = capsys.readouterr().out

    assert 1 == status
    assert "model diverges in expectation at line 7: call foo1 1\n  the seed expects: ops:o1 body =2\n" in printed


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("ftrace_ops\n", ":1: unknown header line 'ftrace_ops'"),
        (f"{HEADER}jump o1\n", ":4: unknown verb 'jump'"),
        (f"{HEADER}ftrace_ops o1\ncall foo2 1\n", ":5: 'call': foo2 takes 2 words"),
        (f"{HEADER}update_ftrace_direct_add o1 foo1=T1\n", ":4: 'update_ftrace_direct_add' does not exist"),
        (HEADER.replace("synthetic", "elsewhere"), ": unknown world 'elsewhere'"),
    ],
)
def test_bad_input(write: object, capsys: pytest.CaptureFixture[str], text: str, mistake: str) -> None:
    """A file that cannot be used is told in one sentence with its line, nothing of it is run, and the status is 2."""
    path = write(text)
    status = run(path, "--system", "model")
    printed = capsys.readouterr()

    assert 2 == status
    assert printed.err.startswith(f"{path}{mistake}")
    assert 1 == printed.err.count("\n")
    assert "ftrace_ops o1" not in printed.out


def test_the_worst_file_decides(write: object, capsys: pytest.CaptureFixture[str]) -> None:
    """All files are replayed, and the status is the worst."""
    good, diverging = write(GOOD, "a.seed"), write(GOOD.replace("=1", "=2"), "b.seed")
    bad = write("nothing", "c.seed")

    assert 1 == run(good, diverging, good, "--system", "model")
    assert 2 == run(bad, diverging, good, "--system", "model")
    assert 3 == capsys.readouterr().out.count("all agree")
