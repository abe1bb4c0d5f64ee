"""The documents: links lead somewhere, parsers know the commands, formats are told whole, tutorials come true."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields
from pathlib import Path

import pytest

from properties.__main__ import main, parse
from properties.faults.records import FaultRecord
from properties.kernels.coverage import BlockRecord, CoverageRecord, KernelCoverage
from properties.kernels.evidence import Evidence
from properties.kernels.tables import as_json
from properties.mutants.records import MutantRecord
from properties.report.results import CheckResult, CheckVerdict, Finished
from properties.report.show import write_reports
from properties.verbs import SUMMARIES, module_name
from spec.images import ImageFile
from spec.operations import HOW, OPERATIONS, Operation
from spec.populations import _Population, _Record, make_world
from spec.semantics import PRESETS

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"(?:- |run: |\$ )?(?:(?:\./)?tox -e (\S+)(?: --)?|(?:python -m properties|massattach) (\S+))(.*)")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
NAMED = re.compile(r"This is\s+`([\w.-]+)`:\n\n```\w*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.MULTILINE)
TUTORIALS = ("docs/tutorial-planted-bug.md",)


def tracked(*patterns: str) -> list[Path]:
    """The files that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", *patterns]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    return [ROOT / name for name in listed if (ROOT / name).is_file()]


DOCUMENTS = tracked("*.md")
WITH_COMMANDS = [*DOCUMENTS, *tracked("*.yml", "*.yaml")]


def name(path: Path) -> str:
    return str(path.relative_to(ROOT))


def anchors(text: str) -> set[str]:
    """The fragments by which the headings of a document are linked to."""
    headings = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in HEADING.findall(FENCED.sub("", text)))
    return {heading.strip().replace(" ", "-") for heading in headings}


def commands(text: str) -> Iterator[tuple[str, list[str]]]:
    """Every command of a document that stands in a line of its own: its verb or tox environment, and its words."""
    for line in text.replace("\\\n", " ").split("\n"):
        found = COMMAND.fullmatch(line.strip())
        if found:
            words = shlex.split(re.split(r"\s[|>&]", found[3])[0], comments=True)
            yield found[1] or found[2], words


def parser_of(verb: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog=verb)
    importlib.import_module(module_name(verb)).add_arguments(parser)
    return parser


def parses(verb: str, words: list[str]) -> bool:
    """Whether a verb takes these words; what it complains of goes to stderr."""
    try:
        parse(importlib.import_module(module_name(verb)), parser_of(verb), words)
    except SystemExit as ending:
        return ending.code == 0
    return True


def test_commands_are_found() -> None:
    """What the other tests ask of documents is asked of something."""
    text = "$ massattach plan 'fentry:a*' | head\n./tox -e explore -- --budget 9  # why\n    python -m properties bench"

    assert [("plan", ["fentry:a*"]), ("explore", ["--budget", "9"]), ("bench", [])] == list(commands(text))
    assert 16 <= sum(len(list(commands(path.read_text()))) for path in WITH_COMMANDS)


@pytest.mark.parametrize("path", DOCUMENTS, ids=name)
def test_links_lead_somewhere(path: Path) -> None:
    """A relative link is a file, and its fragment is a heading there."""
    text = path.read_text()
    for link in LINK.findall(text):
        place, _, fragment = link.partition("#")
        if "://" in place:
            continue
        target = path.parent / place if place else path

        assert target.exists(), link
        assert not fragment or fragment in anchors(target.read_text()), link


