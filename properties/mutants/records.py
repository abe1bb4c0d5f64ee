"""The verdict on each mutant, as a line of JSON and in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from impl.linux.instruments.mutants import Mutant
from properties.mutants.units import Judged
from properties.report.grid import Column, Grid, Line

__all__ = ["MutantRecord", "exit_status", "make_record", "mutants_table", "summary"]

LOST = "lost"
NOBODY = Judged("survived", "", "", 0, 0, "")


@dataclass(frozen=True, slots=True)
class MutantRecord:
    """A mutant, and what became of it.

    name: of a named one, else empty. source, function, at, change, text, target, code, old, new: see Mutant. covering:
    fixed runs in which it may make a difference. verdict, aspect, run, runs, steps, told: see Judged; lost: its process
    gave no verdict. seconds: of work. accepted: why a survivor is accepted, else empty.
    """

    kernel: str
    release: str
    name: str
    source: str
    function: str
    at: int
    change: str
    text: str
    target: str
    code: str
    old: str
    new: str
    covering: int
    verdict: Literal["killed", "survived", "lost"]
    aspect: str
    run: str
    runs: int
    steps: int
    seconds: float
    told: str
    accepted: str

    @property
    def is_open(self) -> bool:
        """Whether it survived for no reason that is known."""
        return self.verdict == "survived" and not self.accepted

    def __str__(self) -> str:
        place = f"{self.function}+{self.at:#x}, {self.change}: {self.text}"
        place += f" ({self.target})" if self.target else ""
        name = f"{self.name}: " if self.name else ""
        if self.verdict == "killed":
            return f"killed by {self.aspect} in {self.seconds:.1f} s, {self.run}: {name}{place}"
        if self.verdict == LOST:
            return f"lost, {self.told.partition(chr(10))[0]}: {name}{place}"
        why = f"accepted, {self.accepted}" if self.accepted else "not accepted"
        runs = f"{self.runs} of {self.covering} runs and {self.steps} random steps"
        return f"survived {runs} in {self.seconds:.1f} s, {why}: {name}{place}"


def make_record(
    mutant: Mutant,
    judged: Judged | str,
    *,
    kernel: str,
    release: str,
    name: str,
    covering: int,
    seconds: float,
    accepted: str,
) -> MutantRecord:
    """The record of a mutant. judged: its verdict, or why there is none. accepted: why it may survive."""
    known = NOBODY if isinstance(judged, str) else judged
    return MutantRecord(
        kernel,
        release,
        name,
        mutant.source,
        mutant.function,
        mutant.at,
        mutant.change.value,
        mutant.text,
        mutant.target,
        mutant.code,
        mutant.old,
        mutant.new,
        covering,
        "lost" if isinstance(judged, str) else known.verdict,
        known.aspect,
        known.run,
        known.runs,
        known.steps,
        round(seconds, 1),
        judged if isinstance(judged, str) else known.told,
        accepted if known.verdict == "survived" and not isinstance(judged, str) else "",
    )


def exit_status(records: Sequence[MutantRecord]) -> int:
    """0: every survivor is accepted; 1: one is not; 2: one was lost, or there was none."""
    if any(record.is_open for record in records):
        return 1
    return 2 if not records or any(record.verdict == LOST for record in records) else 0


def summary(records: Sequence[MutantRecord]) -> str:
    """One sentence: how many were killed, of those that anything could see."""
    killed = sum(record.verdict == "killed" for record in records)
    survived = sum(record.is_open for record in records)
    lost = sum(record.verdict == LOST for record in records)
    accepted = len(records) - killed - survived - lost
    seen = killed + survived
    share = f", {100 * killed / seen:.1f} % of {seen} that can be seen" if seen else ""
    sentence = f"{len(records)} mutants: {killed} killed{share}; {survived} survived; {accepted} accepted"
    return f"{sentence}; {lost} lost" if lost else sentence


def mutants_table(kernel: str, records: Sequence[MutantRecord]) -> Grid:
    """A line for each source file and each kind of change, and all of them."""
    columns = (
        Column("source, change", wrap="fold"),
        *(Column(heading, right=True) for heading in ("mutants", "killed", "accepted", "survived", "s a kill")),
        Column("killed by"),
    )
    sources = sorted({record.source for record in records})
    changes = sorted({record.change for record in records})
    lines = [
        *(_tell(source, [r for r in records if r.source == source]) for source in sources),
        *_begin_section(_tell(change, [r for r in records if r.change == change]) for change in changes),
        *_begin_section([_tell("all", records)]),
    ]
    return Grid(f"{kernel}: mutants of its machine code", columns, tuple(lines))


def _tell(what: str, records: Sequence[MutantRecord]) -> Line:
    killed = sorted((r for r in records if r.verdict == "killed"), key=lambda record: record.seconds)
    aspects = Counter(record.aspect for record in killed)
    cells = (
        what,
        str(len(records)),
        str(len(killed)),
        str(sum(bool(record.accepted) for record in records)),
        str(sum(record.is_open for record in records)),
        f"{killed[len(killed) // 2].seconds:.1f}" if killed else "",
        ", ".join(f"{aspect} {count}" for aspect, count in aspects.most_common()),
    )
    return Line(cells)


def _begin_section(lines: Iterable[Line]) -> Iterator[Line]:
    for place, line in enumerate(lines):
        yield Line(line.cells, line.style, new_section=not place)
