"""Mutants of images, a byte each: every one that breaks is refuted by an execution, every other is explained."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
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
from properties.prover.architecture import Architecture
from properties.prover.arm64 import ARM64
from properties.prover.confirm import confirm
from properties.prover.goal import READINGS, Goal, Reading
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.proving import prove
from properties.prover.tools import disassembler
from properties.prover.verdicts import Verdict
from properties.prover.x86_64 import X86_64
from spec.prototypes import Prototype
from tests.support.arm64_images import image_of
from tests.support.observing import observations
from tests.support.prove_images import long, of_kinds, sized

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
KERNEL = re.compile(r"linux-[0-9]+\.[0-9]+")
RUNS = 12


@dataclass(frozen=True)
class Subject:
    """An image, and what is to be proved of it; of a kernel's pinned to the constants of the image itself."""

    name: str
    image: Image
    goal: Goal
    architecture: Architecture = X86_64

    def prove(self, *, reading: Reading = "width", thorough: bool = False) -> Verdict:
        """Its verdict."""
        return prove(self.image, self.goal.read(reading), thorough=thorough, architecture=self.architecture)


@dataclass(frozen=True)
class Mutant:
    """One byte of an image changed."""

    original: Subject
    changed: Subject
    at: int

    @property
    def both(self) -> tuple[Subject, Subject]:
        """Before and after."""
        return self.original, self.changed


def real() -> list[Subject]:
    """The images of running kernels, each with its goal pinned to the constants that a proof finds in it."""
    found = []
    for path in IMAGES:
        dump = read_image(path)
        found.append(Subject(path.stem, dump.image, dump.goal.pinned(prove(dump.image, dump.goal).bindings)))
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
                found.append(Subject(f"{name}.{'_'.join(programs)}.{len(sizes)}", image, goal))
    return found


ARM64_IMAGES: dict[str, tuple[Prototype, tuple[str, ...], dict[str, Any]]] = {
    "fentry, 2 arguments": (long(2), ("fentry",), {"cookies": True, "func_ip": True}),
    "all, 9 arguments": (long(9), ("fentry", "fmod_ret", "fexit"), {}),
    "fsession, narrow": (sized([1, 4, 12], 4), ("fsession", "fexit"), {"func_ip": True}),
    "shared": (long(8), ("fexit", "fentry"), {"shared": True, "func_ip": True}),
    "generic": (long(8), ("fexit",), {"generic": True}),
}


def of_arm64() -> list[Subject]:
    """Images of the generator for arm64, in its forms."""
    return [
        Subject(name, *image_of(prototype, *kinds, **fields), ARM64)
        for name, (prototype, kinds, fields) in ARM64_IMAGES.items()
    ]


def mutants(subjects: Sequence[Subject], count: int, seed: int) -> Iterator[Mutant]:
    """Random bytes of random images, changed to random other ones."""
    draw = random.Random(seed)
    for _ in range(count):
        subject = draw.choice(subjects)
        at = draw.randrange(subject.image.used)
        code = bytearray(subject.image.code)
        code[at] ^= draw.randrange(1, 256)
        yield Mutant(subject, replace(subject, image=replace(subject.image, code=bytes(code))), at)


def operations(mutant: Mutant) -> bool:
    """Whether the changed byte is in an instruction of the same size that does the same."""
    images, sweep = [one.image for one in mutant.both], lifter(mutant.original.architecture).sweep
    code, other = (sweep(image.code, image.address, image.used) for image in images)
    start = max(at for at in code if at <= images[0].address + mutant.at)
    return start in other and code[start].ops == other[start].ops and code[start].size == other[start].size


def larger_frame(mutant: Mutant) -> bool:
    """Whether only the size of an x86-64 image's frame is another, and larger."""
    sizes = [frame_size(one, mutant.at) for one in mutant.both]
    return sizes[0] is not None and sizes[1] is not None and sizes[0] < sizes[1]


def frame_size(subject: Subject, at: int) -> int | None:
    """What the instruction around an offset takes off the stack pointer, if it is one that does."""
    code = subject.image.code[: subject.image.used]
    for start, size, mnemonic, operands in disassembler(subject.architecture).disasm_lite(code, 0):
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
        shown, other = (observations(one.image, one.goal, seed, one.architecture) for one in mutant.both)
        if shown != other:
            return ""
    strict = [one.prove(reading="strict").outcome for one in mutant.both]
    return "the same below an argument's width" if "refuted" in strict else "the same to all who look"


def disassembled(mutant: Mutant) -> str:
    """The instruction changed, before and after."""
    shown = []
    for one in mutant.both:
        image = one.image
        found: list[Any] = list(disassembler(one.architecture).disasm_lite(image.code[: image.used], image.address))
        start = max((each[0] for each in found if each[0] <= image.address + mutant.at), default=image.address)
        shown += [f"{each[2]} {each[3]}" for each in found if each[0] == start]
    return f"{mutant.original.name} +{mutant.at:#x}: {' -> '.join(shown)}"


def tabulated(counts: Mapping[str, Counter[str]]) -> Table:
    """Verdicts by where the images are from, and what explains those proved."""
    table = Table(title="byte mutants", title_justify="left")
    columns = sorted({column for counter in counts.values() for column in counter})
    for heading in ("images", "mutants", *columns):
        table.add_column(heading)
    for name, counter in sorted(counts.items()):
        table.add_row(name, str(sum(counter.values())), *(str(counter[column]) for column in columns))
    return table


