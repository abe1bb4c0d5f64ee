"""Records: what a run writes down for the HTML report, and for other programs, as plain values in JSON.

They come back as untrusted input: `read_records` tells what is wrong with one in a sentence. A record is known by its
file's name; docs/report.md describes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

from msgspec import Meta

from properties.report.grid import Grid
from properties.report.pictures import Count, Picture, StateFrame
from properties.report.results import CheckVerdict, Finished, ProofCell, ToldDivergence, summary
from spec.errors import BadInputError
from spec.reading import load

__all__ = [
    "BenchRecord",
    "CheckRecord",
    "ChecksRecord",
    "CostRecord",
    "Curve",
    "CurveRecord",
    "DefectRecord",
    "DifferenceRecord",
    "FigureRecord",
    "FoundBug",
    "GalleryRecord",
    "KernelRecord",
    "LinuxRecord",
    "Named",
    "PhaseRecord",
    "PlanRecord",
    "PlannedKernel",
    "PlannedProbe",
    "PlannedRefusal",
    "PlannedSet",
    "PlantedRecord",
    "PowerRecord",
    "Records",
    "RuleRecord",
    "WaitsRecord",
    "make_run",
    "read_records",
]

MOST_BYTES: Final = 32 << 20
MOST_FILES: Final = 200

Seconds = Annotated[float, Meta(ge=0)]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class DifferenceRecord:
    """A divergence, and pictures of what each side shows after its last step, where that could be run again.

    before: what the model shows before that step.
    """

    difference: ToldDivergence
    before: Picture | None = None
    expected: Picture | None = None
    observed: Picture | None = None


@dataclass(frozen=True, slots=True)
class CheckRecord:
    """A check and what came of it: the members of CheckResult."""

    name: str
    verdict: CheckVerdict
    seconds: Seconds
    cases: Count = 0
    unit: str = "cases"
    steps: Count = 0
    calls: Count = 0
    functions: dict[str, Count] = field(default_factory=dict)
    detail: str = ""
    tally: Grid | None = None
    proofs: tuple[ProofCell, ...] = ()
    differences: tuple[DifferenceRecord, ...] = ()


@dataclass(frozen=True, slots=True)
class ChecksRecord:
    """A run of verify, linux, or whatever else ran checks. title: whose; summary: one sentence; notes: further ones."""

    title: str
    summary: str
    checks: tuple[CheckRecord, ...]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RuleRecord:
    """What is known of a rule on a kernel. state: a value of Knowledge; steps: those that confirmed it."""

    state: Literal["confirmed", "never reached", "not observable", "not in this kernel"]
    steps: Count = 0
    reason: str = ""


@dataclass(frozen=True, slots=True)
class KernelRecord:
    """What was done with a kernel."""

    release: str
    semantics: str
    runs: Count
    examples: Count
    steps: Count
    calls: Count
    seconds: Seconds
    declined: dict[str, Count] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class WaitsRecord:
    """Grace periods that were waited for, by flavour."""

    waited: dict[str, Count]


@dataclass(frozen=True, slots=True)
class PhaseRecord:
    """Attaching, or detaching: its seconds in the guest."""

    seconds: Seconds
    waits: WaitsRecord


@dataclass(frozen=True, slots=True)
class CostRecord:
    """A way of attaching to so many functions of a kernel, measured."""

    kernel: str
    what: str
    functions: Count
    verdict: str
    attach: PhaseRecord | None
    detach: PhaseRecord | None
    attached: Count


@dataclass(frozen=True, slots=True)
class LinuxRecord:
    """linux.json: by rule and kernel what is known, by kernel what was done, the costs, and the run itself."""

    rules: dict[str, dict[str, RuleRecord]]
    kernels: dict[str, KernelRecord]
    costs: tuple[CostRecord, ...] = ()
    run: ChecksRecord | None = None


@dataclass(frozen=True, slots=True)
class FigureRecord:
    """A figure of bench.json."""

    figure: str
    value: float
    bound: float
    better: Literal["higher", "lower"]
    holds: bool
    unit: str


BenchRecord = tuple[FigureRecord, ...]


@dataclass(frozen=True, slots=True)
class FoundBug:
    """How a planted bug was found; aspect: None if not by every search. seconds, steps: until then, medians of them.

    shrunk: steps of the seed of the first search. shortest: of the least seed that is known. kernels: on which a mutant
    that is like it was killed.
    """

    bug: str
    aspect: str | None
    seconds: Seconds = 0.0
    steps: Count = 0
    shrunk: Count = 0
    seed: str = ""
    shortest: Count = 0
    kernels: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class PowerRecord:
    """power.json: which planted bugs searches with each of these random seeds found."""

    random_seeds: tuple[Count, ...]
    bugs: tuple[FoundBug, ...]


@dataclass(frozen=True, slots=True)
class PlannedRefusal:
    """Functions that refuse a probe for a reason; examples: the first of them."""

    probe: str
    rule: str
    reason: str
    functions: Count
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedSet:
    """The functions on which exactly these probes meet. images: how many they need, by sharing level."""

    probes: tuple[str, ...]
    functions: Count
    images: dict[str, Count]
    examples: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class PlannedKernel:
    """A plan by one kernel's rules. costs: by way of attaching or detaching, counts by what is counted."""

    semantics: str
    attached: dict[str, Count]
    refused: tuple[PlannedRefusal, ...]
    sets: tuple[PlannedSet, ...]
    costs: dict[str, dict[str, Count] | None]


