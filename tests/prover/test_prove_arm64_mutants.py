"""Mutants of arm64 images, a byte each: every one that breaks is refuted by an execution, every other is explained."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

from properties.prover.arm64 import ARM64
from properties.prover.confirm import confirm
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.tools import disassembler
from properties.prover.verdicts import Verdict
from tests.prover.test_prove_mutants import Observed
from tests.support.arm64_images import image_of, proof
from tests.support.prove_images import long, sized

WORD_BYTES = 4
RUNS = 12
CONFIGURATIONS: dict[str, tuple[Any, tuple[str, ...], dict[str, Any]]] = {
    "fentry, 2 arguments": (long(2), ("fentry",), {"cookies": True, "func_ip": True}),
    "all, 9 arguments": (long(9), ("fentry", "fmod_ret", "fexit"), {}),
    "fsession, narrow": (sized([1, 4, 12], 4), ("fsession", "fexit"), {"func_ip": True}),
    "shared": (long(8), ("fexit", "fentry"), {"shared": True, "func_ip": True}),
    "generic": (long(8), ("fexit",), {"generic": True}),
}


@dataclass(frozen=True)
class Mutant:
    """One byte of an image changed."""

    name: str
    original: Image
    image: Image
    goal: Goal
    at: int


def mutants(count: int, seed: int) -> Iterator[Mutant]:
    """Random bytes of each configuration's image, changed to random other ones."""
    draw = random.Random(seed)
    made = {name: image_of(shape, *kinds, **fields) for name, (shape, kinds, fields) in CONFIGURATIONS.items()}
    for number in range(count):
        name = list(CONFIGURATIONS)[number % len(CONFIGURATIONS)]
        image, goal = made[name]
        at = draw.randrange(image.used)
        code = bytearray(image.code)
        code[at] ^= draw.randrange(1, 256)
        yield Mutant(name, image, replace(image, code=bytes(code)), goal, at)


def observations(image: Image, goal: Goal, seed: int) -> list[object]:
    """What one execution shows, the unknowns being random: whether programs run among them, and what they return."""
    draw = random.Random(seed)
    values = {}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        values[f"{run.place}: enter returned"] = draw.choice((0, 1, draw.getrandbits(64)))
        values[f"{run.place}: program returned"] = draw.choice((0, 0, 1, 1 << 32, draw.getrandbits(64)))
    for name in (*ARM64.convention.arguments, *ARM64.convention.preserved, "the original returned"):
        values[name] = draw.choice((0, (1 << 64) - 1, draw.getrandbits(64)))
    if goal.counts:
        values["the number of slots"] = draw.choice(goal.counts)
    execution = Observed(image, goal, ARM64, goal.known, values)
    execution.run()
    return execution.seen


def operations(mutant: Mutant) -> bool:
    """Whether the changed word does the same as the one in its place."""
    at = mutant.original.address + mutant.at // WORD_BYTES * WORD_BYTES
    one = lifter(ARM64).one
    before, after = (one(image.code, image.address, at) for image in (mutant.original, mutant.image))
    return before.ops == after.ops


def explanation(mutant: Mutant) -> str:
    """Why a mutant that is proved is none: by rule, or else by RUNS executions that show the same as the image's."""
    if operations(mutant):
        return "the same operations"
    for seed in range(RUNS):
        shown = observations(mutant.original, mutant.goal, seed)
        if shown != observations(mutant.image, mutant.goal, seed):
            return ""
    strict = [proof(image, mutant.goal.read("strict")).outcome for image in (mutant.original, mutant.image)]
    return "the same below an argument's width" if "refuted" in strict else "the same to all who look"


def judged(mutant: Mutant, verdict: Verdict) -> str:
    """The verdict, or what explains that it is proved, or that a counterexample was not confirmed."""
    if verdict.outcome == "proved":
        return explanation(mutant)
    if verdict.outcome == "refuted":
        found = verdict.counterexample
        assert found is not None
        again = confirm(mutant.image, mutant.goal, ARM64, verdict.bindings, found.values, suspect=found.at)

        assert not isinstance(again, str)
        return "refuted"
    return "not confirmed" if "a bug of the prover" in str(verdict.reason) else "undecided"


def disassembled(mutant: Mutant) -> str:
    """The word changed, before and after."""
    start = mutant.at // WORD_BYTES * WORD_BYTES
    shown = []
    for image in (mutant.original, mutant.image):
        code = image.code[start : start + WORD_BYTES]
        found = next(disassembler(ARM64).disasm_lite(code, image.address + start, 1), None)
        shown.append(f"{found[2]} {found[3]}" if found else code.hex())
    return f"{mutant.name} +{start:#x}: {' -> '.join(shown)}"


def tabulated(counts: dict[str, Counter[str]], title: str) -> Table:
    """Verdicts by configuration, and what explains those proved."""
    table = Table(title=title, title_justify="left")
    columns = sorted({column for counter in counts.values() for column in counter})
    for heading in ("image", "mutants", *columns):
        table.add_column(heading)
    for name, counter in sorted(counts.items()):
        table.add_row(name, str(sum(counter.values())), *(str(counter[column]) for column in columns))
    return table


@pytest.mark.proof
def test_each_mutant_is_refuted_by_execution_or_explained() -> None:
    """Of 1,500 mutants those refuted have been executed, every one; survivors are none; few are undecided."""
    started = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    others: list[str] = []
    unexplained: list[str] = []
    for mutant in mutants(1_500, seed=2026):
        verdict = proof(mutant.image, mutant.goal)
        answer = judged(mutant, verdict)
        counts.setdefault(mutant.name, Counter())[answer] += 1
        if verdict.outcome != "refuted":
            others.append(f"{answer}: {disassembled(mutant)} {verdict.reason or ''}")
            unexplained += [] if answer else others[-1:]
    total = sum(counts.values(), Counter())
    title = f"byte mutants of arm64 images, {time.perf_counter() - started:.1f} s"
    Console(width=160, markup=False).print(tabulated(counts, title), *sorted(others), sep="\n")

    assert [] == unexplained
    assert 1_500 == total.total()
    assert 0 == total["not confirmed"]
    assert 100 * total["undecided"] <= 2 * total.total()


def test_some_mutants_are_refuted_by_execution() -> None:
    """The same of 20."""
    for mutant in mutants(20, seed=1):
        verdict = proof(mutant.image, mutant.goal)

        assert judged(mutant, verdict) not in {"", "not confirmed"}, disassembled(mutant)


def test_an_image_shows_the_same_as_its_other_form() -> None:
    """Executions with random unknowns: the original by lr, and by its address, cannot be told apart."""
    image, goal = image_of(long(9), "fentry", "fmod_ret", "fexit", cookies=True)
    other, _ = image_of(long(9), "fentry", "fmod_ret", "fexit", cookies=True, orig_stack=True)
    for seed in range(RUNS):
        assert observations(image, goal, seed) == observations(other, goal, seed)
