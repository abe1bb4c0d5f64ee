"""The page: records arranged, and given to the templates."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from properties.report.html.both_sides import compare
from properties.report.html.charts import Chart, Trend, cost_charts, trend
from properties.report.html.matrix import columns, families, matrices
from properties.report.html.plans import picture
from properties.report.html.trampolines import lay_out
from properties.report.records import (
    CostRecord,
    Curve,
    CurveRecord,
    FigureRecord,
    GalleryRecord,
    LinuxRecord,
    Named,
    Records,
    RuleRecord,
)
from properties.report.results import CheckVerdict
from spec.documents import Defect, Rule
from spec.errors import BadInputError

__all__ = ["MOST_BYTES", "Known", "make_page"]

MOST_BYTES: Final = 3_000_000
TEMPLATES: Final = Path(__file__).with_name("templates")
LETTERS, ROWS, ITEMS = 20_000, 400, 40
"""How much of a text, of a table and of a list of findings is shown, if the page has room for it."""

SMALLEST: Final = 1 / 256
CODE: Final = re.compile(r"`([^`]+)`")
COMMIT: Final = re.compile(r"\b[0-9a-f]{12}\b")
ERRNO: Final = re.compile(r"(?<![\w-])-E[A-Z0-9]{2,}")


@dataclass(frozen=True)
class Known:
    """What the project knows without a run: rules and defects, which rules each kernel confirmed, the gallery."""

    rules: Sequence[Rule]
    defects: Sequence[Defect]
    confirmed: Mapping[str, Mapping[str, RuleRecord]]
    gallery: GalleryRecord


def make_page(records: Records, known: Known) -> str:
    """The page, of at most MOST_BYTES: where records hold more, less of each text and table is shown, and it says so.

    BadInputError if that is not enough.
    """
    room = 1.0
    while room >= SMALLEST:
        page = _render(records, known, room)
        if len(page.encode()) <= MOST_BYTES:
            return page
        room /= 4
    raise BadInputError(f"the records hold too much for a page of {MOST_BYTES:,} bytes: give a directory with fewer")


def _render(records: Records, known: Known, room: float) -> str:
    kernels = columns(records.linux, known.confirmed)
    limits = _Limits(max(200, int(LETTERS * room)), max(20, int(ROWS * room)), max(4, int(ITEMS * room)))
    runs, headlines = records.all_runs, _headlines(records)
    return (
        _environment()
        .get_template("report.html.j2")
        .render(
            css=Markup((TEMPLATES / "report.css").read_text(encoding="utf-8")),  # noqa: S704  # our own file
            limits=limits,
            runs=runs,
            headlines=headlines,
            verdict=_worst(headlines),
            differences=[
                (run.title, check.name, found) for run in runs for check in run.checks for found in check.differences
            ],
            matrices=matrices(
                [cell for run in runs for check in run.checks for cell in check.proofs][: limits.rows * 10]
            ),
            kernels=kernels,
            families=families(known.rules, kernels),
            rules={rule.id: rule for rule in known.rules},
            records=records,
            gallery=known.gallery,
            defects=[(defect, _frames_of(defect, known.gallery)) for defect in known.defects],
            found={bug.bug: bug for _, power in records.power for bug in power.bugs},
            predicted=_predicted(known.gallery),
            measured=_measured(records.linux),
            plans=[
                (name, plan, kernel, picture(plan, kernel))
                for name, plan in records.plans
                for kernel in plan.kernels[:8]
            ],
            trends=_trends(records),
        )
    )


@dataclass(frozen=True, slots=True)
class _Limits:
    """How many letters of a text, rows of a table and items of a list are shown."""

    letters: int
    rows: int
    items: int

    def cut(self, text: str) -> str:
        """The text, or its start and how much is left out."""
        left = len(text) - self.letters
        return f"{text[: self.letters]}\n… and {left:,} more letters" if left > 0 else text

    def head(self, items: Sequence[Any]) -> Sequence[Any]:
        """The first rows of a table."""
        return items[: self.rows]

    def few(self, items: Sequence[Any]) -> Sequence[Any]:
        """The first of a list."""
        return items[: self.items]


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(compare=compare, lay_out=lay_out, prose=_mark_up, slug=_slug)
    environment.filters.update(time=_tell_time, figure=_tell_figure, commit=_find_commit)
    return environment


def _mark_up(text: str) -> Markup:
    """Text of the project's documents: what stands in backticks is code, and an errno is not broken."""
    coded = CODE.sub(r"<code>\1</code>", str(escape(text)))
    return Markup(ERRNO.sub(r'<span class="id">\g<0></span>', coded))  # noqa: S704  # escaped before


