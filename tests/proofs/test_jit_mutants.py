"""Mistakes of a generator: every one is refuted by an execution, or shown to make no difference for a stated reason."""

from __future__ import annotations

import random
import re
from collections import Counter
from functools import cache
from itertools import islice

import pytest
from rich.console import Console
from rich.table import Table

from impl.batched.jit.generate import assemble, statements
from impl.batched.jit.isa import Instruction, Statement
from properties.proofs.generated import bound
from properties.prover.confirm import confirm
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.proving import prove
from properties.prover.steps import COUNT
from properties.prover.x86_64 import X86_64
from tests.prover.test_prove_mutants import Observed
from tests.prover.test_prove_obligations import pattern
from tests.support.jit_mutants import CONFIGURATIONS, EDITS, Configuration, Mutant, mutants

RUNS = 24
JUNK = 0x5BAD5BAD
STORE = re.compile(r"mov qword ptr \[rbp - (0x[0-9a-f]+)\], .*")
KINDS = (*EDITS, "call target")


def judged(mutant: Mutant) -> tuple[str, str]:
    """`refuted`, and the counterexample has been executed again; or why there is no difference; or `undecided`.

    And the obligation that is broken.
    """
    verdict = prove(mutant.image, mutant.goal)
    if verdict.outcome == "proved":
        return explanation(mutant), ""
    found = verdict.counterexample
    if found is None:
        return "undecided", ""
    again = confirm(mutant.image, mutant.goal, X86_64, verdict.bindings, found.values)

    assert not isinstance(again, str)
    assert again.obligation == found.obligation
    return "refuted", found.obligation


def explanation(mutant: Mutant) -> str:
    """Why a mutant does what the image does: the first reason that holds. Empty if none does."""
    reasons = {
        "a larger frame": larger_frame,
        "below the width of an argument": below_width,
        "nobody reads what is lost": lost_unread,
        "the same to all who look": same_to_all,
    }
    return next((reason for reason, holds in reasons.items() if holds(mutant)), "")


def larger_frame(mutant: Mutant) -> bool:
    """Only the size of the frame differs, and it is larger."""
    (old, new), *others = differences(mutant)
    sizes = [int(text.rpartition(" ")[2], 16) for text in (old, new)] if "sub rsp" in old and "sub rsp" in new else []
    repeated = not old and new.startswith("sub rsp")
    return not others and (repeated or (len(sizes) == 2 and sizes[0] < sizes[1]))


def below_width(mutant: Mutant) -> bool:
    """Where whole words are compared, it is refuted."""
    return prove(mutant.image, mutant.goal.read("strict")).outcome == "refuted"


def lost_unread(mutant: Mutant) -> bool:
    """A store differs; and with junk in the bytes that it does not write, the image is proved as well."""
    configuration = mutant.configuration
    made = statements(configuration.plan())
    place = next((n for n, (one, other) in enumerate(zip(made, mutant.made, strict=False)) if one != other), 0)
    one, other = made[place], mutant.made[place]
    stored = STORE.fullmatch(one.text) if isinstance(one, Instruction) else None
    if stored is None:
        return False
    below = int(stored[1], 16)
    halved = isinstance(other, Instruction) and other.text.startswith(f"mov dword ptr [rbp - {stored[1]}]")
    junk = [Instruction(f"mov dword ptr [rbp - {below - at:#x}], {JUNK:#x}") for at in ((4,) if halved else (0, 4))]
    image = assembled(configuration, [*made[: place + 1], *junk, *made[place + 1 :]])
    return prove(image, configuration.goal()).outcome == "proved"


def same_to_all(mutant: Mutant) -> bool:
    """Executions with random unknowns show the same as the image's: to whom control goes, and all that is read."""
    original = mutant.configuration.image()
    return all(
        observations(original, mutant.goal, seed) == observations(mutant.image, mutant.goal, seed)
        for seed in range(RUNS)
    )


def observations(image: Image, goal: Goal, seed: int) -> list[object]:
    """What one execution shows: what programs and the original return, and which patches are in, being random."""
    draw = random.Random(seed)
    values = {}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        values[f"{run.place}: enter returned"] = draw.choice((0, 1, draw.getrandbits(64)))
        values[f"{run.place}: program returned"] = draw.choice((0, 0, 1, 1 << 32, draw.getrandbits(64)))
    for name in (*X86_64.convention.arguments, *X86_64.convention.preserved, "the original returned"):
        values[name] = draw.choice((0, (1 << 64) - 1, draw.getrandbits(64)))
    values |= {name: draw.getrandbits(1) for name in sorted(goal.patches)}
    if goal.counts:
        values[COUNT] = draw.choice(goal.counts)
    execution = Observed(image, goal, X86_64, goal.known, values)
    execution.run()
    return execution.seen


