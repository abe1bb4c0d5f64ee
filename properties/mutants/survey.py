"""A survey of a kernel: which basic blocks each fixed run executes, and every mutant of its code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from impl import linux
from impl.linux.host import cache
from impl.linux.instruments import code
from impl.linux.instruments.code import find_code
from impl.linux.instruments.mutants import Candidates, find_mutants
from properties.kernels.conformance import Conforming
from properties.kernels.coverage import Coverage
from properties.mutants.subject import Subject
from properties.work.crew import Crew
from properties.work.units import Done, Outcome, Unit
from spec.errors import BadInputError
from spec.reading import encode, load
from spec.seeds import print_seed

__all__ = ["CandidatesUnit", "ReachUnit", "ReachedRun", "Survey", "make_survey"]

RUNS_OF_A_UNIT: Final = 6
KEPT, MOST_KEPT = "reached-", 6
REACHED = "reached.json"
MOST_BYTES: Final = 64 << 20


@dataclass(frozen=True, slots=True)
class ReachedRun:
    """A fixed run by its name, the seconds that it takes, and the addresses of the blocks that it executes.

    falls: why it can judge no mutant; empty if the kernel agrees with the model in it.
    """

    name: str
    seconds: float
    blocks: tuple[int, ...]
    falls: str = ""


@dataclass(frozen=True, slots=True)
class Survey:
    """What is known of a kernel before a mutant is made: its fixed runs, the shortest first, and its mutants."""

    runs: tuple[ReachedRun, ...]
    candidates: Candidates

    def runs_of(self, block: int) -> tuple[ReachedRun, ...]:
        """The runs that execute a block, the shortest first."""
        return tuple(run for run in self.runs if block in run.blocks and not run.falls)

    @property
    def executed(self) -> frozenset[int]:
        """The blocks that some run executes."""
        return frozenset(block for run in self.runs if not run.falls for block in run.blocks)


@dataclass(frozen=True, slots=True)
class ReachUnit:
    """Some fixed runs of one world, by name: what each executes."""

    subject: Subject
    runs: tuple[str, ...]

    def work(self, _: Path) -> tuple[ReachedRun, ...]:
        """Take them in a guest that notes what it executes."""
        subject, coverage = self.subject, Coverage()
        conforming = Conforming(subject.kernel, subject.rules, subject.lab, coverage)
        known = [subject.runs[name] for name in self.runs]
        conforming.prepare(known[0].world)
        starts = {block.start for function in coverage.code for block in function.blocks}
        found = []
        try:
            for name, run in zip(self.runs, known, strict=True):
                before = conforming.evidence
                conforming.fixed([run])
                after = conforming.evidence
                falls = [str(each.divergence) for each in after.differences[len(before.differences) :]]
                blocks = sorted(starts & coverage.runs[name])
                seconds = after.seconds - before.seconds
                found.append(ReachedRun(name, seconds, tuple(blocks), "\n".join(falls)))
        finally:
            # Whoever uses this guest next does not want it noted.
            linux.station_of(subject.kernel, known[0].world).guest.watch(())
        return tuple(found)


@dataclass(frozen=True, slots=True)
class CandidatesUnit:
    """All mutants of a kernel."""

    subject: Subject

    def work(self, _: Path) -> Candidates:
        """Read its code in a guest, and as it was linked."""
        station = linux.station_of(self.subject.kernel, self.subject.lab)
        return find_mutants(station.guest, station.symbols, find_code(station.guest, station.symbols))


def make_survey(subject: Subject, crew: Crew, tell: Callable[[str], None]) -> Survey:
    """Survey a kernel; what its runs execute is kept in the cache. BadInputError if the kernel cannot be run.

    tell: is given a sentence now and then.
    """
    directory = cache.entry(f"{KEPT}{_digest(subject)}", lambda made: _measure(subject, crew, tell, made / REACHED))
    cache.prune(KEPT, MOST_KEPT, directory)
    runs = load(directory / REACHED, tuple[ReachedRun, ...], MOST_BYTES)
    tell("its code is read: every small change of it")
    found: Candidates = next(_collect(crew, [CandidatesUnit(subject)]))
    return Survey(tuple(sorted(runs, key=lambda run: run.seconds)), found)


def _measure(subject: Subject, crew: Crew, tell: Callable[[str], None], path: Path) -> None:
    units = list(_divide(subject))
    told, whole = 0, sum(len(unit.runs) for unit in units)
    tell(f"its {whole} fixed runs are taken, to see which of its instructions each executes")
    found: list[ReachedRun] = []
    for value in _collect(crew, units):
        found += value
        told += len(value)
        tell(f"{told} of {whole} fixed runs are taken")
    path.write_bytes(encode(sorted(found, key=lambda run: run.name)))


def _divide(subject: Subject) -> Iterator[ReachUnit]:
    """The fixed runs as units: a few of one world each."""
    for _, named in groupby(subject.runs.items(), key=lambda item: item[1].world.name):
        names = [name for name, _ in named]
        for start in range(0, len(names), RUNS_OF_A_UNIT):
            yield ReachUnit(subject, tuple(names[start : start + RUNS_OF_A_UNIT]))


def _collect(crew: Crew, units: Sequence[Unit]) -> Iterator[Any]:
    """The values of all units, as they are done. BadInputError if one has none."""
    waiting = iter(units)

    def take() -> tuple[None, Unit] | None:
        unit = next(waiting, None)
        return None if unit is None else (None, unit)

    for _, _, outcome in crew.outcomes(take):
        yield _value(outcome)


def _value(outcome: Outcome) -> Any:
    if isinstance(outcome, Done):
        return outcome.value
    raise BadInputError(f"the kernel cannot be surveyed: {outcome.told}")


def _digest(subject: Subject) -> str:
    """A name for what the runs of this kernel execute, as blocks: kernel, runs and what cuts code into blocks."""
    kernel = subject.kernel
    digest = hashlib.sha256(f"{kernel.name} {kernel.release} {kernel.build}".encode())
    for name, run in subject.runs.items():
        digest.update(f"{name}\n{print_seed(run.seed)}".encode())
    for path in (Path(code.__file__), code.SOURCES):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]
