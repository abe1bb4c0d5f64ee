"""The places of an image at which a task is to stand, each with the point as which it counts in the model."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from properties.lockstep.lockstep import Lockstep
from properties.parking.scenarios import SweptRow
from spec.seeds import Step, parse_operation
from spec.semantics import Semantics
from spec.standing import Stand
from spec.worlds import World

__all__ = ["ParkingPlace", "list_places"]


@dataclass(frozen=True, slots=True)
class ParkingPlace:
    """Where a task stands: the turn-th time that it comes to a point, or at an instruction that counts as it then.

    text: the instruction, or what stands for it. offset: of the instruction; None outside of the image. how: it sleeps.
    """

    text: str
    point: str
    turn: int = 1
    offset: int | None = None
    how: str | None = None


def list_places(stands: Sequence[Stand], row: SweptRow, world: World, semantics: Semantics) -> tuple[ParkingPlace, ...]:
    """The site, every instruction of the image, and where a task may sleep."""
    reached = _find_reached(stands, row, world, semantics)
    return tuple(_list_places(stands, reached, row))


def _list_places(stands: Sequence[Stand], reached: set[tuple[str, int]], row: SweptRow) -> Iterator[ParkingPlace]:
    yield ParkingPlace("the site", "site")
    for stand in stands:
        point = next((point for point in stand.points if point in reached), None)
        if point is not None:
            yield ParkingPlace(stand.text, *point, offset=stand.offset)
    if ("body", 1) in reached:
        yield ParkingPlace("asleep in the body", "body", how="sleep")
    loads = (line.split() for line in row.image.before)
    for prog in (words[1] for words in loads if words[0] == "bpf_prog_load" and "sleepable" in words):
        if (f"program:{prog}", 1) in reached:
            yield ParkingPlace(f"asleep in {prog}", f"program:{prog}", how="sleep")


def _find_reached(stands: Sequence[Stand], row: SweptRow, world: World, semantics: Semantics) -> set[tuple[str, int]]:
    """The points to which a call comes, each with its turn, as the model has it."""
    every = dict.fromkeys(point for stand in stands for point in stand.points)
    run = Lockstep(world, semantics, [])
    run.run(Step(parse_operation(line)) for line in row.image.lines)
    return {(name, turn) for name, turn in every if _comes_to(run, row, name, turn)}


def _comes_to(run: Lockstep, row: SweptRow, name: str, turn: int) -> bool:
    lines = (f"task t1 {row.image.call}", *[f"step t1 to={name}"] * turn, "finish t1")
    observed = [run.step(Step(parse_operation(line))).observed for line in lines]
    return observed[-2] == name
