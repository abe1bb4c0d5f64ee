"""Images of the generator, each with the goal that its maker was given: the goal never comes from the image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Literal

from impl.batched.jit.generate import template
from impl.batched.jit.isa import Isa
from impl.batched.jit.plan import ImagePlan, LinkKind, PlanError, TrampLink
from impl.batched.jit.template import Template
from impl.batched.jit.x86_64 import X86_64 as ISA
from properties.prover.architecture import Architecture
from properties.prover.goal import Goal, Program, Run
from properties.prover.image import Image, Patch
from properties.prover.steps import RETURNED_EARLY, skipped
from properties.prover.x86_64 import X86_64
from spec.prototypes import Prototype

__all__ = ["bound", "generated", "goal_of", "list_patches", "while_detaching"]

# Offsets in the kernel's text, which each architecture has elsewhere.
IMAGE: Final = 0x40010000
FUNCTION: Final = 0x1234560
LOOKUP: Final = 0x1200000
LOOKUP_IP: Final = 0x1200100
CODE: Final = IMAGE - 0x8000
HELPERS: Final = {
    name: 0x1100000 + 0x100 * number
    for number, name in enumerate(
        (
            "__bpf_tramp_enter __bpf_tramp_exit __bpf_prog_enter_recur __bpf_prog_exit_recur "
            "__bpf_prog_enter_sleepable_recur __bpf_prog_exit_sleepable_recur "
            "__bpf_prog_enter __bpf_prog_exit __bpf_prog_enter_sleepable __bpf_prog_exit_sleepable"
        ).split()
    )
}

IM: Final = 0xFFFF888004A78000
POINTER: Final = 0xFFFFC90000085000


def generated(
    prototype: Prototype,
    programs: Sequence[Program],
    *,
    shared: bool = False,
    generic: bool = False,
    site: Literal["call", "jmp"] = "call",
    func_ip: bool = False,
    orig_stack: bool = False,
    isa: Isa = ISA,
    architecture: Architecture = X86_64,
) -> tuple[Image, Goal]:
    """The image of what is asked for, at a fixed address, and what it must do. PlanError where there is none.

    Programs get their addresses here. generic: of functions with the first 0 to all of the prototype's slots.
    """
    if generic and not all(slot.register for slot in architecture.convention.slots(prototype.shape.arguments)):
        raise PlanError("an image for every arity finds no arguments on the stack")
    plan = ImagePlan(prototype.shape, _make_links(prototype, programs), func_ip, orig_stack, site, shared or generic)
    if generic:
        plan = replace(plan, shape=None)
    goal = goal_of(prototype, programs, plan, architecture)
    return bound(template(plan, isa), goal, architecture), goal


def _make_links(prototype: Prototype, programs: Sequence[Program]) -> tuple[TrampLink, ...]:
    """The links of programs; an lsm program's is in the list that the hook's return value decides, and unguarded."""
    of_hooks: LinkKind = "fmod_ret" if prototype.returns.size else "fexit"
    return tuple(
        TrampLink(
            of_hooks if program.kind == "lsm" else program.kind, bool(program.sleepable), guarded=program.kind != "lsm"
        )
        for program in programs
    )


def goal_of(
    prototype: Prototype, programs: Sequence[Program], plan: ImagePlan, architecture: Architecture = X86_64
) -> Goal:
    """What an image of the plan must do for a function, with addresses of our own."""
    text = architecture.kernel_text[0]
    placed = tuple(
        replace(
            program,
            code=text + CODE + 0x40 * place,
            pointer=POINTER + 0x1000 * place,
            session_cookie=program.kind == "fsession",
        )
        for place, program in enumerate(programs)
    )
    return Goal(
        prototype,
        placed,
        function=text + FUNCTION,
        body=text + FUNCTION + architecture.site_end,
        site=plan.site,
        helpers={name: text + offset for name, offset in HELPERS.items()},
        func_ip=plan.func_ip,
        shares_ipmodify=plan.by_stack,
        im=IM,
        lookup=text + LOOKUP if plan.generic else None,
        counts=tuple(range(len(architecture.convention.slots(prototype.shape.arguments)) + 1)) if plan.generic else (),
        lookup_ip=text + LOOKUP_IP if plan.by_address and plan.func_ip else None,
    )


def bound(made: Template, goal: Goal, architecture: Architecture = X86_64) -> Image:
    """A template, relocated to a fixed address and to the addresses of a goal, with the places where it is patched."""
    address = architecture.kernel_text[0] + IMAGE
    symbols = dict(goal.helpers) | {"body": goal.body, "function": goal.function, "im": goal.im or 0}
    symbols |= {"lookup": goal.lookup or 0, "lookup_ip": goal.lookup_ip or 0}
    for place, program in enumerate(goal.programs):
        symbols[f"code {place}"] = program.code
        symbols[f"prog {place}"] = program.pointer or 0
        symbols[f"cookie {place}"] = program.cookie or 0
    code = made.relocate(address, symbols)
    # An instruction that does not belong to the image follows it.
    return Image(address, code + b"\xcc" * len(architecture.nop), len(code), tuple(list_patches(made, goal, address)))


def list_patches(made: Template, goal: Goal, address: int) -> list[Patch]:
    """The places at which a template is patched, as its maker noted them, in an image at an address."""
    names = {(run.program, run.list): skipped(run) for run in _list_runs(goal)}
    found = [
        Patch(address + skip.at, address + skip.behind, names[skip.run.link, skip.run.list])
        for skip in made.skips
        if (skip.run.link, skip.run.list) in names
    ]
    if made.after_call is not None and made.epilogue is not None:
        found.append(Patch(address + made.after_call, address + made.epilogue, RETURNED_EARLY))
    return found


def _list_runs(goal: Goal) -> tuple[Run, ...]:
    return (*goal.fentry, *goal.fmod_ret, *goal.fexit)


def while_detaching(goal: Goal) -> Goal:
    """The same goal while a task is in the image, and any of its programs, or all, are being detached."""
    return replace(goal, patches=frozenset({RETURNED_EARLY, *map(skipped, _list_runs(goal))}))
