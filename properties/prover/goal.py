"""What is to be proved of an image, as a value: the function, its programs, the site. Nothing here knows the image.

A goal is all that obligations are made from. `None` stands for what its maker does not know; the proof then binds it
where it first occurs, and holds every later use to it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from spec.images import KINDS, Kind
from spec.prototypes import Prototype

__all__ = ["KINDS", "READINGS", "Bindings", "Goal", "Kind", "Program", "Reading", "Run"]

Reading = Literal["width", "strict"]
READINGS: tuple[Reading, ...] = ("width", "strict")

Bindings = Mapping[str, int]
"""Constants by name: `im`, and for the program at place N of the goal `prog N`, `cookie N`, `session N` (its index in
ctx[-1]) and `sleepable N`."""


@dataclass(frozen=True, slots=True)
class Program:
    """A program that the image runs.

    code: the address called. pointer: its struct bpf_prog. cookie: of its link; None is any but 0. sleepable: None is
    either, as long as enter and exit agree. session_cookie: whether an fsession program asks for its session cookie.
    """

    kind: Kind
    code: int
    pointer: int | None = None
    cookie: int | None = 0
    sleepable: bool | None = False
    session_cookie: bool | None = None


@dataclass(frozen=True, slots=True)
class Run:
    """One run of a program in the image. program: its place in the goal; list: fentry, fmod_ret or fexit."""

    program: int
    list: Literal["fentry", "fmod_ret", "fexit"]
    place: str


@dataclass(frozen=True)
class Goal:
    """What one image must do, as its maker or the kernel knows it."""

    prototype: Prototype
    """Of the function; its slots are the context words."""

    programs: tuple[Program, ...]
    """In the order of attaching."""

    function: int
    """The address that bpf_get_func_ip returns."""

    body: int
    """The address behind the patched instruction."""

    site: Literal["call", "jmp"]
    """Whether the patched instruction calls the image, which puts a second return address on the stack, or jumps."""

    helpers: Mapping[str, int] = field(hash=False)
    """Addresses by symbol: `__bpf_tramp_enter`, `__bpf_prog_enter_recur` and so on."""

    func_ip: bool = False
    """Some program asks for the function's address."""

    shares_ipmodify: bool = False
    """The body is where the return address on the stack points (ORIG_STACK), wherever that is, not at `body`."""

    im: int | None = None
    """The struct bpf_tramp_image."""

    some_sleep: bool = False
    """At least one of the programs whose `sleepable` is None may sleep."""

    counters: Mapping[str, int] = field(default_factory=dict, hash=False)
    """Places of the processor's counters of calls, from its own area on, by name: architecture.counters."""

    return_thunks: frozenset[int] = frozenset()
    """Addresses to which a jump is a return, on a host that has mitigations (X86_FEATURE_RETHUNK)."""

    objects: frozenset[int] = frozenset()
    """Where im and programs' pointers may be, as far as those are None."""

    reading: Reading = "width"
    """`width` compares the bytes that an argument has, `strict` the whole words."""

    patches: frozenset[str] = frozenset()
    """Names of the patches by which the kernel may have changed the image while a task is in it (Image.patches)."""

    lookup: int | None = None
    """The function that an image for several arities calls first, to be told the number of slots."""

    counts: tuple[int, ...] = ()
    """What the lookup may return. The prototype is that of the longest function then."""

    lookup_ip: int | None = None
    """The function that an image for several functions calls, with func_ip, to be told the function's address.

    `function` does not count then. Both lookups are passed the return address into the function.
    """

    @cached_property
    def fentry(self) -> tuple[Run, ...]:
        """The first list, in running order: newest first, sessions among them (TRAMP-1)."""
        return tuple(self._list_runs("fentry", {"fentry": "", "fsession": " at entry"}))

    @cached_property
    def fmod_ret(self) -> tuple[Run, ...]:
        """The second list, in running order; an lsm program on a hook that returns a value is in it."""
        return tuple(self._list_runs("fmod_ret", {"fmod_ret": ""} | ({"lsm": ""} if self._returns else {})))

    @cached_property
    def fexit(self) -> tuple[Run, ...]:
        """The third list, in running order; an lsm program on a void hook is in it."""
        return tuple(
            self._list_runs("fexit", {"fexit": "", "fsession": " at return"} | ({} if self._returns else {"lsm": ""}))
        )

    @property
    def calls_original(self) -> bool:
        """Whether the image calls the body itself, and then returns to the caller (IMAGE-3)."""
        return bool(self.fmod_ret or self.fexit)

    @property
    def has_sessions(self) -> bool:
        """Whether a session is among the programs: the word at ctx[-1] then has more than the number of slots."""
        return any(program.kind == "fsession" for program in self.programs)

    @property
    def known(self) -> dict[str, int]:
        """The constants that need no binding."""
        found = {"im": self.im}
        for place, program in enumerate(self.programs):
            found |= {f"prog {place}": program.pointer, f"cookie {place}": program.cookie}
        return {name: value for name, value in found.items() if value is not None}

    def pinned(self, bindings: Bindings) -> Goal:
        """The same goal with what a proof has bound: a proof of a copy must meet exactly these constants."""
        programs = tuple(
            replace(
                program,
                pointer=bindings.get(f"prog {place}", program.pointer),
                cookie=bindings.get(f"cookie {place}", program.cookie),
                sleepable=bool(bindings.get(f"sleepable {place}", program.sleepable)),
            )
            for place, program in enumerate(self.programs)
        )
        return replace(self, programs=programs, im=bindings.get("im", self.im), some_sleep=False)

    def read(self, reading: Reading) -> Goal:
        """The same goal in a reading."""
        return replace(self, reading=reading)

    @property
    def _returns(self) -> bool:
        return self.prototype.returns.size > 0

    def _list_runs(self, name: Literal["fentry", "fmod_ret", "fexit"], phases: Mapping[str, str]) -> Iterator[Run]:
        counts = dict.fromkeys(KINDS, 0)
        for place in reversed(range(len(self.programs))):
            kind = self.programs[place].kind
            if kind in phases:
                counts[kind] += 1
                yield Run(place, name, f"{kind} {counts[kind]}{phases[kind]}")
