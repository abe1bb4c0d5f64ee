"""Images laid out as Linux's are proved, in every form; and of each obligation there is an image that it refutes."""

from __future__ import annotations

import random
import re
from dataclasses import replace

import pytest

from properties.prover.detaching import while_detaching
from properties.prover.goal import READINGS, Goal, Program
from properties.prover.machine import NO_FAULT, NO_LOAD, NO_STORE, ONLY_GENERAL, STACK_POINTER
from properties.prover.prove import prove
from properties.prover.verdicts import Verdict
from properties.prover.x86_64 import X86_64
from tests.support.prove_images import (
    HELPERS,
    IM,
    Edit,
    Trampoline,
    both,
    goal_of,
    goes_to,
    long,
    of_kinds,
    put_in,
    sized,
    without_rex,
)

KINDS = (
    ("fentry",),
    ("fexit",),
    ("fmod_ret",),
    ("lsm",),
    ("fsession",),
    ("fentry", "fmod_ret", "fexit"),
    ("fentry", "fsession", "lsm", "fmod_ret", "fexit", "fentry", "fsession", "fexit"),
)


@pytest.mark.parametrize("arity", range(13))
@pytest.mark.parametrize("site", ["call", "jmp"])
def test_every_arity_and_kind(arity: int, site: str) -> None:
    """All kinds, at every arity, by call and by jmp, in both readings, are proved without a question to z3."""
    for kinds in KINDS:
        goal = goal_of(long(arity), *of_kinds(*kinds, cookies=True), site=site, func_ip=True)
        for reading in READINGS:
            verdict = prove(Trampoline(goal).image(), goal.read(reading))

            assert ("proved", 0) == (verdict.outcome, verdict.figures.asked), (kinds, verdict)


@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("kinds", KINDS, ids=" ".join)
def test_while_programs_are_detached(kinds: tuple[str, ...], skips: bool) -> None:
    """The image that is patched under running tasks is proved as well, whatever has been patched so far."""
    goal = goal_of(long(7), *of_kinds(*kinds), func_ip=True)
    patched = while_detaching(Trampoline(goal, skips=skips).image(), goal, X86_64)
    if patched is None:
        assert not skips
        assert not goal.calls_original
        return
    verdict = prove(*patched)

    assert ("proved", 0) == (verdict.outcome, verdict.figures.asked)
    assert (len(goal.fentry) + len(goal.fmod_ret) + len(goal.fexit) if skips else 1) == len(patched[0].patches)


def test_a_wrong_patch_is_refuted() -> None:
    """A jump behind the original that lands one program too early lets a detached program run."""
    goal = goal_of(long(2), *of_kinds("fexit", "fexit"))
    patched = while_detaching(Trampoline(goal).image(), goal, X86_64)
    assert patched is not None
    image, todo = patched
    patch = image.patches[0]
    second = image.code.index(b"\x48\xbf", patch.at - image.address + 90) + image.address
    verdict = prove(replace(image, patches=(replace(patch, target=second),)), todo)

    assert "refuted" == verdict.outcome


def test_the_body_by_the_stack() -> None:
    """With IPMODIFY sharing the original is where the return address points; by address it is the wrong one."""
    goal = goal_of(long(8), *of_kinds("fexit"), shares_ipmodify=True)
    other = replace(goal, shares_ipmodify=False)

    assert "proved" == prove(Trampoline(goal).image(), goal).outcome
    # Where nobody shares, the return address is the body's, and both are the same.
    assert "proved" == prove(Trampoline(goal).image(), other).outcome
    assert "original: the original is reached" == refuted(prove(Trampoline(other).image(), goal))


@pytest.mark.parametrize("asking", [True, None])
def test_session_cookies(asking: bool | None) -> None:
    """Each session finds the cookie that it left, be it known or not that they ask for one."""
    sessions = [Program("fsession", 0, session_cookie=True)] * 3
    goal = goal_of(long(3), *sessions, *of_kinds("fentry", "fexit"))
    image = Trampoline(goal, skips=True).image()
    programs = tuple(replace(program, session_cookie=asking) for program in goal.programs)
    verdict = prove(image, replace(goal, programs=programs))

    assert "proved" == verdict.outcome
    assert {"session 0", "session 1", "session 2"} <= set(verdict.bindings)


