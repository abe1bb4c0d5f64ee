"""An image for all arities; addresses that depend on what is not known before the image runs; cost by programs."""

from __future__ import annotations

import pytest

from properties.prover.executor import Executor
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.machine import NO_STALE
from properties.prover.proving import prove
from properties.prover.verdicts import Figures
from spec.abi import SYSTEM_V
from tests.support.prove_images import HELPERS, IM, Edit, Trampoline, both, goal_of, long, of_kinds, put_in

LOOKUP = 0xFFFFFFFF81200000
RETURN_SLOT = "4889 44cd c8".replace(" ", "")
MOST = len(SYSTEM_V.arguments)


class Generic(Trampoline):
    """One image for functions of 0 to 6 arguments: it asks for the number, and keeps the result behind that many."""

    def _prologue(self) -> None:
        layout = self.layout
        for code in (b"\x55", b"\x48\x89\xe5", b"\x48\x81\xec" + layout.size.to_bytes(4, "little")):
            self.emit(code)
        self.store("rbx", layout.rbx)
        self._save_arguments()
        self.load("rdi", -8)
        self.call(LOOKUP)
        self.store("rax", layout.meta)
        self.constant("rdi", IM)
        self.call(HELPERS["__bpf_tramp_enter"])

    def _result(self, code: bytes) -> None:
        """Something with [rbp + 8 * rcx - 56], the word behind as many as the function has."""
        self.load("rcx", self.layout.meta)
        self.emit(code)

    def store(self, register: str, below: int) -> None:
        """As ever, but for the return slot."""
        if below == 8 and register == "rax":
            self._result(bytes.fromhex(RETURN_SLOT))
        else:
            super().store(register, below)

    def load(self, register: str, below: int) -> None:
        """As ever, but for the return slot."""
        if below == 8 and register == "rax":
            self._result(bytes.fromhex("488b44cdc8"))
        else:
            super().load(register, below)


def generic_goal(*kinds: str) -> Goal:
    return goal_of(long(MOST), *of_kinds(*kinds), lookup=LOOKUP, counts=tuple(range(MOST + 1)))


def test_one_image_for_all_arities() -> None:
    """All seven arities are proved in one run, each a case of its own."""
    goal = generic_goal("fentry", "fexit", "fexit")
    verdict = prove(Generic(goal).image(), goal)

    assert ("proved", MOST + 1) == (verdict.outcome, verdict.figures.paths)
    assert {f"fexit 1: ctx[{count}] is the return slot" for count in range(MOST + 1)} <= set(verdict.obligations)


@pytest.mark.parametrize(
    ("edit", "obligation"),
    [
        (put_in(RETURN_SLOT, "488945f8"), "fexit 1: ctx[0] is the return slot"),
        (put_in(RETURN_SLOT, "488944cdd0"), "fexit 1: enter: the chain of frames leads to the caller's"),
        (put_in("488b44cd", "488b45f8"), NO_STALE),
    ],
    ids=["always the last slot", "one slot off", "taken from the last slot"],
)
def test_a_result_in_the_wrong_slot(edit: Edit, obligation: str) -> None:
    """A result that is not behind the arguments is refuted, for the arity of which that is so."""
    goal = generic_goal("fexit")
    verdict = prove(Generic(goal).image(edit), goal)

    assert verdict.counterexample is not None
    assert obligation == verdict.counterexample.obligation


def test_an_aligned_frame() -> None:
    """After `and rsp, -16` a stack pointer that was aligned and one that was not are two cases, and both are proved."""
    goal = goal_of(long(7), *of_kinds("fentry", "fmod_ret"))
    image = Trampoline(goal).image(put_in("48899d", "+4883e4f0"))
    verdict = prove(image, goal)

    assert ("proved", 2) == (verdict.outcome, verdict.figures.paths)


def test_a_frame_of_unknown_size_is_refuted() -> None:
    """With `sub rsp, rax` and what the caller left in rax, the stack pointer may leave the frame."""
    goal = goal_of(long(1), *of_kinds("fentry"))
    verdict = prove(Trampoline(goal).image(put_in("48899d", "+4829c4")), goal)

    assert verdict.counterexample is not None
    assert "the stack pointer stays in the frame" == verdict.counterexample.obligation


def test_too_many_cases_are_undecided() -> None:
    """An address with more values than there may be cases is not guessed at."""
    goal = goal_of(long(1), *of_kinds("fentry"))
    # mov rax, rdi; and eax, 0xff; mov cl, [rsp + rax], in a frame that is large enough.
    edit = both(put_in("48899d", "+4889f825ff0000008a0c04"), put_in("4881ec", "4881ec00030000"))
    verdict = prove(Trampoline(goal).image(edit), goal)

    assert "undecided" == verdict.outcome
    assert verdict.reason is not None
    assert "more than 64 cases" in verdict.reason


@pytest.mark.parametrize("address", [0x10000, 0xFFFF800000100000, 0xFFFF888000000000, (1 << 64) - 0x1000])
def test_an_image_may_be_anywhere(address: int) -> None:
    """Also where the stack may be, and at the end of memory: the stack is then elsewhere."""
    goal = goal_of(long(0), *of_kinds("fentry"), site="jmp")
    code = bytes.fromhex("5b90")
    verdict = prove(Image(address, code, len(code)), goal)

    assert "refuted" == verdict.outcome


def figures(count: int, skips: bool = False) -> Figures:
    goal = goal_of(long(8), *of_kinds(*["fentry"] * count, *["fmod_ret"] * count, *["fexit"] * count))
    verdict = prove(Trampoline(goal, skips=skips).image(), goal)

    assert ("proved", 1, 0) == (verdict.outcome, verdict.figures.paths, verdict.figures.asked)
    return verdict.figures


def test_cost_is_linear_in_programs() -> None:
    """38 programs of each kind take at most 60 times the work of one of each: paths are merged."""
    one, few, most = figures(1), figures(2), figures(38)

    assert most.instructions <= 60 * one.instructions
    assert most.plain <= 60 * one.plain
    assert (most.instructions - one.instructions) == 37 * (few.instructions - one.instructions)


def test_without_merging_the_verdict_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    """Merging saves work, and decides nothing: path by path the image is proved as well, and the broken one refuted."""
    goal = goal_of(long(2), *of_kinds("fentry", "fmod_ret", "fexit"))
    trampoline = Trampoline(goal)
    broken = trampoline.image(put_in("4889de", "4889ce", 2))
    merged = prove(broken, goal)
    monkeypatch.setattr(Executor, "_agree", lambda *_: False)
    apart = prove(trampoline.image(), goal)
    refuted = prove(broken, goal)

    assert ("proved", True) == (apart.outcome, apart.figures.paths > 6)
    assert merged.counterexample is not None
    assert refuted.counterexample is not None
    assert merged.counterexample.obligation == refuted.counterexample.obligation
