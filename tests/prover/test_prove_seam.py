"""What an architecture is stays in its modules: nothing else of the prover or the generator names a register."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("properties/prover", "impl/batched/jit")
OWN = {"arm64.py", "x86_64.py", "x86_64_instructions.py"}

# What x86-64's verifier puts into programs, which it says in its first lines; no other architecture has any here.
OF_ONE = ROOT / "impl" / "batched" / "jit" / "inlines.py"

REGISTERS = r"[re]?[abcd]x|[re]?[sd]i|[re][sb]p|rip|r(8|9|1[0-5])[dwb]?|[xw]([0-9]|[12][0-9]|30)|xzr|wzr|lr|sp|fp"
INSTRUCTIONS = (
    "mov movabs movz movk lea endbr64 jne jz jnz retq nopl bti paciasp blr cbz cbnz ldr stp ldp adr adrp subs tbz sete"
).split()
NAMES = re.compile(rf"\b({REGISTERS}|{'|'.join(INSTRUCTIONS)})\b")


def modules() -> list[Path]:
    paths = [path for folder in FOLDERS for path in sorted((ROOT / folder).glob("*.py"))]
    return [path for path in paths if path.name not in OWN and path != OF_ONE]


def words(path: Path) -> Iterator[str]:
    """All that a module's code says: its names, and its strings, docstrings among them."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value
        elif isinstance(node, ast.Name):
            yield node.id
        elif isinstance(node, ast.Attribute):
            yield node.attr


@pytest.mark.parametrize("path", modules(), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_only_an_architectures_module_names_its_registers(path: Path) -> None:
    """No register and no instruction is named elsewhere, in code or in words."""
    named = {match.group() for text in words(path) for match in NAMES.finditer(text)}

    assert set() == named


def test_the_names_are_found_where_they_may_be() -> None:
    """The search is not blind: it finds names in each architecture's modules, and what is of one tells of which."""
    for folder in FOLDERS:
        for name in OWN & {path.name for path in (ROOT / folder).iterdir()}:
            assert any(NAMES.search(text) for text in words(ROOT / folder / name)), (folder, name)
    if OF_ONE.exists():
        assert "x86-64" in (ast.get_docstring(ast.parse(OF_ONE.read_bytes())) or "")
