"""The checks of machine code: the proof matrix, the images of real kernels, and those that `batched` has in place."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Final

from impl.batched import Batched
from properties.proofs.image_files import Dump, read_image
from properties.proofs.installed import installed
from properties.proofs.judging import Variant, variants
from properties.proofs.matrix import LEVELS, X86, Level, Target, cells, prove_cells
from properties.prover.show import counterexample_lines, summary
from properties.prover.verdicts import Verdict as Proved
from properties.prover.x86_64 import X86_64
from properties.report.grid import Column, Grid, Line
from properties.report.results import CheckResult, CheckVerdict
from properties.systems.naming import semantics_named, world_named
from spec.border import bordered
from spec.operations import Call, ObserveSite
from spec.seeds import read_seed

__all__ = [
    "IMAGES",
    "images_are_proved",
    "matrix_is_proved",
    "placed_are_proved",
]

IMAGES: Final = Path(__file__).with_name("images")
COUNTED: Final = ("proved", "refuted", "undecided", "instructions", "obligations", "time")


@dataclass(frozen=True, slots=True)
class _Case:
    """One proof of an image. group: its kernel, or level. detaching: while programs are. seconds: the processor's."""

    title: str
    group: str
    detaching: bool
    variant: Variant
    verdict: Proved
    seconds: float

    @property
    def lines(self) -> Iterator[str]:
        """The verdict, and the counterexample where there is one."""
        yield f"{self.title}: {summary(self.verdict)}"
        if self.verdict.counterexample is not None:
            variant = self.variant
            found = counterexample_lines(self.verdict.counterexample, variant.image, variant.goal, variant.architecture)
            yield from (f"  {line}" for line in found)


def matrix_is_proved(level: Level, target: Target = X86) -> CheckResult:
    """The generator's images of every arity and kind do what their goals say, on every path and for all values."""
    matrix = prove_cells(f"{target.architecture.name}, {level}", cells(level, target))
    stands, jumps = matrix.standing
    told = _count_obligations([proof.verdict for proof in matrix.proofs], matrix.seconds)
    told += f", a task at any of {stands:,} instructions and any of {jumps:,} jumps put in"
    lines = (line for proof in (*matrix.fallen, *matrix.undecided) for line in proof.lines)
    result = _conclude([proof.verdict for proof in matrix.proofs], told, lines, "proofs", matrix.table())
    return replace(result, headline=target is X86 and level == LEVELS[0], proofs=matrix.told(level))


def images_are_proved(folder: Path) -> CheckResult:
    """The images in a folder do, as they are and while programs are detached. BadInputError if a file is no image."""
    dumps = [read_image(path) for path in sorted(folder.glob("*.json"))]
    if not dumps:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail=f"there is no image in {folder}")
    cases = [case for dump in dumps for case in _prove_dump(dump)]
    verdicts = [case.verdict for case in cases]
    told = f"{len(dumps)} images, {_count_obligations(verdicts, sum(case.seconds for case in cases))}"
    lines = (line for case in cases if case.verdict.outcome != "proved" for line in case.lines)
    return _conclude(verdicts, told, lines, "proofs", _tabulate(cases, "proofs of images of real kernels", "kernel"))


def placed_are_proved(folder: Path) -> CheckResult:
    """The images of `batched` at each sharing level do, after every step of every seed, by the bytes in its memory."""
    cases = [case for path in sorted(folder.glob("*.seed")) for case in _prove_placed(path)]
    if not cases:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail=f"there is no seed in {folder}")
    verdicts = [case.verdict for case in cases]
    told = _count_obligations(verdicts, sum(case.seconds for case in cases))
    lines = (line for case in cases if case.verdict.outcome != "proved" for line in case.lines)
    return _conclude(verdicts, told, lines, "images", _tabulate(cases, "proofs of images in place", "level"))


def _prove_placed(path: Path) -> Iterator[_Case]:
    """One case for each image that a seed puts in place."""
    seed = read_seed(path)
    world, semantics = world_named(seed.world, path.parent), semantics_named(seed.semantics)
    for level in LEVELS:
        system, seen = bordered(Batched(world, semantics, level), world, semantics), set()
        for step in seed.steps:
            if not isinstance(step.operation, Call | ObserveSite):
                system.apply(step.operation)
            for function, image, goal in installed(system):
                if (image, goal) not in seen:
                    seen.add((image, goal))
                    variant = Variant("", image, goal, X86_64)
                    yield _prove_case(f"{path.stem}: {function}", level, bool(image.patches), variant)
        system.close()


def _prove_dump(dump: Dump) -> Iterator[_Case]:
    for variant in variants(dump):
        name = f", {variant.name}" if variant.name else ""
        yield _prove_case(f"{Path(dump.file).stem}{name}", dump.kernel, bool(variant.name), variant)


def _prove_case(title: str, group: str, detaching: bool, variant: Variant) -> _Case:
    start = time.process_time()
    verdict = variant.prove()
    return _Case(title, group, detaching, variant, verdict, time.process_time() - start)


def _conclude(verdicts: Sequence[Proved], told: str, lines: Iterable[str], unit: str, table: Grid) -> CheckResult:
    """What is undecided is not proved, and not refuted either: the check could not be carried out."""
    outcomes = {verdict.outcome for verdict in verdicts}
    worst = next((outcome for outcome in ("refuted", "undecided") if outcome in outcomes), "proved")
    verdict = {"refuted": CheckVerdict.FELL, "undecided": CheckVerdict.NOT_RUN, "proved": CheckVerdict.HOLDS}[worst]
    tally = replace(table, title=f"{table.title}: {told}")
    detail = "" if verdict is CheckVerdict.HOLDS else "\n".join(lines)
    return CheckResult(verdict, len(verdicts), unit, detail=detail, tally=tally)


def _count_obligations(verdicts: Sequence[Proved], seconds: float) -> str:
    """How many obligations were decided, and how long it took."""
    decided = sum(sum(verdict.obligations.values()) for verdict in verdicts)
    return f"{decided:,} obligations in {1000 * seconds:,.0f} ms"


def _tabulate(cases: Sequence[_Case], title: str, groups: str) -> Grid:
    """One line for each group, as its images are and while programs are detached."""
    counted = (Column(heading, right=True) for heading in COUNTED)

    def place(case: _Case) -> tuple[str, bool]:
        return case.group, case.detaching

    lines = (_make_line(*key, list(group)) for key, group in groupby(sorted(cases, key=place), place))
    return Grid(title, (Column(groups), Column("image"), *counted), tuple(lines))


def _make_line(name: str, detaching: bool, cases: Sequence[_Case]) -> Line:
    outcomes = [case.verdict.outcome for case in cases]
    counts = (str(outcomes.count(outcome)) for outcome in ("proved", "refuted", "undecided"))
    stands = sum(case.verdict.figures.stands for case in cases)
    decided = sum(sum(case.verdict.obligations.values()) for case in cases)
    spent = f"{1000 * sum(case.seconds for case in cases):,.0f} ms"
    return Line((name, "while detached" if detaching else "as it is", *counts, f"{stands:,}", f"{decided:,}", spent))
