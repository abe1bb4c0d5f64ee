"""One call, event by event, from the arrays (TRACE-*, TRAMP-*, ARG-*)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from impl.batched.direct_functions import BPF
from impl.batched.graph import ShadowStack
from impl.batched.programs import EXTENSION
from impl.batched.state import Ops, Program, State
from spec.errors import BadInputError
from spec.prototypes import SLOT_BYTES
from spec.traces import Body, DirectCall, Event, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = ["call"]

WORD: Final = 1 << 64
HALF: Final = 1 << 63
UNTYPED_WORDS: Final = 6
PATCHED_MORE: Final = 1000
NO_RETURN_SLOT: Final = frozenset({"fentry", EXTENSION})


def call(state: State, function: str, arguments: tuple[int, ...]) -> Trace:
    """Run one function to its return; an empty trace if it is not there (NAME-8)."""
    index = state.site(function)
    if index < 0:
        return Trace((), None)
    target = state.functions.all[index]
    if target.prototype is not None and len(arguments) != len(target.prototype.slots):
        raise BadInputError(f"'{function}' takes {len(target.prototype.slots)} words, one a slot: write as many")
    graph = state.graph
    return _Task(state, ShadowStack(graph.users, state.facts.slot0_returns)).run(index, arguments)


@dataclass(slots=True)
class _Frame:
    """One function's call: its slots as observed, and what has happened."""

    index: int
    function: Function
    slots: tuple[int, ...]
    sessions: set[str] = field(default_factory=set)
    events: list[Event] = field(default_factory=list)

    def returned(self, word: int) -> int:
        """A returned word at the return type's width (ARG-5)."""
        prototype = self.function.prototype
        return word % WORD if prototype is None else prototype.returned(word)

    def value(self, word: int) -> int:
        """The same as the caller gets it."""
        prototype = self.function.prototype
        if prototype is None:
            return (word + HALF) % WORD - HALF
        seen = prototype.returned(word)
        bits = 8 * min(prototype.returns.size, SLOT_BYTES)
        return seen - (1 << bits) if prototype.returns.signed and seen >> (bits - 1) else seen


