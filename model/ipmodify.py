"""The SHARE_IPMODIFY handshake between IPMODIFY users and the owners of direct calls (IPMODIFY-2 to IPMODIFY-4)."""

from __future__ import annotations

from dataclasses import replace

from model.cost import built
from model.endings import Refused, check_alive
from model.faults import reach
from model.poke import modified
from model.rules import cite
from model.sites import has_direct_ops
from model.state import Ops, State
from model.trampolines import make_image

__all__ = ["cleanup_direct_functions_after_ipmodify", "prepare_direct_functions_for_ipmodify"]


def prepare_direct_functions_for_ipmodify(state: State, ops: Ops) -> State:
    """IPMODIFY-2: every owner of a direct call in the filter agrees to share, or Refused."""
    for function in _sort_by_address(state, ops):
        if not has_direct_ops(state, function):
            continue
        # Since Linux kernel commit 53cd885bc5c3 ("ftrace: Allow IPMODIFY and DIRECT ops on the same function") (in
        # v6.0) there is somebody to ask; before, a direct ops was an IPMODIFY user itself.
        if not state.semantics.share_ipmodify:
            raise Refused(state, "EBUSY", "IPMODIFY-3")
        if function in state.direct_functions:
            raise Refused(state, "EBUSY", "IPMODIFY-2")
        cite("IPMODIFY-2", "IMAGE-4")
        state = _set_share(state, function, share=True)
        image = state.images[function]
        # Such an image would call the original past the IPMODIFY user.
        if image.calls_orig and not image.orig_stack:
            state = _rebuild(state, function)
    return state


def cleanup_direct_functions_after_ipmodify(state: State, ops: Ops) -> State:
    """IPMODIFY-4: the trampolines of the filter no longer share; an error leaves an image as it is."""
    for function in _sort_by_address(state, ops):
        if function not in state.images:
            continue
        cite("IPMODIFY-4")
        state = _set_share(state, function, share=False)
        if state.images[function].orig_stack:
            try:
                state = _rebuild(state, function)
            except Refused as refused:
                state = refused.state
    return state


def _sort_by_address(state: State, ops: Ops) -> list[str]:
    return [function.name for function in state.world.functions if function.name in ops.filter_hash]


def _set_share(state: State, function: str, *, share: bool) -> State:
    trampoline = replace(state.trampolines[function], share=share)
    return replace(state, trampolines={**state.trampolines, function: trampoline})


def _rebuild(state: State, function: str) -> State:
    """The function's image is made anew from its present lists, and exchanged in place."""
    state = reach(state, "jit_charge")
    check_alive(state, "OPS-3")
    state = reach(state, "register")
    image = make_image(state.trampolines[function])
    return modified(built(replace(state, images={**state.images, function: image}), 1), [function])