@pytest.mark.parametrize("path", WITH_COMMANDS, ids=name)
def test_commands_are_known(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each verb exists, and its parser takes the words and options that stand there."""
    for verb, words in commands(path.read_text()):
        if verb not in SUMMARIES:
            assert verb in (ROOT / "tox.ini").read_text(), verb
            continue
        assert parses(verb, words), (verb, words, capsys.readouterr().err)


BAR = "\\|"
"""What parts choices, where a table's own bars part its cells."""


def members(document: str) -> set[str]:
    """What the first columns of a document's tables name."""
    text = FENCED.sub("", (ROOT / document).read_text())
    cells = re.findall(r"^\| (`[^|]*`) \|", text, re.MULTILINE)
    return set(re.findall(r"`([^`]+)`", " ".join(cells)))


def line_of(kind: type[Operation]) -> str:
    """An operation's line as the document writes it, from the fields of its class."""
    return " ".join([kind.verb, *(part for entry in fields(kind) if (part := part_of(entry)))])


def part_of(entry: Field[object]) -> str:
    """One field of an operation as the document writes it."""
    optional = entry.default is not MISSING
    match entry.metadata["form"]:
        case "flag":
            return f"[{entry.name}]"
        case "option" if entry.name == "how":
            return f"[{entry.name}={BAR.join(HOW)}]"
        case "option":
            value = "N" if entry.metadata["kind"] is int else entry.metadata.get("space") or "point"
            return f"[{entry.name}={value.upper()}]"
        case "number":
            return "[N]"
        case "integers":
            return "[N...]"
        case "words":
            return "FUNCTION..."
        case "pairs":
            return "FUNCTION=TRAMP..."
        case "targets":
            return "FUNCTION[:COOKIE]..."
        case _:
            return f"[{entry.name.upper()}]" if optional else entry.name.upper()


def test_seeds_document_has_every_operation() -> None:
    """docs/seeds.md has the line of each operation, with its flags and options, and no other."""
    table = (ROOT / "docs" / "seeds.md").read_text().partition("## Operations\n")[2].partition("\nA system ")[0]
    told = {line for row in re.findall(r"^\| (`.*?`) \|", table, re.MULTILINE) for line in row.strip("`").split("`, `")}

    assert {line_of(kind) for kind in OPERATIONS.values()} == told


def test_seeds_in_documents_agree(tmp_path: Path) -> None:
    """Every seed that a document shows is one, and replays as it expects."""
    path = tmp_path / "shown.seed"
    seeds = [block for document in DOCUMENTS for _, block in FENCED.findall(document.read_text()) if "\n---\n" in block]

    assert 3 <= len(seeds)
    for seed in seeds:
        path.write_text(seed)

        assert 0 == main(["replay", str(path)]), seed


def test_images_document_has_every_field() -> None:
    """docs/images.md names each member of an image file, and no other."""
    text = (ROOT / "docs" / "images.md").read_text()
    told = members("docs/images.md") | set(re.findall(r"`(\w+)`", text.partition("## Told, and not judged")[2]))
    places = {name for name in told if "[" in name}
    nested = {"programs[].pointer", "programs[].sleepable", "args[].alignment"}

    assert set(ImageFile.__struct_fields__) == told - places
    assert nested == places


def test_populations_document_has_every_member() -> None:
    """docs/populations.md names each member of a population file and of its records; its example is one."""
    document = "docs/populations.md"
    (example,) = (block for language, block in FENCED.findall((ROOT / document).read_text()) if language == "json")
    world = make_world("example", json.loads(example))

    assert {*_Population.__struct_fields__, *_Record.__struct_fields__} == members(document)
    assert ["vfs_fsync", "no_btf_knows_me", "in_a_module"] == [function.name for function in world.functions]


def test_results_document_has_what_linux_writes() -> None:
    """docs/results.md names each member of linux.json, and of a kernel there."""
    evidence = Evidence("bzImage", "7.3.4", PRESETS["linux-7.3"], {}, {}, {}, (), (), 1, 1, 1.0)
    document = as_json([evidence])
    section = (ROOT / "docs" / "results.md").read_text().partition("## linux.json")[2].partition("\n## ")[0]
    standing = next(iter(document["rules"].values()))["bzImage"]
    told = set(re.findall(r"`(\w+)`", section))

    assert {*document, "costs", *document["kernels"]["bzImage"], *standing} == told


def test_results_document_has_what_coverage_writes() -> None:
    """docs/results.md names each member of the file that `linux --coverage` writes."""
    section = (ROOT / "docs" / "results.md").read_text().partition("## The file of `linux")[2].partition("\n## ")[0]
    kinds = (CoverageRecord, KernelCoverage, BlockRecord)

    assert {field.name for kind in kinds for field in fields(kind)} == set(re.findall(r"`(\w+)`", section))


def test_results_document_has_what_mutants_writes() -> None:
    """docs/results.md names each member of a line that `mutants` writes, and no other."""
    section = (ROOT / "docs" / "results.md").read_text().partition("## The file of `mutants`")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", section.partition("| member |")[2]))

    assert {field.name for field in fields(MutantRecord)} == told


def test_results_document_has_what_faults_writes() -> None:
    """docs/results.md names each member of a line that `faults` writes, and no other."""
    section = (ROOT / "docs" / "results.md").read_text().partition("## The file of `faults`")[2].partition("\n## ")[0]
    told = set(re.findall(r"`(\w+)`", section.partition("| member |")[2])) - {"fail"}

    assert {field.name for field in fields(FaultRecord)} == told


def test_results_document_shows_junit_as_it_is(tmp_path: Path) -> None:
    """The XML in docs/results.md has the elements and attributes that reports have."""
    result = CheckResult(CheckVerdict.FELL, 1, detail="a divergence")
    write_reports(
        [Finished("a property", result, 1.0)], tmp_path / "r.xml", tmp_path / "r.txt", title="massattach linux"
    )
    (shown,) = (
        block for language, block in FENCED.findall((ROOT / "docs/results.md").read_text()) if language == "xml"
    )
    elements = re.compile(r"<(\w+)([^>]*)>")

    assert forms(elements.findall(shown)) == forms(elements.findall((tmp_path / "r.xml").read_text()))


def forms(elements: list[tuple[str, str]]) -> list[tuple[str, list[str]]]:
    """Elements with the names of their attributes."""
    return [(element, re.findall(r"(\w+)=", attributes)) for element, attributes in elements]


@pytest.mark.slow
@pytest.mark.parametrize("document", TUTORIALS)
def test_a_tutorial_prints_what_it_says(document: str, tmp_path: Path) -> None:
    """Its files are written and its commands run, in order; every line that it shows comes, … stands for anything."""
    text = (ROOT / document).read_text()
    for file, content in NAMED.findall(text):
        (tmp_path / file).write_text(content)
    sessions = [block for language, block in FENCED.findall(text) if language == "console"]

    assert sessions
    for session in sessions:
        for step in re.split(r"^\$ ", session, flags=re.MULTILINE)[1:]:
            command, _, shown = step.partition("\n")
            printed = run(command, tmp_path)

            assert pattern(shown).fullmatch(printed), f"$ {command}\n{printed}"


def run(command: str, directory: Path) -> str:
    """What a `massattach` command prints in this directory, its errors last."""
    program, *words = shlex.split(command)
    assert "massattach" == program
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    python = [sys.executable, "-m", "massattach", *words]
    done = subprocess.run(
        python, cwd=directory, env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    return done.stdout + done.stderr


def pattern(shown: str) -> re.Pattern[str]:
    """What a session shows: … is part of a line, or any lines where it is one of its own."""
    lines = ("(?:.*\n)*?" if line == "…" else re.escape(line).replace("…", ".*") + "\n" for line in shown.splitlines())
    return re.compile("".join(lines))
