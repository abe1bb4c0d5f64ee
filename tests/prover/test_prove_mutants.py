"""Mutants of images, a byte each: every one that breaks is refuted by an execution, every other is explained."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.table import Table

import properties.proofs
from properties.proofs.generated import generated
from properties.proofs.image_files import read_image
from properties.prover import proving
from properties.prover.confirm import Emulation, confirm
from properties.prover.goal import READINGS, Goal
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.proving import prove
from properties.prover.steps import COUNT
from properties.prover.terms import Value
from properties.prover.tools import disassembler
from properties.prover.verdicts import Verdict
from properties.prover.x86_64 import X86_64
from tests.support.prove_images import of_kinds, sized

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
KERNEL = re.compile(r"linux-[0-9]+\.[0-9]+")
RUNS = 12


@dataclass(frozen=True)
class Mutant:
    """One byte of an image changed. goal: pinned to the constants of the image itself."""

    name: str
    original: Image
    image: Image
    goal: Goal
    at: int


Subject = tuple[str, Image, Goal]


def real() -> list[Subject]:
    """The images of running kernels, each with its goal pinned to the constants that a proof finds in it."""
    found = []
    for path in IMAGES:
        dump = read_image(path)
        found.append((path.stem, dump.image, dump.goal.pinned(prove(dump.image, dump.goal).bindings)))
    return found


def of_the_generator() -> list[Subject]:
    """Images of the generator: its forms at some arities, and structs by value that are split and spilled."""
    kinds = (("fentry",), ("fexit",), ("fentry", "fsession", "fmod_ret", "fexit", "fexit"))
    forms: dict[str, dict[str, Any]] = {
        "per function": {},
        "by jmp": {"site": "jmp"},
        "by the stack": {"orig_stack": True},
        "shared": {"shared": True},
        "generic": {"generic": True},
    }
    found = []
    for name, options in forms.items():
        for programs in kinds:
            for sizes in ([8] * 6,) if name == "generic" else ([], [8, 4], [8] * 9, [4, 16, 1, 12, 8, 16, 2]):
                image, goal = generated(sized(sizes), of_kinds(*programs, cookies=True), func_ip=True, **options)
                found.append((f"{name}.{'_'.join(programs)}.{len(sizes)}", image, goal))
    return found


def mutants(subjects: Sequence[Subject], count: int, seed: int) -> Iterator[Mutant]:
    """Random bytes of random images, changed to random other ones."""
    draw = random.Random(seed)
    for _ in range(count):
        name, image, goal = draw.choice(subjects)
        at = draw.randrange(image.used)
        code = bytearray(image.code)
        code[at] ^= draw.randrange(1, 256)
        yield Mutant(name, image, replace(image, code=bytes(code)), goal, at)


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
    for name in (*X86_64.convention.arguments, *X86_64.convention.preserved, "the original returned"):
        values[name] = draw.choice((0, (1 << 64) - 1, draw.getrandbits(64)))
    if goal.counts:
        values[COUNT] = draw.choice(goal.counts)
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
    sizes = [frame_size(image, mutant.at) for image in (mutant.original, mutant.image)]
    return sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]


def frame_size(image: Image, at: int) -> int | None:
    """What the instruction around an offset takes off the stack pointer, if it is one that does."""
    for start, size, mnemonic, operands in disassembler(X86_64).disasm_lite(image.code[: image.used], 0):
        if start <= at < start + size:
            return int(operands.removeprefix("rsp, "), 0) if (mnemonic, operands[:4]) == ("sub", "rsp,") else None
    return None


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
        found: list[Any] = list(disassembler(X86_64).disasm_lite(image.code[: image.used], image.address))
        start = max((one[0] for one in found if one[0] <= image.address + mutant.at), default=image.address)
        shown += [f"{one[2]} {one[3]}" for one in found if one[0] == start]
    return f"{mutant.name} +{mutant.at:#x}: {' -> '.join(shown)}"


def tabulated(counts: Mapping[str, Counter[str]]) -> Table:
    """Verdicts by where the images are from, and what explains those proved."""
    table = Table(title="byte mutants", title_justify="left")
    columns = sorted({column for counter in counts.values() for column in counter})
    for heading in ("images", "mutants", *columns):
        table.add_column(heading)
    for name, counter in sorted(counts.items()):
        table.add_row(name, str(sum(counter.values())), *(str(counter[column]) for column in columns))
    return table


def judge_all(found: Iterable[Mutant]) -> None:
    """Proves mutants, prints what comes of them, and fails where a survivor is not explained."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    survivors: list[str] = []
    unexplained: list[str] = []
    for mutant in found:
        verdict = prove(mutant.image, mutant.goal)
        answer = judged(mutant, verdict)
        counts[kernel.group() if (kernel := KERNEL.match(mutant.name)) else mutant.name.partition(".")[0]][answer] += 1
        if verdict.outcome != "refuted":
            survivors.append(f"{answer}: {disassembled(mutant)}: {verdict.reason or 'proved'}")
            unexplained += [] if answer else survivors[-1:]
    total = sum(counts.values(), Counter())
    Console(width=200, markup=False).print(tabulated(counts), *sorted(survivors), sep="\n")

    assert [] == unexplained
    assert 100 * total["not confirmed"] <= total["refuted"] + total["not confirmed"]
    assert 100 * total["undecided"] <= 2 * total.total()


