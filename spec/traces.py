"""The ordered events of one call, and their short text (design contract 3.1)."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Body", "DirectCall", "Event", "GraphEntry", "GraphReturn", "NestedCall", "OpsCall", "ProgramRun", "Trace"]


class Event:
    """Something that happened in a call."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class OpsCall(Event):
    """The func of a plain ops ran."""

    ops: str

    def __str__(self) -> str:
        return f"ops:{self.ops}"


@dataclass(frozen=True, slots=True)
class GraphEntry(Event):
    """A graph user recorded the entry of a function."""

    user: str
    function: str
    depth: int

    def __str__(self) -> str:
        return f"graph>{self.user}"


@dataclass(frozen=True, slots=True)
class GraphReturn(Event):
    """A graph user recorded the return of a function."""

    user: str
    function: str
    depth: int

    def __str__(self) -> str:
        return f"<graph:{self.user}"


@dataclass(frozen=True, slots=True)
class DirectCall(Event):
    """A direct trampoline that is not BPF's ran."""

    tramp: str

    def __str__(self) -> str:
        return f"direct:{self.tramp}"


@dataclass(frozen=True, slots=True)
class ProgramRun(Event):
    """One run of a BPF program, and what it saw.

    context: one word a slot, at the slot's width, unsigned; then the return word where the kind has one. func_ip: what
    bpf_get_func_ip returned, as a function's name, None for a program that does not call it. arg_cnt:
    bpf_get_func_arg_cnt. args: bpf_get_func_arg(n) for n from 0 to arg_cnt, the last one out of range; an errno is its
    name. ret: bpf_get_func_ret. cookie: bpf_get_attach_cookie. is_return: the second run of a session. session: the
    name that the session cookie held (its program writes its own name at entry), empty for 0, None for other kinds.
    """

    kind: str
    prog: str
    context: tuple[int, ...]
    func_ip: str | None
    arg_cnt: int
    args: tuple[int | str, ...]
    ret: int | str
    cookie: int
    is_return: bool = False
    session: str | None = None

    def __str__(self) -> str:
        return f"{self.kind}:{self.prog}"


@dataclass(frozen=True, slots=True)
class Body(Event):
    """The function's body ran, or the patched one, with these slots at their width, unsigned."""

    arguments: tuple[int, ...]
    patched: bool = False

    def __str__(self) -> str:
        return "body:patched" if self.patched else "body"


@dataclass(frozen=True, slots=True)
class NestedCall(Event):
    """A call that the event before it made."""

    function: str
    trace: Trace

    def __str__(self) -> str:
        return f"{self.function}[ {self.trace} ]"


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened in one call.

    value: what the caller gets back, at the return type's width; None: no such function.
    """

    events: tuple[Event, ...]
    value: int | None

    def __str__(self) -> str:
        return " ".join([*map(str, self.events), "absent" if self.value is None else f"={self.value}"])
