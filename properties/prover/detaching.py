"""Where the kernel patches an image while tasks are in it, so that they do not run programs that have been detached.

Until 7.3 the nop behind the call of the original becomes a jump behind the fexit programs (im->ip_after_call, since
e21aa341785c, "bpf: Fix fexit trampoline."); in 7.3 the nop before each program becomes a jump over it
(bpf_trampoline_skip_prog). The kernel notes these places when it builds an image; here they are found again by their
nops. A wrong find can make a proof fail, not succeed: what is proved are the patched bytes.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import replace

from properties.prover.architecture import Architecture
from properties.prover.goal import Goal, Run
from properties.prover.image import Image, Patch
from properties.prover.lift import lifter
from properties.prover.operations import Instruction
from properties.prover.steps import RETURNED_EARLY, skipped, steps

__all__ = ["while_detaching"]


def while_detaching(image: Image, goal: Goal, architecture: Architecture) -> tuple[Image, Goal] | None:
    """The image with its patches, and what is to be proved of it then; None where it has no place to patch."""
    code = lifter(architecture).sweep(image.code, image.address, image.used)
    calls = [at for at, instruction in code.items() if instruction.calls]
    todo = steps(goal)[:-1]
    if len(calls) != len(todo):
        return None
    nops = [at for at, instruction in code.items() if _read_bytes(image, at, instruction) == architecture.nop]
    places = {step.text: at for step, at in zip(todo, calls, strict=True)}
    found = [_jump_over(step.run, places, nops, code) for step in todo if step.run and step.what == "program"]
    if None in found:
        found = [_jump_behind_original(places, nops, sorted(code))]
    patches = tuple(patch for patch in found if patch)
    if not patches:
        return None
    return replace(image, patches=patches), replace(goal, patches=frozenset(patch.name for patch in patches))


def _read_bytes(image: Image, at: int, instruction: Instruction) -> bytes:
    start = at - image.address
    return image.code[start : start + instruction.size]


def _jump_over(run: Run, places: dict[str, int], nops: list[int], code: dict[int, Instruction]) -> Patch | None:
    """The jump over one program: from the last nop before it to behind its exit."""
    enter, leave = places[f"{run.place}: enter"], places[f"{run.place}: exit"]
    before = max((call for call in places.values() if call < enter), default=0)
    last = bisect_left(nops, enter) - 1
    if last < 0 or nops[last] < before:
        return None
    return Patch(nops[last], leave + code[leave].size, skipped(run))


def _jump_behind_original(places: dict[str, int], nops: list[int], order: list[int]) -> Patch | None:
    """The jump behind the fexit programs: from the nop behind the original to where tramp_exit's argument is loaded."""
    original, leave = places.get("original"), places.get("tramp_exit")
    if original is None or leave is None:
        return None
    following = min(call for call in places.values() if call > original)
    first = bisect_right(nops, original)
    if first == len(nops) or nops[first] > following:
        return None
    return Patch(nops[first], order[order.index(leave) - 1], RETURNED_EARLY)
