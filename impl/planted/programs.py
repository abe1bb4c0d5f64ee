"""Bugs in what programs see, in their order, and in what their return values decide."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

import numpy as np

from impl.batched.cost import Ledger
from impl.batched.functions import Indices
from impl.batched.jit import generate
from impl.batched.jit.assembler import assemble
from impl.batched.jit.isa import Instruction, Isa, Statement
from impl.batched.jit.plan import ImagePlan
from impl.batched.jit.template import Template
from impl.batched.machine.bpf import helper_name
from impl.batched.machine.entries import SITE_BYTES, body_addresses, entry_addresses
from impl.batched.machine.routines import Routines
from impl.batched.machine.structs import Globals, ProgramObject
from impl.batched.sets import ProgramSets
from impl.batched.state import State
from impl.planted.miscompiling import miscompiled, mistemplated
from impl.planted.planting import Origin, Original, planted
from spec.abi import Slot
from spec.semantics import PRESETS


@planted(
    "sets.ProgramSets.content",
    rule="TRAMP-1",
    origin=Origin(49),
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
    origin=Origin(42, "13fac1d85187", "bpf: Fix trampoline generation for fmod_ret programs"),
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
    origin=Origin(95),
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
    origin=Origin(81),
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
    origin=Origin(0, "31bf1dbccfb0", "bpf: Fix attaching fentry/fexit/fmod_ret/lsm to modules"),
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


def _either(right: Routines, text: str, wrong: bytes) -> Routines:
    """The routines with each piece that begins with this text replaced: the text, and what follows it, by as much."""
    start, code = assemble(text, 0), right.code
    place = code.find(start)
    assert place >= 0
    while place >= 0:
        code = code[:place] + wrong + code[place + len(wrong) :]
        place = code.find(start, place + len(wrong))
    return Routines(code, right.address)


ACTIVE: Final = f"qword ptr [rdi + {ProgramObject.ACTIVE}]"
COUNT: Final = f"inc {ACTIVE}; cmp {ACTIVE}, 1"
SAVE: Final = f"mov rax, [r11 + {Globals.CURRENT}]; mov [rsi + 8], rax; mov [r11 + {Globals.CURRENT}], rsi"
SHORT_JNE: Final = 0x75


def _jumps(code: bytes, text: str) -> int:
    """How far the short jne behind this text goes."""
    behind = code.index(assemble(text, 0)) + len(assemble(text, 0))
    assert code[behind] == SHORT_JNE
    return code[behind + 1]


@planted(
    "machine.loading.routines",
    rule="PROG-8",
    origin=Origin(45, "6764e767f4af", "bpf: Assign bpf_tramp_run_ctx::saved_run_ctx before recursion check."),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def saved_run_ctx_late(original: Original) -> Routines:
    """Entering a program that runs already returns before the run context is saved, and leaving it restores garbage."""
    right, save, count = original(), assemble(SAVE, 0), assemble(COUNT, 0)
    jne = bytes([SHORT_JNE, _jumps(right.code, f"{SAVE}; {COUNT}") + len(save)])
    return _either(right, f"{SAVE}; {COUNT}", count + jne + save)


@planted(
    "machine.loading.routines",
    rule="PROG-8",
    origin=Origin(0, "ca06f55b9002", "bpf: Add per-program recursion prevention mechanism"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def recursion_not_prevented(original: Original) -> Routines:
    """A program that calls the function which it is attached to runs again there."""
    compare = f"cmp {ACTIVE}, 1"
    return _either(original(), compare, assemble(f"{compare}; nop; nop", 0))


@planted(
    "machine.images.template",
    rule="PROG-8",
    origin=Origin(0, "dc7d7447b56b", "bpf, arm64: Fix incorrect runtime stats"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def start_of_what_did_not_run(_original: Original, plan: ImagePlan) -> Template:
    """What __bpf_prog_enter() returns is kept only where it is not 0; leaving is told what another run kept."""
    run = generate._Image._run  # noqa: SLF001 a bug has no manners

    def keep_late(image: Any, link: Any) -> Iterator[Statement]:
        made = list(run(image, link))
        keep = list(image._emit.keep())  # noqa: SLF001 as above
        place = next(n for n in range(len(made)) if made[n : n + len(keep)] == keep)
        behind = next(n for n in range(place, len(made)) if _jumps_away(made[n])) + 1
        yield from (*made[:place], *made[place + len(keep) : behind], *keep, *made[behind:])

    with patch.object(generate._Image, "_run", keep_late):  # noqa: SLF001 as above
        return generate.assembled(plan)


def _jumps_away(statement: Statement) -> bool:
    return isinstance(statement, Instruction) and statement.text.startswith("je")


@planted(
    "machine.images.template",
    rule="TRACE-2",
    origin=Origin(0, "7112cd26e606", "riscv, bpf: Track both a0 (RISC-V ABI) and a5 (BPF) return values"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 4294967296
    """,
)
def return_value_as_programs_have_it(original: Original, plan: ImagePlan) -> Template:
    """The caller gets the return value in the register of BPF programs' results, which are extended with zeros."""
    return mistemplated(original(plan), "mov rax, qword ptr [rbp - 8]", "nop; mov eax, dword ptr [rbp - 8]")


@planted(
    "machine.images.entry_addresses",
    rule="TRAMP-5",
    origin=Origin(92, "4d854f4f31ec", "bpf: Use given function address for trampoline ip arg"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry func_ip
    bpf_raw_tracepoint_open l1 p1 foo0
    call foo0
    """,
)
def func_ip_of_the_site(original: Original, where: Indices) -> Any:
    """bpf_get_func_ip() tells where the patched instruction is, which is behind an endbr64 if there is one."""
    return original(where) + (body_addresses(where) - entry_addresses(where) - np.uint64(SITE_BYTES))


@planted(
    "machine.images.body_addresses",
    rule="TRACE-2",
    origin=Origin(0, "589127105588", "x86/ibt,bpf: Add ENDBR instructions to prologue and trampoline"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo0
    call foo0
    """,
)
def body_of_a_function_with_endbr(original: Original, where: Indices) -> Any:
    """An image calls the original five bytes behind its beginning, endbr64 or not: in the middle of an instruction."""
    return np.minimum(original(where), entry_addresses(where) + np.uint64(SITE_BYTES))


@planted(
    "machine.images.body_addresses",
    rule="TRACE-2",
    origin=Origin(85, "8f3e00af8e52", "riscv, bpf: Fix incorrect usage of BPF_TRAMP_F_ORIG_STACK"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def body_begins_at_the_site(original: Original, where: Indices) -> Any:
    """An image calls the original at its patched instruction, and not behind it, and so enters itself without end."""
    return original(where) - np.uint64(SITE_BYTES)
