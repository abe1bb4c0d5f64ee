"""A plan says what an image does, as far as its code depends on it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

from spec.abi import SLOT_BYTES
from spec.prototypes import MAX_ARGUMENT_BYTES, Shape

__all__ = ["MOST_LINKS", "MOST_SLOTS", "ImagePlan", "LinkKind", "LinkRun", "PlanError", "TrampLink", "gate"]

LinkKind = Literal["fentry", "fexit", "fmod_ret", "fsession"]

MOST_LINKS: Final = 38
"""BPF_MAX_TRAMP_LINKS."""

MOST_SLOTS: Final = 12
"""MAX_BPF_FUNC_ARGS: words of a program's context, the return slot aside."""


class PlanError(ValueError):
    """No image can carry this plan out; the text is one sentence that says why."""


def gate(*, sleepable: bool, guarded: bool) -> str:
    """The ending of a program's helpers, behind __bpf_prog_enter and __bpf_prog_exit."""
    return "_sleepable" * sleepable + "_recur" * guarded


@dataclass(frozen=True, slots=True)
class TrampLink:
    """One bpf_tramp_link. kind: in whose list it stands; an lsm program stands in that of fmod_ret or of fexit.

    sleepable: its program may sleep, and so has helpers of its own around it. guarded: they keep the program from
    running while it runs, which those of lsm programs do not.
    """

    kind: LinkKind
    sleepable: bool = False
    guarded: bool = True

    @property
    def gate(self) -> str:
        """The ending of its helpers' names."""
        return gate(sleepable=self.sleepable, guarded=self.guarded)


@dataclass(frozen=True, slots=True)
class LinkRun:
    """One run of a program in an image. link: its place in Plan.links; list: fentry, fmod_ret or fexit."""

    link: int
    list: Literal["fentry", "fmod_ret", "fexit"]


@dataclass(frozen=True)
class ImagePlan:
    """The work of one image. PlanError for what no image can do.

    shape: of the functions' prototypes, in bytes; None is every arity of up to as many slots as there are registers,
    which implies `shared`. links: in the order of attaching, oldest first. func_ip: some program asks for the
    function's address. orig_stack: the original is where the return address on the stack points. site: whether the
    patched instruction calls the image or jumps to it. shared: the image serves several functions, so that the original
    is found through the stack, and the function's address by asking a helper.
    """

    shape: Shape | None
    links: tuple[TrampLink, ...]
    func_ip: bool = False
    orig_stack: bool = False
    site: Literal["call", "jmp"] = "call"
    shared: bool = False

    def __post_init__(self) -> None:
        for mistake, says in self._find_mistakes():
            if mistake:
                raise PlanError(says)

    def _find_mistakes(self) -> tuple[tuple[bool, str], ...]:
        shape = self.shape or Shape((), 0)
        slots = sum(-(-size // SLOT_BYTES) for size in shape.arguments)
        odd = [size for size in shape.arguments if not 0 < size <= MAX_ARGUMENT_BYTES]
        return (
            (not self.links, "an image without links has nothing to do"),
            (len(self.links) > MOST_LINKS, f"{len(self.links)} links are more than the {MOST_LINKS} of an image"),
            (bool(odd), f"an argument of {', '.join(map(str, odd))} bytes is not one of 1 to {MAX_ARGUMENT_BYTES}"),
            (slots > MOST_SLOTS, f"{slots} slots are more than the {MOST_SLOTS} of a context"),
            (shape.returns > SLOT_BYTES, f"a return value of {shape.returns} bytes does not fit the return slot"),
            (
                self.site == "jmp" and (self.by_stack or self.orig_stack),
                "the original is found through the return address of a call, and the site is a jmp",
            ),
        )

    @property
    def generic(self) -> bool:
        """One image for every arity."""
        return self.shape is None

    @property
    def by_address(self) -> bool:
        """The image asks helpers for what differs between functions, by the return address into the function."""
        return self.shared or self.generic

    @property
    def by_stack(self) -> bool:
        """The original is where the return address on the stack points."""
        return self.orig_stack or self.by_address

    @cached_property
    def fentry(self) -> tuple[LinkRun, ...]:
        """The first list, in running order: newest first, sessions among them."""
        return tuple(LinkRun(link, "fentry") for link in self._list_places("fentry", "fsession"))

    @cached_property
    def fmod_ret(self) -> tuple[LinkRun, ...]:
        """The second list, in running order."""
        return tuple(LinkRun(link, "fmod_ret") for link in self._list_places("fmod_ret"))

    @cached_property
    def fexit(self) -> tuple[LinkRun, ...]:
        """The third list, in running order: newest first, sessions among them."""
        return tuple(LinkRun(link, "fexit") for link in self._list_places("fexit", "fsession"))

    @cached_property
    def sessions(self) -> tuple[int, ...]:
        """The places of fsession links, newest first."""
        return tuple(self._list_places("fsession"))

    @property
    def calls_original(self) -> bool:
        """Whether the image calls the original itself, and returns to the function's caller."""
        return any(link.kind != "fentry" for link in self.links)

    def _list_places(self, *kinds: LinkKind) -> list[int]:
        return [place for place in reversed(range(len(self.links))) if self.links[place].kind in kinds]
