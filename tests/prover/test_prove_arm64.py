"""arm64: every image that the generator makes is proved; and what is peculiar to it."""

from __future__ import annotations

import random
import re
import time
from collections import Counter
from typing import Any

import pytest

from impl.batched.jit.plan import PlanError
from properties.proofs.generated import while_detaching
from properties.prover.arm64 import ARM64
from properties.prover.goal import READINGS
from properties.prover.show import counterexample_lines
from spec.errors import BadInputError
from tests.support.arm64_faults import ENTRY
from tests.support.arm64_images import KINDS, Edit, edited, image_of, in_text, proof, put
from tests.support.faults import FAULTS
from tests.support.prove_images import long, shapes_of_populations, sized

REGISTERS = range(9)
STACK = range(9, 13)


@pytest.mark.parametrize("arity", [0, 1, 8, 9])
@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_arities_and_kinds(arity: int, kinds: tuple[str, ...]) -> None:
    """In both readings, and while programs are detached, without a question to z3."""
    image, goal = image_of(long(arity), *kinds, cookies=True, sleepable=True, func_ip=True)
    for reading in READINGS:
        verdict = proof(image, goal.read(reading))

        assert ("proved", 1, 0) == (verdict.outcome, verdict.figures.paths, verdict.figures.asked)
    assert "proved" == proof(image, while_detaching(goal)).outcome


@pytest.mark.proof
def test_every_arity_kind_and_form() -> None:
    """Arities 0 to 12, kinds, forms of image, both readings and the image while detached: all proved."""
    started = time.perf_counter()
    done = plain = asked = 0
    forms: tuple[dict[str, Any], ...] = (
        {},
        {"func_ip": True, "cookies": True},
        {"orig_stack": True, "sleepable": True},
        {"shared": True, "func_ip": True},
        {"generic": True, "func_ip": True},
    )
    for arity in (*REGISTERS, *STACK):
        for kinds in KINDS:
            for form in forms:
                if form.get("generic") and arity in STACK:
                    continue
                image, goal = image_of(long(arity), *kinds, **form)
                for task in (goal, goal.read("strict"), while_detaching(goal)):
                    verdict = proof(image, task)
                    done, plain, asked = done + 1, plain + verdict.figures.plain, asked + verdict.figures.asked

                    assert "proved" == verdict.outcome, (arity, kinds, form, verdict)
    print(f"{done} proofs, {plain} plain decisions, {asked} by z3, in {time.perf_counter() - started:.1f} s")


