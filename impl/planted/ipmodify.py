"""Bugs of the handshake between IPMODIFY users and direct calls."""

from __future__ import annotations

from typing import Any

from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.state import Program, State
from impl.planted.planting import Origin, Original, planted


@planted(
    "links._refuse_second_try",
    rule="IPMODIFY-6",
    origin=Origin(24, "3e9a18e1c3e9", "ftrace: bpf: Fix IPMODIFY + DIRECT in modify_ftrace_direct()"),
    semantics="linux-7.3",
    minimal="""
    livepatch foo1
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1
    bpf_prog_load p2 fexit multi
    bpf_link_create l2 p2 foo1
    """,
)
def modify_skips_ipmodify(original: Original, state: State, program: Program, where: Indices) -> None:
    """Images that take others' places are not checked against IPMODIFY users, so the unpatched body would run."""
    if not state.trampolines.has_image(where).any():
        original(state, program, where)


@planted(
    "machine.images.Images._make_recipe",
    rule="IPMODIFY-9",
    semantics="linux-6.12",
    minimal="""
    livepatch foo1
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def livepatch_not_seen(original: Original, *arguments: Any) -> Any:
    """An image that calls the original goes past the livepatch."""
    return original(*arguments)._replace(orig_stack=False)


@planted(
    "links._refuse_second_try",
    rule="IPMODIFY-6",
    semantics="linux-7.3",
    minimal="""
    livepatch foo1
    bpf_prog_load p1 fexit multi
    bpf_link_create l1 p1 foo1
    """,
)
def batch_has_a_second_try(_original: Original, _state: State, _program: Program, _where: Indices) -> None:
    """A batch that meets an IPMODIFY user succeeds as a single link does."""


@planted(
    "links._refuse_second_try",
    rule="FAIL-3",
    origin=Origin(52),
    semantics="linux-7.3",
    minimal="""
    livepatch foo1
    bpf_prog_load p1 fexit multi
    bpf_link_create l1 p1 foo1
    bpf_link_create l1 p1 foo1
    """,
)
def flags_not_restored(original: Original, state: State, program: Program, where: Indices) -> None:
    """An attach that fails leaves SHARE_IPMODIFY set."""
    try:
        original(state, program, where)
    except Refused:
        state.trampolines.share[where] |= state.sites.ipmodify[where]
        raise
