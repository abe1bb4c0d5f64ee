"""The verdict on each operation and fault, as a line of JSON and in a table."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from properties.faults.known import defect_of
from properties.faults.scenarios import Scenario
from properties.faults.units import Faulted, Tried
from properties.report.grid import Column, Grid, Line

__all__ = ["FaultRecord", "exit_status", "faults_table", "make_records", "summary"]

NO_MEMORY = "-ENOMEM"
STALL = "stall"
NEXT = " < "
SHOWN = 4
"""Functions of a call chain that are shown; the file has all."""


@dataclass(frozen=True, slots=True)
class FaultRecord:
    """An operation with one fault.

    before: the steps before it. fault, where, answer, aspect, told, seed: see Tried; of a scenario that was declined or
    lost fault is empty, and told says why. verdict: agrees with the model; known, a defect that stands in
    spec/DEFECTS.md and is named in defect; finding; declined; lost. seconds: of the whole scenario.
    """

    kernel: str
    release: str
    operation: str
    before: tuple[str, ...]
    fault: str
    where: str
    answer: str
    verdict: Literal["agrees", "known", "finding", "declined", "lost"]
    defect: str
    aspect: str
    told: str
    seed: str
    seconds: float

    @property
    def place(self) -> str:
        """The function whose allocation failed, and the nearest of its callers."""
        return NEXT.join(self.where.split(NEXT)[:SHOWN])

    def __str__(self) -> str:
        after = f" after {'; '.join(self.before)}" if self.before else ""
        fault = f"fail {self.fault}" if self.fault else "no fault"
        where = f" ({self.place})" if self.where else ""
        defect = f" {self.defect}" if self.defect else ""
        return f"{self.verdict}{defect}: {fault}{where}, {self.operation}{after}\n{self.told}".rstrip()


def make_records(
    kernel: str, release: str, scenario: Scenario, outcome: Faulted | str, seconds: float
) -> Iterator[FaultRecord]:
    """The records of a scenario. outcome: what became of it, or why its process told nothing."""
    lost = outcome if isinstance(outcome, str) else ""
    declined = "" if isinstance(outcome, str) else outcome.declined
    tried = () if isinstance(outcome, str) else outcome.tried
    empty = Tried("", "", "", "", lost or declined, "")
    for each in tried or (empty,):
        defect = defect_of(scenario.line, each.told, each.where) if each.aspect else ""
        verdict: Literal["agrees", "known", "finding", "declined", "lost"] = "agrees"
        if each.aspect:
            verdict = "lost" if each.aspect == STALL else "known" if defect else "finding"
        elif not tried:
            verdict = "lost" if lost else "declined"
        yield FaultRecord(
            kernel,
            release,
            scenario.line,
            scenario.before,
            each.fault,
            each.where,
            each.answer,
            verdict,
            defect,
            each.aspect,
            each.told,
            each.seed,
            round(seconds, 1),
        )


def exit_status(records: Sequence[FaultRecord]) -> int:
    """0: every fault is explained; 1: there is a finding; 2: a scenario gave no verdict, or none had a fault."""
    verdicts = {record.verdict for record in records}
    if "finding" in verdicts:
        return 1
    return 2 if "lost" in verdicts or not any(record.fault for record in records) else 0


def summary(records: Sequence[FaultRecord]) -> str:
    """One sentence: how many faults there were, and what became of them."""
    faults = [record for record in records if record.fault]
    counts = Counter(record.verdict for record in records)
    refused = sum(record.answer == NO_MEMORY for record in faults)
    operations = len({record.operation.split()[0] for record in faults})
    sentence = f"{len(faults)} faults in {operations} operations: {counts['agrees']} runs agree"
    sentence += f", {refused} faults were {NO_MEMORY}; {counts['known']} known; {counts['finding']} findings"
    return f"{sentence}; {counts['lost']} lost" if counts["lost"] else sentence


def faults_table(kernel: str, records: Sequence[FaultRecord]) -> Grid:
    """A line for each scenario."""
    headings = ("faults", NO_MEMORY, "other", "known", "findings", "s")
    numbers = (Column(heading, right=True) for heading in headings)
    columns = (Column("operation", wrap="fold"), *numbers, Column("which"))
    scenarios = dict.fromkeys((record.operation, record.before) for record in records)
    lines = [_tell([r for r in records if (r.operation, r.before) == each]) for each in scenarios]
    return Grid(f"{kernel}: each operation while each of its allocations fails", columns, tuple(lines))


def _tell(records: Sequence[FaultRecord]) -> Line:
    first = records[0]
    faults = [record for record in records if record.fault]
    refused = sum(record.answer == NO_MEMORY for record in faults)
    after = f", after {len(first.before)}" if first.before else ""
    cells = (
        f"{first.operation}{after}",
        str(len(faults)),
        str(refused),
        str(len(faults) - refused),
        str(sum(record.verdict == "known" for record in records)),
        str(sum(record.verdict == "finding" for record in records)),
        f"{first.seconds:.1f}",
        _tell_findings(records),
    )
    return Line(cells)


def _tell_findings(records: Sequence[FaultRecord]) -> str:
    """Which faults show what; why there is none."""
    if first := next((record for record in records if record.verdict in {"declined", "lost"}), None):
        return f"{first.verdict}: {first.told.partition(chr(10))[0]}"
    found: dict[str, list[str]] = {}
    for record in records:
        if record.aspect:
            found.setdefault(record.defect or record.aspect, []).append(record.fault.removeprefix("nth ") or "no fault")
    return "; ".join(f"{what}: {', '.join(faults)}" for what, faults in found.items())