@dataclass(frozen=True, slots=True)
class PlannedProbe:
    """A pattern, the kind of its program, and how many functions it matches. name: P1, P2 and so on, in order."""

    name: str
    kind: str
    pattern: str
    matched: Count


@dataclass(frozen=True, slots=True)
class PlanRecord:
    """plan.json. functions: of the world."""

    world: str
    functions: Count
    probes: tuple[PlannedProbe, ...]
    kernels: tuple[PlannedKernel, ...]


@dataclass(frozen=True, slots=True)
class PlantedRecord:
    """A planted bug: the members of Planted, the divergence of its shortest steps, and what sites call there.

    subject: of the commit in its origin, if there is one. before: on both sides, before the last step; expected and
    observed: of the model, and with the bug, after it.
    """

    name: str
    rule: str
    origin: str
    semantics: str
    sharing: str
    what: str
    difference: ToldDivergence
    before: Picture
    expected: Picture
    observed: Picture
    subject: str = ""


@dataclass(frozen=True, slots=True)
class DefectRecord:
    """The seed of a defect, step by step, as the rules have it: the last changes of state."""

    id: str
    seed: str
    frames: tuple[StateFrame, ...]


@dataclass(frozen=True, slots=True)
class Curve:
    """A line of a chart: (functions, what is counted or measured)."""

    name: str
    points: tuple[tuple[Count, Annotated[float, Meta(ge=0)]], ...]


@dataclass(frozen=True, slots=True)
class CurveRecord:
    """A chart. semantics: by whose rules; unit: of the vertical axis."""

    semantics: str
    title: str
    unit: str
    curves: tuple[Curve, ...]


@dataclass(frozen=True, slots=True)
class GalleryRecord:
    """What needs no run to be found anew: the talk's pictures, planted bugs, defects, and predicted costs."""

    talk: tuple[StateFrame, ...]
    planted: tuple[PlantedRecord, ...]
    defects: tuple[DefectRecord, ...]
    costs: tuple[CurveRecord, ...]


Named = tuple[tuple[str, Value], ...]
"""Records by the names of their files, without the suffix, in the order of names."""


@dataclass(frozen=True)
class Records:
    """The records of a directory."""

    runs: Named[ChecksRecord] = ()
    linux: Named[LinuxRecord] = ()
    bench: Named[BenchRecord] = ()
    power: Named[PowerRecord] = ()
    plans: Named[PlanRecord] = ()

    @property
    def all_runs(self) -> tuple[ChecksRecord, ...]:
        """Every run of checks, those of real kernels last."""
        return (*(run for _, run in self.runs), *(each.run for _, each in self.linux if each.run is not None))


RUNS: Final = ("verify*.json", "faults*.json", "mutants*.json", "sweep*.json", "campaign*.json")


def read_records(directory: Path) -> Records:
    """The records that stand in a directory; BadInputError names a damaged one, or says that there is no directory."""
    if not directory.is_dir():
        raise BadInputError("is no directory: write the one that verify, linux or bench wrote to", str(directory))
    return Records(
        _read(directory, RUNS, ChecksRecord),
        _read(directory, ("linux*.json",), LinuxRecord),
        _read(directory, ("bench*.json",), BenchRecord),
        _read(directory, ("power*.json",), PowerRecord),
        _read(directory, ("plan*.json",), PlanRecord),
    )


def _read(directory: Path, patterns: Sequence[str], kind: Any) -> Named[Any]:
    paths = sorted({path for pattern in patterns for path in directory.glob(pattern)})
    if len(paths) > MOST_FILES:
        raise BadInputError(f"has more than {MOST_FILES} files {' '.join(patterns)}", str(directory))
    return tuple((path.stem, load(path, kind, MOST_BYTES)) for path in paths)


def make_run(
    title: str,
    done: Sequence[Finished],
    notes: Sequence[str] = (),
    draw: Callable[[ToldDivergence], DifferenceRecord] = DifferenceRecord,
) -> ChecksRecord:
    """The record of checks that were run. draw: adds the pictures to a divergence."""
    return ChecksRecord(title, summary(done), tuple(_make_checks(done, draw)), tuple(notes))


def _make_checks(done: Sequence[Finished], draw: Callable[[ToldDivergence], DifferenceRecord]) -> Iterator[CheckRecord]:
    for finished in done:
        result = finished.result
        yield CheckRecord(
            finished.name,
            result.verdict,
            finished.seconds,
            result.cases,
            result.unit,
            result.steps,
            result.calls,
            dict(result.functions),
            result.detail,
            result.tally,
            result.proofs,
            tuple(map(draw, result.differences)),
        )