@pytest.mark.proof
def test_each_mutant_of_real_images_is_refuted_by_execution_or_explained() -> None:
    """Of 3,000 mutants those refuted have been executed; at most 1 % of counterexamples fail to; survivors are none."""
    judge_all(mutants(real(), 3_000, seed=2026))


@pytest.mark.proof
def test_each_mutant_of_generated_images_is_refuted_by_execution_or_explained() -> None:
    """The same of 2,000 mutants of the generator's images, in each of its forms."""
    judge_all(mutants(of_the_generator(), 2_000, seed=2027))


@pytest.mark.proof
def test_z3_alone_says_the_same_of_mutants() -> None:
    """With every decision by z3, 300 mutants have the same verdicts, and fall by the same obligations."""
    for mutant in [*mutants(real(), 200, seed=3), *mutants(of_the_generator(), 100, seed=4)]:
        structural, alone = (prove(mutant.image, mutant.goal, thorough=thorough) for thorough in (False, True))

        assert fallen(structural) == fallen(alone), disassembled(mutant)


def fallen(verdict: Verdict) -> tuple[str, str | None]:
    """The outcome, and the obligation that is broken."""
    return verdict.outcome, verdict.counterexample.obligation if verdict.counterexample else None


@pytest.mark.proof
def test_z3_alone_proves_all_images() -> None:
    """With every decision by z3, the images of running kernels and of the generator are proved, in both readings."""
    asked = counted = 0
    for name, image, goal in [*real(), *of_the_generator(), *matrix()]:
        for reading in READINGS:
            structural, alone = (prove(image, goal.read(reading), thorough=thorough) for thorough in (False, True))
            asked, counted = asked + alone.figures.asked, counted + 1

            assert fallen(structural) == fallen(alone), name
            assert 0 == alone.figures.plain
            if reading == "width":
                assert "proved" == alone.outcome, name
    print(f"{counted} verdicts, {asked} obligations by z3")


def matrix() -> Iterator[Subject]:
    """13 arities, and every kind alone and all together."""
    for arity in range(13):
        for kinds in (("fentry",), ("fexit",), ("fmod_ret",), ("fentry", "fmod_ret", "fexit")):
            yield f"{arity} {' '.join(kinds)}", *generated(sized([8] * arity), of_kinds(*kinds))


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
    for mutant in mutants([*real()[::12], *of_the_generator()[::9]], 60, seed=1):
        verdict = prove(mutant.image, mutant.goal)

        assert judged(mutant, verdict) not in {"", "not confirmed"}, disassembled(mutant)


def test_what_does_not_execute_is_no_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the execution does not show what the prover says, it is the prover's bug, and undecided."""
    mutant = next(one for one in mutants(real()[:1], 20, seed=5) if prove(one.image, one.goal).outcome == "refuted")
    monkeypatch.setattr(proving, "confirm", lambda *_, **__: "it leaves the image with no obligation broken")
    verdict = prove(mutant.image, mutant.goal)

    assert "undecided" == verdict.outcome
    assert verdict.counterexample is None
    assert verdict.reason is not None
    assert verdict.reason.startswith("a bug of the prover: ")
