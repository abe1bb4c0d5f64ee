"""What a picture of trampolines shows, as values: functions, the image that each site calls, its programs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from msgspec import Meta

__all__ = ["CalledTarget", "CallingFunction", "Count", "Picture", "StateFrame"]

Count = Annotated[int, Meta(ge=0)]


@dataclass(frozen=True, slots=True)
class CalledTarget:
    """What sites call: a trampoline image with its programs in running order, `KIND:PROG`, or ftrace's own code.

    name: TRAMPOLINE1, or a target as a seed spells it. serves: the shape or the arities that it is for.
    """

    name: str
    kind: Literal["trampoline", "direct", "ops", "caller"]
    programs: tuple[str, ...] = ()
    serves: str = ""


@dataclass(frozen=True, slots=True)
class CallingFunction:
    """A function and its site, or several alike. callee: the place of what it calls; None for a nop.

    behind: the place of the direct entry that ftrace_caller goes on to. site: the line of enabled_functions, empty
    where nothing but the picture tells of it. count: how many functions.
    """

    name: str
    callee: Count | None
    behind: Count | None = None
    site: str = ""
    count: Annotated[int, Meta(ge=1)] = 1


@dataclass(frozen=True, slots=True)
class Picture:
    """A state. alive: how many images there are, if that is known. ValueError if a function calls what is not there."""

    callers: tuple[CallingFunction, ...]
    callees: tuple[CalledTarget, ...]
    alive: Count | None = None

    def __post_init__(self) -> None:
        called = [place for caller in self.callers for place in (caller.callee, caller.behind) if place is not None]
        if called and max(called) >= len(self.callees):
            raise ValueError("a function calls what is not in the picture")


@dataclass(frozen=True, slots=True)
class StateFrame:
    """A picture, what happened before it, and the operations that did it."""

    caption: str
    steps: tuple[str, ...]
    picture: Picture
