"""The fixed runs as units of work: seeds, and what they reach together with directed runs and sweep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from properties.lockstep.lockstep import Lockstep
from properties.report.results import CheckResult, CheckVerdict
from properties.runs.corpus import SEEDS
from properties.runs.reach import reach
from properties.systems.naming import resolve, semantics_named, world_named
from spec.operations import Call
from spec.seeds import read_seed

__all__ = ["ReachUnit", "SeedsUnit", "seeds_agree"]


@dataclass(frozen=True, slots=True)
class SeedsUnit:
    """The seeds of the project, with these systems."""

    systems: tuple[str, ...]

    def work(self, _: Path) -> CheckResult:
        """Replay them."""
        return seeds_agree(SEEDS, self.systems)


@dataclass(frozen=True, slots=True)
class ReachUnit:
    """The fixed runs of a world under these semantics, with these systems."""

    systems: tuple[str, ...]
    world: str
    semantics: str

    def work(self, _: Path) -> CheckResult:
        """Take them: they agree, and leave nothing at zero."""
        reached = reach(semantics_named(self.semantics), [resolve(name) for name in self.systems])
        verdict = CheckVerdict.HOLDS if reached.holds else CheckVerdict.FELL
        world = world_named(self.world)
        functions = {world.name: len(world.functions)}
        counted = reached.tally.steps, reached.calls
        return CheckResult(verdict, reached.runs, "runs", functions, *counted, str(reached), reached.tally.table())


def seeds_agree(folder: Path, systems: tuple[str, ...]) -> CheckResult:
    """Every seed of a folder: model, expectations and the systems agree at every step."""
    functions: dict[str, int] = {}
    steps = calls = 0
    paths = sorted(folder.glob("*.seed"))
    for path in paths:
        seed = read_seed(path)
        world = world_named(seed.world, path.parent)
        lockstep = Lockstep(world, semantics_named(seed.semantics), [resolve(name) for name in systems])
        divergences = lockstep.run(seed.steps)
        divergences += lockstep.close()
        functions[world.name] = len(world.functions)
        steps += len(lockstep.history)
        calls += sum(isinstance(step.operation, Call) for step in lockstep.history)
        if divergences:
            detail = f"{path.name}: {divergences[0]}"
            told = (divergences[0].told(seed),)
            return CheckResult(
                CheckVerdict.FELL, len(paths), "seeds", functions, steps, calls, detail, differences=told
            )
    if not paths:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail=f"there is no seed in {folder}")
    return CheckResult(CheckVerdict.HOLDS, len(paths), "seeds", functions, steps, calls)
