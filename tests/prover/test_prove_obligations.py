"""Images laid out as Linux's are proved, in every form."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from properties.prover.detaching import while_detaching
from properties.prover.goal import READINGS, Program
from properties.prover.proving import prove
from properties.prover.x86_64 import X86_64
from tests.support.prove_images import (
    HELPERS,
    Trampoline,
    goal_of,
    goes_to,
    long,
    of_kinds,
    put_in,
    sized,
)
from tests.support.verdicts import refuted

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


@pytest.mark.parametrize(
    ("load", "size", "expected"),
    [
        ("0fb6bdf8ffffff", 1, "argument 0 (rdi) is restored"),
        ("0fb7bdf8ffffff", 2, "argument 0 (rdi) is restored"),
        ("668bbdf8ffffff", 2, "argument 0 (rdi) is restored"),
        ("8bbdf8ffffff", 1, ""),
        ("8bbdf8ffffff", 4, ""),
    ],
)
def test_a_narrow_integer_is_whole_to_32_bits_at_the_body(load: str, size: int, expected: str) -> None:
    """Functions compiled by clang rely on their callers to extend a char or short, which a shorter load breaks."""
    goal = goal_of(sized([size]), *of_kinds("fentry"))
    verdict = prove(Trampoline(goal).image(put_in("488bbdf8", load)), goal)

    assert expected == (refuted(verdict) if verdict.outcome == "refuted" else "")
    assert ("refuted" if expected else "proved") == verdict.outcome