@dataclass(slots=True)
class _Task:
    """One task: its shadow stack, and the program that runs while a function it calls does (PROG-5, PROG-6)."""

    state: State
    stack: ShadowStack
    calling: Program | None = None

    def run(self, index: int, arguments: tuple[int, ...]) -> Trace:
        """A call of one function (TRACE-1)."""
        function = self.state.functions.all[index]
        if function.prototype is None:
            slots = tuple(word % WORD for word in arguments[:UNTYPED_WORDS])
        else:
            slots = function.prototype.words(arguments)
        frame = _Frame(index, function, slots)
        pushed = self._callbacks(frame)
        word = self._direct(frame)
        if pushed:
            self.stack.leave(frame.events)
        return Trace(tuple(frame.events), frame.value(word))

    def _callbacks(self, frame: _Frame) -> bool:
        """The callbacks of S(f), newest registered first; whether the graph tracer pushed a frame."""
        pushed, index = False, frame.index
        for entry in self.state.ops_list:
            if not isinstance(entry, Ops):
                pushed = self.stack.enter(index, frame.function.name, frame.events)
            elif not entry.notrace_hash[index] and (entry.filter_hash[index] or not entry.filter_hash.any()):
                frame.events.append(OpsCall(entry.name))
        return pushed

    def _direct(self, frame: _Frame) -> int:
        """The direct trampoline, if the site has one, and the body; the word returned."""
        state = self.state
        if state.sites.direct[frame.index]:
            entry = state.direct.entry[frame.index]
            if entry == BPF:
                return self._trampoline(frame)
            frame.events.append(DirectCall(state.direct.names[entry]))
        return self._body(frame)

    def _trampoline(self, frame: _Frame) -> int:
        """A BPF trampoline (TRAMP-2, TRAMP-3): the programs still linked are those that a stale image runs too."""
        sets = self.state.trampolines.sets
        fentry, fmod_ret, fexit = sets.content(int(sets.of[frame.index]))
        for node in fentry:
            self._program(frame, node, 0)
        word = 0
        for node in fmod_ret:
            result = self._program(frame, node, word)
            word = word if result is None else result
            if word:
                break
        if not word:
            word = self._body(frame)
        for node in fexit:
            self._program(frame, node, word, is_return=True)
        return word

    def _body(self, frame: _Frame) -> int:
        """The body, patched or not, or the extension in its place (TRACE-2, TRACE-5, TRACE-6)."""
        patched = bool(self.state.livepatched[frame.index])
        extension = self.state.trampolines.extension.get(frame.index)
        if extension is not None and not patched:
            return self._program(frame, extension, 0) or 0
        frame.events.append(Body(frame.slots, patched))
        total = PATCHED_MORE * patched
        if frame.function.callees:
            for callee in frame.function.callees:
                words = tuple(frame.slots[n] if source == "slot" else n for source, n in callee.arguments)
                total += self._nested(frame, callee.function, words) or 0
        else:
            total += _sum_of_members(frame)
        prototype = frame.function.prototype
        return (total if prototype is None else prototype.returns.read(total)) % WORD

    def _nested(self, frame: _Frame, function: str, words: tuple[int, ...] | None) -> int | None:
        """A call that the last event makes; None words are zeros, one a slot (PROG-5, TRACE-4)."""
        index = self.state.site(function)
        if index < 0:
            return None
        if words is None:
            prototype = self.state.functions.all[index].prototype
            words = (0,) * (len(prototype.slots) if prototype else 0)
        trace = self.run(index, words)
        frame.events.append(NestedCall(function, trace))
        return trace.value

    def _program(self, frame: _Frame, node: int, word: int, *, is_return: bool = False) -> int | None:
        """One run of a program; its R0, None if it was running already and is skipped (PROG-6)."""
        trampolines = self.state.trampolines
        program = self._program_of(node)
        if program is self.calling:
            return None
        is_session = program.kind == "fsession"
        frame.events.append(_observed(frame, program, int(trampolines.cookies[node]), word, is_return=is_return))
        if is_session:
            frame.sessions.add(program.name)
        if program.calls is not None and self.calling is None:
            self.calling = program
            self._nested(frame, program.calls, None)
            self.calling = None
        return program.returns

    def _program_of(self, node: int) -> Program:
        number = self.state.trampolines.sets.node_program[node]
        return self.state.program_numbered[int(number)]


def _observed(frame: _Frame, program: Program, cookie: int, word: int, *, is_return: bool) -> ProgramRun:
    """What a program sees of its context and its helpers (TRAMP-4, TRAMP-5, TRAMP-6)."""
    count = len(frame.slots)
    returned = frame.returned(word)
    has_slot = program.kind not in NO_RETURN_SLOT
    is_session = program.kind == "fsession"
    return ProgramRun(
        kind=program.kind,
        prog=program.name,
        context=(*frame.slots, returned) if has_slot else frame.slots,
        func_ip=frame.function.name if program.func_ip else None,
        arg_cnt=count,
        args=(*frame.slots, "EINVAL"),
        ret=returned if has_slot else "EOPNOTSUPP",
        cookie=cookie,
        is_return=is_session and is_return,
        session=(program.name if is_return and program.name in frame.sessions else "") if is_session else None,
    )


def _sum_of_members(frame: _Frame) -> int:
    """The arguments' members, each read at its type; of a scalar over 8 bytes only the low word counts modulo 2^64."""
    prototype = frame.function.prototype
    if prototype is None:
        return sum(frame.slots)
    total = 0
    for slot, word in zip(prototype.slots, frame.slots, strict=True):
        argument = prototype.arguments[slot.argument]
        if argument.by_value:
            total += word
        elif not slot.offset:
            total += argument.read(word)
    return total
