"""Detaching a link's program from all its functions, which always answers 0 (LINK-12..14)."""

from __future__ import annotations

import numpy as np

from impl.batched.cost import Bill
from impl.batched.direct_functions import BPF
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.parts import end_parts, parts_met
from impl.batched.programs import EXTENSION
from impl.batched.sets import LISTS
from impl.batched.sites import DIRECT
from impl.batched.state import Program, State
from spec import operations as op
from spec.outcomes import Ok

__all__ = ["detach"]


def detach(state: State, operation: op.BpfLinkDetach) -> Ok:
    """The last reference of a link goes; WARN where an image stays that should have gone."""
    link = state.links.pop(operation.link)
    link.program.links -= 1
    where = link.functions.astype(np.intp)
    if link.program.kind == EXTENSION:
        state.trampolines.extended[where] = False
        del state.trampolines.extension[int(where[0])]
        return Ok()
    weight = state.trampolines.sets.weight[state.trampolines.sets.of[where]]
    last = weight == len(LISTS[link.program.kind])
    stays = _carry_out(state, link.program, where[last], where[~last])
    return Ok(warn=stays)


def _carry_out(state: State, program: Program, lost: Indices, kept: Indices) -> bool:
    """Functions that lose their last program, and those that keep some; whether an old image stays anywhere."""
    changed = _charged(state, kept)
    narrowed = _narrows(state, lost)
    bill = Bill()
    if state.dead:
        gone = lost[:0]
    else:
        gone = lost
        bill.patch(state.sites.leaving(lost, regs=True, narrowed=narrowed))
        bill.change_entries(state.sites.alone(changed))
        bill.wait_dynamic(state.facts, _waits(state, lost), direct=True)
    try:
        state.settle(bill)
    except Refused:
        gone, changed = lost[:0], kept[:0]
        state.version += 1
    _commit(state, program, (lost, kept), gone, changed)
    state.sites.leave(gone, DIRECT, regs=True, narrowed=narrowed)
    return len(gone) + len(changed) < len(lost) + len(kept)


def _charged(state: State, kept: Indices) -> Indices:
    """Those that keep programs and whose new images get as far as their places (LINK-13)."""
    failed = state.faults.reach("jit_charge", len(kept))
    if failed:
        order = np.argsort(state.functions.rank[kept], kind="stable")
        kept = np.delete(kept, order[failed - 1])
    if len(kept) and (state.dead or state.faults.reach("register")):
        return kept[:0]
    return kept


def _narrows(state: State, lost: Indices) -> bool:
    """Whether the ops of these images keeps other sites; one for each function, or part, keeps none (SITE-6)."""
    return state.facts.single_direct_ops and bool(np.count_nonzero(state.direct.entry == BPF) > len(lost))


def _waits(state: State, lost: Indices) -> int:
    """How many dynamic ops are unregistered with these functions (COST-5)."""
    if state.facts.has_parts:
        return parts_met(state.trampolines, lost)
    return 0 if state.facts.single_direct_ops else len(lost)


def _commit(
    state: State,
    program: Program,
    linked: tuple[Indices, Indices],
    gone: Indices,
    changed: Indices,
) -> None:
    """The program leaves the lists; gone lose their images, changed get new ones, and all others keep the old."""
    trampolines = state.trampolines
    lost, kept = linked
    if len(gone) + len(changed) < len(lost) + len(kept):
        stale = np.setdiff1d(np.concatenate(linked), np.concatenate([gone, changed]))
        trampolines.keep_stale(stale, trampolines.images(stale))
    trampolines.sets.detach(np.concatenate(linked), program.number)
    trampolines.share[lost] = False
    if len(gone):
        state.direct.remove(gone)
        trampolines.forget(gone)
    if len(trampolines.part):
        end_parts(trampolines, lost)
    state.ledger.built += trampolines.put(changed)
