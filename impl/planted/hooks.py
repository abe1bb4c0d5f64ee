"""Bugs of LSM programs: what they may return, where they stand, and whether they meet themselves."""

from __future__ import annotations

from typing import Any

from impl.batched.state import Program, State
from impl.planted.planting import Origin, Original, planted
from spec.operations import LSM
from spec.semantics import Semantics


@planted(
    "lsm._may_return",
    rule="LSM-3",
    origin=Origin(0, "5d99e198be27", "bpf, lsm: Add check for BPF LSM return value"),
    semantics="linux-6.12",
    minimal="bpf_prog_load p1 lsm target=foo1 returns=1",
)
def lsm_returns_anything(_original: Original, _state: State, _program: Program, _index: int) -> bool:
    """The verifier does not look at what a program returns, so that a hook's caller may take it for success."""
    return True


@planted(
    "lsm._may_return",
    rule="LSM-3",
    origin=Origin(0, "763aa759d3b2", "bpf: Fix compare error in function retval_range_within"),
    semantics="linux-7.3",
    minimal="bpf_prog_load p1 lsm target=foo1 returns=4294967296",
)
def lsm_return_compared_whole(original: Original, state: State, program: Program, index: int) -> bool:
    """The verifier compares all of R0 with a range of 32 bits."""
    signed = (program.returns + (1 << 63)) % (1 << 64) - (1 << 63)
    return bool(original(state, program, index)) and abs(signed) < 1 << 31


@planted(
    "state.Program.is_guarded",
    rule="LSM-5",
    origin=Origin(0, "271de525e1d7", "bpf: Remove prog->active check for bpf_lsm and bpf_iter"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 lsm calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def lsm_is_guarded(_original: Original, _program: Program) -> bool:
    """A program that is running is skipped, though it is a hook's and has to decide."""
    return True


@planted(
    "links.lists_of",
    rule="LSM-4",
    origin="rule",
    semantics="linux-6.1",
    minimal="""
    bpf_prog_load p1 lsm
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def lsm_always_at_exit(original: Original, kind: str, *, void: bool = False) -> Any:
    """A program of any hook stands in the fexit list, so that it cannot deny."""
    return original(kind, void=void or kind == LSM)


@planted(
    "machine.loading.helper_name",
    rule="LSM-6",
    origin="rule",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 lsm
    bpf_raw_tracepoint_open l1 p1 foo0
    call foo0
    """,
)
def lsm_return_is_not_told(original: Original, helper: str, kind: str, semantics: Semantics) -> Any:
    """bpf_get_func_ret answers an lsm program as it does a fentry program."""
    hidden = helper == "bpf_get_func_ret" and kind == LSM
    return original(helper, "fentry" if hidden else kind, semantics)
