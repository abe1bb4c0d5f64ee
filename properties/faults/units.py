"""A scenario as a unit of work: it is taken while one allocation after the other fails, until it makes no more."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from impl import linux
from impl.linux.allocations import failed_at
from impl.linux.observation import EmulatorLimitError
from impl.linux.station import Station
from impl.linux.system import Linux
from properties.faults.known import DEFECTS
from properties.faults.scenarios import AFTER, POINTS, Scenario
from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from properties.mutants.subject import Subject
from properties.systems.kernels import like_a_kernel
from spec.border import bordered
from spec.operations import Call, SetGraphFunction, SetGraphNotrace
from spec.seeds import Seed, Step, parse_operation, print_seed
from spec.semantics import Semantics
from spec.system import System
from spec.worlds import World, synthetic

__all__ = ["Faulted", "FaultsUnit", "Tried"]

SHOWN_BY_CALLS: Final = (SetGraphFunction, SetGraphNotrace)
TOLD: Final = 6000
"""Characters of a finding that are kept."""


@dataclass(frozen=True, slots=True)
class Tried:
    """A scenario with one fault.

    fault: the words behind `fail`, empty for none. where: the function whose allocation failed and all its callers, as
    far as the kernel tells. answer: of the operation in which it failed; empty if it made no such allocation. aspect
    and told: of a finding, empty if there is none. seed: what was done, as text.
    """

    fault: str
    where: str
    answer: str
    aspect: str
    told: str
    seed: str


@dataclass(frozen=True, slots=True)
class Faulted:
    """What became of a scenario. declined: why the kernel is not asked for it, else empty."""

    tried: tuple[Tried, ...]
    declined: str = ""


@dataclass(frozen=True, slots=True)
class FaultsUnit:
    """A scenario in a kernel."""

    subject: Subject
    scenario: Scenario

    def work(self, _: Path) -> Faulted:
        """Take it without a fault, then with every one."""
        trial = _Trial(self.subject, self.scenario)
        plain = trial.take("")
        if trial.declined or plain.aspect:
            return Faulted((plain,) if plain.aspect else (), trial.declined)
        return Faulted((plain, *trial.each()))


class _Trial:
    """A scenario that is taken again and again. State: the last answer, and why one was declined."""

    def __init__(self, subject: Subject, scenario: Scenario) -> None:
        self._semantics: Semantics = subject.rules
        self._world: World = like_a_kernel(synthetic(), self._semantics)
        self._station: Station = linux.station_of(subject.kernel, self._world)
        self._scenario = scenario
        self._answer = ""
        self.declined = ""

    def each(self) -> Iterator[Tried]:
        """Every fault that the operation comes by."""
        hashes = self.take("hash")
        if hashes.answer or hashes.aspect:
            yield hashes
        if self._station.fail_nth is None:
            yield from (tried for point in POINTS if (tried := self.take(point)) and not self.declined)
            return
        for number in count(1):
            tried = self.take(f"nth {number}")
            if not tried.answer and not tried.aspect:
                return
            yield tried

    def take(self, fault: str) -> Tried:
        """Take the scenario from the snapshot on, with one fault or none, and undo it at its end."""
        made: list[Linux] = []

        def make(world: World, semantics: Semantics) -> System:
            made.append(Linux(self._station, world, semantics, asked=DEFECTS))
            return bordered(made[-1], world, semantics)

        self.declined = ""
        lockstep = Lockstep(self._world, self._semantics, [make])
        try:
            aspect, told = self._find(lockstep, fault)
        except EmulatorLimitError as error:
            aspect, told = "stall", str(error)
        answered = made[0].answered if made else None
        answer = self._answer if fault in POINTS else "" if answered is None else str(answered)
        printed = self._station.guest.printed()
        return Tried(
            fault,
            failed_at(printed) if fault.startswith("nth") else "",
            answer,
            aspect,
            told[:TOLD],
            print_seed(Seed(self._world.name, self._semantics.name, tuple(lockstep.history))),
        )

    def _find(self, lockstep: Lockstep, fault: str) -> tuple[str, str]:
        """Take the steps, undo them, and look for what is left: aspect and text of a finding, or nothing."""
        found = self._take_steps(lockstep, fault) or lockstep.undo(settle=True) or lockstep.close()
        return (found[0].aspect, str(found[0])) if found else ("", "")

    def _take_steps(self, lockstep: Lockstep, fault: str) -> tuple[Divergence, ...]:
        scenario = self._scenario
        faults = (f"fail {fault}",) if fault else ()
        for line in (*scenario.before, *faults, scenario.line):
            if reason := lockstep.declined(parse_operation(line)):
                self.declined = f"{line}: {reason}"
                return ()
            taken = lockstep.step(Step(parse_operation(line)))
            self._answer = taken.observed
            if taken.divergences:
                return taken.divergences
        return self._go_on(lockstep)

    def _go_on(self, lockstep: Lockstep) -> tuple[Divergence, ...]:
        """The next operations behave: the same one again, which may now be refused, and calls.

        They come before that, too, where they alone show what the operation has done.
        """
        before = AFTER if isinstance(self._scenario.operation, SHOWN_BY_CALLS) else ()
        for operation in map(parse_operation, (*before, self._scenario.line, *AFTER)):
            unsafe = isinstance(operation, Call) and not lockstep.inventory.may_call(operation.function)
            if unsafe or lockstep.declined(operation):
                continue
            if found := lockstep.step(Step(operation)).divergences:
                return found
        return ()
