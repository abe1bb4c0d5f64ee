"""Bugs in what programs see, in their order, and in what their return values decide."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from impl.batched.cost import Ledger
from impl.batched.functions import Indices
from impl.batched.jit import generate
from impl.batched.jit.isa import Isa
from impl.batched.jit.plan import ImagePlan
from impl.batched.jit.template import Template
from impl.batched.machine.bpf import helper_name
from impl.batched.machine.routines import Routines
from impl.batched.sets import ProgramSets
from impl.batched.state import State
from impl.planted.miscompiling import miscompiled, mistemplated
from impl.planted.planting import Original, planted
from spec.abi import Slot
from spec.semantics import PRESETS


@planted(
    "sets.ProgramSets.content",
    rule="TRAMP-1",
    origin="#49",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fsession
    bpf_prog_load p2 fsession
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p2 foo1
    """,
)
def fsession_list_order(original: Original, sets: ProgramSets, number: int) -> tuple[list[int], list[int], list[int]]:
    """A session's second node joins the tail of the fexit list, its first one the head of the fentry list."""
    fentry, fmod_ret, fexit = original(sets, number)
    twins = [node for node in reversed(fexit) if node in fentry]
    return fentry, fmod_ret, [node for node in fexit if node not in fentry] + twins


@planted(
    "cost.Ledger.miss",
    rule="PROG-8",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fsession calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def misses_once_a_call(original: Original, ledger: Ledger, programs: Counter[str]) -> None:
    """However often a program is missed in a call, it counts as once."""
    original(ledger, Counter(dict.fromkeys(programs, 1)))


@planted(
    "machine.images.template",
    rule="TRAMP-3",
    origin="#42 13fac1d85187",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fmod_ret returns=4294967296
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def fmod_test_eax(original: Original, plan: ImagePlan) -> Template:
    """Whether a fmod_ret program stops the body is tested on 32 bits."""
    return mistemplated(original(plan), "cmp qword ptr [rbp - 8], 0", "nop; cmp dword ptr [rbp - 8], 0")


@planted(
    "machine.loading.routines",
    rule="TRAMP-5",
    origin="#95",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fsession
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def func_meta_unmasked(original: Original) -> Routines:
    """bpf_get_func_arg_cnt returns the whole word of a session, cookie bits and all."""
    routine = helper_name("bpf_get_func_arg_cnt", "fsession", PRESETS["linux-7.3"])
    return miscompiled(original(), "and rax, 0xff", "; ".join(["nop"] * 6), routine=routine)


@planted(
    "machine.images.template",
    rule="ARG-2",
    origin="#81",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 spill
    call spill 1 2 3 4 5 6 7 8
    """,
)
def struct_disorder(_original: Original, plan: ImagePlan) -> Template:
    """Arguments that follow one on the stack are read from the stack too, where other values lie."""
    with patch.object(generate, "_place_slots", _disorder(generate._place_slots)):  # noqa: SLF001 a bug has no manners
        return generate.assembled(plan)


def _disorder(original: Original) -> Original:
    def slots(plan: ImagePlan, isa: Isa) -> tuple[Slot, ...]:
        found: list[Slot] = []
        stacked = 0
        for slot in original(plan, isa):
            here = slot.stack is not None or bool(stacked)
            found.append(replace(slot, register=None, stack=stacked) if here else slot)
            stacked += here
        return tuple(found)

    return slots


@planted(
    "modules._is_in_use",
    rule="MODULE-3",
    origin="31bf1dbccfb0",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry target=bar1
    delete_module mod1
    """,
)
def prog_pins_nothing(original: Original, state: State, where: Indices) -> Any:
    """A loaded program does not hold the module of its target."""
    with patch.object(state, "facts", replace(state.facts, prog_pins_module=False)):
        return original(state, where)
