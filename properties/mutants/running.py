"""Mutants handed out to a crew, and recorded as they come back."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from impl.linux.instruments.mutants import Mutant
from properties.mutants.accepted import reason_for
from properties.mutants.records import MutantRecord, make_record
from properties.mutants.subject import Subject
from properties.mutants.survey import MutantSurvey
from properties.mutants.units import MutantUnit
from properties.work.crew import Crew
from properties.work.units import Done

__all__ = ["FIXED_SECONDS", "Chosen", "run_mutants"]

FIXED_SECONDS = 90.0
"""For the fixed runs of a mutant; search comes then."""

ACCEPTED_SECONDS = 15.0
"""For those of a mutant that may survive: what kills others does so in their first runs."""

LIMIT_SECONDS = 600.0
"""Beside both, a mutant may take so long: guests are booted, and those that hang are waited for."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """A mutant that is to be judged, and its name if it has one."""

    mutant: Mutant
    name: str = ""


def run_mutants(
    subject: Subject,
    survey: MutantSurvey,
    chosen: Iterable[Chosen],
    crew: Crew,
    *,
    budget: float,
    random_seed: int,
    fixed_seconds: float = FIXED_SECONDS,
) -> Iterator[MutantRecord]:
    """Judge mutants; their records, as they are done.

    budget: seconds of each one's search. fixed_seconds: for its fixed runs before that; 0 leaves them out. One that may
    survive is not searched for, and has less time.
    """
    waiting = iter(chosen)

    def take() -> tuple[Chosen, MutantUnit] | None:
        each = next(waiting, None)
        if each is None:
            return None
        mutant = each.mutant
        runs = tuple(run.name for run in survey.runs_of(mutant))
        accepted = not each.name and bool(reason_for(mutant))
        changes = ((mutant.address, mutant.new),)
        seconds = min(fixed_seconds, ACCEPTED_SECONDS) if accepted else fixed_seconds
        searched = 0.0 if accepted else budget
        unit = MutantUnit(subject, changes, runs, seconds, searched, _derive_seed(random_seed, mutant))
        return each, unit

    kernel = subject.kernel
    for each, unit, outcome in crew.outcomes(take, fixed_seconds + budget + LIMIT_SECONDS):
        judged, seconds = (outcome.value, outcome.seconds) if isinstance(outcome, Done) else (outcome.told, 0.0)
        yield make_record(
            each.mutant,
            judged,
            kernel=kernel.name,
            release=kernel.release,
            name=each.name,
            covering=len(unit.runs),
            seconds=seconds,
            accepted=reason_for(each.mutant),
        )


def _derive_seed(random_seed: int, mutant: Mutant) -> int:
    digest = hashlib.sha256(f"{random_seed} {mutant.address:x} {mutant.change}".encode()).digest()
    return int.from_bytes(digest[:4])
