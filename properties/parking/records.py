"""The verdict on each place of each row, as a line of JSON, in a table and as checks for the report."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

from properties.parking.scenarios import SweptRow
from properties.parking.units import Stay, Swept
from properties.report.grid import Column, Grid, Line
from properties.report.results import CheckResult, CheckVerdict, Finished

__all__ = ["SweepRecord", "exit_status", "make_checks", "make_records", "summary", "sweep_table"]

PENDING = "pending"
Verdict = Literal["agrees", "known", "difference", "declined", "unreached", "without", "lost"]


@dataclass(frozen=True, slots=True)
class SweepRecord:
    """A task at one place, while an operation is done.

    system, release: what is swept. image, operation: the row. at: the offset of the instruction, None outside of the
    image. text, point, how: see ParkingPlace. answers, trace, aspect, told, seed, defect: see Stay.

    verdict: agrees with the model; known, a defect of spec/DEFECTS.md; difference; declined; unreached, where the call
    does not come. Of a row of which nothing was taken without or lost, and of its end, text and point are
    empty. seconds: of the row.
    """

    system: str
    release: str
    image: str
    operation: str
    at: int | None
    text: str
    point: str
    how: str
    answers: tuple[str, ...]
    trace: str
    verdict: Verdict
    defect: str
    aspect: str
    told: str
    seed: str
    seconds: float

    def __str__(self) -> str:
        place = f"+{self.at:#x} {self.text}" if self.at is not None else self.text or "the end of the row"
        verdict = f"{self.verdict} {self.defect}".rstrip()
        return f"{verdict}: {self.image}: {self.operation}: {place}\n{self.told}"


def make_records(
    system: str, release: str, row: SweptRow, outcome: Swept | str, seconds: float
) -> Iterator[SweepRecord]:
    """The records of a row. outcome: what became of it, or why its process told nothing."""
    swept = Swept((), "") if isinstance(outcome, str) else outcome
    head = (system, release, row.image.name, row.operation)
    spent = round(seconds, 1)

    def whole(verdict: Verdict, told: str, aspect: str = "") -> SweepRecord:
        return SweepRecord(*head, None, "", "", "", (), "", verdict, "", aspect, told, "", spent)

    if isinstance(outcome, str):
        yield whole("lost", outcome)
    elif swept.without:
        yield whole("without", swept.without)
    for each in swept.parked:
        place = each.place
        yield SweepRecord(
            *head,
            place.offset,
            place.text,
            place.point,
            place.how or "",
            each.answers,
            each.trace,
            _judge(each),
            each.defect,
            each.aspect,
            each.told or each.declined,
            each.seed,
            spent,
        )
    if swept.left:
        yield whole("difference", swept.left, "undo")


def _judge(parked: Stay) -> Verdict:
    if not parked.reached:
        return "unreached"
    if parked.defect:
        return "known"
    if parked.declined:
        return "declined"
    return "difference" if parked.aspect else "agrees"


def exit_status(records: Sequence[SweepRecord]) -> int:
    """0: everything is as the model says, or a known defect; 1: there is a difference; 2: a row was lost, or all."""
    verdicts = {record.verdict for record in records}
    if "difference" in verdicts:
        return 1
    return 2 if "lost" in verdicts or "agrees" not in verdicts else 0


def summary(records: Sequence[SweepRecord]) -> str:
    """One sentence: how often a task was parked, and what became of it."""
    counts = Counter(record.verdict for record in records)
    parked = [record for record in records if record.point and record.verdict != "unreached"]
    images = {record.image for record in parked}
    pending = sum(PENDING in record.answers for record in parked)
    rows = {(record.system, record.image, record.operation) for record in parked}
    sentence = (
        f"{len(parked):,} places in {len(images)} images and {len(rows)} rows: {counts['agrees']:,} as the model says"
    )
    sentence += f", {pending:,} operations pended; {counts['known']:,} known, {counts['difference']:,} differences"
    told = [f"{counts[verdict]:,} {verdict}" for verdict in ("declined", "lost") if counts[verdict]]
    return "; ".join((sentence, *told))


def sweep_table(title: str, records: Sequence[SweepRecord]) -> Grid:
    """A line for each row, those of an image together."""
    headings = ("places", "agree", PENDING, "known", "differ", "declined", "unreached", "s")
    numbers = (Column(heading, right=True) for heading in headings)
    columns = (Column("image"), Column("operation"), *numbers, Column("which"))
    lines: list[Line] = []
    image = ""
    for key in dict.fromkeys((record.image, record.operation) for record in records):
        row = [record for record in records if (record.image, record.operation) == key]
        lines.append(_tell(row, first=key[0] != image))
        image = key[0]
    return Grid(f"{title}: an operation, while a task stands at each instruction", columns, tuple(lines))


def _tell(row: Sequence[SweepRecord], *, first: bool) -> Line:
    counts = Counter(record.verdict for record in row)
    places = sum(bool(record.point) for record in row)
    pending = sum(PENDING in record.answers for record in row)
    cells = (
        row[0].image if first else "",
        row[0].operation,
        *(str(number) for number in (places, counts["agrees"], pending, counts["known"], counts["difference"])),
        *(str(counts[verdict]) for verdict in ("declined", "unreached")),
        f"{row[0].seconds:.1f}",
        "; ".join(_tell_reasons(row)),
    )
    return Line(cells, "bold red" if counts["difference"] else "", new_section=first)


def _tell_reasons(row: Sequence[SweepRecord]) -> Iterator[str]:
    """Why nothing was taken, and which defects and differences there are, each once with its first place."""
    seen: set[str] = set()
    for record in row:
        what = record.defect or record.aspect or (record.verdict if record.verdict in {"without", "lost"} else "")
        if what and what not in seen:
            seen.add(what)
            place = f"+{record.at:#x}" if record.at is not None else record.told.partition("\n")[0]
            yield f"{what}: {place}" if record.point else f"{what}: {record.told.partition(chr(10))[0]}"


def make_checks(title: str, records: Sequence[SweepRecord]) -> list[Finished]:
    """A check for each image, with the table of its rows."""
    return [
        _make_check(title, image, [record for record in records if record.image == image])
        for image in dict.fromkeys(record.image for record in records)
    ]


def _make_check(title: str, image: str, records: Sequence[SweepRecord]) -> Finished:
    found = [record for record in records if record.verdict in {"difference", "lost"}]
    fell = any(record.verdict == "difference" for record in found)
    taken = sum(record.verdict in {"agrees", "known"} for record in records)
    verdict = CheckVerdict.FELL if fell else CheckVerdict.NOT_RUN if found or not taken else CheckVerdict.HOLDS
    detail = "\n\n".join(map(str, found)) or ("" if taken else records[0].told)
    table = sweep_table(f"{title}, {image}", records)
    seconds = {record.operation: record.seconds for record in records}
    return Finished(
        f"{title}: a task at each instruction: {image}",
        CheckResult(verdict, taken, "places", detail=detail, tally=table),
        sum(seconds.values()),
    )
