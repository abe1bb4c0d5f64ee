"""Hypothesis's example database, shared by whoever names the same place."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TEST = """
from hypothesis import given, strategies

@given(strategies.integers())
def test_small(number):
    print("tried", number)
    assert number < 123456
"""


def run(directory: Path, place: str) -> subprocess.CompletedProcess[str]:
    """Runs a test that falls, with the project's profiles."""
    (directory / "test_falling.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-p", "conftest", "-p", "no:cacheprovider", "--capture=no", "-q"]
    environment = {name: value for name, value in os.environ.items() if name not in {"CI", "PYTEST_ADDOPTS"}}
    environment |= {"PYTHONPATH": str(ROOT), "MASSATTACH_EXAMPLES": place}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, check=False, timeout=120
    )


def test_what_fell_is_tried_first_by_others(tmp_path: Path) -> None:
    """A directory that two checkouts name: the second begins with the shrunk example of the first."""
    shared, first, second = (tmp_path / name for name in ("shared", "first", "second"))
    first.mkdir()
    second.mkdir()
    fell, again = run(first, str(shared)), run(second, str(shared))

    assert (1, 1) == (fell.returncode, again.returncode), fell.stdout + again.stdout
    assert "tried 123456" == next(line for line in again.stdout.splitlines() if line.startswith("tried"))
    assert "tried 0" == next(line for line in fell.stdout.splitlines() if line.startswith("tried"))


@pytest.mark.skipif(importlib.util.find_spec("redis") is not None, reason="the library for Redis is installed here")
def test_the_extra_for_redis_is_named(tmp_path: Path) -> None:
    """Without it a sentence says what to install."""
    done = run(tmp_path, "redis://localhost:6379")

    assert 0 != done.returncode
    assert "pip install 'hypothesis[redis]'" in done.stdout + done.stderr
