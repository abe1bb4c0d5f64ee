"""Every entry of spec/DEFECTS.md has its report in docs/defects, as it would be written now."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

import spec
from properties.export.defects import DIRECTORY, KNOWN, entries, report_files
from properties.export.mail import WIDTH
from properties.runs.corpus import DEFECTS
from spec.seeds import read_seed
from tests.support.exporting import compile_c

ROOT = Path(__file__).parents[2]


def test_every_entry_is_read() -> None:
    """Entries are numbered from 1, name their kernels, and are those of which something is known."""
    text = (Path(spec.__file__).parent / "DEFECTS.md").read_text()
    numbers = [f"DEFECT-{number}" for number in range(1, text.count("- **DEFECT-") + 1)]

    assert numbers == list(entries())
    assert numbers == list(KNOWN)
    for entry in entries().values():
        assert re.search(r"\d\.\d", entry.kernels)
        assert entry.text.endswith((".", ")."))


def test_the_reports_are_up_to_date() -> None:
    """If this fails, run `python -m properties.export.defects`."""
    wanted = {name: text for entry in entries().values() for name, text in report_files(entry).items()}
    there = {path.name: path.read_text() for path in (ROOT / DIRECTORY).iterdir()}

    assert sorted(wanted) == sorted(there)
    assert [] == [name for name, text in wanted.items() if there[name] != text]


def test_the_texts_fit() -> None:
    """No line of a report has more than 72 columns, and each says where, since when and whether it was mended."""
    for path in (ROOT / DIRECTORY).glob("*.txt"):
        text = path.read_text()

        assert max(map(len, text.splitlines())) <= WIDTH, path
        assert all(f"\n  {fact}: " in text for fact in ("Seen on", "Since", "Mended")), path


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc libc6-dev")
@pytest.mark.parametrize("path", sorted((ROOT / DIRECTORY).glob("*.c")), ids=lambda path: path.stem)
def test_a_program_compiles(path: Path) -> None:
    """Without a warning."""
    assert compile_c(path, None) == ""


def test_seeds_of_their_own_name_their_defect() -> None:
    """What a kernel diverges from is no part of the corpus; its comment says which defect it shows."""
    for path in DEFECTS.glob("*.seed"):
        assert re.search(r"DEFECT-\d+", path.read_text())
        assert read_seed(path).steps
