"""Bugs of links: attaching one or many, failing half way, detaching."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch

import numpy as np
from numpy.typing import NDArray

from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.links import BUSY, TOO_BIG
from impl.batched.programs import EXTENSION
from impl.batched.sets import ProgramSets
from impl.batched.state import Link, Program, State
from impl.batched.targets import Targets, words
from impl.batched.trampolines import Trampolines
from impl.planted.planting import Original, planted

SESSIONS: Final = 18
FULL: Final = "\n".join(
    f"bpf_prog_load p{number} fsession\nbpf_raw_tracepoint_open l{number} p{number} foo1"
    for number in range(1, SESSIONS + 1)
)


@planted(
    "links._place_one",
    rule="LINK-4",
    origin="#15",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    fail filter
    bpf_raw_tracepoint_open l1 p1 foo1
    """,
)
def set_filter_error_ignored(original: Original, state: State, program: Program, index: int) -> Any:
    """A first image is registered although the filter could not be set."""
    first = not state.trampolines.has_image(np.array([index]))[0]
    if first and not state.facts.single_direct_ops and state.faults.due("filter") == 1:
        state.faults.reach("filter")
    return original(state, program, index)


@planted(
    "sets.ProgramSets.holding",
    rule="LINK-3",
    origin="#50",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p1 foo1
    """,
)
def dup_check_per_kind(_original: Original, _sets: ProgramSets, _program: int, classes: NDArray[np.int32]) -> Any:
    """The same program twice on a function is accepted."""
    return np.zeros(len(classes), np.bool_)


@planted(
    "links._attach_one",
    rule="LINK-1",
    origin="#54",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry target=foo1
    bpf_raw_tracepoint_open l1 p1
    bpf_link_detach l1
    bpf_raw_tracepoint_open l1 p1
    """,
)
def re_attach(original: Original, state: State, link: str, program: Program, *wanted: Any) -> None:
    """A program that was attached before, and is not now, has lost its target."""
    function, _cookie = wanted
    was_attached = program.number in state.trampolines.sets.node_program
    if function is None and was_attached and not program.links:
        raise Refused("EINVAL")
    original(state, link, program, *wanted)


@planted(
    "trampolines.Trampolines.keep_stale",
    rule="IMAGE-2",
    origin="#66 0253073fb7d7",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_prog_load p2 fexit multi
    bpf_link_create l1 p1 foo1
    bpf_link_create l2 p2 foo1
    fail register
    bpf_link_detach l1
    """,
)
def old_image_put(_original: Original, _trampolines: Trampolines, _where: Indices, _classes: NDArray[np.int32]) -> None:
    """The old image goes although the update that was to replace it failed."""


@planted(
    "links._place_many",
    rule="LINK-10",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_prog_load p2 fexit multi
    bpf_link_create l1 p1 foo1
    fail register
    bpf_link_create l2 p2 foo1
    """,
)
def rollback_keeps_link(original: Original, state: State, program: Program, first: Indices, kept: Indices) -> None:
    """A batch that fails at registering stays linked where other programs are."""
    try:
        original(state, program, first, kept)
    except Refused:
        if len(kept):
            node = state.trampolines.nodes(program.number, program.kind, words([None]))[0]
            state.trampolines.sets.attach(kept, int(node))
            state.version += 1
        raise


@planted(
    "links.resolve",
    rule="LINK-15",
    origin="46b42af27d40",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo2:1 foo1
    """,
)
def cookies_by_btf_id(original: Original, state: State, *rest: Any) -> Targets:
    """The functions are sorted by BTF id, their cookies are not."""
    where, cookies = original(state, *rest)
    if len(cookies) > 1:
        order = np.argsort(state.functions.named.rank[where], kind="stable")
        cookies[order] = cookies.copy()
    return Targets(where, cookies)


@planted(
    "links._check_linking",
    rule="LINK-3",
    semantics="linux-7.3",
    minimal=f"{FULL}\nbpf_prog_load p19 fentry\nbpf_raw_tracepoint_open l19 p19 foo1",
)
def limit_of_38(original: Original, state: State, program: Program, where: Indices) -> Any:
    """The limit of older kernels."""
    with patch.object(state, "facts", replace(state.facts, max_links=38)):
        return original(state, program, where)


@planted(
    "links._check_linking",
    rule="LINK-3",
    semantics="linux-7.3",
    minimal=f"{FULL}\nbpf_raw_tracepoint_open l19 p1 foo1",
)
def e2big_after_ebusy(original: Original, state: State, program: Program, where: Indices) -> Any:
    """On a full function, the same program again is found before the limit is."""
    errnos = original(state, program, where)
    if program.kind != EXTENSION:
        sets = state.trampolines.sets
        errnos[(errnos == TOO_BIG) & sets.holding(program.number, sets.of[where])] = BUSY
    return errnos


@planted(
    "links._find_cookies",
    rule="LINK-18",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo1:1 foo2
    """,
)
def info_gives_a_neighbours_cookie(original: Original, state: State, link: Link) -> list[int]:
    """A link describes itself with the cookies in another order than the functions."""
    found: list[int] = original(state, link)
    return found[::-1]
