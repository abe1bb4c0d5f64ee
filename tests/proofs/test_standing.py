"""A task that stands anywhere in an image gets out of it, whatever is patched then; jumps that go wrong are seen."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import pytest

from impl.batched.jit.generate import assemble, statements
from impl.batched.jit.isa import Instruction, Label, Statement
from impl.batched.jit.x86_64 import REL32
from properties.proofs.generated import bound, while_detaching
from properties.proofs.image_files import read_image
from properties.proofs.judging import DETACHING, variants
from properties.prover.architecture import Architecture
from properties.prover.confirm import Emulation
from properties.prover.goal import Bindings, Goal
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import NOP_THERE, WHOLE_PLACES, BrokenError
from properties.prover.proving import prove
from properties.prover.show import counterexample_lines, summary
from properties.prover.steps import RETURNED_EARLY
from properties.prover.verdicts import Counterexample
from properties.prover.x86_64 import X86_64
from tests.support.jit_mutants import CONFIGURATIONS, LENIENT, Mutant, mutants

IMAGES = sorted((Path(__file__).parents[2] / "properties/proofs/images").glob("*.json"))
ARM = sorted((Path(__file__).parents[1] / "support/images").glob("arm64.*.json"))
BY_NAME = {configuration.name: configuration for configuration in CONFIGURATIONS}
PROGRAM_RETURNS = (0, 0, 1, 1 << 32)
FEW = 3


def subsets(names: Sequence[str]) -> Iterator[dict[str, int]]:
    """Each subset of patches, as values of their symbols."""
    for chosen in product((0, 1), repeat=len(names)):
        yield dict(zip(names, chosen, strict=True))


def drawn(goal: Goal, seed: int) -> dict[str, int]:
    """What enter and programs return in one execution."""
    draw = random.Random(seed)
    values = {}
    for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit):
        values[f"{run.place}: enter returned"] = draw.choice((0, 1, draw.getrandbits(64)))
        values[f"{run.place}: program returned"] = draw.choice(PROGRAM_RETURNS)
    return values


def executed(
    image: Image, goal: Goal, bindings: Bindings, seeds: int, architecture: Architecture = X86_64
) -> Iterator[tuple[int, dict[str, int], str]]:
    """By brute force: a task stands at each instruction, and each subset is patched. What is broken then, if any is."""
    names = sorted(goal.patches & {patch.name for patch in image.patches})
    places = lifter(architecture).sweep(image.code, image.address, image.used)
    for at, chosen, seed in product(places, subsets(names), range(seeds)):
        values = drawn(goal, seed) | chosen
        emulation = Emulation(image, goal, architecture, bindings, values, stands=at)
        try:
            emulation.run()
        except BrokenError as error:
            yield at, chosen, error.obligation
        else:
            yield at, chosen, ""


def mutant(configuration: str, name: str) -> Mutant:
    """The mutant of this name."""
    return next(each for each in mutants(BY_NAME[configuration]) if each.name == name)


def told(found: Counterexample, image: Image, goal: Goal) -> list[str]:
    """What is shown of a counterexample."""
    return list(counterexample_lines(found, image, goal, X86_64))


def refuted(image: Image, goal: Goal) -> Counterexample:
    """The counterexample; as it was built, the image is proved."""
    assert "proved" == prove(image, replace(goal, patches=frozenset())).outcome
    verdict = prove(image, goal)

    assert verdict.counterexample is not None, verdict
    return verdict.counterexample


def test_a_program_is_left_without_being_entered() -> None:
    """The jump over a program lands one call too early: it is told which jump, and where the task stood."""
    wrong = mutant("fentry fexit, 8 arguments", "fexit 1: exit without enter")
    found = refuted(wrong.image, wrong.goal)
    lines = told(found, wrong.image, wrong.goal)

    assert "tramp_exit: __bpf_tramp_exit is reached" == found.obligation
    assert ["patched: jump over fexit 1"] == [patch.name for patch in found.patches]
    assert found.stands == found.patches[0].at
    assert f"as a task stands at +{found.stands - wrong.image.address:#06x} while the kernel patches" in lines
    assert any("jump over fexit 1, to +0x" in line for line in lines)
    assert any("jmp +0x" in line and "taken" in line for line in lines)
    assert any("call" in line and "<- here" in line for line in lines)


def test_a_task_that_returned_is_not_counted_out() -> None:
    """The jump behind the fexit programs goes behind __bpf_tramp_exit as well."""
    wrong = mutant("fexit, shared", "epilogue at exited")
    found = refuted(wrong.image, wrong.goal)

    assert "tramp_exit: __bpf_tramp_exit is reached" == found.obligation
    assert [RETURNED_EARLY] == [patch.name for patch in found.patches]


def test_a_register_is_lost_on_the_jumped_way_only() -> None:
    """An epilogue that only the jump leads to restores rbx from another word of the frame."""
    name = re.compile(r"mov rbx, qword ptr \S+ - (\S+) -> mov rbx, qword ptr \S+ - (?!\1)\S+, on the jumped way")
    some = [each for each in mutants(BY_NAME["fentry fexit, 8 arguments"]) if name.fullmatch(each.name)]
    found = [refuted(wrong.image, wrong.goal) for wrong in some]

    assert "rbx is restored" in {one.obligation for one in found}
    assert all(RETURNED_EARLY in {patch.name for patch in one.patches} for one in found)


def assembled(name: str, made: Sequence[Statement]) -> tuple[Image, Goal]:
    """The image of other statements, and its goal while programs are detached."""
    configuration = BY_NAME[name]
    goal = configuration.goal()
    return bound(assemble(configuration.plan(), made, LENIENT), goal), while_detaching(goal)


def test_a_place_needs_a_nop_of_its_size() -> None:
    """Five nops of one byte are none: the kernel compares the bytes, and a task may stand in the midst of them."""
    name, nop = "fentry at a jmp", Instruction("; ".join(["nop"] * 5), code=b"\x90" * 5, count=5)
    made = [nop if getattr(one, "text", "").startswith("nop") else one for one in statements(BY_NAME[name].plan())]

    assert NOP_THERE == refuted(*assembled(name, made)).obligation


def test_no_instruction_begins_within_a_place() -> None:
    """A place that begins within an instruction: the next one begins within the place."""
    configuration = BY_NAME["fentry at a jmp"]
    image, goal = configuration.image(), while_detaching(configuration.goal())
    (place,) = image.patches

    assert WHOLE_PLACES == refuted(replace(image, patches=(replace(place, at=place.at - 2),)), goal).obligation


def test_a_place_in_a_loop_is_undecided() -> None:
    """Where control comes to a place twice, the kernel may have patched it in between: nothing is proved."""
    name = "fentry at a jmp"
    made = statements(BY_NAME[name].plan())
    place = made.index(Label("fentry 0: nop"))
    loop = (
        Instruction("xor r10d, r10d"),
        Label("again"),
        *made[place : place + 2],
        Instruction("xor r10, 1"),
        Instruction("jne again", REL32, "again", code=b"\x0f\x85" + bytes(4)),
    )
    image, goal = assembled(name, [*made[:place], *loop, *made[place + 2 :]])
    verdict = prove(image, goal)

    assert "proved" == prove(image, replace(goal, patches=frozenset())).outcome
    assert "undecided" == verdict.outcome
    assert verdict.reason is not None
    assert "again, which may be patched by then" in verdict.reason


def test_what_is_proved_is_told() -> None:
    """From how many instructions, and how many jumps."""
    configuration = BY_NAME["fentry fexit, 8 arguments"]
    image, goal = configuration.image(), configuration.goal()
    places = lifter(X86_64).sweep(image.code, image.address, image.used)
    verdict = prove(image, while_detaching(goal))

    assert summary(verdict).endswith(
        f", from each of {len(places)} instructions, with any of 3 jumps put in at any time"
    )
    assert summary(prove(image, goal)).endswith(" places")


def test_by_brute_force_some() -> None:
    """Of one image, at each instruction, with each subset of jumps, by execution: nothing is broken."""
    configuration = BY_NAME["fentry at a jmp"]
    goal = while_detaching(configuration.goal())
    found = list(executed(configuration.image(), goal, goal.known, 1))

    assert len(found) > 50
    assert {""} == {broken for *_, broken in found}


@pytest.mark.proof
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda one: one.name)
def test_by_brute_force(configuration: Any) -> None:
    """Of nine images, at each instruction, with each subset of jumps, by execution: nothing is broken."""
    goal = while_detaching(configuration.goal())
    found = list(executed(configuration.image(), goal, goal.known, 1))
    print(f"{configuration.name}: {len(found)} executions")

    assert {""} == {broken for *_, broken in found}


@pytest.mark.proof
@pytest.mark.parametrize("path", [*IMAGES[::7], *ARM[1:2]], ids=lambda path: path.stem)
def test_by_brute_force_real(path: Path) -> None:
    """The same of images of running kernels, each seventh, and one for arm64."""
    dump = read_image(path)
    found = {variant.name: variant for variant in variants(dump)}
    if DETACHING not in found:
        pytest.skip("the kernel does not patch this image")
    image, goal = found[DETACHING].image, found[DETACHING].goal
    verdict = prove(image, goal, architecture=dump.architecture)
    runs = list(executed(image, goal, verdict.bindings, 1, dump.architecture))
    print(f"{path.stem}: {len(runs)} executions")

    assert {""} == {broken for *_, broken in runs}


@pytest.mark.proof
@pytest.mark.parametrize("configuration", CONFIGURATIONS, ids=lambda one: one.name)
def test_brute_force_sees_what_is_refuted(configuration: Any) -> None:
    """Each twentieth mistake on a jumped way: what is refuted some execution breaks, with a jump put in."""
    some = (each for each in mutants(configuration) if each.kind in {"jump put in", "jumped way"})
    for wrong in islice(some, 0, None, 20):
        if prove(wrong.image, wrong.goal).outcome == "refuted":
            runs = executed(wrong.image, wrong.goal, wrong.goal.known, FEW)
            first = next((chosen for _, chosen, broken in runs if broken), {})

            assert any(first.values()), wrong.name
