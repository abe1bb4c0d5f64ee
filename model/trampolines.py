"""A function's trampoline: its program lists, and the image made of them (TRAMP-1, IMAGE-*, LINK-3, LINK-4)."""

from __future__ import annotations

from dataclasses import replace

from model.faults import Faults
from model.rules import Refused, cite
from model.state import Image, Node, Program, State, Trampoline

__all__ = ["charge", "linked", "make_image", "unlinked"]


def linked(state: State, trampoline: Trampoline, node: Node) -> Trampoline:
    """LINK-3: the trampoline with one program more, or Refused."""
    kind = node.program.kind
    if trampoline.extension is not None or (kind == "freplace" and trampoline.count):
        raise Refused("EBUSY", "LINK-3")
    if kind == "freplace":
        return replace(trampoline, extension=node)
    if trampoline.count + (kind == "fsession") >= state.semantics.max_links:
        raise Refused("E2BIG", "LINK-3")
    own = {"fmod_ret": trampoline.fmod_ret, "fexit": trampoline.fexit}.get(kind, trampoline.fentry)
    if any(other.program == node.program for other in own):
        raise Refused("EBUSY", "LINK-3")
    cite("LINK-3", "TRAMP-1")
    return _with_node(trampoline, node)


def _with_node(trampoline: Trampoline, node: Node) -> Trampoline:
    """TRAMP-1: at the head of its list; a session at the head of two."""
    match node.program.kind:
        case "fentry":
            return replace(trampoline, fentry=(node, *trampoline.fentry))
        case "fmod_ret":
            return replace(trampoline, fmod_ret=(node, *trampoline.fmod_ret))
        case "fexit":
            return replace(trampoline, fexit=(node, *trampoline.fexit))
        case _:
            return replace(trampoline, fentry=(node, *trampoline.fentry), fexit=(node, *trampoline.fexit))


def unlinked(trampoline: Trampoline, program: Program) -> Trampoline:
    """The trampoline without one of its programs."""

    def without(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(node for node in nodes if node.program != program)

    return replace(
        trampoline,
        fentry=without(trampoline.fentry),
        fmod_ret=without(trampoline.fmod_ret),
        fexit=without(trampoline.fexit),
        extension=None,
    )


def make_image(trampoline: Trampoline) -> Image:
    """IMAGE-1: the image of the present lists."""
    cite("IMAGE-1")
    if trampoline.calls_orig:
        cite("IMAGE-3")
    orig_stack = trampoline.share and trampoline.calls_orig
    return Image(trampoline.fentry, trampoline.fmod_ret, trampoline.fexit, orig_stack)


def charge(state: State, function: str, faults: Faults) -> None:
    """LINK-4: what generating an image may run into: too many slots, or no memory for code."""
    if state.semantics.charge_before_slots:
        faults.reach("jit_charge")
    found = state.loaded(function)
    if found and found.prototype and len(found.prototype.slots) > state.semantics.max_slots:
        raise Refused("ENOTSUPP", "LINK-4")
    if not state.semantics.charge_before_slots:
        faults.reach("jit_charge")
    cite("LINK-4")
