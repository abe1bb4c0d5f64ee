"""The kernel patches images while tasks are in them, so that they do not run programs that have been detached.

Until 7.3 the nop behind the call of the original becomes a jump behind the fexit programs (im->ip_after_call, since
e21aa341785c, "bpf: Fix fexit trampoline."); in 7.3 the nop before each program becomes a jump over it
(bpf_trampoline_skip_prog). The kernel notes these places when it builds an image. Where the notes are not known, the
places are found again by their nops, and the jumps are what they should be: a place found wrongly can make a proof
fail, but not succeed.

Either kernel puts a jump in each place once, and takes none out: it pokes a nop, and forgets the note.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NamedTuple

from properties.prover.architecture import Architecture
from properties.prover.goal import Goal, Run
from properties.prover.image import Image, Patch
from properties.prover.lift import lifter
from properties.prover.operations import LiftedInstruction, Op, OpKind, Space
from properties.prover.steps import RETURNED_EARLY, skipped, steps
from spec.abi import SLOT_BYTES

__all__ = ["NotedPlace", "UnplacedError", "while_detaching"]


class NotedPlace(NamedTuple):
    """A place that the kernel noted, and where its jump goes.

    program: the struct bpf_prog that it jumps over; None: it jumps behind the fexit programs.
    """

    at: int
    target: int
    program: int | None = None


class UnplacedError(Exception):
    """The kernel patches an image, and where is not known; the text says why."""


def while_detaching(
    image: Image, goal: Goal, architecture: Architecture, noted: Sequence[NotedPlace] | None = None
) -> tuple[Image, Goal] | None:
    """The image with its patches, and what is to be proved of it then; None where it has no place to patch.

    noted: the places that the kernel noted when it built the image; None where nobody knows. UnplacedError where it
    patches some, and not all are known.
    """
    patches = _find_patches(image, goal, architecture) if noted is None else _name_noted(goal, noted)
    if not patches:
        return None
    return replace(image, patches=patches), replace(goal, patches=frozenset(patch.name for patch in patches))


def _name_noted(goal: Goal, noted: Sequence[NotedPlace]) -> tuple[Patch, ...]:
    """Names the places that a kernel noted: all are of programs, in the order in which these run, or none is."""
    places = sorted(noted)
    pointers = [place.program for place in places]
    if not any(pointers):
        if len(places) != int(goal.calls_original):
            raise UnplacedError(f"the kernel noted {len(places)} places behind the original")
        return tuple(Patch(place.at, place.target, RETURNED_EARLY) for place in places)
    runs = (*goal.fentry, *goal.fmod_ret, *goal.fexit)
    wanted = [goal.programs[run.program].pointer for run in runs]
    if len(runs) != len(places) or any(one not in {None, other} for one, other in zip(wanted, pointers, strict=True)):
        raise UnplacedError("the places that the kernel noted are not one for each run of a program, in order")
    return tuple(Patch(place.at, place.target, skipped(run)) for place, run in zip(places, runs, strict=True))


def _find_patches(image: Image, goal: Goal, architecture: Architecture) -> tuple[Patch, ...]:
    """Finds the places by their nops; a kernel has them before all programs, or only behind the original."""
    code = lifter(architecture).sweep(image.code, image.address, image.used)
    calls = _find_calls(code, architecture)
    todo = steps(goal)[:-1]
    if len(calls) != len(todo):
        raise UnplacedError("the calls of the image are not those of its programs")
    nops = [at for at, instruction in code.items() if _read_bytes(image, at, instruction) == architecture.nop]
    places = {step.text: at for step, at in zip(todo, calls, strict=True)}
    runs = [step.run for step in todo if step.run and step.what == "program"]
    found = {run: _jump_over(run, places, nops, code) for run in runs}
    if None not in found.values():
        return tuple(patch for patch in found.values() if patch)
    # The nop behind the original is also the last before the first program there.
    behind = goal.fexit[:1]
    if any(patch is not None and run not in behind for run, patch in found.items()):
        raise UnplacedError("some programs have a nop before them, and others have none")
    if not goal.calls_original:
        return ()
    patch = _jump_behind_original(image, places, nops, code, architecture)
    if patch is None:
        raise UnplacedError("there is no nop behind the original")
    return (patch,)


def _find_calls(code: Mapping[int, LiftedInstruction], architecture: Architecture) -> list[int]:
    """Finds the calls, in order: by a call, or by a return behind an instruction that makes the way back."""
    link = architecture.convention.link
    place = lifter(architecture).registers[link][0] if link else None
    calls = []
    before: LiftedInstruction | None = None
    for at, instruction in code.items():
        linked = before is not None and any(
            op[2] is not None
            and op[2][:2] == (Space.REGISTER, place)
            and op[3] == ((Space.CONSTANT, at + instruction.size, SLOT_BYTES),)
            for op in before.ops
        )
        if instruction.departure == "call" or (instruction.departure == "return" and linked):
            calls.append(at)
        before = instruction
    return calls


def _read_bytes(image: Image, at: int, instruction: LiftedInstruction) -> bytes:
    start = at - image.address
    return image.code[start : start + instruction.size]


def _jump_over(run: Run, places: dict[str, int], nops: list[int], code: dict[int, LiftedInstruction]) -> Patch | None:
    """Makes the patch that jumps over one program: from the last nop before it to behind its exit."""
    enter, leave = places[f"{run.place}: enter"], places[f"{run.place}: exit"]
    before = max((call for call in places.values() if call < enter), default=0)
    last = bisect_left(nops, enter) - 1
    if last < 0 or nops[last] < before:
        return None
    return Patch(nops[last], leave + code[leave].size, skipped(run))


def _jump_behind_original(
    image: Image,
    places: dict[str, int],
    nops: list[int],
    code: dict[int, LiftedInstruction],
    architecture: Architecture,
) -> Patch | None:
    """Makes the patch that jumps from the nop behind the original to where tramp_exit's argument is made."""
    original, leave = places.get("original"), places.get("tramp_exit")
    if original is None or leave is None:
        return None
    following = min(call for call in places.values() if call > original)
    first = bisect_right(nops, original)
    if first == len(nops) or nops[first] > following:
        return None
    argument = lifter(architecture).registers[architecture.convention.arguments[0]][0]
    target, order = leave, sorted(code)
    for at in reversed(order[: order.index(leave)]):
        counts = architecture.counting(_read_bytes(image, at, code[at]), at) is not None
        ops = code[at].ops
        if not counts and not (ops and all(op[0] is OpKind.COMPUTE and _puts_into(op, argument) for op in ops)):
            break
        target = at
    return Patch(nops[first], target, RETURNED_EARLY)


def _puts_into(op: Op, register: int) -> bool:
    """Whether an operation's result goes to this register, or stays within the instruction."""
    return op[2] is not None and (op[2][0] == Space.UNIQUE or op[2][1] == register)
