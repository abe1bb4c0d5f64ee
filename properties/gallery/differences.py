"""Pictures of a divergence that a run found: its seed is run again, on the model and on what differed."""

from __future__ import annotations

from contextlib import closing, suppress

from model import system as model
from properties.gallery.states import Drawer
from properties.report.pictures import Picture
from properties.report.records import DifferenceRecord
from properties.report.results import ToldDivergence
from properties.systems.naming import BUILT_IN, resolve, semantics_named, world_named
from spec.errors import BadInputError
from spec.operations import Call, ObserveSite
from spec.seeds import Seed, parse_seed
from spec.sharing import LEVELS
from spec.system import SystemFactory

__all__ = ["draw_difference"]


def draw_difference(difference: ToldDivergence) -> DifferenceRecord:
    """The divergence with what sites call after its last step; of systems that are not at hand the words must do."""
    try:
        seed = parse_seed(difference.seed)
        level = difference.system.rpartition(":")[2]
        drawer = Drawer(world_named(seed.world), level if level in LEVELS else LEVELS[0])
        for step in seed.steps:
            drawer.hear(step.operation)
        before, expected = _run(seed, drawer, model)
    except BadInputError:
        return DifferenceRecord(difference)
    observed = None
    if difference.system in BUILT_IN:
        # It did not do what it should, and may not even show its sites: then the words must do, too.
        with suppress(Exception):
            _, observed = _run(seed, drawer, resolve(difference.system))
    return DifferenceRecord(difference, before, expected, observed)


def _run(seed: Seed, drawer: Drawer, factory: SystemFactory) -> tuple[Picture, Picture]:
    """The states before the seed's last step and after it; calls and looks change nothing."""
    operations = [step.operation for step in seed.steps if not isinstance(step.operation, Call | ObserveSite)]
    with closing(factory(drawer.world, semantics_named(seed.semantics))) as system:
        for operation in operations[:-1]:
            system.apply(operation)
        before = drawer.draw(system)
        for operation in operations[-1:]:
            system.apply(operation)
        return before, drawer.draw(system)
