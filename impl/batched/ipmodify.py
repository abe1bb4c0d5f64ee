"""The SHARE_IPMODIFY handshake between IPMODIFY users and direct calls (IPMODIFY-2 to IPMODIFY-4)."""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

from impl.batched.cost import Bill
from impl.batched.direct_functions import BPF
from impl.batched.faults import ERRNO_OF, Refused
from impl.batched.functions import Indices
from impl.batched.state import State

__all__ = ["NOBODY", "Peers", "cleanup", "commit", "prepare"]

_NONE: Final = np.empty(0, np.intp)


class Peers(NamedTuple):
    """BPF trampolines: `told` are asked to set or drop SHARE_IPMODIFY, and `rebuilt` get new images for it."""

    told: Indices
    rebuilt: Indices


NOBODY: Final = Peers(_NONE, _NONE)


def prepare(state: State, filter_sites: Indices, bill: Bill) -> Peers:
    """prepare_direct_functions_for_ipmodify(): ask the direct ops of these sites, in address order (IPMODIFY-2, 3)."""
    direct = filter_sites[state.sites.direct[filter_sites]]
    if not len(direct):
        return NOBODY
    if not state.facts.share_ipmodify:
        raise Refused("EBUSY")
    raw = np.flatnonzero(state.direct.entry[direct] != BPF)
    told = direct[: raw[0]] if len(raw) else direct
    rebuilt = told[state.trampolines.calls_by_address(told)]
    _rebuild_or_refuse(state, len(rebuilt))
    if len(raw):
        raise Refused("EBUSY")
    bill.change_each(len(state.sites.alone(rebuilt)))
    return Peers(told, rebuilt)


def _rebuild_or_refuse(state: State, images: int) -> None:
    """Each image in turn reaches jit_charge, then register; the first failure ends it."""
    faults = state.faults
    if images and state.dead:
        faults.stop_at("jit_charge")
        state.refuse_if_dead()
    charge, register = (due if due <= images else 0 for due in map(faults.due, ("jit_charge", "register")))
    if charge and (not register or charge <= register):
        faults.reach("register", charge - 1)
        faults.reach("jit_charge", charge)
        raise Refused(ERRNO_OF["jit_charge"])
    faults.reach("jit_charge", register or images)
    if faults.reach("register", register or images):
        raise Refused(ERRNO_OF["register"])


def cleanup(state: State, sites: Indices, bill: Bill) -> Peers:
    """cleanup_direct_functions_after_ipmodify(), the user still in S(f): images that fail stay (IPMODIFY-4)."""
    told = sites[state.sites.direct[sites]]
    told = told[state.direct.entry[told] == BPF]
    rebuilt = told[state.trampolines.orig_stack[told]]
    for point in ("jit_charge", "register"):
        failed = state.faults.reach(point, len(rebuilt))
        if failed:
            rebuilt = np.delete(rebuilt, failed - 1)
    bill.change_each(int(np.count_nonzero(state.sites.count[rebuilt] <= 2)))
    return Peers(told, rebuilt)


def commit(state: State, peers: Peers, *, share: bool) -> None:
    """The trampolines set or drop SHARE_IPMODIFY, and the new images take their places."""
    state.trampolines.share[peers.told] = share
    state.ledger.built += state.trampolines.put(peers.rebuilt)