def _find_commit(origin: str) -> str:
    """The commit in a planted bug's origin, empty without one."""
    found = COMMIT.search(origin)
    return found[0] if found else ""


def _tell_time(seconds: float) -> str:
    return f"{seconds / 60:,.1f} min" if seconds >= 120 else f"{seconds:.1f} s"


def _tell_figure(value: float) -> str:
    return f"{value:,.0f}" if 1000 <= abs(value) < 1e15 else f"{value:.3g}"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def _headlines(records: Records) -> list[tuple[str, str, str]]:
    """For each run its verdict, its title, and a sentence: those of checks, the newest figures, searches for bugs."""
    lines = [(_judge([check.verdict for check in run.checks]), run.title, run.summary) for run in records.all_runs]
    for name, figures in records.bench[-1:]:
        held = sum(figure.holds for figure in figures)
        lines.append(_count(held, len(figures), f"massattach bench, {name}", "figures hold"))
    for name, power in records.power:
        found = sum(bug.aspect is not None for bug in power.bugs)
        lines.append(_count(found, len(power.bugs), f"Planted bugs, {name}", "were found by every search"))
    return lines


def _count(good: int, every: int, title: str, what: str) -> tuple[str, str, str]:
    verdict = "holds" if good == every else "fell"
    return verdict, title, f"{good:,} of {every:,} {what}."


def _judge(verdicts: Sequence[CheckVerdict]) -> str:
    """As exit_status does: what could not run does not hold."""
    if CheckVerdict.FELL in verdicts:
        return "fell"
    return "holds" if {*verdicts} == {CheckVerdict.HOLDS} else "not run"


def _worst(lines: Sequence[tuple[str, str, str]]) -> str:
    verdicts = [verdict for verdict, _, _ in lines]
    return next((each for each in ("fell", "not run", "holds") if each in verdicts), "nothing was run")


def _frames_of(defect: Defect, gallery: GalleryRecord) -> tuple[Any, ...]:
    return next((each.frames for each in gallery.defects if each.id == defect.id), ())


def _predicted(gallery: GalleryRecord) -> list[tuple[str, list[Chart]]]:
    """The charts by what is counted, one for each kernel's rules."""
    by_title: dict[tuple[str, str], list[CurveRecord]] = {}
    for record in gallery.costs:
        by_title.setdefault((record.title, record.unit), []).append(record)
    return [
        (title, cost_charts(unit, [(record.semantics, record.curves) for record in records]))
        for (title, unit), records in by_title.items()
    ]


def _measured(linux: Named[LinuxRecord]) -> list[Chart]:
    """A chart for each kernel on which attaching was timed."""
    rows = [row for _, record in linux for row in record.costs]
    kernels = dict.fromkeys(row.kernel for row in rows)
    return cost_charts(
        "seconds", [(kernel, _curves([row for row in rows if row.kernel == kernel])) for kernel in kernels]
    )


def _curves(rows: Sequence[CostRecord]) -> list[Curve]:
    """Each way that was tried with more than one number of functions."""
    ways: dict[str, list[tuple[int, float]]] = {}
    for row in rows:
        if row.attach is not None and row.detach is not None and row.attached:
            ways.setdefault(row.what, []).append((row.attached, row.attach.seconds + row.detach.seconds))
    return [Curve(what, tuple(points)) for what, points in ways.items() if len(points) > 1]


def _trends(records: Records) -> list[Trend]:
    """Every figure that stands in more than one of the files."""
    found: dict[str, list[tuple[str, FigureRecord]]] = {}
    for name, figures in records.bench:
        for figure in figures:
            found.setdefault(figure.figure, []).append((name, figure))
    return [
        trend(title, [name for name, _ in each], [figure for _, figure in each])
        for title, each in found.items()
        if len(each) > 1
    ]