@pytest.mark.parametrize("count", [40, pytest.param(2_000, marks=pytest.mark.proof)])
def test_random_signatures(count: int) -> None:
    """Arguments of 1 to 16 bytes, in registers, in pairs of them, and on the stack for good; proved by width."""
    draw = random.Random(64)
    for _ in range(count):
        sizes = [draw.choice((1, 2, 3, 4, 8, 8, 12, 16)) for _ in range(draw.randrange(9))]
        while sum(-(-size // 8) for size in sizes) > 12:
            sizes.pop()
        kinds = draw.choices(("fentry", "fexit", "fmod_ret", "fsession"), k=draw.randrange(1, 4))
        image, goal = image_of(sized(sizes, draw.choice((0, 1, 4, 8))), *kinds)
        verdict = proof(image, goal)

        assert ("proved", 0) == (verdict.outcome, verdict.figures.asked), (sizes, kinds, verdict)


@pytest.mark.proof
def test_every_shape_of_the_real_populations() -> None:
    """Every shape of three kernels' functions, with fentry, fexit and both; those that no image has are refused."""
    done: Counter[str] = Counter()
    for prototype in shapes_of_populations():
        for kinds in (("fentry",), ("fexit",), ("fentry", "fexit")):
            try:
                image, goal = image_of(prototype, *kinds, func_ip=True)
            except PlanError:
                done["refused"] += 1
                assert not prototype.describable, prototype
                continue
            for reading in READINGS:
                done[proof(image, goal.read(reading)).outcome] += 1
    print(dict(done))

    assert {"proved", "refused"} == set(done)


def test_the_most_programs() -> None:
    """38 programs are proved, in proportion to what one takes: paths are merged."""
    one = proof(*image_of(long(8), "fentry")).figures
    two = proof(*image_of(long(8), "fentry", "fentry")).figures
    most = proof(*image_of(long(8), *["fentry"] * 38)).figures

    assert 1 == most.paths
    assert 37 * (two.instructions - one.instructions) == most.instructions - one.instructions


@pytest.mark.parametrize("reading", READINGS)
def test_z3_alone_decides_alike(reading: str) -> None:
    """With every decision by z3, an image is proved as well."""
    image, goal = image_of(long(9), "fentry", "fmod_ret", "fexit", func_ip=True)
    verdict = proof(image, goal.read(reading), thorough=True)  # type: ignore[arg-type]

    assert ("proved", 0) == (verdict.outcome, verdict.figures.plain)


def test_there_is_no_jmp_site() -> None:
    """A goal with a site that arm64 has not is refused in a sentence."""
    image, goal = image_of(long(1), "fentry")
    object.__setattr__(goal, "site", "jmp")

    with pytest.raises(BadInputError, match="arm64 has no jmp sites: the site must be call"):
        proof(image, goal)


@pytest.mark.parametrize(
    "edit",
    [
        put("bti jc", "nop"),
        put("ret x10", "br x10"),
        put("mov x1, x19", "orr x1, x19, xzr"),
        put("ldp x29, x9", "ldr x29, [sp]\nldr x9, [sp, #0x8]\nadd sp, sp, #0x10"),
        put("mov sp, x29", "add sp, sp, #0x40"),
        put("cbz x0", "+cmp x0, #1"),
        put("blr x10", ".word 0x1000005e\nbr x10"),
        in_text("sub sp", "#0x40", "#0x40 + 0x10"),
    ],
    ids="no landing pad;branch;orr;loads and add;add for mov;flags;branch and link by hand;larger frame".split(";"),
)
def test_what_does_the_same_is_proved(edit: Edit) -> None:
    """Other instructions to the same end, and flags that nobody reads, break nothing."""
    prototype, kinds, fields = ENTRY
    _, goal = image_of(prototype, *kinds, **fields)

    assert "proved" == proof(edited(prototype, kinds, edit, **fields), goal).outcome


def test_what_is_not_modelled_is_undecided() -> None:
    """A signed return address is not believed to be the address: no proof, though an execution shows no fault."""
    prototype, kinds, fields = ENTRY
    _, goal = image_of(prototype, *kinds, **fields)
    verdict = proof(edited(prototype, kinds, put("bti jc", "hint #0x19"), **fields), goal)

    assert "undecided" == verdict.outcome
    assert "the instruction at +0x0: paciasp may do more than its p-code" == verdict.reason


def test_a_counterexample_is_shown_in_arm64s_words() -> None:
    """Registers by their names, and the instruction at fault marked in the listing."""
    fault = FAULTS["arm64"]["lr not the caller's"]
    image, goal = fault.broken(), fault.goal
    verdict = proof(image, goal)
    assert verdict.counterexample is not None
    lines = list(counterexample_lines(verdict.counterexample, image, goal, ARM64))

    assert any("ldp x29, x30, [sp], #0x10" in line and line.endswith("<- at fault") for line in lines)
    assert any("ret x10" in line and line.endswith("<- here") for line in lines)


def test_a_branch_is_shown_by_where_it_goes() -> None:
    """In the image by its offset, as each line has its own."""
    fault = FAULTS["arm64"]["context elsewhere"]
    image, goal = fault.broken(), fault.goal
    verdict = proof(image, goal)
    assert verdict.counterexample is not None
    lines = list(counterexample_lines(verdict.counterexample, image, goal, ARM64))

    assert 1 == sum(re.search(r"cbz x0, \+0x[0-9a-f]{4}$", line) is not None for line in lines)
