"""The checks that `verify` runs: one for each property and setting, in the order of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from properties.hunt.findings import Found, save, save_journal
from properties.hunt.units import SearchUnit, SearchValue, search_units
from properties.kernels.needs import missing_kernel
from properties.kernels.units import KernelUnit
from properties.lockstep.coverage import Tally
from properties.proofs.units import ImagesUnit, MatrixUnit, PlacedUnit
from properties.report.dividing import Divided, sole
from properties.report.results import CheckResult, CheckVerdict, ToldDivergence
from properties.runs.units import ReachUnit, SeedsUnit
from properties.systems.naming import DEFAULT_SYSTEMS, KERNELS, world_named
from properties.work.units import Done, Lost, Outcome
from spec.seeds import print_seed
from spec.semantics import PRESETS, Semantics
from spec.sharing import LEVELS
from spec.worlds import World

__all__ = ["BUDGET", "WORLDS", "checks", "kernels", "proofs"]

WORLDS = ("synthetic", "linux-6.1", "linux-6.12", "linux-7.3")
BUDGET = 300.0
KERNEL_OPERATIONS, KERNEL_SECONDS = 400, 120.0
"""Of a short run on a kernel: as many operations, unless its emulator takes longer."""
FINDINGS = Path("build/seeds")
RANDOM_SEED = 1
LARGE = 1000
SHRINK_SECONDS = 60.0
NEWEST = "linux-7.3"
PROPOSAL = "proposal-2021"
MATRICES = (*((level, "x86-64") for level in LEVELS), (LEVELS[0], "arm64"))


def checks(worlds: Sequence[str], budget: float) -> list[Divided]:
    """Every check on these worlds. budget: the seconds of work that the searching checks share equally."""
    named = {name: world_named(name) for name in worlds}
    settings = [(name, semantics) for name, world in named.items() for semantics in _semantics_of(world)]
    seconds = budget / max(1, len(settings))
    found = [Divided("seeds agree", [SeedsUnit(DEFAULT_SYSTEMS)], sole)]
    for name, semantics in settings:
        unit = SearchUnit(DEFAULT_SYSTEMS, name, semantics.name, RANDOM_SEED, shrink_seconds=SHRINK_SECONDS)
        title = "random sequences agree"
        if len(named[name].functions) < LARGE:
            reach = [ReachUnit(DEFAULT_SYSTEMS, name, semantics.name)]
            found.append(Divided(f"every answer and rule is reached: {semantics.name}", reach, sole))
        else:
            unit, title = replace(unit, kind="wildcards"), "overlapping wildcards agree"
        conclude = partial(nothing_is_found, semantics)
        title = f"{title}: {named[name].name}, {semantics.name}"
        found.append(Divided(title, search_units([unit]), conclude, seconds))
    return found


def proofs() -> list[Divided]:
    """The checks of machine code, which take a few seconds in all."""
    generated = [
        Divided(f"generated images are proved: {architecture}, {level}", [MatrixUnit(level, architecture)], sole)
        for level, architecture in MATRICES
    ]
    return [
        *generated,
        Divided("images of real kernels are proved", [ImagesUnit()], sole),
        Divided("images in place are proved", [PlacedUnit()], sole),
    ]


def kernels() -> tuple[list[Divided], list[str]]:
    """A short run on each real kernel that needs no fetching, and a sentence for each that is left out."""
    missing = {name: missing_kernel(name) for name in KERNELS}
    units = (
        KernelUnit(name, str(FINDINGS), RANDOM_SEED, KERNEL_OPERATIONS, KERNEL_SECONDS)
        for name, sentence in missing.items()
        if not sentence
    )
    left_out = [f"the real {name} is left out: {sentence}" for name, sentence in missing.items() if sentence]
    return [Divided(f"a real kernel agrees: {unit.kernel}", [unit], sole) for unit in units], left_out


def nothing_is_found(semantics: Semantics, outcomes: Sequence[Outcome]) -> CheckResult:
    """A search with every sharing level at once finds nothing; each example is undone at its end."""
    tally = Tally(semantics)
    examples = calls = 0
    functions: dict[str, int] = {}
    found: list[str] = []
    told: list[ToldDivergence] = []
    lost: list[str] = []
    for outcome in outcomes:
        if isinstance(outcome, Done):
            value: SearchValue = outcome.value
            tally.add(value.counts)
            examples, calls = examples + value.examples, calls + value.calls
            functions[value.world] = value.functions
            if value.finding is not None:
                finding = value.finding.found
                found.append(_save(finding))
                told.append(finding.divergence.told(finding.seed))
        elif outcome.journal:
            found.append(_save_journal(outcome))
        else:
            lost.append(outcome.told)
    verdict = CheckVerdict.FELL if found else CheckVerdict.NOT_RUN if lost else CheckVerdict.HOLDS
    detail = "\n".join(found + lost)
    return CheckResult(
        verdict, examples, "examples", functions, tally.steps, calls, detail, tally.table(), differences=tuple(told)
    )


def _save(found: Found) -> str:
    """Write a finding's seed, and say where it is, and what it shows."""
    return f"the shrunk seed is {save(found, FINDINGS)}\n{found.divergence}\n\n{print_seed(found.seed)}"


def _save_journal(lost: Lost) -> str:
    """Write the seed of what a process was doing when it ended, and say where it is."""
    path = save_journal(lost.journal, lost.told, FINDINGS)
    return f"the search was lost: {lost.told}\nwhat it was doing is {path}"


def _semantics_of(world: World) -> Sequence[Semantics]:
    """The semantics under which a world is checked.

    A small world is checked under all. A real one is checked under its own and the newest, which have mass attach; if
    its own are the newest, under the proposal.
    """
    if len(world.functions) < LARGE:
        return tuple(PRESETS.values())
    own = world.name if world.name in PRESETS else NEWEST
    return PRESETS[own], PRESETS[NEWEST if own != NEWEST else PROPOSAL]
