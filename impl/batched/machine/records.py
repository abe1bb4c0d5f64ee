"""Records that code appends to the trace, each a tag and words; here they become the events of spec.traces."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from typing import Final

from impl.batched.machine.names import StateNames
from spec.abi import SYSTEM_V
from spec.traces import Body, DirectCall, Event, GraphEntry, GraphReturn, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = [
    "BODY",
    "CALL",
    "DIRECT",
    "GRAPH_ENTRY",
    "GRAPH_RETURN",
    "MISSED",
    "MOST_ARGUMENTS",
    "OPS",
    "PROBE",
    "PROGRAM",
    "PROGRAM_WORDS",
    "RETURN",
    "events",
    "value",
]

OPS: Final = 1
"""The number of the ops."""

GRAPH_ENTRY: Final = 2
GRAPH_RETURN: Final = 3
"""The slot of the user, the index of the function, the depth."""

DIRECT: Final = 4
"""The number of the direct trampoline."""

BODY: Final = 5
"""Whether it is patched, the number of words, the words."""

CALL: Final = 6
"""The index of the function that is called."""

RETURN: Final = 7
"""The return register."""

PROGRAM: Final = 8
"""The program's number; what the helpers for the cookie, the function's address, the number of arguments, and the
return value (errno, value) said; is_return, and the session cookie; then errno and value of each argument, one beyond
the last among them; then the context's words."""

PROGRAM_WORDS: Final = 9
"""With the tag, up to the arguments."""

MISSED: Final = 9
"""The number of a program that was entered while it was running."""

PROBE: Final = 10
"""The program's number, the index of the function, the cookie, and six words: the registers of arguments at an entry,
or at a return the return register in the first."""

PROBE_WORDS: Final = 9

MOST_ARGUMENTS: Final = 12
"""Programs ask for at most this number, since their loops are bounded."""

WORD: Final = 1 << 64
HALF: Final = 1 << 63
UNTYPED_WORDS: Final = 6
ERRNO: Final = {0: None, WORD - 22: "EINVAL", WORD - 95: "EOPNOTSUPP"}


def events(
    words: list[int], names: StateNames, function: Function, given: int
) -> tuple[tuple[Event, ...], Counter[str]]:
    """The events of a call of one function with this number of words, and how often each program was missed."""
    reader = _Reader(words, names)
    return tuple(reader.events(function, given)), reader.missed


def value(function: Function, word: int) -> int:
    """The return register as the caller reads it (ARG-5)."""
    prototype = function.prototype
    if prototype is None:
        return (word + HALF) % WORD - HALF
    seen = prototype.returned(word)
    bits = 8 * min(prototype.returns.size, 8)
    return seen - (1 << bits) if prototype.returns.signed and seen >> (bits - 1) else seen


