"""Bugs of links: attaching one or many, failing half way, detaching."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final
from unittest.mock import patch
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from impl.batched.btf import ATTRIBUTES
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.links import BUSY, TOO_BIG
from impl.batched.programs import EXTENSION
from impl.batched.sets import ProgramSets, lists_of
from impl.batched.state import Link, Program, State
from impl.batched.system import Batched
from impl.batched.targets import Targets, words
from impl.batched.trampolines import Trampolines
from impl.planted.planting import LARGE, Origin, Original, planted
from spec import operations as op
from spec.outcomes import Outcome

SESSIONS: Final = 18
FULL: Final = "\n".join(
    f"bpf_prog_load p{number} fsession\nbpf_raw_tracepoint_open l{number} p{number} foo1"
    for number in range(1, SESSIONS + 1)
)


@planted(
    "links._place_one",
    rule="LINK-4",
    origin=Origin(15, "fea3f5e83c5c", "bpf: Handle return value of ftrace_set_filter_ip in register_fentry"),
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
    origin=Origin(50),
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
    origin=Origin(54, "715d82ba636c", "bpf: Fix re-attachment branch in bpf_tracing_prog_attach"),
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
    origin=Origin(66, "0253073fb7d7", "bpf: Fix UAF in bpf_trampoline_multi_attach_free on update failure"),
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
            node = state.trampolines.nodes(program.number, lists_of(program.kind), words([None]))[0]
            state.trampolines.sets.attach(kept, int(node))
            state.version += 1
        raise


@planted(
    "links.resolve",
    rule="LINK-15",
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


_REPLACED: Final[WeakKeyDictionary[State, set[int]]] = WeakKeyDictionary()
"""The functions that an extension once stood in for."""


@planted(
    "system.Batched._carry_out",
    rule="LINK-5",
    origin=Origin(73, "6a5abf8cf182", "s390/bpf: Fix bpf_arch_text_poke() with new_addr == NULL again"),
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 freplace target=foo1
    bpf_raw_tracepoint_open l1 p1
    bpf_link_detach l1
    bpf_raw_tracepoint_open l1 p1
    """,
)
def no_nop_behind_an_extension(original: Original, system: Batched, operation: op.Operation) -> Outcome:
    """Detaching an extension leaves a branch where a nop was, which is not what the next one expects there."""
    state, replaced = system.state, _REPLACED.setdefault(system.state, set())
    extending = False
    if isinstance(operation, op.BpfLinkDetach):
        link = state.links[operation.link]
        replaced |= set(link.functions.tolist() if link.program.kind == EXTENSION else ())
    elif isinstance(operation, op.BpfRawTracepointOpen | op.BpfLinkCreate):
        extending = state.programs[operation.prog].kind == EXTENSION
    where = np.array(sorted(replaced) if extending else [], np.intp)
    before = state.trampolines.extended[where]
    state.trampolines.extended[where] = True
    outcome: Outcome = original(system, operation)
    state.trampolines.extended[where] = before
    return outcome


@planted(
    "modules._is_in_use",
    rule="MODULE-3",
    origin=Origin(0, "861de02e5f3f", "bpf: Take module reference for trampoline in module"),
    semantics="linux-6.1",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 bar1
    delete_module mod1
    """,
)
def trampoline_holds_no_module(original: Original, state: State, *rest: Any) -> Any:
    """A module goes although a program is attached to one of its functions."""
    with patch.object(state.trampolines, "has_programs", lambda where: np.zeros(len(where), np.bool_)):
        return original(state, *rest)


def _verdicts(original: Original, state: State, forgotten: str, granted: str, *rest: Any) -> Any:
    """Verdicts as if no function had one attribute, and every function another."""
    named = state.functions.named
    attributes = named.attributes & np.uint8(~ATTRIBUTES.get(forgotten, 0) & 0xFF) | np.uint8(
        ATTRIBUTES.get(granted, 0)
    )
    with patch.multiple(named, attributes=attributes, verdicts={}):
        return original(state, *rest)


@planted(
    "programs.verdicts",
    rule="PROG-3",
    origin=Origin(0, "35e3815fa810", "bpf: Add deny list of btf ids check for tracing programs"),
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 many7
    """,
)
def nothing_is_denied(original: Original, state: State, *rest: Any) -> Any:
    """Programs attach to migrate_disable() and the like, which run before a program is known to run already."""
    return _verdicts(original, state, "deny", "", *rest)


@planted(
    "programs.verdicts",
    rule="PROG-3",
    origin=Origin(64, "cfe816d469dc", "bpf: Reject attaching fexit/fmod_ret to __noreturn functions"),
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 many67
    """,
)
def noreturn_accepted(original: Original, state: State, *rest: Any) -> Any:
    """A fexit program attaches to a function that never returns: its image is entered, never left, and never freed."""
    return _verdicts(original, state, "noreturn", "", *rest)


@planted(
    "programs.verdicts",
    rule="PROG-3",
    origin=Origin(0, "f7b12b6fea00", "bpf: verifier: refactor check_attach_btf_id()"),
    semantics="linux-6.12",
    world=LARGE,
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 many37
    bpf_prog_load p2 fmod_ret
    bpf_raw_tracepoint_open l2 p2 many37
    """,
)
def fmod_ret_beside_a_trampoline(original: Original, state: State, program: Program, *rest: Any) -> Any:
    """Whether a function's return value may be modified is not asked where a trampoline exists already."""
    found = original(state, program, *rest)
    if program.kind != "fmod_ret":
        return found
    everywhere = _verdicts(original, state, "", "fmod_ret", program, *rest)
    traced = np.zeros(len(found), np.bool_)
    count = state.functions.count
    traced[:count] = state.trampolines.has_programs(np.arange(count))
    return np.where(traced, everywhere, found)
