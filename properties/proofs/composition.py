"""Trampoline and helper together: a program that asks a helper gets the answer that the goal promises.

In an image, whoever made it, the call of a program is redirected to code that asks a helper and then jumps to the
program. To the image's obligations is added that the answer is the right one, which the goal alone tells.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass, replace
from typing import Final

from impl.batched.jit.inlines import BPF_CTX, UNTOUCHED, asking, inline
from properties.proofs.inlines import BPF_CTX_ADDRESS
from properties.prover.architecture import Architecture
from properties.prover.claims import Claim, claim_of, disjoint, stack_span
from properties.prover.goal import Goal, Program, Run
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import AccessRegion, FrameBounds, Machine
from properties.prover.obligations import Obligations, Progress
from properties.prover.steps import FUNCTION, ImageStep
from properties.prover.terms import Value, sub
from properties.prover.x86_64 import X86_64
from spec.abi import SLOT_BYTES
from spec.semantics import Semantics

__all__ = ["Composed", "composed"]

BPF_CTX_PLACE: Final = 1 << 40
CALL_BYTES: Final = 5


@dataclass(frozen=True)
class Composed:
    """A Subject: a goal whose program at this place asks a helper, for this index."""

    goal: Goal
    place: int
    helper: str
    index: int = 0

    def claim(self, image: Image, architecture: Architecture) -> Claim:
        """See Claimant. The pointer to the run context, in struct task_struct, is not in the frame."""
        claim = claim_of(image, self.goal, architecture)
        region = AccessRegion(BPF_CTX_ADDRESS, BPF_CTX_PLACE, 0, SLOT_BYTES)
        frame = FrameBounds(claim.frame.readable, (*claim.frame.regions, region))
        return replace(
            claim,
            demands=_Asking(self, architecture),
            frame=frame,
            facts=lambda: [*claim.facts(), disjoint((region.base, 0, SLOT_BYTES), stack_span(frame, architecture))],
            memory={**claim.memory, BPF_CTX_PLACE: 0},
        )


def composed(image: Image, asks: Composed, semantics: Semantics) -> Image:
    """The image, of x86-64, in which the program asks; BadInputError where its kind has no such helper."""
    program = asks.goal.programs[asks.place]
    code = inline(asks.helper, semantics, program.kind)
    added = asking(code, {BPF_CTX: BPF_CTX_ADDRESS}, asks.index, image.end, program.code)
    led = bytearray(image.code[: image.used])
    for at in lifter(X86_64).sweep(image.code, image.address, image.used):
        start = at - image.address
        branch = X86_64.branch(image.code[start:], at)
        if branch is not None and branch.kind == "call" and branch.target == program.code:
            led[start + 1 : start + CALL_BYTES] = (image.used - start - CALL_BYTES).to_bytes(4, "little")
    whole = bytes(led) + added
    return replace(image, code=whole + image.code[image.used :], used=len(whole))


class _Asking(Obligations):
    """A goal's obligations, and those of the answers."""

    def __init__(self, subject: Composed, architecture: Architecture) -> None:
        super().__init__(subject.goal, architecture)
        self._subject = subject
        self._answer = architecture.convention.results[0]
        # Where asking() leaves what the helper has stored.
        self._stored = architecture.convention.arguments[3]

    def _is_paired(self, step: ImageStep) -> bool:
        """The code that asks is called, and jumps to the program."""
        asking = step.what == "program" and step.run is not None and step.run.program == self._subject.place
        return not asking and super()._is_paired(step)

    def _enter(self, machine: Machine, progress: Progress, step: ImageStep, run: Run) -> Progress:
        """Lets the helper that enters a program also point the task to its run context."""
        after = super()._enter(machine, progress, step, run)
        machine.set_word(BPF_CTX_ADDRESS, after.run_context)
        return after

    def _run_program(
        self, machine: Machine, progress: Progress, step: ImageStep, run: Run, program: Program
    ) -> Progress:
        if run.program != self._subject.place:
            return super()._run_program(machine, progress, step, run, program)
        got, stored = machine.register(self._answer), machine.register(self._stored)
        context = self._read_argument(machine, 0)
        after = super()._run_program(machine, progress, step, run, program)
        answer, value, bits = self._promise(machine, progress, run, context)
        helper = self._subject.helper
        if answer is not None:
            machine.same(f"{step.place}: {helper} returns what is promised", got, answer)
        machine.same(f"{step.place}: {helper} stores what is promised", stored, value, bits)
        return after

    def _promise(self, machine: Machine, progress: Progress, run: Run, context: Value) -> Answer:
        """Promises, by the goal, what the helper returns and stores, and how many bits of that count."""
        helper, index = self._subject.helper, self._subject.index
        if helper == "bpf_get_func_arg":
            if index >= progress.slots:
                return -errno.EINVAL % (1 << 64), UNTOUCHED, 64
            return 0, self._name_value(machine, index), self._count_bits(self._slots[index].size)
        if helper == "bpf_get_func_ret":
            if run.list == "fentry" and self.goal.programs[run.program].kind != "fsession":
                return -errno.EOPNOTSUPP % (1 << 64), UNTOUCHED, 64
            return 0, progress.slot, self._result_bits
        return self._promise_result(machine, progress, run, context), UNTOUCHED, 64

    def _promise_result(self, machine: Machine, progress: Progress, run: Run, context: Value) -> Value | None:
        """Promises what a helper that stores nothing returns; None where the goal promises nothing."""
        bindings = machine.bindings
        index, cookie = bindings.get(f"session {run.program}"), bindings.get(f"cookie {run.program}")
        return {
            "bpf_get_func_ip": self.goal.function if self.goal.lookup_ip is None else machine.symbol(FUNCTION, 64),
            "bpf_get_func_arg_cnt": progress.slots,
            "bpf_get_attach_cookie": cookie,
            "bpf_session_is_return": int(run.list == "fexit"),
            "bpf_session_cookie": sub(context, SLOT_BYTES * index, 64) if index is not None else None,
        }[self._subject.helper]


Answer = tuple[Value | None, Value, int]
