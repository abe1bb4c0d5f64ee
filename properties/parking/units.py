"""A row as a unit of work: a task stands at one instruction of the image after the other, while the operation is done.

All of it is one run in lockstep with the model, which is told of the point as which an instruction counts; the image is
made anew in between. A difference ends the run, and the next place begins another.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.parking.places import ParkingPlace, list_places
from properties.parking.scenarios import SweptRow
from properties.parking.subjects import Parking, parking
from spec.operations import Call
from spec.seeds import Seed, Step, parse_operation, print_seed
from spec.semantics import PRESETS, Semantics

__all__ = ["RowUnit", "Stay", "Swept"]

TOLD: Final = 6000
"""Characters of a difference that are kept."""

DEFECT: Final = re.compile(r"DEFECT-\d+")
FREEING: Final = ("rcu", "rcu_tasks_trace")
"""Grace periods that elapse while the task stands, so that what is freed too early is gone when it goes on."""


@dataclass(frozen=True, slots=True)
class Stay:
    """What became of a task at one place.

    place: where it stood. answers: of the operation's lines; behind `pending` what it answered when the task had left.
    trace: of the task's call. aspect, told, seed: of a difference, empty if there is none. defect: a known one, which
    explains it, or for which the kernel was not asked. declined: why it was not. reached: whether the call comes there.
    """

    place: ParkingPlace
    answers: tuple[str, ...] = ()
    trace: str = ""
    aspect: str = ""
    told: str = ""
    seed: str = ""
    defect: str = ""
    declined: str = ""
    reached: bool = True


@dataclass(frozen=True, slots=True)
class Swept:
    """What became of a row. without: why there is no such image here, or operation beside a task; empty if there is.

    left: a difference at the end, when all was undone; parks: how often a task was led to a place.
    """

    parked: tuple[Stay, ...]
    without: str = ""
    left: str = ""
    parks: int = 0


@dataclass(frozen=True, slots=True)
class RowUnit:
    """A row for a system, by names."""

    system: str
    semantics: str
    row: SweptRow

    def work(self, _: Path) -> Swept:
        """Take the row."""
        return _Pass(parking(self.system, PRESETS[self.semantics]), PRESETS[self.semantics], self.row).take()


class _DiffersError(Exception):
    """A step diverged."""

    def __init__(self, divergence: Divergence) -> None:
        super().__init__(str(divergence))
        self.divergence = divergence


class _DeclinedError(Exception):
    """The system is not asked for the next line of the operation."""


class _WithoutError(Exception):
    """There is no such row here."""


class _Pass:
    """A row that is taken. State: the run, None when the next place begins another; the defects that were shown."""

    def __init__(self, subject: Parking, semantics: Semantics, row: SweptRow) -> None:
        self._subject, self._semantics, self._row = subject, semantics, row
        self._run: Lockstep | None = None
        self._shown: set[str] = set()
        self._parks = 0

    def take(self) -> Swept:
        """Every place in turn."""
        try:
            self._begin()
            places = self._list_places()
            parked = tuple(self._visit(place) for place in places)
        except _WithoutError as without:
            return Swept((), str(without))
        return Swept(parked, "", self._end(), self._parks)

    def _begin(self, *, known: bool = True) -> Lockstep:
        """A new run, in which the image is made."""
        run = self._run = Lockstep(self._subject.world, self._semantics, [self._subject.factory(known=known)])
        for line in (*self._row.image.lines, *self._row.before):
            operation = parse_operation(line)
            if reason := run.declined(operation):
                raise _WithoutError(f"{line}: {reason}")
            taken = run.step(Step(operation))
            if taken.divergences:
                raise _WithoutError(str(taken.divergences[0]))
            if taken.observed != "0":
                raise _WithoutError(f"{line}: {taken.observed}")
        return run

    def _list_places(self) -> tuple[ParkingPlace, ...]:
        found = self._subject.standing().stands(self._row.image.function)
        if not found:
            raise _WithoutError("the site leads to no image")
        return list_places(found, self._row, self._subject.world, self._semantics)

    def _visit(self, place: ParkingPlace) -> Stay:
        """Let a task stand at a place. A defect for which the system is not asked is shown once, if it is there."""
        parked = self._try_out(self._run or self._begin(), place)
        if not parked.defect or parked.defect in self._shown or not self._subject.shows_defects:
            return parked
        shown = self._try_out(self._begin(known=False), place)
        self._run = None
        if not shown.aspect:
            return shown
        self._shown.add(parked.defect)
        return replace(shown, defect=parked.defect)

    def _try_out(self, run: Lockstep, place: ParkingPlace) -> Stay:
        begun = len(run.history)
        answers: list[str] = []
        try:
            trace = self._stand(run, place, answers)
        except _DiffersError as error:
            self._run = None
            found = error.divergence
            if found.observed == "done" and found.step.startswith("step "):
                return Stay(place, reached=False)
            made = map(parse_operation, (*self._row.image.lines, *self._row.before))
            steps = (*map(Step, made), *run.history[begun:])
            seed = print_seed(Seed(run.world.name, self._semantics.name, steps))
            return Stay(place, tuple(answers), "", found.aspect, str(found)[:TOLD], seed)
        except _DeclinedError as error:
            defect = DEFECT.search(str(error))
            return Stay(place, tuple(answers), declined=str(error), defect=defect[0] if defect else "")
        return Stay(place, tuple(answers), trace)

    def _stand(self, run: Lockstep, place: ParkingPlace, answers: list[str]) -> str:
        """Lead a task to the place, do the operation, let it go home, and undo the operation; the task's trace."""
        call = self._row.image.call
        self._parks += 1
        _take(run, f"task t1 {call}")
        self._lead(run, place)
        try:
            waits = self._operate(run, answers)
        except _DeclinedError:
            _take(run, "finish t1")
            if answers:
                self._undo(run)
            raise
        if waits:
            _take(run, f"await {waits}")
        for flavour in () if place.point.startswith("program:") else FREEING:
            _take(run, f"grace_period {flavour}")
        _call(run, call)
        trace = _take(run, "finish t1")
        if waits:
            answers.append(_take(run, f"await {waits}"))
        _call(run, call)
        self._undo(run)
        return trace

    def _lead(self, run: Lockstep, place: ParkingPlace) -> None:
        for _ in range(place.turn - 1):
            _take(run, f"step t1 to={place.point}")
        if place.offset is not None:
            self._subject.standing().stand_at(place.offset)
        if place.point != "site":
            line = f"step t1 to={place.point}{f' how={place.how}' if place.how else ''}"
            if reason := run.declined(parse_operation(line)):
                self._run = None
                raise _DeclinedError(f"{line}: {reason}")
            _take(run, line)

    def _operate(self, run: Lockstep, answers: list[str]) -> str:
        """Take the operation's lines up to one that pends, which is returned; an empty text if none does."""
        for line in self._row.lines:
            if reason := run.declined(parse_operation(line)):
                raise _DeclinedError(f"{line}: {reason}")
            taken = run.step(Step(parse_operation(line)))
            if taken.divergences:
                raise _DiffersError(taken.divergences[0])
            if taken.harness:
                raise _WithoutError(f"{line}: {taken.observed} ({taken.harness})")
            answers.append(taken.observed)
            if taken.observed == "pending":
                return line
        return ""

    def _undo(self, run: Lockstep) -> None:
        """Undo the operation; where that does not succeed the next place begins another run."""
        links = self._row.image.links
        left = (f"bpf_link_detach {name}" for name, _ in links if name in run.inventory.links)
        for line in self._row.back or (*left, *(line for _, line in links)):
            if _take(run, line) != "0":
                self._run = None

    def _end(self) -> str:
        """Undo all in a run that is still there; a difference, or nothing."""
        if self._run is None:
            return ""
        found = self._run.undo(settle=True) or self._run.close()
        return str(found[0])[:TOLD] if found else ""


def _take(run: Lockstep, line: str) -> str:
    taken = run.step(Step(parse_operation(line)))
    if taken.divergences:
        raise _DiffersError(taken.divergences[0])
    return taken.observed


def _call(run: Lockstep, call: str) -> None:
    operation = parse_operation(f"call {call}")
    assert isinstance(operation, Call)
    if run.inventory.may_call(operation.function) and not run.declined(operation):
        _take(run, f"call {call}")
