"""The checks that `verify` runs: one for each property and setting, in the order of the report."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from properties.hunt.findings import Found, save
from properties.hunt.search import Search, WildcardSearch
from properties.lockstep.lockstep import Lockstep
from properties.report.results import Check, CheckResult, CheckVerdict
from properties.runs.corpus import SEEDS
from properties.runs.reach import reach
from properties.systems.naming import DEFAULT_SYSTEMS, KERNELS, resolve, semantics_named, world_named
from spec.operations import Call
from spec.seeds import print_seed, read_seed
from spec.semantics import PRESETS, Semantics
from spec.worlds import World

__all__ = ["BUDGET", "WORLDS", "checks", "kernels", "proofs"]

WORLDS = ("synthetic", "linux-6.1", "linux-6.12", "linux-7.3")
BUDGET = 300.0
KERNEL_SECONDS = 10.0
FINDINGS = Path("build/seeds")
RANDOM_SEED = 1
LARGE = 1000
SHRINK_SECONDS = 60.0
NEWEST = "linux-7.3"
PROPOSAL = "proposal-2021"


def checks(worlds: Sequence[World], budget: float) -> list[Check]:
    """Every check on these worlds. budget: the seconds that the searching checks share equally."""
    settings = [(world, semantics) for world in worlds for semantics in _semantics_of(world)]
    seconds = budget / max(1, len(settings))
    found = [Check("seeds agree", partial(seeds_agree, SEEDS))]
    for world, semantics in settings:
        if len(world.functions) < LARGE:
            title = f"every answer and rule is reached: {semantics.name}"
            found.append(Check(title, partial(everything_is_reached, world, semantics)))
            name, kind = "random sequences agree", Search
        else:
            name, kind = "overlapping wildcards agree", WildcardSearch
        check = partial(nothing_is_found, kind, world, semantics, seconds)
        found.append(Check(f"{name}: {world.name}, {semantics.name}", check))
    return found


def proofs() -> list[Check]:
    """The checks of machine code, which take a few seconds in all."""
    # SLEIGH, z3 and unicorn are loaded where something is to be proved.
    from properties.proofs.checks import image_check, matrix_checks, placed_check  # noqa: PLC0415

    return [*matrix_checks(), image_check(), placed_check()]


def kernels() -> tuple[list[Check], list[str]]:
    """A short run on each real kernel that needs no fetching, and a sentence for each that is left out."""
    # What drives a virtual machine is loaded where one may be wanted.
    from properties.kernels.checks import short_checks  # noqa: PLC0415
    from properties.kernels.needs import missing_kernel  # noqa: PLC0415

    missing = {name: missing_kernel(name) for name in KERNELS}
    ready = [name for name, sentence in missing.items() if not sentence]
    left_out = [f"the real {name} is left out: {sentence}" for name, sentence in missing.items() if sentence]
    return list(short_checks(ready, KERNEL_SECONDS, FINDINGS)), left_out


def seeds_agree(folder: Path) -> CheckResult:
    """Every seed of a folder: model, expectations and `batched` at each sharing level agree at every step."""
    functions: dict[str, int] = {}
    steps = calls = 0
    paths = sorted(folder.glob("*.seed"))
    for path in paths:
        seed = read_seed(path)
        world = world_named(seed.world, path.parent)
        lockstep = Lockstep(world, semantics_named(seed.semantics), [resolve(name) for name in DEFAULT_SYSTEMS])
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


def everything_is_reached(world: World, semantics: Semantics) -> CheckResult:
    """Directed runs, sweep and seeds at every sharing level: they agree, and leave nothing at zero."""
    reached = reach(semantics, [resolve(name) for name in DEFAULT_SYSTEMS])
    verdict = CheckVerdict.HOLDS if reached.holds else CheckVerdict.FELL
    functions = {world.name: len(world.functions)}
    counted = reached.tally.steps, reached.calls
    return CheckResult(verdict, reached.runs, "runs", functions, *counted, str(reached), reached.tally.table())


def nothing_is_found(kind: type[Search], world: World, semantics: Semantics, seconds: float) -> CheckResult:
    """A search with every sharing level at once finds nothing; each example is undone at its end."""
    deadline = time.monotonic() + seconds
    search = kind(world, semantics, [resolve(name) for name in DEFAULT_SYSTEMS], RANDOM_SEED)
    found = None
    while found is None and (not search.rounds or time.monotonic() < deadline):
        found = search.round(deadline, SHRINK_SECONDS)
    if found is None and not search.tally.steps:
        return CheckResult(CheckVerdict.NOT_RUN, 0, detail="the budget ended before the first step: give more --budget")
    return CheckResult(
        CheckVerdict.FELL if found else CheckVerdict.HOLDS,
        search.examples,
        "examples",
        {world.name: len(world.functions)},
        search.tally.steps,
        search.calls,
        _save(found) if found else "",
        search.tally.table(),
        differences=(found.divergence.told(found.seed),) if found else (),
    )


def _save(found: Found) -> str:
    """Write a finding's seed, and say where it is, and what it shows."""
    return f"the shrunk seed is {save(found, FINDINGS)}\n{found.divergence}\n\n{print_seed(found.seed)}"


def _semantics_of(world: World) -> Sequence[Semantics]:
    """The semantics under which a world is checked.

    A small world is checked under all. A real one is checked under its own and the newest, which have mass attach; if
    its own are the newest, under the proposal.
    """
    if len(world.functions) < LARGE:
        return tuple(PRESETS.values())
    own = world.name if world.name in PRESETS else NEWEST
    return PRESETS[own], PRESETS[NEWEST if own != NEWEST else PROPOSAL]
