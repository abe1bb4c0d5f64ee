"""Mutants of real images, a byte each: every one that breaks is refuted by an execution, every other is explained."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

import properties.proofs
from properties.proofs import prove as prove_module
from properties.proofs.confirm import Emulation, confirm
from properties.proofs.dumps import read_image
from properties.proofs.goal import Goal
from properties.proofs.image import Image
from properties.proofs.lift import lifter
from properties.proofs.prove import prove
from properties.proofs.terms import Value
from properties.proofs.verdicts import Verdict
from properties.proofs.x86_64 import X86_64

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
RUNS = 12


@dataclass(frozen=True)
class Mutant:
    """One byte of an image changed. goal: pinned to the constants of the image itself."""

    name: str
    original: Image
    image: Image
    goal: Goal
    at: int


def mutants(count: int, seed: int) -> Iterator[Mutant]:
    """Random bytes of random images, changed to random other ones."""
    draw = random.Random(seed)
    pinned: dict[Path, tuple[Image, Goal]] = {}
    for _ in range(count):
        path = draw.choice(IMAGES)
        if path not in pinned:
            dump = read_image(path)
            pinned[path] = dump.image, dump.goal.pinned(prove(dump.image, dump.goal).bindings)
        image, goal = pinned[path]
        at = draw.randrange(image.used)
        code = bytearray(image.code)
        code[at] ^= draw.randrange(1, 256)
        yield Mutant(path.stem, image, replace(image, code=bytes(code)), goal, at)


class Observed(Emulation):
    """An execution that writes down all that is outside the image to see, whatever the obligations make of it."""

    def run(self) -> None:
        """As ever; `seen` has where control goes, and what each callee reads, cut to what the goal compares."""
        self.seen: list[object] = []
        super().run()

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """What is read, before it is judged."""
        self.seen.append((obligation, self.constant(got) % (1 << bits)))
        super().same(obligation, got, expected, bits)

    def demand(self, obligation: str, predicate: Value) -> None:
        """The same of a predicate."""
        self.seen.append((obligation, predicate))
        super().demand(obligation, predicate)


def observations(image: Image, goal: Goal, seed: int) -> list[object]:
    """What one execution shows, the unknowns being random: whether programs run among them, and what they return."""
    draw = random.Random(seed)
    values = {}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        values[f"{run.place}: enter returned"] = draw.choice((0, 1, draw.getrandbits(64)))
        values[f"{run.place}: program returned"] = draw.choice((0, 0, 1, 1 << 32, draw.getrandbits(64)))
    for name in (*X86_64.arguments, *X86_64.preserved, "the original returned"):
        values[name] = draw.choice((0, (1 << 64) - 1, draw.getrandbits(64)))
    execution = Observed(image, goal, X86_64, goal.known, values)
    execution.run()
    return execution.seen


def operations(mutant: Mutant) -> bool:
    """Whether the changed byte is in an instruction of the same size that does the same."""
    sweep = lifter(X86_64).sweep
    images = (mutant.original, mutant.image)
    code, other = (sweep(image.code, image.address, image.used) for image in images)
    start = max(at for at in code if at <= mutant.original.address + mutant.at)
    return start in other and code[start] == other[start]


def larger_frame(mutant: Mutant) -> bool:
    """Whether only the size of the frame is another, and larger."""
    frames = [image.code.find(b"\x48\x83\xec") + 3 for image in (mutant.original, mutant.image)]
    grown = mutant.image.code[mutant.at] > mutant.original.code[mutant.at]
    return frames == [mutant.at, mutant.at] and grown


def explanation(mutant: Mutant) -> str:
    """Why a mutant that is proved is none: by rule, or else by RUNS executions that show the same as the image's."""
    if operations(mutant):
        return "the same operations"
    if larger_frame(mutant):
        return "a larger frame"
    for seed in range(RUNS):
        shown = observations(mutant.original, mutant.goal, seed)
        if shown != observations(mutant.image, mutant.goal, seed):
            return ""
    strict = [prove(image, mutant.goal.read("strict")).outcome for image in (mutant.original, mutant.image)]
    return "the same below an argument's width" if "refuted" in strict else "the same to all who look"


