"""The wings of impl/linux: imports go one way, and what an architecture is stays in its folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from impl.linux.architectures.x86_64 import X86_64

ROOT = Path(__file__).parents[2] / "impl" / "linux"
WINGS = ("host", "architectures", "guest", "bpf", "probes", "laboratory", "instruments")
ABOVE = {"declining"}
"""Folders of what stands above all wings."""

MAY_IMPORT = {
    "host": set[str](),
    "architectures": {"host"},
    "guest": {"host", "architectures"},
    "bpf": {"guest"},
    "probes": {"architectures", "guest", "bpf"},
    "laboratory": {"host", "architectures", "guest", "probes"},
    "instruments": {"host", "architectures", "guest", "bpf", "probes", "laboratory"},
}
C_FILES = sorted(path for path in ROOT.rglob("*.[ch]") if not path.stem.endswith("_x86"))
OUTSIDE = [path for path in sorted(ROOT.rglob("*.py")) if "architectures" not in path.parts]

REGISTERS = r"[re]?[abcd]x|[re]?[sd]i|[re][sb]p|rip|r(8|9|1[0-5])[dwb]?|[xw]([0-9]|[12][0-9]|30)|xzr|wzr|lr|sp|fp"
INSTRUCTIONS = "endbr64 movabs retq nopl paciasp bti blr adr ldp stp".split()
PLATFORMS = r"x86|x86[-_]64|amd64|aarch64|arm64|qemu-system-\w+|ttyS0|ttyAMA0|ARCH=\w+"
NAMES = re.compile(rf"\b({REGISTERS}|{'|'.join(INSTRUCTIONS)}|{PLATFORMS})\b")
# a call, a jump and a nop of five bytes
OPCODES = {0xE8, 0xE9, "0f1f440000"}


def wing_of(path: Path) -> str:
    """The wing of a module; nothing for those above all wings."""
    folder = path.relative_to(ROOT).parts[0]
    return folder if folder in WINGS else ""


def imported(path: Path) -> Iterator[str]:
    """The names in impl.linux that a module imports."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("impl.linux"):
            yield from (f"{node.module}.{alias.name}".removeprefix("impl.linux.") for alias in node.names)


@pytest.mark.parametrize("wing", WINGS)
def test_a_wing_imports_only_those_below(wing: str) -> None:
    """No import leads to a later wing, or to what stands above all wings."""
    found = {name.partition(".")[0] for path in (ROOT / wing).rglob("*.py") for name in imported(path)}

    assert found - {wing} <= MAY_IMPORT[wing]
    assert MAY_IMPORT[wing] <= set(WINGS[: WINGS.index(wing)])


def test_there_are_no_other_wings() -> None:
    """Each folder is one of the wings, or above them, and says what is there."""
    folders = {path.parent.name for path in ROOT.glob("*/__init__.py")}

    assert folders == ABOVE.union(WINGS)
    assert all(ast.get_docstring(ast.parse((ROOT / folder / "__init__.py").read_text())) for folder in folders)


def test_one_module_chooses_the_architecture() -> None:
    """The record of an architecture goes with a kernel; nothing but where kernels come from names one."""
    chosen = [path.name for path in OUTSIDE if any("x86_64" in name.lower() for name in imported(path))]

    assert ["packages.py"] == chosen


@pytest.mark.parametrize("path", OUTSIDE, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_an_architecture_names_its_registers(path: Path) -> None:
    """No register, instruction, package or machine of an architecture is named, and no system call has a number."""
    tree = ast.parse(path.read_bytes())
    constants = [node.value for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    texts = [value for value in constants if isinstance(value, str) and not value.startswith("impl.linux")]
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    first = [node.args[0] for node in calls if node.func.attr == "syscall" and node.args]  # type: ignore[attr-defined]
    names = {argument.value if isinstance(argument, ast.Constant) else "?" for argument in first}

    assert set() == {match.group() for text in texts for match in NAMES.finditer(text)}
    assert set() == OPCODES.intersection(value for value in constants if isinstance(value, int | str))
    assert names <= X86_64.syscalls.keys()


@pytest.mark.parametrize("path", C_FILES, ids=lambda path: path.name)
def test_only_the_stubs_are_written_for_an_architecture(path: Path) -> None:
    """All C that is not named for one is for any architecture; a condition tells the number of argument registers."""
    assert set() == {match.group() for match in NAMES.finditer(path.read_text())}


def test_the_search_is_not_blind() -> None:
    """It finds names where they may be."""
    texts = [path.read_text() for path in (ROOT / "architectures" / "x86_64").glob("*.py")]

    assert all(any(re.search(rf"\b{name}\b", text) for text in texts) for name in ("rdi", "movabs", "amd64"))
    assert {"rdi", "movabs", "amd64"} <= {match.group() for text in texts for match in NAMES.finditer(text)}
