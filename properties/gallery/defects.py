"""The defects of kernels that have a seed: its steps on the model, with what each site calls after each change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

from model import system as model
from properties.gallery.states import Drawer, frames
from properties.report.pictures import StateFrame
from properties.report.records import DefectRecord
from properties.runs.corpus import DEFECTS, EVERY, SEEDS
from properties.systems.naming import semantics_named, world_named
from spec.documents import defects
from spec.seeds import read_seed
from spec.sharing import LEVELS

__all__ = ["draw_defects"]


def draw_defects() -> Iterator[DefectRecord]:
    """Every defect whose text names a seed."""
    for defect in defects():
        if defect.seed is not None:
            yield DefectRecord(defect.id, defect.seed, tuple(_run(defect.seed)))


def _run(name: str) -> Iterator[StateFrame]:
    seed = read_seed(next(path for folder in (SEEDS, EVERY, DEFECTS) if (path := folder / f"{name}.seed").is_file()))
    world = world_named(seed.world)
    with closing(model(world, semantics_named(seed.semantics))) as system:
        yield from frames(system, Drawer(world, LEVELS[0]), seed.steps)