@pytest.mark.proof
@pytest.mark.parametrize(
    ("subjects", "count", "seed", "unconfirmed"),
    [(real, 3_000, 2026, 30), (of_the_generator, 2_000, 2027, 20), (of_arm64, 1_500, 2026, 0)],
    ids=["of real kernels", "of the generator", "of the generator for arm64"],
)
def test_each_mutant_is_refuted_by_execution_or_explained(
    subjects: Callable[[], list[Subject]], count: int, seed: int, unconfirmed: int
) -> None:
    """Those refuted have been executed; at most 1 % of counterexamples fail to; survivors are none."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    survivors: list[str] = []
    unexplained: list[str] = []
    for mutant in mutants(subjects(), count, seed):
        verdict = mutant.changed.prove()
        answer = judged(mutant, verdict)
        kernel = KERNEL.match(mutant.original.name)
        counts[kernel.group() if kernel else mutant.original.name.partition(".")[0]][answer] += 1
        if verdict.outcome != "refuted":
            survivors.append(f"{answer}: {disassembled(mutant)}: {verdict.reason or 'proved'}")
            unexplained += [] if answer else survivors[-1:]
    total = sum(counts.values(), Counter())
    Console(width=200, markup=False).print(tabulated(counts), *sorted(survivors), sep="\n")

    assert [] == unexplained
    assert count == total.total()
    assert unconfirmed >= total["not confirmed"]
    assert 100 * total["undecided"] <= 2 * total.total()


@pytest.mark.proof
def test_z3_alone_says_the_same_of_mutants() -> None:
    """With every decision by z3, 300 mutants have the same verdicts, and fall by the same obligations."""
    for mutant in [*mutants(real(), 200, seed=3), *mutants(of_the_generator(), 100, seed=4)]:
        structural, alone = (mutant.changed.prove(thorough=thorough) for thorough in (False, True))

        assert fallen(structural) == fallen(alone), disassembled(mutant)


def fallen(verdict: Verdict) -> tuple[str, str | None]:
    """The outcome, and the obligation that is broken."""
    return verdict.outcome, verdict.counterexample.obligation if verdict.counterexample else None


@pytest.mark.proof
def test_z3_alone_proves_all_images() -> None:
    """With every decision by z3, the images of running kernels and of the generator are proved, in both readings."""
    asked = counted = 0
    for subject in [*real(), *of_the_generator(), *matrix()]:
        for reading in READINGS:
            structural, alone = (subject.prove(reading=reading, thorough=thorough) for thorough in (False, True))
            asked, counted = asked + alone.figures.asked, counted + 1

            assert fallen(structural) == fallen(alone), subject.name
            assert 0 == alone.figures.plain
            if reading == "width":
                assert "proved" == alone.outcome, subject.name
    print(f"{counted} verdicts, {asked} obligations by z3")


def matrix() -> Iterator[Subject]:
    """13 arities, and every kind alone and all together."""
    for arity in range(13):
        for kinds in (("fentry",), ("fexit",), ("fmod_ret",), ("fentry", "fmod_ret", "fexit")):
            yield Subject(f"{arity} {' '.join(kinds)}", *generated(sized([8] * arity), of_kinds(*kinds)))


def judged(mutant: Mutant, verdict: Verdict) -> str:
    """The verdict, or what explains that it is proved, or that a counterexample was not confirmed."""
    if verdict.outcome == "proved":
        return explanation(mutant)
    if verdict.outcome == "refuted":
        found = verdict.counterexample
        assert found is not None
        one = mutant.changed
        again = confirm(one.image, one.goal, one.architecture, verdict.bindings, found.values, suspect=found.at)

        assert not isinstance(again, str)
        return "refuted"
    return "not confirmed" if "a bug of the prover" in str(verdict.reason) else "undecided"


@pytest.mark.parametrize(
    ("subjects", "count"),
    [(lambda: [*real()[::12], *of_the_generator()[::9]], 60), (of_arm64, 20)],
    ids=["x86-64", "arm64"],
)
def test_some_mutants_are_refuted_by_execution(subjects: Callable[[], list[Subject]], count: int) -> None:
    """The same of a few."""
    for mutant in mutants(subjects(), count, seed=1):
        assert judged(mutant, mutant.changed.prove()) not in {"", "not confirmed"}, disassembled(mutant)


def test_an_image_shows_the_same_as_its_other_form() -> None:
    """Executions with random unknowns: the original by lr, and by its address, cannot be told apart."""
    image, goal = image_of(long(9), "fentry", "fmod_ret", "fexit", cookies=True)
    other, _ = image_of(long(9), "fentry", "fmod_ret", "fexit", cookies=True, orig_stack=True)
    for seed in range(RUNS):
        assert observations(image, goal, seed, ARM64) == observations(other, goal, seed, ARM64)


def test_what_does_not_execute_is_no_counterexample(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the execution does not show what the prover says, it is the prover's bug, and undecided."""
    mutant = next(one for one in mutants(real()[:1], 20, seed=5) if one.changed.prove().outcome == "refuted")
    monkeypatch.setattr(proving, "confirm", lambda *_, **__: "it leaves the image with no obligation broken")
    verdict = mutant.changed.prove()

    assert "undecided" == verdict.outcome
    assert verdict.counterexample is None
    assert verdict.reason is not None
    assert verdict.reason.startswith("a bug of the prover: ")