def test_sleepable_programs() -> None:
    """A sleepable program is entered and left by its own helpers; where it is not known, by a pair of them."""
    goal = goal_of(long(1), *of_kinds("fentry", "lsm", sleepable=True))
    unknown = replace(goal, programs=tuple(replace(program, sleepable=None) for program in goal.programs))
    image = Trampoline(goal).image()

    assert "proved" == prove(image, goal).outcome
    assert "proved" == prove(image, unknown).outcome
    awake = replace(goal, programs=tuple(replace(program, sleepable=False) for program in goal.programs))
    assert "fentry 1: enter: __bpf_prog_enter_recur is reached" == refuted(prove(image, awake))
    mixed = goes_to(HELPERS["__bpf_prog_exit_sleepable_recur"], HELPERS["__bpf_prog_exit_recur"])
    obligation = "fentry 1: exit: __bpf_prog_exit_recur or __bpf_prog_exit_sleepable_recur is reached"
    assert obligation == refuted(prove(Trampoline(goal).image(mixed), unknown))


def test_random_signatures() -> None:
    """Structs and small types, in registers and on the stack, with any programs: proved in the reading by width."""
    random_ = random.Random(20)
    for _ in range(60):
        sizes = [random_.choice((1, 2, 3, 4, 8, 8, 12, 16)) for _ in range(random_.randrange(9))]
        kinds = random_.choices(("fentry", "fexit", "fmod_ret", "fsession", "lsm"), k=random_.randrange(1, 5))
        site = random_.choice(("call", "jmp"))
        goal = goal_of(sized(sizes, random_.choice((1, 4, 8))), *of_kinds(*kinds), site=site)
        verdict = prove(Trampoline(goal).image(), goal)

        assert "proved" == verdict.outcome, (sizes, kinds, verdict)


def test_void_and_wide_returns() -> None:
    """A void function's result is nobody's; a result of two words must keep both, which Linux's layout does not."""
    void = goal_of(sized([8], 0), *of_kinds("fexit", "lsm"))
    wide = goal_of(sized([8], 16), *of_kinds("fexit"))

    assert "proved" == prove(Trampoline(void).image(), void).outcome
    assert "the caller gets the return value, high word" == refuted(prove(Trampoline(wide).image(), wide))


def refuted(verdict: Verdict) -> str:
    """The obligation that is broken, and has been seen to be, in execution."""
    assert verdict.counterexample is not None, verdict
    return verdict.counterexample.obligation


FENTRY = goal_of(long(2), *of_kinds("fentry"))
ENTRY = goal_of(long(8), *of_kinds("fentry", cookies=True), func_ip=True)
ALL = goal_of(long(8), *of_kinds("fentry", "fmod_ret", "fexit"))
SESSION = goal_of(long(1), Program("fsession", 0, session_cookie=True), Program("fsession", 0, session_cookie=True))
SHARING = goal_of(long(1), *of_kinds("fexit"), shares_ipmodify=True)
NARROW = goal_of(sized([1, 4], 2), *of_kinds("fexit"))
CODE = ALL.programs[0].code
STORE_RDI, LOAD_RDI = "4889bd", "488bbd"
LEA_RDI, LEA_RSI, LEA_RDX = "488dbd", "488db5", "488d95"

