"""The verb `kernel-build`, on a tree in which make only notes what it is asked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from impl.linux.guest import building
from impl.linux.guest.configuration import fragment
from properties.__main__ import main

MAKE = """#!/bin/sh
echo "$@" >> "$NOTES"
for word in "$@"; do
    case $word in
    O=*) output=${word#O=} ;;
    tinyconfig) : > "$output/.config" ;;
    bzImage) exit $STATUS ;;
    esac
done
"""
MERGE = """#!/bin/sh
grep -v CONFIG_LIVEPATCH "$5" > "$3/.config"
"""


def put(path: Path, script: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    path.chmod(0o755)


@pytest.fixture
def notes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What make was asked for, in a directory with two source trees; whatever else building needs is there."""
    put(tmp_path / "bin/make", MAKE)
    for tree in "linux-source-7.3", "linux-source-7.10":
        put(tmp_path / "home" / tree / "scripts/kconfig/merge_config.sh", MERGE)
    for name, value in {
        "PATH": f"{tmp_path}/bin:/usr/bin:/bin",
        "NOTES": str(tmp_path / "notes"),
        "STATUS": "0",
    }.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(building, "HEADERS", {})
    monkeypatch.setattr(building, "TOOLS", ("make",))
    return tmp_path / "notes"


def test_the_newest_tree_is_configured_once(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What the fragment asks for and does not get is told; a second run only compiles."""
    home = notes.parent / "home"
    assert 0 == main(["kernel-build", str(home), "--jobs", "3"])
    told = capsys.readouterr()
    assert f"{home}/build-plain/arch/x86/boot/bzImage: built in " in told.out
    assert "not as the fragment asks for: CONFIG_LIVEPATCH=y is n\n" in told.err
    first = f"-s -C {home}/linux-source-7.10 O={home}/build-plain"
    making = f"{first} -j3 bzImage modules"
    assert [f"{first} tinyconfig", f"{first} olddefconfig", making] == notes.read_text().splitlines()

    assert 0 == main(["kernel-build", str(home), "--jobs", "3"])
    assert making == notes.read_text().splitlines()[3]
    (home / "build-plain" / building.FRAGMENT).write_text(fragment(debug=True))
    assert 0 == main(["kernel-build", str(home), "--jobs", "3"])
    assert f"{first} tinyconfig" == notes.read_text().splitlines()[4]


def test_what_does_not_compile(
    notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The status is 1, and nothing says that a kernel is there."""
    monkeypatch.setenv("STATUS", "2")
    assert 1 == main(["kernel-build", str(notes.parent / "home"), "--debug"])
    told = capsys.readouterr()
    assert "" == told.out
    assert "linux-source-7.10 does not compile, as make says above\n" in told.err


def test_what_is_missing(notes: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A tool, a header, a directory that cannot be one: one sentence, and nothing is fetched."""
    monkeypatch.setattr(building, "HEADERS", {"/nowhere/libelf.h": "libelf-dev"})
    assert 2 == main(["kernel-build", str(notes.parent / "home")])
    assert "/nowhere/libelf.h is needed and not there: apt-get install libelf-dev\n" == capsys.readouterr().err
    monkeypatch.setattr(building, "TOOLS", ("flex",))
    monkeypatch.setenv("PATH", str(notes.parent / "bin"))
    assert 2 == main(["kernel-build", str(notes.parent / "home")])
    assert "flex is needed and not installed: apt-get install flex\n" == capsys.readouterr().err


def test_a_directory_that_is_a_file(notes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """It is named with what the system says of it."""
    notes.touch()
    assert 2 == main(["kernel-build", str(notes)])
    assert f"{notes}: cannot be used: File exists\n" == capsys.readouterr().err
