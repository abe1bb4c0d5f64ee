"""The rooms of the house: who may import whom, floor by floor, and that imports never go round."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WINGS = ("spec", "model", "impl", "properties")
FLOORS = (
    {"verbs"},
    {"faults", "parking"},
    {"mutants"},
    {"benchmarks", "export", "gallery", "kernels"},
    {"plan", "proofs"},
    {"hunt", "runs"},
    {"lockstep"},
    {"prover", "report", "systems"},
    {"work"},
)
"""The packages of properties, from the front door down: each imports only what is beneath its floor."""


def modules() -> dict[str, Path]:
    """Every module of the project by its dotted name; a package's __init__ has the package's."""
    paths = (path for wing in WINGS for path in (ROOT / wing).rglob("*.py"))
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in paths}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the project that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module in known:
            within = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in known else node.module for name in within)


def arrows(wing: str) -> Iterator[tuple[str, str]]:
    """Who imports whom, of the modules of a wing."""
    known = modules()
    for name, path in known.items():
        if name.split(".")[0] == wing:
            yield from ((name, other) for other in imported(path, known))


def package(name: str) -> str:
    return name.split(".")[1]


def test_every_package_has_its_floor() -> None:
    """The packages of properties are those of the floors, each on one."""
    packages = {path.parent.name for path in (ROOT / "properties").glob("*/__init__.py")}

    assert packages == set().union(*FLOORS)
    assert len(packages) == sum(map(len, FLOORS))


def test_no_arrow_between_packages_looks_up() -> None:
    """A package of properties imports packages on floors beneath its own, and none beside it."""
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    between = {
        (package(name), package(other))
        for name, other in arrows("properties")
        if other.startswith("properties.") and "." in name and name != "properties.__main__"
    }

    assert [] == [(here, there) for here, there in sorted(between) if here != there and floor[here] >= floor[there]]


def test_only_the_front_door_imports_verbs() -> None:
    """Verbs are the outermost room: of the rest, the launcher alone knows them."""
    assert {"properties.__main__"} == {
        name
        for name, other in arrows("properties")
        if other.startswith("properties.verbs") and not name.startswith("properties.verbs")
    }


def test_the_prover_imports_spec_alone() -> None:
    """The engine knows nothing of what is proved with it."""
    others = {
        other
        for name, other in arrows("properties")
        if name.startswith("properties.prover") and not other.startswith(("properties.prover", "spec"))
    }

    assert set() == others


@pytest.mark.parametrize("wing", WINGS)
def test_imports_do_not_go_round(wing: str) -> None:
    """There is an order of a wing's modules in which each imports only those before it; packages' own names aside."""
    before: dict[str, set[str]] = {}
    for name, other in arrows(wing):
        if not name.startswith(f"{other}."):
            before.setdefault(name, set()).add(other)

    assert tuple(TopologicalSorter(before).static_order())


def test_no_test_imports_another() -> None:
    """What several tests need stands in tests/support."""
    for path in (ROOT / "tests").rglob("*.py"):
        modules = (
            node.module or "" for node in ast.walk(ast.parse(path.read_bytes())) if isinstance(node, ast.ImportFrom)
        )

        assert [] == [name for name in modules if ".test_" in name], path
