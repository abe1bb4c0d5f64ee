"""arm64: every image that the generator makes is proved; and of each obligation there is an image that it refutes."""

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
from properties.prover.machine import ALIGNED, NO_FAULT, NO_LOAD, NO_STORE, ONLY_GENERAL, STACK_POINTER
from properties.prover.show import counterexample_lines
from spec.errors import BadInputError
from tests.proofs.test_jit_proofs import populations
from tests.support.arm64_images import KINDS, Edit, both, coded, edited, image_of, in_text, proof, put, refuted, symbol
from tests.support.prove_images import long, sized

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
    for prototype in populations():
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


ENTRY = (long(2), ("fentry",), {"cookies": True, "func_ip": True})
ALL = (long(9), ("fentry", "fmod_ret", "fexit"), {})
SESSION = (long(1), ("fsession", "fsession"), {})
SHARED = (long(1), ("fexit",), {"orig_stack": True})
GENERIC = (long(3), ("fexit",), {"generic": True})
NARROW = (sized([1, 4], 2), ("fexit",), {})
Case = tuple[Any, tuple[str, ...], dict[str, Any]]
CALL = "blr x10"
PROGRAM = "fentry 1: program: the program at 0xffff800040008000 is reached"

# (images, edit, the obligation that must fall)
BROKEN: dict[str, tuple[Case, Edit, str]] = {
    "frame of odd size": (ENTRY, in_text("sub sp", "#0x40", "#0x48"), ALIGNED),
    "frame 16 bytes smaller": (ENTRY, in_text("sub sp", "#0x40", "#0x30"), "leave: the body is reached"),
    "no second record": (ENTRY, put("stp x29, x30", "stp x29, x9, [sp, #-0x10]!"), "leave: the body is reached"),
    "lr not saved": (ENTRY, put("stp x29, x30", "stp x29, xzr, [sp, #-0x10]!"), "leave: the body is reached"),
    "jump for call": (ENTRY, put(CALL, "br x10"), "fentry 1: enter: it returns into the image"),
    "return for call": (ENTRY, put(CALL, "ret x10"), "fentry 1: enter: it returns into the image"),
    "call of another register": (ENTRY, put(CALL, "blr x11"), "fentry 1: enter: __bpf_prog_enter_recur is reached"),
    "another program": (ENTRY, symbol("code 0", "prog 0"), PROGRAM),
    "enter not called": (ENTRY, put(CALL, "nop"), "fentry 1: enter: __bpf_prog_enter_recur is reached"),
    "program called always": (ENTRY, put("cbz x0", "nop"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "program never called": (ENTRY, put("cbz x0", "+mov x0, xzr"), PROGRAM),
    "cbnz for cbz": (ENTRY, coded("cbz x0", "000000b5"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "half a register tested": (ENTRY, coded("cbz x0", "00000034"), PROGRAM),
    "another register tested": (ENTRY, coded("cbz x0", "010000b4"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "no im": (ALL, symbol("im", "prog 0"), "tramp_enter: its image is passed"),
    "another im at the end": (ALL, symbol("im", "prog 0", 1), "tramp_exit: its image is passed"),
    "no prog at enter": (ENTRY, symbol("prog 0", "cookie 0"), "fentry 1: enter: its program is passed"),
    "no prog at exit": (ENTRY, symbol("prog 0", "cookie 0", 1), "fentry 1: exit: its program is passed"),
    "prog in the wrong register": (ENTRY, in_text("movz x0", "x0,", "x1,"), "fentry 1: enter: its program is passed"),
    "run context above": (
        ENTRY,
        in_text("add x1", "#0x8", "#0x60"),
        "fentry 1: enter: the run context is in the frame",
    ),
    "run context below": (ENTRY, put("add x1", "sub x1, sp, #8"), "fentry 1: enter: the run context is in the frame"),
    "run context not passed": (ENTRY, put("add x1", "nop"), "fentry 1: enter: the run context is in the frame"),
    "start time lost": (ENTRY, put("mov x1, x19", "mov x1, xzr"), "fentry 1: exit: what enter returned is passed"),
    "half a start time": (ENTRY, put("mov x1, x19", "mov w1, w19"), "fentry 1: exit: what enter returned is passed"),
    "start time kept in x11": (
        ENTRY,
        both(put("mov x19, x0", "mov x11, x0"), put("mov x1, x19", "mov x1, x11")),
        "fentry 1: exit: what enter returned is passed",
    ),
    "another run context": (
        ENTRY,
        in_text("add x2", "#0x8", "#0x10"),
        "fentry 1: exit: the same run context is passed",
    ),
    "saved run context lost": (
        ENTRY,
        put("add x2", "+str xzr, [sp, #0x10]"),
        "fentry 1: exit: the saved run context is intact",
    ),
    "context above": (ENTRY, in_text("add x0", "#0x30", "#0x58"), "fentry 1: the context is in the frame"),
    "context elsewhere": (ENTRY, in_text("add x0", "#0x30", "#0x28"), "fentry 1: ctx[0] is argument 0"),
    "argument not saved": (ENTRY, put("str x1,", "nop"), "fentry 1: ctx[1] is argument 1"),
    "half an argument saved": (ENTRY, in_text("str x1,", "x1", "w1"), "fentry 1: ctx[1] is argument 1"),
    "arguments swapped": (
        ENTRY,
        both(in_text("str x0", "x0", "x2"), in_text("str x1,", "x1", "x0")),
        "fentry 1: ctx[0] is argument 0",
    ),
    "an argument clobbered before it is saved": (
        ENTRY,
        put("str x0", "+mov x1, x10"),
        "fentry 1: ctx[1] is argument 1",
    ),
    "stack argument one too far": (ALL, in_text("ldr x10, [x29, #0x20]", "#0x20", "#0x28"), NO_LOAD),
    "the caller's record for a stack argument": (
        ALL,
        in_text("ldr x10, [x29, #0x20]", "#0x20", "#0x18"),
        "fentry 1: ctx[8] is argument 8",
    ),
    "wrong number of slots": (
        ENTRY,
        in_text("movz x10, #0x2", "#0x2", "#0x3"),
        "fentry 1: ctx[-1] is the number of slots",
    ),
    "wrong ip": (ENTRY, symbol("function", "prog 0"), "fentry 1: ctx[-2] is the function's address"),
    "no cookie": (ENTRY, put("str x10, [sp, #0x8]", "str xzr, [sp, #0x8]"), "fentry 1: the run context has its cookie"),
    "return slot not cleared": (ALL, put("str xzr, [sp, #0x78]", "nop"), "fmod_ret 1: ctx[9] is the return slot"),
    "fmod_ret's result not saved": (
        ALL,
        put("str x0, [sp, #0x78]", "nop"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result tested in 32 bits": (
        ALL,
        in_text("ldr x10, [sp, #0x78]", "x10", "w10"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result not saved": (ALL, put("str x0, [sp, #0x78]", "nop", 1), "fexit 1: ctx[9] is the return slot"),
    "argument lost before the original": (ALL, put("ldr x2", "nop"), "argument 2 (x2) reaches the original"),
    "stack argument misplaced": (
        ALL,
        in_text("str x10, [sp, #0x0]", "#0x0", "#0x8"),
        "stack argument 0 reaches the original",
    ),
    "the caller called for the original": (
        ALL,
        in_text("ldr x10, [x29, #0x8]", "#0x8", "#0x18"),
        "original: the original is reached",
    ),
    "the original's way back too short": (
        ALL,
        coded("adr x30", "3e000010"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "the original's way back not set": (
        ALL,
        put("adr x30", "nop"),
        "original: it returns into the image",
    ),
    "the original by address": (
        SHARED,
        put("ldr x10, [x29, #0x8]", "movz x10, #0x456c"),
        "original: the original is reached",
    ),
    "x19 not saved": (ENTRY, put("str x19", "nop"), "x19 is restored"),
    "x19 not restored": (ENTRY, put("ldr x19", "nop"), "x19 is restored"),
    "x20 used unsaved": (ENTRY, put("mov sp", "+mov x20, x0"), "x20 is restored"),
    "x18 written": (ENTRY, put("mov sp", "+add x18, x18, #8"), "x18 is restored"),
    "x29 lost": (ENTRY, put("ret x10", "+mov x29, x9"), "x29 is restored"),
    "a record not popped": (ENTRY, put("ldp x29, x9", "nop"), "sp is restored"),
    "the frame not undone": (ENTRY, put("mov sp, x29", "nop"), "leave: the body is reached"),
    "popped before it is read": (
        ENTRY,
        put("ldp x29, x9", "add sp, sp, #0x10\nldp x29, x9, [sp, #-0x10]"),
        NO_LOAD,
    ),
    "lr not the caller's": (ENTRY, put("mov x30, x9", "nop"), "x30 is restored"),
    "to the caller with the body's due": (ENTRY, put("ret x10", "ret"), "leave: the body is reached"),
    "to the body with the caller's due": (ALL, put("mov x30, x9", "nop"), "leave: the caller is reached"),
    "argument not restored": (ENTRY, put("ldr x1", "nop"), "argument 1 (x1) is restored"),
    "result lost": (ALL, put("ldr x0, [sp, #0x78]", "nop"), "the caller gets the return value"),
    "a narrow result lost": (NARROW, put("ldr x0", "mov x0, xzr", 1), "the caller gets the return value"),
    "pointer followed": (ENTRY, put("mov sp", "+ldr x10, [x0]"), NO_LOAD),
    "text read": (ENTRY, put("mov sp", "+.word 0x5800000a"), NO_LOAD),
    "below the stack pointer read": (ENTRY, put("mov sp", "+ldr x10, [sp, #-8]"), NO_LOAD),
    "pointer written through": (ENTRY, put("str x0", "+str x1, [x0]"), NO_STORE),
    "the caller's frame written": (ENTRY, put("mov sp", "+str xzr, [x29, #0x20]"), NO_STORE),
    "below the stack pointer written": (ENTRY, put("mov sp", "+str xzr, [sp, #-8]"), NO_STORE),
    "stack pointer gone": (ENTRY, put("mov sp, x29", "mov sp, x0"), STACK_POINTER),
    "stack pointer far down": (ENTRY, put("mov sp, x29", "+sub sp, sp, #0xfe0"), STACK_POINTER),
    "endless loop": (ENTRY, put("mov sp", "+.word 0x14000000"), "the image is left within 1040 instructions"),
    "vector register written": (ENTRY, put("mov sp", "+fmov d0, x0"), ONLY_GENERAL),
    "undefined": (ENTRY, put("mov sp", "+.word 0"), NO_FAULT),
    "a session's cookie is not cleared": (
        SESSION,
        put("str xzr, [sp, #0x20]", "nop"),
        "fsession 2 at entry: its session cookie is what it left",
    ),
    "phase not told": (
        SESSION,
        put("movk x10, #0x8000", "nop", 1),
        "fsession 1 at return: ctx[-1] tells entry from return",
    ),
    "a cookie for two sessions": (
        SESSION,
        in_text("movz x10, #0x201", "#0x201", "#0x301"),
        "fsession 2 at entry: its session cookie is its own",
    ),
    "another cookie at return": (
        SESSION,
        in_text("movz x10, #0x301", "#0x301", "#0x401", 1),
        "fsession 1 at return: its session cookie stays",
    ),
    "a cookie below the frame": (
        SESSION,
        in_text("movz x10, #0x301", "#0x301", "#0xff01"),
        "fsession 1 at entry: its session cookie is in the frame",
    ),
    "generic: asked of the caller": (
        GENERIC,
        in_text("ldr x0, [x29, #0x8]", "#0x8", "#0x18"),
        "lookup: the return address into the function is passed",
    ),
    "generic: always the last slot": (
        GENERIC,
        put("str x0, [x11", "str x0, [sp, #0x68]"),
        "fexit 1: ctx[0] is the return slot",
    ),
    "generic: unscaled": (GENERIC, put("str x0, [x11", "str x0, [x11, x10]"), "fexit 1: ctx[0] is argument 0"),
    "generic: one slot off": (GENERIC, put("str x0, [x11", "+add x11, x11, #8"), "fexit 1: ctx[0] is the return slot"),
    "generic: the count lost": (GENERIC, put("str x0", "nop", 1), NO_STORE),
}


def broken(name: str) -> tuple[Any, Any]:
    (prototype, kinds, fields), edit, _ = BROKEN[name]
    return edited(prototype, kinds, edit, **fields), image_of(prototype, *kinds, **fields)[1]


@pytest.mark.parametrize("case", BROKEN)
def test_each_obligation_can_fall(case: str) -> None:
    """With the edit the obligation is refuted, and broken in execution."""
    image, goal = broken(case)
    verdict = proof(image, goal)

    assert BROKEN[case][2] == refuted(verdict)
    assert verdict.counterexample is not None
    assert image.holds(verdict.counterexample.at)


@pytest.mark.proof
def test_z3_alone_refutes_alike() -> None:
    """With every decision by z3, each image is refuted by the same obligation, and without its edit proved."""
    for name, ((prototype, kinds, fields), _, obligation) in BROKEN.items():
        verdict = proof(*image_of(prototype, *kinds, **fields), thorough=True)

        assert ("proved", 0) == (verdict.outcome, verdict.figures.plain)
        assert obligation == refuted(proof(*broken(name), thorough=True)), name


def test_of_every_obligation_there_is_one_that_falls() -> None:
    """What proofs name, numbers and kinds aside, is refuted by some edit."""
    cases = [case for case, _, __ in BROKEN.values()]
    goals = [image_of(prototype, *kinds, **fields) for prototype, kinds, fields in cases]
    named = {pattern(name) for image, goal in goals for name in proof(image, goal).obligations}
    fallen = {pattern(obligation) for _, __, obligation in BROKEN.values()}

    # What holds after every instruction holds at a call.
    assert {"STEP: the stack pointer is aligned"} == named - fallen


def pattern(obligation: str) -> str:
    """An obligation without what tells its instances apart."""
    kind = r"(fentry|fexit|fmod_ret|fsession) [0-9]+( at entry| at return)?"
    step = rf"{kind}(: (enter|program|exit))?|original|tramp_(enter|exit)|leave|lookup"
    text = re.sub(rf"^({step}): ", "STEP: ", obligation)
    text = re.sub(r"STEP: .* is reached", "STEP: it is reached", text)
    return re.sub(r"\b(x[0-9]+|sp)\b|[0-9]+", "N", text)


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
    image, goal = broken("lr not the caller's")
    verdict = proof(image, goal)
    assert verdict.counterexample is not None
    lines = list(counterexample_lines(verdict.counterexample, image, goal, ARM64))

    assert any("ldp x29, x30, [sp], #0x10" in line and line.endswith("<- at fault") for line in lines)
    assert any("ret x10" in line and line.endswith("<- here") for line in lines)


def test_a_branch_is_shown_by_where_it_goes() -> None:
    """In the image by its offset, as each line has its own."""
    image, goal = broken("context elsewhere")
    verdict = proof(image, goal)
    assert verdict.counterexample is not None
    lines = list(counterexample_lines(verdict.counterexample, image, goal, ARM64))

    assert 1 == sum(re.search(r"cbz x0, \+0x[0-9a-f]{4}$", line) is not None for line in lines)
