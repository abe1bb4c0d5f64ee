"""Planted bugs, each by its shortest steps: the divergence, and what both sides' sites call before and after."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from dataclasses import replace

from impl.planted import PLANTED, Planted
from model import system as model
from properties.gallery.states import Drawer, take
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.report.pictures import Picture
from properties.report.records import PlantedRecord
from properties.systems.naming import world_named
from spec.operations import Operation
from spec.seeds import Seed, Step, parse_operation
from spec.semantics import PRESETS
from spec.system import System
from spec.worlds import World

__all__ = ["draw_bugs"]


def draw_bugs() -> Iterator[PlantedRecord]:
    """Every planted bug."""
    worlds = {name: world_named(name) for name in {bug.world for bug in PLANTED}}
    for bug in PLANTED:
        yield _draw(bug, worlds[bug.world])


def _draw(bug: Planted, world: World) -> PlantedRecord:
    semantics = PRESETS[bug.semantics]
    operations = [parse_operation(line) for line in bug.minimal]
    divergence = _diverge(bug, world, operations)
    drawer = Drawer(world, bug.sharing)
    with closing(model(world, semantics)) as right, closing(bug(world, semantics)) as wrong:
        before, expected = _draw_last(right, drawer, operations)
        _, observed = _draw_last(wrong, drawer, operations)
    seed = Seed(world.name, semantics.name, tuple(map(Step, operations)))
    # The model cites rules for functions in the order of a set.
    difference = replace(divergence.told(seed), rules=tuple(sorted(divergence.rules)))
    about = bug.name, bug.rule, str(bug.origin), bug.semantics, bug.sharing, bug.about
    subject = bug.mended.subject if bug.mended else ""
    return PlantedRecord(*about, difference, before, expected, observed, subject)


def _diverge(bug: Planted, world: World, operations: Sequence[Operation]) -> Divergence:
    """The one divergence of the run, which its last step ends in."""
    lockstep = Lockstep(world, PRESETS[bug.semantics], (bug,))
    (found,) = lockstep.run(map(Step, operations))
    lockstep.close()
    assert found.index == len(operations) - 1
    return found


def _draw_last(system: System, drawer: Drawer, operations: Sequence[Operation]) -> tuple[Picture, Picture]:
    """The states before the last operation and after it."""
    for operation in operations:
        drawer.hear(operation)
    for operation in operations[:-1]:
        take(system, operation)
    before = drawer.draw(system)
    # A bug may show itself by an exception, which is the divergence that is told.
    with suppress(Exception):
        take(system, operations[-1])
    return before, drawer.draw(system)
