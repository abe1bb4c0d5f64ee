"""The wheel: what is in it, and what its command does where there is no checkout."""

from __future__ import annotations

import subprocess
import sys
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

from properties.verbs import SUMMARIES

ROOT = Path(__file__).parents[2]
WINGS = ("spec", "model", "impl", "properties")
FOLDERS = ("massattach", *WINGS)
BUG = "impl.planted.ftrace:tramp_not_restored"
# `mov rcx, qword ptr [rbp - 0x50]`, and what loads the next argument in its place.
ANOTHER_LOAD = "488b4db0", "488b4db8"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of this checkout, built without a network by the hatchling that is here."""
    directory = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(directory)]
    subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    (built,) = directory.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The command, in a fresh virtual environment with its dependencies from the package index."""
    directory = tmp_path_factory.mktemp("installed") / "venv"
    venv.create(directory, with_pip=True)
    pip = [str(directory / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = subprocess.run([*pip, str(wheel)], capture_output=True, text=True, check=False)

    assert 0 == done.returncode, done.stderr
    return directory / "bin" / "massattach"


def run(command: Sequence[str | Path], directory: Path) -> subprocess.CompletedProcess[str]:
    """Runs a command in a directory, with nothing of the checkout on its path."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": str(directory), "TERM": "dumb"}
    return subprocess.run(
        [str(word) for word in command],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def tracked(*folders: str) -> set[str]:
    """What git tracks, or would add, in these folders."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z", "--", *folders]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    return {name for name in listed if (ROOT / name).is_file()}


def test_the_wheel_holds_all_that_git_tracks_and_the_product_reads(wheel: Path) -> None:
    """Every file of the four folders, code and data, is in the wheel, byte for byte, in one package; no other is."""
    expected = {name if name.startswith("massattach/") else f"massattach/{name}": name for name in tracked(*FOLDERS)}
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}

        assert set(expected) == packed
        for name, source in expected.items():
            assert (ROOT / source).read_bytes() == archive.read(name), name


@pytest.mark.slow
def test_an_installed_command_explains_its_verbs(installed: Path, tmp_path: Path) -> None:
    """Help calls the command by its name, and so does every verb's."""
    done = run([installed, "--help"], tmp_path)

    assert 0 == done.returncode, done.stderr
    assert done.stdout.startswith("usage: massattach VERB ...\n")
    for verb in SUMMARIES:
        explained = run([installed, verb, "--help"], tmp_path)

        assert 0 == explained.returncode, explained.stderr
        assert explained.stdout.startswith(f"usage: massattach {verb} ")


@pytest.mark.slow
def test_an_installed_command_is_one_package(installed: Path, tmp_path: Path) -> None:
    """Beside `massattach` nothing of the project can be imported from site-packages."""
    code = "import importlib.util as u; print([name for name in {names!r} if u.find_spec(name)])"
    done = run([installed.with_name("python"), "-c", code.format(names=FOLDERS)], tmp_path)

    assert "['massattach']\n" == done.stdout, done.stderr


@pytest.mark.slow
def test_an_installed_command_plans(installed: Path, tmp_path: Path) -> None:
    """The real populations are in the package."""
    done = run([installed, "plan", "kfunc:x86*", "fexit:vfs_*", "--semantics", "linux-7.3"], tmp_path)

    assert 0 == done.returncode, done.stderr
    assert "World linux-7.3: 47,382 functions" in done.stdout


@pytest.mark.slow
def test_an_installed_command_explores_and_replays(installed: Path, tmp_path: Path) -> None:
    """A planted bug is found by its name; its seed goes where the user is, and replays there."""
    found = run([installed, "explore", "--system", BUG, "--semantics", "linux-6.12", "--random-seed", "1"], tmp_path)

    assert 1 == found.returncode, found.stderr
    (seed,) = tmp_path.glob("*.seed")
    assert f"written to {seed.name}" in found.stdout
    assert 0 == run([installed, "replay", seed.name], tmp_path).returncode
    assert 1 == run([installed, "replay", seed.name, "--system", BUG], tmp_path).returncode


@pytest.mark.slow
def test_an_installed_command_runs_a_system_of_the_user(installed: Path, tmp_path: Path) -> None:
    """A plug-in finds `spec` and `impl` by their names, as in the checkout."""
    (tmp_path / "mine.py").write_text("from impl.batched import per_shape as system\n")
    seed = next((ROOT / "properties" / "runs" / "seeds").glob("*.seed"))
    done = run([installed, "replay", seed, "--system", "mine.py:system"], tmp_path)

    assert 0 == done.returncode, done.stderr


@pytest.mark.slow
def test_an_installed_command_proves(installed: Path, tmp_path: Path) -> None:
    """Image files are proved in a process of its own, which finds the package too; one with a wrong load is refuted."""
    image = ROOT / "properties" / "proofs" / "images" / "linux-6.12.__clk_hw_register_composite.fexit1.json"
    right, wrong = tmp_path / "right.json", tmp_path / "wrong.json"
    right.write_text(image.read_text())
    wrong.write_text(image.read_text().replace(*ANOTHER_LOAD, 1))
    proved, refuted = run([installed, "prove", right.name], tmp_path), run([installed, "prove", wrong.name], tmp_path)

    assert 0 == proved.returncode, proved.stderr
    assert 2 == proved.stdout.count(": proved, ")
    assert 1 == refuted.returncode
    assert "refuted: argument 3 (rcx) reaches the original" in refuted.stdout
