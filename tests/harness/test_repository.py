"""The repository tests itself: rules, citations, import directions, the front door's files."""

from __future__ import annotations

import ast
import configparser
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGES = ("massattach", "spec", "model", "impl", "properties")
MAY_IMPORT: dict[str, set[str]] = {
    "massattach": set(),
    "spec": {"spec"},
    "model": {"model", "spec"},
    "impl": {"impl", "spec"},
    "properties": {"properties", "impl", "model", "spec"},
}
RULE = re.compile(r"- \*\*([A-Z]+-[1-9][0-9]*)\*\* ([^\n]+) \[([^\[\]]+)\]")
PREFIXES = (
    "NAME GLOB FILTER OPS SITE SYSCTL DIRECT IPMODIFY GRAPH PROG LINK LSM KPROBE TRAMP IMAGE ARG TRACE MODULE FAIL "
    "DEAD TASK COST SETTLE POKE"
)
CITATION = re.compile(rf"\b(?:{PREFIXES.replace(' ', '|')})-[0-9]+\b")
TEXT_SUFFIXES = {".py", ".md", ".toml", ".ini", ".seed", ".cfg", ".sh", ".yml", ""}


def rule_lines() -> list[str]:
    return [line for line in (ROOT / "spec" / "README.md").read_text().split("\n") if line.startswith("- **")]


def rule_ids() -> list[str]:
    return [line.split("**")[1] for line in rule_lines()]


def sources(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


def files() -> Iterator[Path]:
    """Every text file that git knows or would add."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in listed:
        path = ROOT / name
        if path.is_file() and path.suffix in TEXT_SUFFIXES:
            yield path


def modules(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it; of `from package import module` the module."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level:
            name = node.module or ""
            deeper = [f"{name}.{alias.name}" for alias in node.names if is_module(f"{name}.{alias.name}")]
            yield from deeper or [name]


def is_module(name: str) -> bool:
    place = ROOT / name.replace(".", "/")
    return place.is_dir() or place.with_suffix(".py").is_file()


def imported(path: Path) -> Iterator[str]:
    """The first part of every module that a file imports, wherever in it."""
    yield from (name.partition(".")[0] for name in modules(path))


@pytest.mark.parametrize("line", rule_lines(), ids=rule_ids())
def test_a_rule_has_its_form(line: str) -> None:
    """A rule is one line: its number, its text, its source in brackets."""
    assert RULE.fullmatch(line)


def test_rule_numbers_are_unique_and_without_gap() -> None:
    """Numbers are unique, and count from 1 within a prefix."""
    ids = rule_ids()

    assert set(PREFIXES.split()) == {rule.partition("-")[0] for rule in ids}
    for prefix in PREFIXES.split():
        numbers = sorted(int(rule.partition("-")[2]) for rule in ids if rule.startswith(f"{prefix}-"))

        assert list(range(1, len(numbers) + 1)) == numbers, prefix


def test_no_file_cites_a_rule_that_is_not_there() -> None:
    """Every rule cited anywhere exists."""
    known = set(rule_ids())
    for path in files():
        unknown = set(CITATION.findall(path.read_text())) - known

        assert set() == unknown, path


def test_the_model_cites_every_rule() -> None:
    """No rule is left uncited in the model, and in the border before it."""
    paths = (*sources("model"), ROOT / "spec" / "border.py")
    cited = {rule for path in paths for rule in CITATION.findall(path.read_text())}

    assert set() == set(rule_ids()) - cited


@pytest.mark.parametrize("package", PACKAGES)
def test_imports_go_one_way(package: str) -> None:
    """No package of the project imports one that it must not know: model and impl import spec alone."""
    for path in sources(package):
        others = set(imported(path)) & set(PACKAGES) - MAY_IMPORT[package]

        assert set() == others, path


# What runs where angr is installed, and none of the project's libraries: the obligations, and the peer itself.
OBLIGATIONS = (
    "architecture claims context goal image machine meaning obligations steps terms unknowns written x86_64 "
    "x86_64_instructions"
).split()


def test_the_prover_imports_spec_alone() -> None:
    """Of the project the prover knows itself and spec, and its obligations no library."""
    for path in sources("properties/prover"):
        known = {name for name in modules(path) if name.partition(".")[0] in PACKAGES}

        assert {name for name in known if not name.startswith(("spec.", "properties.prover."))} == set(), path
        if path.stem in OBLIGATIONS:
            assert set(imported(path)) <= {"__future__", "properties", "spec"} | set(sys.stdlib_module_names), path
            assert {name.rpartition(".")[2] for name in known if name.startswith("properties.")} <= set(OBLIGATIONS), (
                path
            )


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_says_what_lives_there(package: str) -> None:
    """Every folder's __init__, and every module, has a docstring."""
    for path in sources(package):
        assert ast.get_docstring(ast.parse(path.read_bytes())), path


def test_every_tox_environment_has_a_description() -> None:
    """`tox list` explains each environment, and `tox` alone runs tests, lint and types."""
    config = configparser.ConfigParser()
    config.read(ROOT / "tox.ini")

    assert "py, lint, types, vm" == config["tox"]["env_list"]
    for name in config.sections():
        if name != "tox":
            assert config[name]["description"], name
    assert {"py", "verify", "replay", "explore", "plan", "bench", "slow", "power"} <= set(environments())


def environments() -> Iterator[str]:
    """The names in tox.ini, a factor in braces spelled out."""
    yield "py"
    for name in re.findall(r"^\[testenv:([^\]]+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE):
        yield from name.strip("{}").split(",")


def test_the_commands_in_documents_exist() -> None:
    """Every `tox -e ENV` and `python -m properties VERB` in a document is one that exists."""
    known = set(environments())
    documents = [path for path in files() if path.suffix == ".md"]
    assert documents
    for path in documents:
        text = path.read_text()

        assert set() == set(re.findall(r"tox -e ([a-z-]+)", text)) - known, path
        assert set() == set(re.findall(r"python -m properties ([a-z]+)", text)) - known, path


def test_the_readme_says_where_things_are() -> None:
    """What README's table names stands in the file to which it points; every link of README leads somewhere."""
    text = (ROOT / "README.md").read_text()
    rows = re.findall(r"^\| .* \| `(\w+)` in \[([^\]]+)\]", text, re.MULTILINE)
    assert 7 <= len(rows)
    for name, file in rows:
        assert re.search(rf"\b{name}\(", (ROOT / file).read_text()), (name, file)
    for target in re.findall(r"\]\(([^)#]+)", text):
        assert (ROOT / target).exists(), target


def test_no_file_names_a_machine() -> None:
    """No text mentions a path of the machine that it was written on."""
    paths = re.compile(r"(?<![\w.])/" + "(?:work/|root/|home/[a-z]|tmp/[a-z])")
    for path in files():
        assert not paths.search(path.read_text()), path


def test_the_licence_is_mit() -> None:
    """LICENSE is the MIT licence, and pyproject.toml says so."""
    assert (ROOT / "LICENSE").read_text().startswith("MIT License\n")
    assert 'license = "MIT"' in (ROOT / "pyproject.toml").read_text()


def test_scripts_can_be_run() -> None:
    """The launcher and the CI's script are executable, and their shells accept them."""
    for name, shell in (("tox", "sh"), (".ci/run", "bash")):
        path = ROOT / name

        assert path.stat().st_mode & 0o111, name
        subprocess.run([shell, "-n", str(path)], check=True)
