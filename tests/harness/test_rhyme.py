"""The rooms rhyme: one concept has one name in spec, model, batched and linux, and one class name has one meaning."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
WINGS = ("spec", "model", "impl", "properties")
README = (ROOT / "spec" / "README.md").read_text()
NO_CONCEPT = {
    *(f"model/{name}.py" for name in ("__init__", "rules", "state", "system")),
    *(f"impl/batched/{name}.py" for name in ("__init__", "functions", "state", "system")),
}
KERNEL_CONCEPTS = {"GraphUser", "Kprobe", "Link", "Ops", "Refused", "State"}
"""Classes of model and batched that stand for the same thing in the kernel."""

PROVER = Path("properties/prover")
PROVERS_OWN = {"Architecture", "Entry", "Frame", "Image", "Instruction", "Program", "State", "Step", "Verdict"}
"""Terms of provers, which the prover's package uses in their own sense: it imports spec alone."""

SEEDS = {"Step"}
"""A line of a seed; in spec.operations an operation that the alphabet calls `step`."""


class Row(NamedTuple):
    """A row of the table; rules: prefixes, and single rules of others."""

    concept: str
    rules: list[str]
    model: list[str]
    batched: list[str]
    linux: list[str]


def rows() -> list[Row]:
    """The table "Where each concept stands"."""
    section = README.partition("## Where each concept stands")[2].partition("\n## ")[0]
    lines = [line for line in section.split("\n") if line.startswith("| ")][1:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [
        Row(name, rules.split(", "), *(re.findall(r"`([^`]+)`", cell) for cell in rest)) for name, rules, *rest in cells
    ]


each_row = pytest.mark.parametrize("row", rows(), ids=lambda row: row.concept)


@each_row
def test_every_page_of_a_row_exists(row: Row) -> None:
    """A cell names files, the first of model and batched by the same name but where the concept is code."""
    paths = [*row.model, *row.batched, *row.linux]

    assert [] == [path for path in paths if not (ROOT / path).is_file()]
    assert row.model
    assert row.batched
    if "machine" not in row.batched[0]:
        assert Path(row.model[0]).name == Path(row.batched[0]).name


@each_row
def test_the_models_page_cites_the_rules_of_its_row(row: Row) -> None:
    """Each page of the model cites a rule of its row, and the row's rules are each cited by one of them."""
    texts = [(ROOT / path).read_text() for path in row.model]
    cited = [{rule for rule in row.rules if re.search(rf"\b{rule}(-[0-9]+)?\b", text)} for text in texts]

    assert all(cited)
    assert set(row.rules) == set().union(*cited)


def test_every_prefix_has_one_row() -> None:
    """The rules of a concept stand in one row."""
    prefixes = [rule for row in rows() for rule in row.rules if "-" not in rule]

    assert sorted(set(re.findall(r"^- \*\*([A-Z]+)-", README, re.MULTILINE))) == sorted(prefixes)


@pytest.mark.parametrize("room", ["model", "impl/batched"])
def test_every_page_of_a_room_has_a_row(room: str) -> None:
    """The pages of the model, and of batched beneath its two machines, are those of the table."""
    named = {path for row in rows() for path in (*row.model, *row.batched)}
    pages = {path.relative_to(ROOT).as_posix() for path in (ROOT / room).glob("*.py")}

    assert pages - NO_CONCEPT == {path for path in named if Path(path).parent == Path(room)}
    assert {path for path in NO_CONCEPT if Path(path).parent == Path(room)} <= pages


def test_a_class_name_has_one_meaning() -> None:
    """No public class has the name of another, but for the kernel's concepts in model and batched."""
    homes: dict[str, set[Path]] = defaultdict(set)
    for path in (path for wing in WINGS for path in (ROOT / wing).rglob("*.py")):
        for node in ast.parse(path.read_bytes()).body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].add(path.relative_to(ROOT))
    outside = {name: {path for path in paths if path.parent != PROVER} for name, paths in homes.items()}

    assert KERNEL_CONCEPTS | SEEDS == {name for name, paths in outside.items() if len(paths) > 1}
    for name in KERNEL_CONCEPTS:
        assert {"model", "impl/batched"} == {path.parent.as_posix() for path in outside[name]}, name
    assert {name for name, paths in homes.items() if outside[name] and outside[name] != paths} <= PROVERS_OWN