def disassembled(mutant: Mutant) -> str:
    """The instruction changed, before and after."""
    shown = []
    for image in (mutant.original, mutant.image):
        found: list[Any] = list(X86_64.disassembler().disasm_lite(image.code[: image.used], image.address))
        start = max((one[0] for one in found if one[0] <= image.address + mutant.at), default=image.address)
        shown += [f"{one[2]} {one[3]}" for one in found if one[0] == start]
    return f"{mutant.name} +{mutant.at:#x}: {' -> '.join(shown)}"


def tabulated(counts: dict[str, Counter[str]]) -> Table:
    """Verdicts by kernel, and what explains those proved."""
    table = Table(title="byte mutants", title_justify="left")
    columns = sorted({column for counter in counts.values() for column in counter})
    for heading in ("kernel", "mutants", *columns):
        table.add_column(heading)
    for kernel, counter in sorted(counts.items()):
        table.add_row(kernel, str(sum(counter.values())), *(str(counter[column]) for column in columns))
    return table


@pytest.mark.proof
def test_each_mutant_is_refuted_by_execution_or_explained() -> None:
    """Of 3,000 mutants those refuted have been executed; at most 1 % of counterexamples fail to; survivors are none."""
    counts: dict[str, Counter[str]] = {}
    survivors: list[str] = []
    unexplained: list[str] = []
    for mutant in mutants(3_000, seed=2026):
        verdict = prove(mutant.image, mutant.goal)
        answer = judged(mutant, verdict)
        counts.setdefault(mutant.name.rsplit(".", 3)[0].partition(".")[0], Counter())
        kernel = "7.3" if "7.3" in mutant.name else "6.12" if "6.12" in mutant.name else "6.1"
        counts.setdefault(kernel, Counter())[answer] += 1
        if verdict.outcome == "proved":
            survivors.append(f"{answer}: {disassembled(mutant)}")
            unexplained += [] if answer else survivors[-1:]
    counts = {kernel: counter for kernel, counter in counts.items() if counter}
    total = sum(counts.values(), Counter())
    Console(width=160, markup=False).print(tabulated(counts), *sorted(survivors), sep="\n")

    assert [] == unexplained
    assert 3_000 == total.total()
    assert 100 * total["not confirmed"] <= total["refuted"] + total["not confirmed"]
    assert total["undecided"] <= 40


def judged(mutant: Mutant, verdict: Verdict) -> str:
    """The verdict, or what explains that it is proved, or that a counterexample was not confirmed."""
    if verdict.outcome == "proved":
        return explanation(mutant)
    if verdict.outcome == "refuted":
        found = verdict.counterexample
        assert found is not None
        again = confirm(mutant.image, mutant.goal, X86_64, verdict.bindings, found.values, suspect=found.at)

        assert not isinstance(again, str)
        return "refuted"
    return "not confirmed" if "a bug of the prover" in str(verdict.reason) else "undecided"


def test_some_mutants_are_refuted_by_execution() -> None:
    """The same of 60."""
    for mutant in mutants(60, seed=1):
        verdict = prove(mutant.image, mutant.goal)

        assert judged(mutant, verdict) not in {"", "not confirmed"}, disassembled(mutant)


def test_what_does_not_execute_is_no_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the execution does not show what the prover says, it is the prover's bug, and undecided."""
    mutant = next(one for one in mutants(20, seed=5) if prove(one.image, one.goal).outcome == "refuted")
    monkeypatch.setattr(prove_module, "confirm", lambda *_, **__: "it leaves the image with no obligation broken")
    verdict = prove(mutant.image, mutant.goal)

    assert "undecided" == verdict.outcome
    assert verdict.counterexample is None
    assert verdict.reason is not None
    assert verdict.reason.startswith("a bug of the prover: ")