class _Reader:
    """Reads records from the first to the last.

    missed: by program, as PROG-8 counts. _caller: the number of the program which has made a call, and the function
    that it runs for.
    """

    def __init__(self, words: list[int], names: StateNames) -> None:
        self.missed = Counter[str]()
        self._words = words
        self._names = names
        self._at = 0
        self._caller: tuple[int, Function] | None = None

    def _take(self) -> int:
        self._at += 1
        return self._words[self._at - 1]

    def _take_many(self, count: int) -> list[int]:
        self._at += count
        return self._words[self._at - count : self._at]

    def events(self, function: Function, given: int) -> Iterator[Event]:
        """Up to the end of this call."""
        program = 0
        while self._at < len(self._words) and self._words[self._at] != RETURN:
            tag = self._take()
            first = self._words[self._at]
            if tag == MISSED:
                self._count_miss(self._take(), function)
            elif tag == CALL and program and self._caller is None:
                self._caller = program, function
                yield self._read_call(self._names.function(self._take()))
                self._caller = None
            else:
                yield self._read_event(tag, function, given)
            program = first if tag == PROGRAM else 0

    def _count_miss(self, number: int, function: Function) -> None:
        """A program without a target is another one for each function."""
        if self._names.is_one_program(number) or self._caller == (number, function):
            self.missed[self._names.program(number)[1]] += 1

    def _read_event(self, tag: int, function: Function, given: int) -> Event:
        names = self._names
        if tag == OPS:
            return OpsCall(names.ops(self._take()))
        if tag in {GRAPH_ENTRY, GRAPH_RETURN}:
            slot, index, depth = self._take_many(3)
            made = GraphEntry if tag == GRAPH_ENTRY else GraphReturn
            return made(names.user(slot), names.function(index).name, depth)
        if tag == DIRECT:
            return DirectCall(names.direct(self._take()))
        if tag == BODY:
            patched, count = self._take_many(2)
            return Body(_cut(function, self._take_many(count), given), bool(patched))
        if tag == PROBE:
            return self._read_probe(function)
        if tag == CALL:
            return self._read_call(names.function(self._take()))
        assert tag == PROGRAM, f"no record has the tag {tag:#x}"
        return self._read_program(function)

    def _read_call(self, callee: Function) -> NestedCall:
        found = tuple(self.events(callee, 0))
        assert self._take() == RETURN
        return NestedCall(callee.name, Trace(found, value(callee, self._take())))

    def _read_probe(self, function: Function) -> ProgramRun:
        number, index, cookie, *words = self._take_many(PROBE_WORDS)
        kind, name, _, asks = self._names.program(number)
        seen = (_cut_returned(function, words[0]),) if kind == "kretprobe" else _cut_registers(function, words)
        func_ip = self._names.function(index).name if asks else None
        return ProgramRun(kind, name, seen, func_ip, arg_cnt=0, args=(), ret=0, cookie=cookie)

    def _read_program(self, function: Function) -> ProgramRun:
        number, cookie, func_ip, count, errno, returned, is_return, session = self._take_many(PROGRAM_WORDS - 1)
        kind, name, has_slot, asks = self._names.program(number)
        asked = min(count, MOST_ARGUMENTS)
        answers = self._take_many(2 * asked + 2)
        context = self._take_many(asked + has_slot)
        words = _cut(function, context[:asked], asked)
        args = (ERRNO[status] or word for status, word in zip(answers[::2], answers[1::2], strict=True))
        return ProgramRun(
            kind=kind,
            prog=name,
            context=(*words, *(_cut_returned(function, word) for word in context[asked:])),
            func_ip=self._names.function_at(func_ip) if asks else None,
            arg_cnt=count,
            args=_cut_args(function, tuple(args)),
            ret=ERRNO[errno] or _cut_returned(function, returned),
            cookie=cookie,
            is_return=bool(is_return),
            session=self._name_session(session) if kind == "fsession" else None,
        )

    def _name_session(self, cookie: int) -> str:
        return self._names.program(cookie)[1] if cookie else ""


def _cut(function: Function, words: list[int], given: int) -> tuple[int, ...]:
    """Words at their slots' widths (ARG-3); of a function without a prototype as many as were given."""
    if function.prototype is None:
        return tuple(words[: min(given, UNTYPED_WORDS)])
    return tuple(word % (1 << 8 * slot.size) for slot, word in zip(function.prototype.slots, words, strict=True))


def _cut_registers(function: Function, words: list[int]) -> tuple[int, ...]:
    """Of the registers those that are slots, at their widths; of a function without a prototype all."""
    if function.prototype is None:
        return tuple(words)
    registers = dict(zip(SYSTEM_V.arguments, words, strict=True))
    slots = (slot for slot in function.prototype.slots if slot.register)
    return tuple(registers[slot.register] % (1 << 8 * slot.size) for slot in slots if slot.register)


def _cut_args(function: Function, args: tuple[int | str, ...]) -> tuple[int | str, ...]:
    slots = function.prototype.slots if function.prototype else ()
    widths = [8 * slot.size for slot in slots] + [64] * (len(args) - len(slots))
    return tuple(word if isinstance(word, str) else word % (1 << bits) for word, bits in zip(args, widths, strict=True))


def _cut_returned(function: Function, word: int) -> int:
    return word if function.prototype is None else function.prototype.returned(word)
