"""A function's trampoline: its program lists, and the image made of them (TRAMP-1, IMAGE-*, LINK-3, LINK-4)."""

from __future__ import annotations

from dataclasses import replace

from model import lsm
from model.endings import Refused
from model.faults import reach
from model.rules import cite
from model.state import Image, Node, Program, State, Trampoline

__all__ = ["bpf_trampoline_link_prog", "bpf_trampoline_unlink_prog", "charge_image", "make_image"]


def bpf_trampoline_link_prog(state: State, function: str, node: Node) -> Trampoline:
    """LINK-3: the function's trampoline with one program more, or Refused."""
    trampoline, kind = state.trampolines.get(function, Trampoline()), lsm.list_of(node.program, state.named(function))
    if trampoline.extension is not None or (kind == "freplace" and trampoline.nodes):
        raise Refused(state, "EBUSY", "LINK-3")
    if kind == "freplace":
        return replace(trampoline, extension=node)
    if len(trampoline.nodes) + (kind == "fsession") >= state.semantics.max_links:
        raise Refused(state, "E2BIG", "LINK-3")
    own = {"fmod_ret": trampoline.fmod_ret, "fexit": trampoline.fexit}.get(kind, trampoline.fentry)
    if any(other.program == node.program for other in own):
        raise Refused(state, "EBUSY", "LINK-3")
    cite("LINK-3", "TRAMP-1")
    return _add_node(trampoline, kind, node)


def _add_node(trampoline: Trampoline, kind: str, node: Node) -> Trampoline:
    """TRAMP-1: at the head of its list; a session at the head of two."""
    match kind:
        case "fentry":
            return replace(trampoline, fentry=(node, *trampoline.fentry))
        case "fmod_ret":
            return replace(trampoline, fmod_ret=(node, *trampoline.fmod_ret))
        case "fexit":
            return replace(trampoline, fexit=(node, *trampoline.fexit))
        case _:
            return replace(trampoline, fentry=(node, *trampoline.fentry), fexit=(node, *trampoline.fexit))


def bpf_trampoline_unlink_prog(trampoline: Trampoline, program: Program) -> Trampoline:
    """The trampoline without one of its programs."""
    return replace(trampoline.where(lambda node: node.program != program), extension=None)


def make_image(trampoline: Trampoline) -> Image:
    """IMAGE-1: the image of the present lists."""
    cite("IMAGE-1")
    if trampoline.calls_orig:
        cite("IMAGE-3")
    # Since Linux kernel commit 00963a2e75a8 ("bpf: Support bpf_trampoline on functions with IPMODIFY (e.g. livepatch)")
    # the image returns to where the call came from, which an IPMODIFY user may have changed.
    orig_stack = trampoline.share and trampoline.calls_orig
    return Image(trampoline.fentry, trampoline.fmod_ret, trampoline.fexit, orig_stack)


def charge_image(state: State, function: str) -> State:
    """LINK-4: what generating an image may run into: too many slots, or no memory for code."""
    # Since Linux kernel commit 26ef208c209a ("bpf: Use arch_bpf_trampoline_size") (in v6.8) the size is known, and the
    # slots are counted, before memory is charged.
    if state.semantics.charge_before_slots:
        state = reach(state, "jit_charge")
    found = state.named(function)
    if found and found.prototype and len(found.prototype.slots) > state.semantics.max_slots:
        raise Refused(state, "ENOTSUPP", "LINK-4")
    if not state.semantics.charge_before_slots:
        state = reach(state, "jit_charge")
    cite("LINK-4")
    return state