def assembled(configuration: Configuration, made: list[Statement]) -> Image:
    """An image of other statements."""
    return bound(assemble(configuration.plan(), made), configuration.goal())


def differences(mutant: Mutant) -> list[tuple[str, str]]:
    """Texts that the image has and the mutant does not, and the other way round, in order; at least one pair."""
    texts = [
        [one.text for one in made if isinstance(one, Instruction)]
        for made in (statements(mutant.configuration.plan()), mutant.made)
    ]
    if len(texts[0]) == len(texts[1]):
        return [(old, new) for old, new in zip(*texts, strict=True) if old != new] or [("", "")]
    gone, come = (Counter(texts[one]) - Counter(texts[1 - one]) for one in (0, 1))
    return [(text, "") for text in gone] + [("", text) for text in come]


def show(rows: dict[str, Counter[str]]) -> None:
    """Verdicts by class."""
    columns = sorted({column for counter in rows.values() for column in counter} - {"refuted", "undecided"})
    table = Table(title="mutants of the generator", title_justify="left")
    for heading in ("class", "mutants", "refuted and confirmed", *columns, "undecided"):
        table.add_column(heading)
    for kind, counter in (rows | {"all": sum(rows.values(), Counter[str]())}).items():
        counts = (counter.total(), counter["refuted"], *(counter[column] for column in columns), counter["undecided"])
        table.add_row(kind, *map(str, counts))
    Console(width=160, markup=False).print(table)


@cache
def all_judged() -> tuple[tuple[str, str, str, str], ...]:
    """Of every mutant its class, what it is called, the answer, and the obligation that it breaks."""
    return tuple(
        (mutant.kind, f"{mutant.configuration.name}: {mutant.name}", *judged(mutant))
        for one in CONFIGURATIONS
        for mutant in mutants(one)
    )


@pytest.mark.proof
def test_every_mistake_is_refuted_or_makes_no_difference() -> None:
    """All mutants of nine images: each is refuted by an execution, or is equivalent for a reason that is checked."""
    rows: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    unexplained = []
    for kind, name, answer, _ in all_judged():
        rows[kind][answer] += 1
        if answer in {"", "undecided"}:
            unexplained.append(f"{kind}: {name}")
    show(rows)
    total = sum(rows.values(), Counter[str]())

    assert [] == unexplained
    assert total.total() > 3_000
    assert all(counter["refuted"] for counter in rows.values())
    assert total["refuted"] > 0.95 * total.total()


def test_some_mistakes_are_refuted_or_make_no_difference() -> None:
    """The same of every 30th of two images."""
    some = (CONFIGURATIONS[0], CONFIGURATIONS[4])
    answers = Counter(judged(mutant)[0] for one in some for mutant in islice(mutants(one), 5, None, 30))

    assert {"", "undecided"}.isdisjoint(answers)
    assert answers["refuted"] > 0.8 * answers.total()


@pytest.mark.proof
def test_of_every_obligation_there_is_a_mistake_that_breaks_it() -> None:
    """What the proofs of the images name, numbers and kinds aside, is refuted by some mutant."""
    goals = [(one.image(), one.goal()) for one in CONFIGURATIONS]
    named = {pattern(name) for image, goal in goals for name in prove(image, goal).obligations}
    fallen = {pattern(obligation) for *_, obligation in all_judged()}

    assert set() == named - fallen


@pytest.mark.proof
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda one: one.name)
def test_z3_alone_decides_alike(configuration: Configuration) -> None:
    """With every decision by z3, the image is proved, and mutants of it are refuted by what refuted them before."""
    verdict = prove(configuration.image(), configuration.goal(), thorough=True)

    assert ("proved", 0) == (verdict.outcome, verdict.figures.plain)
    for mutant in islice(mutants(configuration), 3, None, 40):
        alone, before = (prove(mutant.image, mutant.goal, thorough=thorough) for thorough in (True, False))
        obligations = [one.counterexample and one.counterexample.obligation for one in (alone, before)]

        assert before.outcome == alone.outcome
        assert obligations[0] == obligations[1]


@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda one: one.name)
def test_without_a_mistake_it_is_proved(configuration: Configuration) -> None:
    """What is mutated meets its goal, and what is executed of it shows the same each time, but for the unknowns."""
    image, goal = configuration.image(), configuration.goal()

    assert "proved" == prove(image, goal).outcome
    assert observations(image, goal, 1) == observations(image, goal, 1)
    assert observations(image, goal, 1) != observations(image, goal, 2)


def test_a_reason_that_does_not_hold_is_no_explanation() -> None:
    """None of the reasons holds for a mutant that is refuted because an argument is lost."""
    mutant = next(mutant for mutant in mutants(CONFIGURATIONS[1]) if mutant.kind == "lost before saved")

    assert not larger_frame(mutant)
    assert not lost_unread(mutant)