# (goal, edit, the obligation that must fall)
BROKEN: dict[str, tuple[Goal, Edit, str]] = {
    "std before a call": (FENTRY, put_in(LEA_RDI, "+fd"), "fentry 1: program: df is clear"),
    "frame of odd size": (FENTRY, put_in("4881ec", "4881ec51000000"), "fentry 1: enter: the stack pointer is aligned"),
    "jmp for call": (FENTRY, goes_to(CODE, None, "e9"), "fentry 1: program: it returns into the image"),
    "another program": (
        FENTRY,
        goes_to(CODE, CODE + 0x40),
        f"fentry 1: program: the program at {CODE:#x} is reached",
    ),
    "enter not called": (
        FENTRY,
        put_in("e8", "90"),
        "fentry 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "program called always": (
        FENTRY,
        put_in("4885c0", "31c0"),
        f"fentry 1: program: the program at {CODE:#x} is reached",
    ),
    "program never skipped": (FENTRY, put_in("4885c0", "0c01"), "fentry 1: exit: __bpf_prog_exit_recur is reached"),
    "another im": (
        ALL,
        put_in(f"48bf{IM.to_bytes(8, 'little').hex()}", "48bf" + "11" * 8),
        "tramp_enter: its image is passed",
    ),
    "another im at the end": (
        ALL,
        put_in(f"48bf{IM.to_bytes(8, 'little').hex()}", "48bf" + "11" * 8, 1),
        "tramp_exit: its image is passed",
    ),
    "no prog at enter": (FENTRY, put_in("48bf0050", "31ff"), "fentry 1: enter: its program is passed"),
    "no prog at exit": (FENTRY, put_in("48bf0050", "31ff", 1), "fentry 1: exit: its program is passed"),
    "run context above": (FENTRY, put_in(LEA_RSI, "488d7508"), "fentry 1: enter: the run context is in the frame"),
    "run context below": (FENTRY, put_in(LEA_RSI, "488d7424f8"), "fentry 1: enter: the run context is in the frame"),
    "start time lost": (FENTRY, put_in("4889de", "31f6"), "fentry 1: exit: what enter returned is passed"),
    "start time kept in rcx": (
        FENTRY,
        both(put_in("4889c3", "4889c1"), put_in("4889de", "4889ce")),
        "fentry 1: exit: what enter returned is passed",
    ),
    "another run context": (FENTRY, put_in(LEA_RDX, "488d55f0"), "fentry 1: exit: the same run context is passed"),
    "saved run context lost": (
        FENTRY,
        put_in(LEA_RDX, f"+48c785{(8 - 48).to_bytes(4, 'little', signed=True).hex()}00000000"),
        "fentry 1: exit: the saved run context is intact",
    ),
    "context above": (FENTRY, put_in(LEA_RDI, "488d7d00"), "fentry 1: the context is in the frame"),
    "context below": (FENTRY, put_in(LEA_RDI, "488d3c24"), "fentry 1: the context is in the frame"),
    "context elsewhere": (FENTRY, put_in(LEA_RDI, "488d7de8"), "fentry 1: ctx[0] is argument 0"),
    "argument not saved": (ENTRY, put_in("488995", ""), "fentry 1: ctx[2] is argument 2"),
    "half an argument saved": (ENTRY, without_rex("488995"), "fentry 1: ctx[2] is argument 2"),
    "arguments swapped": (ENTRY, put_in("4889b5", "488995c8ffffff"), "fentry 1: ctx[1] is argument 1"),
    "stack argument one too far": (ENTRY, put_in("488b8520", "488b8528000000"), NO_LOAD),
    "stack argument taken twice": (ENTRY, put_in("488b8520", "488b8518000000"), "fentry 1: ctx[7] is argument 7"),
    "wrong number of slots": (ENTRY, put_in("48b8", "b809000000"), "fentry 1: ctx[-1] is the number of slots"),
    "wrong ip": (ENTRY, put_in("48b8", "31c0", 1), "fentry 1: ctx[-2] is the function's address"),
    "no cookie": (ENTRY, put_in("48bf0077", "31ff"), "fentry 1: the run context has its cookie"),
    "return slot not cleared": (ALL, put_in("488985f8", ""), "fmod_ret 1: ctx[8] is the return slot"),
    "fmod_ret's result not saved": (
        ALL,
        put_in("488985f8", "", 1),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result tested in 32 bits": (
        ALL,
        put_in("48837df800", "837df800"),
        "fexit 1: enter: __bpf_prog_enter_recur is reached",
    ),
    "result not saved": (ALL, put_in("488985f8", "", 2), "fexit 1: ctx[8] is the return slot"),
    "argument lost before the original": (ALL, put_in("488b95", ""), "argument 2 (rdx) reaches the original"),
    "stack argument misplaced": (
        ALL,
        put_in("4889842408", "4889842410000000"),
        "stack argument 1 reaches the original",
    ),
    "rbx not saved": (FENTRY, put_in("48899d", ""), "rbx is restored"),
    "r12 used": (FENTRY, put_in("c9", "+4531e4"), "r12 is restored"),
    "rbp lost": (FENTRY, put_in("c9", "4889ec5d31ed"), "rbp is restored"),
    "a word too many popped": (FENTRY, put_in("c3", "4883c408c3"), "leave: the body is reached"),
    "ret 8": (ALL, put_in("c3", "c20800"), "rsp is restored"),
    "argument not restored": (FENTRY, put_in("488bb5", ""), "argument 1 (rsi) is restored"),
    "result lost": (ALL, put_in("488b85f8", ""), "the caller gets the return value"),
    "a narrow result lost": (NARROW, put_in("488b85f8", "31c0"), "the caller gets the return value"),
    "body entered": (ALL, put_in("4883c408", ""), "leave: the caller is reached"),
    "global variable read": (FENTRY, put_in("c9", "+488b042500001000"), NO_LOAD),
    "pointer followed": (FENTRY, put_in("c9", "+488b07"), NO_LOAD),
    "below the stack pointer read": (FENTRY, put_in("c9", "+488b4424f8"), NO_LOAD),
    "pointer written through": (FENTRY, put_in("4889c3", "+488907"), NO_STORE),
    "pointer written through before there is a frame": (FENTRY, put_in("55", "+488907"), NO_STORE),
    "global variable written before there is a frame": (FENTRY, put_in("55", "+48890425000010ff"), NO_STORE),
    "return address written": (FENTRY, put_in("c9", "+48c7450800000000"), NO_STORE),
    "below the stack pointer written": (FENTRY, put_in("c9", "+48894424f8"), NO_STORE),
    "stack pointer gone": (FENTRY, put_in("c9", "+4889c4"), STACK_POINTER),
    "stack pointer far down": (FENTRY, put_in("4881ec", "4881ec00100000"), STACK_POINTER),
    "endless loop": (FENTRY, put_in("c9", "ebfe"), "the image is left within 708 instructions"),
    "SSE written": (FENTRY, put_in("c9", "+660f76c0"), ONLY_GENERAL),
    "interrupts disabled": (FENTRY, put_in("c9", "+fa"), ONLY_GENERAL),
    "undefined": (FENTRY, put_in("c9", "+0f0b"), NO_FAULT),
    "a session's cookie is not cleared": (
        SESSION,
        put_in("488985d8", ""),
        "fsession 1 at entry: its session cookie is what it left",
    ),
    "a session's cookie is lost": (
        SESSION,
        put_in(LOAD_RDI, "+48c785d8ffffff00000000"),
        "fsession 1 at return: its session cookie is what it left",
    ),
    "a cookie for two sessions": (
        SESSION,
        put_in("48b80102", "b801030000"),
        "fsession 2 at entry: its session cookie is its own",
    ),
    "another cookie at return": (
        SESSION,
        put_in("48b80103", "48b80104000000000080", 1),
        "fsession 1 at return: its session cookie stays",
    ),
    "a cookie below the frame": (
        SESSION,
        put_in("48b80103", "b801ff0000"),
        "fsession 1 at entry: its session cookie is in the frame",
    ),
    "phase not told": (
        SESSION,
        put_in("48b801", "b801000000", 5),
        "fsession 2 at return: ctx[-1] tells entry from return",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_each_obligation_can_fall(case: str) -> None:
    """With the edit the obligation is refuted, and broken in execution."""
    goal, edit, obligation = BROKEN[case]
    image = Trampoline(goal).image(edit)
    verdict = prove(image, goal)

    assert obligation == refuted(verdict)
    assert verdict.counterexample is not None
    assert image.holds(verdict.counterexample.at)


@pytest.mark.proof
def test_z3_alone_decides_alike() -> None:
    """With every decision by z3, each image is refuted by the same obligation, and without its edit proved."""
    for goal, edit, obligation in BROKEN.values():
        verdict = prove(Trampoline(goal).image(), goal, thorough=True)

        assert ("proved", 0) == (verdict.outcome, verdict.figures.plain)
        assert obligation == refuted(prove(Trampoline(goal).image(edit), goal, thorough=True))


def test_of_every_obligation_there_is_one_that_falls() -> None:
    """What the proofs of these goals name, numbers and kinds aside, is refuted by some edit."""
    goals = [*(goal for goal, _, __ in BROKEN.values()), SHARING]
    named = {pattern(name) for goal in goals for name in prove(Trampoline(goal).image(), goal).obligations}
    fallen = {pattern(obligation) for _, __, obligation in BROKEN.values()}

    assert set() == named - fallen


def pattern(obligation: str) -> str:
    """An obligation without what tells its instances apart."""
    kind = r"(fentry|fexit|fmod_ret|lsm|fsession) [0-9]+( at entry| at return)?"
    step = rf"{kind}(: (enter|program|exit))?|original|tramp_(enter|exit)|leave"
    text = re.sub(rf"^({step}): ", "STEP: ", obligation)
    text = re.sub(r"STEP: .* is reached", "STEP: it is reached", text)
    return re.sub(r"\br([a-d]x|[sd]i|[sb]p|[0-9]+)\b|[0-9]+", "N", text)
