"""The images that `batched` has in place, each with its goal: what is proved are the bytes that calls run.

This is the only proof that looks inside `batched`: at its state for the goal, and at its memory for the image.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from impl.batched import Batched
from impl.batched.machine import addresses as at
from impl.batched.machine.entries import body_addresses, entry_addresses
from impl.batched.machine.images import image_object, program_symbols
from impl.batched.machine.routines import routines
from impl.batched.state import Program as Loaded
from properties.proofs.generated import list_patches
from properties.prover.goal import Goal, Program
from properties.prover.image import Image, Patch
from properties.prover.steps import RETURNED_EARLY, skipped
from properties.prover.x86_64 import X86_64
from spec.abi import SLOT_BYTES, SYSTEM_V
from spec.prototypes import Prototype, Type

__all__ = ["installed"]

LONG = Type("long", "INT", SLOT_BYTES)
VOID = Type("void", "VOID", 0)
ANY_ARITY = Prototype((LONG,) * len(SYSTEM_V.arguments), LONG)


def installed(system: Batched) -> Iterator[tuple[str, Image, Goal]]:
    """Each image that is in place, once, with the name of the first function that has it.

    The goal is that of an image whose programs are being detached while tasks are in it, as the system's kernel patches
    it then. When an image could not be replaced as a program left, it has jumps over the runs of those that have left.
    """
    seen: set[int] = set()
    for index in np.flatnonzero(system.text.image_sizes()).tolist():
        address, size = system.text.image(index)
        if address not in seen:
            seen.add(address)
            goal = _make_goal(system, index, address)
            code = system.text.images.read(address, size)
            patches = _list_patches(system, index, address, goal)
            image = _restore_nops(Image(address, code + b"\xcc" * 8, size, patches))
            yield (
                system.state.functions.all[index].name,
                image,
                replace(goal, patches=frozenset(one.name for one in patches)),
            )


def _list_patches(system: Batched, index: int, address: int, goal: Goal) -> tuple[Patch, ...]:
    """Lists the places that the kernel patches: before each program, or behind the original (TASK-4, TASK-5).

    In any kernel it is before those that are in the image, but no longer in the function's lists (IMAGE-2).
    """
    trampolines, facts = system.state.trampolines, system.state.facts
    linked = set(_list_programs(system, int(trampolines.sets.of[index])))
    made_of = _list_programs(system, int(trampolines.images(np.array([index]))[0]))
    wanted = {
        (run.program, run.list): skipped(run)
        for run in (*goal.fentry, *goal.fmod_ret, *goal.fexit)
        if facts.skips_detached or made_of[run.program] not in linked
    }
    behind = {RETURNED_EARLY} if facts.image_put_skips_fexit else set()
    places = list_patches(system.text.template_of(index), goal, address)
    return tuple(patch for patch in places if patch.name in behind.union(wanted.values()))


def _restore_nops(image: Image) -> Image:
    """Puts the nops back in place of an image's patches, where these are what they should be."""
    code = bytearray(image.code)
    for patch in image.patches:
        start, jump = patch.at - image.address, X86_64.jump(patch.at, patch.target)
        if code[start : start + len(jump)] == jump:
            code[start : start + len(jump)] = X86_64.nop
    return replace(image, code=bytes(code))


def _list_programs(system: Batched, number: int) -> list[Loaded]:
    """The programs of a class, in the order of attaching."""
    state = system.state
    sets = state.trampolines.sets
    return [state.program_numbered[int(sets.node_program[node])] for node in sets.row(number)]


def _make_goal(system: Batched, index: int, address: int) -> Goal:
    """Makes the goal of an image, from the programs that it was made of."""
    state, where = system.state, np.array([index])
    trampolines, known = state.trampolines, routines().address
    prototype = state.functions.all[index].prototype
    assert prototype is not None
    made_of = int(trampolines.images(where)[0])
    loaded = _list_programs(system, made_of)
    symbols = program_symbols(state, trampolines.sets.row(made_of))
    func_ip = any(program.func_ip for program in loaded)
    shared = trampolines.level != "per_function"
    generic = trampolines.level == "generic" and prototype.in_registers
    return Goal(
        _of_any_arity(prototype) if generic else prototype,
        tuple(_describe_program(program, symbols, place) for place, program in enumerate(loaded)),
        function=int(entry_addresses(where)[0]),
        body=int(body_addresses(where)[0]),
        site="jmp" if system.text.direct()[index] & 1 else "call",
        helpers={name: found for name, found in known.items() if name.startswith("__bpf_")},
        func_ip=func_ip,
        shares_ipmodify=bool(trampolines.orig_stack[index]) or shared,
        im=int(image_object(np.array([address - at.IMAGES]))[0]),
        lookup=known["lookup"] if generic else None,
        counts=tuple(range(len(SYSTEM_V.arguments) + 1)) if generic else (),
        lookup_ip=known["lookup_ip"] if shared and func_ip else None,
    )


def _of_any_arity(prototype: Prototype) -> Prototype:
    """As many arguments as there are registers. Whether a hook returns something decides where its programs stand."""
    return Prototype(ANY_ARITY.arguments, VOID) if prototype.returns.kind == "VOID" else ANY_ARITY


def _describe_program(program: Loaded, symbols: dict[str, int], place: int) -> Program:
    return Program(
        program.kind,  # type: ignore[arg-type]
        symbols[f"code {place}"],
        pointer=symbols[f"prog {place}"],
        cookie=symbols[f"cookie {place}"],
        sleepable=program.sleepable,
        session_cookie=program.kind == "fsession",
    )
