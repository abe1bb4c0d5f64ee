"""A survey of a kernel: which basic blocks each fixed run executes, and every mutant of its code."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import Any, Final

from impl import linux
from impl.linux.architectures import Change
from impl.linux.host import cache
from impl.linux.instruments import code
from impl.linux.instruments.code import find_code
from impl.linux.instruments.mutants import Candidates, Mutant, find_mutants
from properties.kernels.conformance import Conforming
from properties.kernels.coverage import Coverage
from properties.mutants.subject import Subject
from properties.report.writing import write_whole
from properties.work.crew import Crew
from properties.work.units import Done, Outcome, Unit
from spec.errors import BadInputError
from spec.reading import encode, load
from spec.seeds import print_seed

__all__ = ["CandidatesUnit", "ExecutedUnit", "MutantSurvey", "ReachedRun", "make_survey"]

RUNS_OF_A_UNIT: Final = 8
KEPT, MOST_KEPT = "reached-", 6
MOST_BYTES: Final = 1 << 20
SHORT_ONES: Final = 2
OWN_WEIGHT: Final = 10
"""How many blocks elsewhere one of the mutant's own function counts for, beside itself."""

SHORTEST: Final = 0.1
"""Seconds; a run that takes less is counted so."""


@dataclass(frozen=True, slots=True)
class ReachedRun:
    """A fixed run by its name, the seconds that it takes, and the addresses of the blocks that it executes.

    falls: why it can judge no mutant; empty if the kernel agrees with the model in it.
    """

    name: str
    seconds: float
    blocks: tuple[int, ...]
    falls: str = ""


@dataclass(frozen=True)
class MutantSurvey:
    """What is known of a kernel before a mutant is made: its fixed runs, the shortest first, and its mutants."""

    runs: tuple[ReachedRun, ...]
    candidates: Candidates

    def runs_of(self, mutant: Mutant) -> tuple[ReachedRun, ...]:
        """The runs that may see it: the two shortest, as any run sees most mutants, and then those that differ most.

        The next is always the one that, for its time, executes most blocks of the mutant's function, and of its source
        file, that those before it have not. Where none is left that adds to them, they are counted anew.
        """
        needed, own, around = _needed_blocks(mutant), self._blocks[mutant.function], self._blocks[mutant.source]
        waiting = [run for run in self.runs if not run.falls and needed.issubset(run.blocks)]
        blocks = {run.name: around.intersection(run.blocks) for run in waiting}
        ordered, waiting = waiting[:SHORT_ONES], waiting[SHORT_ONES:]
        seen = frozenset[int]().union(*(blocks[run.name] for run in ordered))

        def gain(run: ReachedRun) -> float:
            new = blocks[run.name] - seen
            return (len(new) + OWN_WEIGHT * len(own & new)) / max(run.seconds, SHORTEST)

        while waiting:
            best = max(waiting, key=gain)
            if seen and not gain(best):
                seen = frozenset()
                continue
            ordered.append(best)
            waiting.remove(best)
            seen |= blocks[best.name]
        return tuple(ordered)

    @property
    def executed(self) -> frozenset[int]:
        """The blocks that some run executes."""
        return frozenset(block for run in self.runs if not run.falls for block in run.blocks)

    @cached_property
    def _blocks(self) -> Mapping[str, frozenset[int]]:
        """The blocks of each source file, and of each function, in which something can be changed."""
        found: dict[str, set[int]] = {}
        for mutant in self.candidates.mutants:
            for place in (mutant.source, mutant.function):
                found.setdefault(place, set()).add(mutant.block)
        return {place: frozenset(blocks) for place, blocks in found.items()}


def _needed_blocks(mutant: Mutant) -> frozenset[int]:
    """The blocks that a run executes in which it makes a difference: a jump that is never made was made, and so on."""
    way = {Change.NEVER: mutant.ways[:1], Change.ALWAYS: mutant.ways[1:]}.get(mutant.change, ())
    return frozenset((mutant.block, *way))


@dataclass(frozen=True, slots=True)
class ExecutedUnit:
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


def make_survey(subject: Subject, crew: Crew, tell: Callable[[str], None]) -> MutantSurvey:
    """Survey a kernel; what each run executes is kept in the cache. BadInputError if the kernel cannot be run.

    tell: is given a sentence now and then.
    """
    runs = _reach(subject, crew, tell)
    tell("its code is read: every small change of it")
    found: Candidates = next(_collect(crew, [CandidatesUnit(subject)]))
    return MutantSurvey(tuple(sorted(runs, key=lambda run: run.seconds)), found)


def _reach(subject: Subject, crew: Crew, tell: Callable[[str], None]) -> list[ReachedRun]:
    """The fixed runs with what each executes; those that are not in the cache are taken."""
    directory = cache.entry(f"{KEPT}{_digest_of_kernel(subject)}", lambda _: None)
    cache.prune(KEPT, MOST_KEPT, directory)
    paths = {
        name: directory / f"{_digest(f'{name} {print_seed(run.seed)}')}.json" for name, run in subject.runs.items()
    }
    missing = [name for name, path in paths.items() if not path.exists()]
    taken = 0
    if missing:
        tell(f"{len(missing)} of {len(paths)} fixed runs are taken, to see which of its instructions each executes")
    for value in _collect(crew, list(_divide(subject, missing))):
        for run in value:
            write_whole(encode(run), paths[run.name])
        taken += len(value)
        tell(f"{taken} of {len(missing)} fixed runs are taken")
    return [load(path, ReachedRun, MOST_BYTES) for path in paths.values()]


def _divide(subject: Subject, names: Sequence[str]) -> Iterator[ExecutedUnit]:
    """Fixed runs as units: a few of one world each."""
    for _, group in groupby(names, key=lambda name: subject.runs[name].world.name):
        those = list(group)
        for start in range(0, len(those), RUNS_OF_A_UNIT):
            yield ExecutedUnit(subject, tuple(those[start : start + RUNS_OF_A_UNIT]))


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


def _digest_of_kernel(subject: Subject) -> str:
    """A name for a kernel, and for what cuts its code into blocks."""
    kernel = subject.kernel
    cutting = "".join(path.read_text(encoding="utf-8") for path in (Path(code.__file__), code.SOURCES))
    return _digest(f"{kernel.name} {kernel.release} {kernel.build} {subject.semantics} {cutting}")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
