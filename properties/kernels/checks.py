"""The checks of one kernel: its fixed runs by world, its random runs, and the rules that it must confirm."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from itertools import count, groupby
from pathlib import Path

from impl import linux
from impl.linux.guest import packages
from impl.linux.guest.packages import Kernel
from properties.hunt.findings import save_seed
from properties.kernels.confirmed import compare, confirmed, known
from properties.kernels.conformance import Conforming, fixed_runs
from properties.kernels.coverage import Coverage, KernelCoverage, Share, core_share, coverage_table
from properties.kernels.evidence import Difference, Evidence
from properties.kernels.tables import reasons_table
from properties.report.results import Check, CheckResult, CheckVerdict
from properties.runs.corpus import FixedRun
from properties.systems.kernels import laboratory_of
from properties.systems.naming import semantics_named
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["Job", "Random", "debian", "job_checks", "take_short"]


@dataclass(frozen=True, slots=True)
class Random:
    """The limits of random runs, in operations and seconds, their random seed, and where findings are written."""

    operations: float
    budget: float
    seed: int
    directory: Path


@dataclass(eq=False)
class Job:
    """A kernel to be checked.

    files: fetches its files if they are not in the cache. lab: the world in which random runs take place. known: the
    rules that it must confirm. covers: it is noted what the kernel executes of its own code. tell: gets a line before
    each run.
    """

    name: str
    files: Callable[[], Kernel]
    semantics: Semantics
    lab: World
    known: tuple[str, ...] = ()
    covers: bool = False
    tell: Callable[[str], None] = lambda _: None

    @cached_property
    def conforming(self) -> Conforming:
        """The runs of the kernel, whose files are fetched now."""
        return Conforming(self.files(), self.semantics, self.lab, Coverage() if self.covers else None)

    @property
    def evidence(self) -> Evidence | None:
        """What the runs showed; None if none was begun."""
        return self.conforming.evidence if "conforming" in self.__dict__ else None

    @property
    def coverage(self) -> KernelCoverage | None:
        """The kernel's own code that was executed; None if that was not noted."""
        begun = self.conforming if "conforming" in self.__dict__ else None
        return begun.coverage.record(begun.kernel.release) if begun and begun.coverage and begun.coverage.runs else None


def debian(name: str) -> Job:
    """One of Debian's kernels in its laboratory."""
    semantics = semantics_named(name)
    return Job(name, partial(packages.fetch, name), semantics, laboratory_of(semantics), known()[name])


def take_short(job: Job, random: Random) -> CheckResult:
    """Random runs of a kernel, which is ended then."""
    try:
        return _take_random_runs(job, random)
    finally:
        linux.close()


def job_checks(job: Job, random: Random) -> Iterator[Check]:
    """Every check of a kernel, in the order in which they must be made."""
    for world, runs in groupby(fixed_runs(job.semantics, job.lab), key=lambda run: run.world.name):
        name = f"{job.name}: seeds and directed runs agree: {world}"
        yield Check(name, partial(_take_fixed_runs, job, tuple(runs), random))
    if random.operations:
        yield Check(f"{job.name}: random sequences agree: {job.lab.name}", partial(_take_random_runs, job, random))
    yield Check(f"{job.name}: every rule that was confirmed before is confirmed", partial(_compare_with_known, job))
    if job.covers:
        yield Check(f"{job.name}: its own code that was executed", partial(_tell_coverage, job))


def _take_fixed_runs(job: Job, runs: Sequence[FixedRun], random: Random) -> CheckResult:
    numbers = count(1)

    def tell(run: str) -> None:
        job.tell(f"{job.name}: {runs[0].world.name}: {run}, {next(numbers)} of {len(runs)} runs")

    def take() -> None:
        job.conforming.fixed(runs, tell, random.budget)

    return _collect(job, runs[0].world, "runs", take, random.directory)


def _take_random_runs(job: Job, random: Random) -> CheckResult:
    def search() -> None:
        job.conforming.random(
            random.operations, random.budget, random.seed, lambda done: job.tell(f"{job.name}: {job.lab.name}: {done}")
        )

    return _collect(job, job.lab, "examples", search, random.directory)


def _collect(job: Job, world: World, unit: str, take: Callable[[], object], directory: Path) -> CheckResult:
    """Take some runs; the result is what they add to the evidence."""
    before = job.conforming.evidence
    take()
    after = job.conforming.evidence
    cases = after.runs - before.runs if unit == "runs" else after.examples - before.examples
    found = after.differences[len(before.differences) :]
    return CheckResult(
        CheckVerdict.FELL if found else CheckVerdict.HOLDS if after.steps > before.steps else CheckVerdict.NOT_RUN,
        cases,
        unit,
        {world.name: len(world.functions)},
        after.steps - before.steps,
        after.calls - before.calls,
        "\n".join(_save(difference, directory) for difference in found),
        differences=tuple(difference.divergence.told(difference.seed) for difference in found),
    )


def _save(difference: Difference, directory: Path) -> str:
    """Write a finding's seed, and say where it is, and what it shows."""
    comments = [str(difference.divergence), f"linux: {difference.run}"]
    path = save_seed(difference.seed, difference.divergence.aspect, comments, directory)
    return f"{difference.run}: the seed is {path}\n{difference}"


def _compare_with_known(job: Job) -> CheckResult:
    """The check falls if a rule that was confirmed before is not confirmed now; it names new ones, too."""
    evidence = job.evidence
    if evidence is None or not evidence.steps:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail="no run of this kernel was made")
    compared = compare(evidence, job.known)
    verdict = CheckVerdict.FELL if compared.lost else CheckVerdict.HOLDS
    detail = str(compared) if job.known else ""
    return CheckResult(verdict, len(confirmed(evidence)), "rules", detail=detail, tally=reasons_table(evidence))


def _tell_coverage(job: Job) -> CheckResult:
    """How much of the kernel's own code was executed, and a table of the rest."""
    coverage = job.coverage
    if coverage is None:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail="no run of this kernel was made")
    share = Share.of(
        block for functions in coverage.files.values() for blocks in functions.values() for block in blocks
    )
    core = core_share(coverage)
    files = "trampoline.c, fgraph.c and the direct API"
    detail = (
        f"{share.percent:.1f} % of the {share.reachable:,} blocks that the alphabet reaches; "
        f"of the {core.reachable:,} of {files} {core.percent:.1f} %"
    )
    table = coverage_table(job.name, coverage)
    return CheckResult(CheckVerdict.HOLDS, share.executed, "blocks", detail=detail, tally=table)
