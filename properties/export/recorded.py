"""A seed as the model runs it: what each step must answer and show, and what existed before it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from properties.lockstep.lockstep import Lockstep
from properties.lockstep.runners import Reference, reference
from properties.lockstep.supported import UnsupportedError
from properties.systems.kernels import like_a_kernel
from properties.systems.naming import KERNELS, semantics_named, world_named
from spec import populations
from spec.errors import BadInputError
from spec.inventory import Inventory
from spec.operations import Call
from spec.seeds import Seed, Step, read_seed
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Recorded", "RecordedSeed", "SeedSetting", "record", "setting_of"]


@dataclass(frozen=True, slots=True)
class SeedSetting:
    """A seed and where it is run.

    path: of the seed, for errors. world: as a kernel can be given it. own: functions of the world that the kernel has
    itself; foreign: the symbols of all its others.
    """

    path: Path
    seed: Seed
    world: World
    semantics: Semantics
    own: frozenset[str]
    foreign: frozenset[str]

    @property
    def name(self) -> str:
        """The seed's name without its suffix, as a name for files that make can take."""
        return re.sub(r"[^A-Za-z0-9._-]", "_", self.path.stem)


@dataclass(frozen=True, slots=True)
class Recorded:
    """One step.

    before: what existed. expected: what it must answer or show, as a seed spells it: by the seed where that says
    something, else by the model. predicted: by the model alone. sites: of the model, after the step. trace: of a call.
    rules: those that the model cited. harness: the rule by which the harness answered, empty if a kernel is to.
    """

    step: Step
    before: Inventory
    expected: str
    predicted: str
    sites: Mapping[str, Site]
    trace: Trace | None
    rules: tuple[str, ...]
    harness: str

    @property
    def agrees(self) -> bool:
        """Whether the seed expects what the model predicts."""
        return self.expected == self.predicted


@dataclass(frozen=True, slots=True)
class RecordedSeed:
    """A whole seed."""

    setting: SeedSetting
    steps: tuple[Recorded, ...]


def setting_of(path: Path, seed: Seed | None = None) -> SeedSetting:
    """The setting of a seed file, or of a seed that stands for it. No kernel has functions of `proposal-2021`."""
    seed = seed or read_seed(path)
    semantics = semantics_named(seed.semantics)
    try:
        world = like_a_kernel(world_named(seed.world, path.parent), semantics)
    except BadInputError as error:
        raise BadInputError(str(error), str(path)) from error
    if semantics.name not in KERNELS:
        return SeedSetting(path, seed, world, semantics, frozenset(), frozenset())
    symbols = _symbols_of(semantics.name)
    own = frozenset(f.name for f in world.functions if f.module is None and f.symbol in symbols)
    return SeedSetting(path, seed, world, semantics, own, symbols - {world.by_name[name].symbol for name in own})


@cache
def _symbols_of(kernel: str) -> frozenset[str]:
    return frozenset(function.symbol for function in populations.load(kernel).functions)


def record(setting: SeedSetting) -> RecordedSeed:
    """Run a seed on the model; BadInputError names the line that the semantics or the world do not have."""
    made: list[Reference] = []

    def model(world: World, semantics: Semantics) -> Reference:
        made.append(reference(world, semantics))
        return made[0]

    lockstep = Lockstep(setting.world, setting.semantics, [], model=model)
    steps = tuple(_take(lockstep, made[0], step, setting) for step in setting.seed.steps)
    lockstep.close()
    return RecordedSeed(setting, steps)


def _take(lockstep: Lockstep, model: Reference, step: Step, setting: SeedSetting) -> Recorded:
    before, operation = lockstep.inventory, step.operation
    try:
        taken = lockstep.step(step)
    except UnsupportedError as error:
        raise BadInputError(str(error), str(setting.path), step.line) from error
    agrees = not taken.divergences
    return Recorded(
        step,
        before,
        taken.observed if agrees else str(step.expected),
        taken.observed,
        dict(model.sites()),
        model.call(operation.function, operation.arguments) if isinstance(operation, Call) else None,
        (taken.harness,) if taken.harness else model.cited(),
        taken.harness,
    )
