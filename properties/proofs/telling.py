"""What there is to tell of image files, as units of work: the verdict of each, and counterexamples as lines."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from properties.proofs.image_files import Dump, read_image
from properties.proofs.judging import Variant, variants
from properties.prover.explaining import essential
from properties.prover.goal import Reading
from properties.prover.show import counterexample_lines, summary
from properties.prover.verdicts import Verdict
from properties.work.crew import Crew, Errand
from properties.work.units import Done, Lost
from spec.errors import BadInputError

__all__ = ["BAD_INPUT", "PROVED", "REFUTED", "UNDECIDED", "WORST", "ProveUnit", "Told", "explain", "told_of"]

BATCH: Final = 16
"""Files of one unit, each of which usually takes some milliseconds."""

SECONDS: Final = 120.0
"""The limit for one file."""

PROVED, REFUTED, BAD_INPUT, UNDECIDED = 0, 1, 2, 3
STATUS: Final = {"proved": PROVED, "refuted": REFUTED, "undecided": UNDECIDED}
WORST: Final = {BAD_INPUT: "unusable", REFUTED: "refuted", UNDECIDED: "undecided", PROVED: "proved"}
"""What the files of a status are called; the worst comes first."""


@dataclass(frozen=True, slots=True)
class Told:
    """What there is to tell of a file. error: why it cannot be used."""

    status: int
    lines: tuple[str, ...]
    error: str = ""


@dataclass(frozen=True, slots=True)
class ProveUnit:
    """Image files by their paths. thorough: z3 decides every obligation."""

    files: tuple[str, ...]
    reading: Reading
    thorough: bool

    def work(self, _: Path) -> tuple[Told, ...]:
        """Prove each, as the image was built and while programs are detached."""
        return tuple(_tell(Path(file), self.reading, self.thorough) for file in self.files)


def told_of(paths: Sequence[Path], reading: Reading, crew: Crew, *, thorough: bool) -> Iterator[Told]:
    """Have files proved; what there is to tell of each, in their order. One that ends its process ends no other."""
    batches = (tuple(map(str, paths[start : start + BATCH])) for start in range(0, len(paths), BATCH))
    units = (ProveUnit(batch, reading, thorough) for batch in batches)
    for task in _hand_out(units, crew):
        outcome = task.result()
        if isinstance(outcome, Done):
            yield from outcome.value
        elif len(task.unit.files) == 1:
            yield _refuse(task.unit.files[0], outcome)
        else:
            for file in task.unit.files:
                alone = crew.submit(ProveUnit((file,), reading, thorough), SECONDS).result()
                yield alone.value[0] if isinstance(alone, Done) else _refuse(file, alone)


def _hand_out(units: Iterable[ProveUnit], crew: Crew) -> Iterator[Errand[ProveUnit]]:
    """Hand out two units for each who does them, and more as they come back, in their order."""
    tasks: deque[Errand[ProveUnit]] = deque()
    for unit in units:
        tasks.append(crew.submit(unit, SECONDS))
        if len(tasks) > 2 * crew.width:
            yield tasks.popleft()
    yield from tasks


def _refuse(file: str, lost: Lost) -> Told:
    return Told(BAD_INPUT, (), str(BadInputError(explain(lost, SECONDS), file)))


def explain(lost: Lost, seconds: float) -> str:
    """Why a proof has not come to its end, of `the prover`."""
    if lost.reason == "hung":
        return f"the prover has not ended after {seconds:g} s"
    if lost.reason == "died":
        return "the prover's process died"
    return f"the prover failed: {lost.told.partition(chr(10))[0]}"


def _tell(path: Path, reading: Reading, thorough: bool) -> Told:
    """Tells of one file: the status is the worst of its variants'. Where one is refuted, the next is not tried."""
    try:
        dump = read_image(path)
    except BadInputError as error:
        return Told(BAD_INPUT, (), str(error))
    lines: list[str] = []
    statuses = {PROVED}
    for variant in variants(dump, reading):
        title = f"{dump.file}: {variant.name}" if variant.name else _describe(dump)
        verdict = variant.prove(thorough=thorough)
        lines += _describe_verdict(title, variant, verdict)
        statuses.add(STATUS[verdict.outcome])
        if REFUTED in statuses:
            break
    return Told(next(status for status in WORST if status in statuses), tuple(lines))


def _describe(dump: Dump) -> str:
    return f"{dump.file}: {dump.function} of {dump.kernel}, {' '.join(dump.attached)}"


def _describe_verdict(title: str, variant: Variant, verdict: Verdict) -> Iterator[str]:
    yield f"{title}: {summary(verdict)}"
    if verdict.counterexample is not None:
        image, goal, architecture = variant.image, variant.goal, variant.architecture
        found = essential(verdict.counterexample, image, goal, architecture, verdict.bindings)
        yield from (f"  {line}" for line in counterexample_lines(found, image, goal, architecture))
