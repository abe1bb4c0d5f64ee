"""The SHARE_IPMODIFY handshake between IPMODIFY users and the owners of direct calls (IPMODIFY-2 to IPMODIFY-4)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import built, repointed
from model.faults import Faults
from model.rules import Refused, cite
from model.sites import has_direct_ops
from model.state import Ops, State
from model.trampolines import make_image

__all__ = ["ask_direct_owners", "tell_direct_owners"]


def ask_direct_owners(state: State, ops: Ops, faults: Faults) -> State:
    """IPMODIFY-2: every owner of a direct call in the filter agrees to share, or Refused."""
    if not ops.filter_hash:
        return state
    for function in _in_address_order(state, ops):
        if not has_direct_ops(state, function):
            continue
        if not state.semantics.share_ipmodify:
            raise Refused("EBUSY", "IPMODIFY-3")
        if function in state.direct_functions:
            raise Refused("EBUSY", "IPMODIFY-2")
        cite("IPMODIFY-2", "IMAGE-4")
        state = _share(state, function, share=True)
        image = state.images[function]
        if image.calls_orig and not image.orig_stack:
            state = _rebuilt(state, function, faults)
    return state


def tell_direct_owners(state: State, ops: Ops, faults: Faults) -> State:
    """IPMODIFY-4: the trampolines of the filter no longer share; an error leaves an image as it is."""
    for function in _in_address_order(state, ops):
        if function not in state.images:
            continue
        cite("IPMODIFY-4")
        state = _share(state, function, share=False)
        if state.images[function].orig_stack:
            try:
                state = _rebuilt(state, function, faults)
            except Refused:
                continue
    return state


def _in_address_order(state: State, ops: Ops) -> list[str]:
    return [function.name for function in state.world.functions if function.name in ops.filter_hash]


def _share(state: State, function: str, *, share: bool) -> State:
    trampoline = replace(state.trampolines[function], share=share)
    return replace(state, trampolines={**state.trampolines, function: trampoline})


def _rebuilt(state: State, function: str, faults: Faults) -> State:
    """The function's image made anew from its present lists, and exchanged in place."""
    faults.reach("jit_charge")
    if state.dead:
        raise Refused("ENODEV", "OPS-3")
    faults.reach("register")
    image = make_image(state.trampolines[function])
    return repointed(built(replace(state, images={**state.images, function: image}), 1), [function])
