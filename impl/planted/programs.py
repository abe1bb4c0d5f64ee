"""Bugs of what programs see, in which order they run, and what they decide."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

from impl.batched.functions import Indices
from impl.batched.sets import ProgramSets
from impl.batched.state import Program, State
from impl.planted.planting import Original, planted
from spec.traces import ProgramRun

__all__ = [
    "fmod_test_eax",
    "fsession_list_order",
    "func_meta_unmasked",
    "prog_pins_nothing",
    "struct_disorder",
]

HALF_WORD: Final = 1 << 32
SESSION_BIT: Final = 1 << 8


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
    "calls._Task._program",
    rule="TRAMP-3",
    origin="#42 13fac1d85187",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fmod_ret returns=4294967296
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def fmod_test_eax(original: Original, task: Any, frame: Any, node: int, word: int, *, is_return: bool = False) -> Any:
    """Whether a fmod_ret program stops the body is tested on 32 bits."""
    result = original(task, frame, node, word, is_return=is_return)
    program = task.state.program_numbered[int(task.state.trampolines.sets.node_program[node])]
    ignored = program.kind == "fmod_ret" and result is not None and result % HALF_WORD == 0
    return 0 if ignored else result


@planted(
    "calls._observed",
    rule="TRAMP-5",
    origin="#95",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fsession
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def func_meta_unmasked(original: Original, frame: Any, program: Program, *rest: Any, **options: Any) -> Any:
    """bpf_get_func_arg_cnt returns the whole word of a session, cookie bits and all."""
    run = original(frame, program, *rest, **options)
    return replace(run, arg_cnt=run.arg_cnt | SESSION_BIT) if program.kind == "fsession" else run


@planted(
    "calls._observed",
    rule="ARG-2",
    origin="#81",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 spill
    call spill 1 2 3 4 5 6 7 8
    """,
)
def struct_disorder(original: Original, frame: Any, *rest: Any, **options: Any) -> ProgramRun:
    """Behind an argument on the stack all others are looked for there too, and something else is found."""
    run: ProgramRun = original(frame, *rest, **options)
    slots = frame.function.prototype.slots if frame.function.prototype else ()
    stacked = [place for place, slot in enumerate(slots) if slot.stack is not None]
    lost = [place for place, slot in enumerate(slots) if slot.register and stacked and place > stacked[0]]
    context = tuple(0 if place in lost else word for place, word in enumerate(run.context))
    return replace(run, context=context, args=(*context[: len(slots)], *run.args[len(slots) :]))


@planted(
    "modules._in_use",
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
