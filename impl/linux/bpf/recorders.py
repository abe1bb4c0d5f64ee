"""Recorder programs: BPF programs that write down what they see each time they run, and the records that they leave.

Records stand one after the other in the value of a one-entry array map, behind a header. A program takes the next place
by adding to the header's count, so that records of nested runs stand in the order in which the runs began.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from impl.linux.bpf import instructions as code
from impl.linux.bpf.commands import load_kprobe, load_program
from impl.linux.bpf.instructions import BpfInstruction
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from spec.abi import SLOT_BYTES, SYSTEM_V
from spec.operations import KPROBES, LSM
from spec.prototypes import Prototype
from spec.traces import ProgramRun

__all__ = [
    "ATTACH_TYPES",
    "COUNT_AT",
    "HEADER_BYTES",
    "NESTED_AT",
    "NESTED_BYTES",
    "NESTED_ENTRIES",
    "RECORDS",
    "RECORD_BYTES",
    "VALUE_BYTES",
    "Bindings",
    "RecorderProgram",
    "RunRecord",
    "assemble",
    "decode",
    "load",
]

# enum bpf_attach_type; a program of several functions has a type of its own, except fmod_ret, which the kernel refuses
ATTACH_TYPES: Final[Mapping[tuple[str, bool], int]] = {
    ("fentry", False): 24,
    ("fexit", False): 25,
    ("fmod_ret", False): 26,
    ("lsm", False): 27,
    ("fsession", False): 58,
    ("fentry", True): 59,
    ("fexit", True): 60,
    ("fmod_ret", True): 26,
    ("fsession", True): 61,
}

# enum bpf_func_id
KTIME_GET_NS, GET_FUNC_IP, GET_ATTACH_COOKIE = 5, 173, 174
GET_FUNC_ARG, GET_FUNC_RET, GET_FUNC_ARG_CNT = 183, 184, 185

MOST_SLOTS = 12
# the header: how many runs there were; then for each program that calls a function the function's address, and whether
# such a call is under way
COUNT_AT, NESTED_AT, HEADER_BYTES = 0, 16, 512
NESTED_BYTES, UNDER_WAY = 16, 8
NESTED_ENTRIES = (HEADER_BYTES - NESTED_AT) // NESTED_BYTES
RECORD_BITS = 9
RECORD_BYTES = 1 << RECORD_BITS
RECORDS = 255
VALUE_BYTES = HEADER_BYTES + RECORDS * RECORD_BYTES

# a record's words: what was seen, then the context, then answer and value of bpf_get_func_arg(0), (1), ...
TIME, NUMBER, IS_RETURN, FUNC_IP, ARG_CNT, COOKIE, SESSION, RET, RET_VALUE = range(9)
CONTEXT = 9
ARGUMENTS = CONTEXT + MOST_SLOTS + 1
WORDS = ARGUMENTS + 2 * (MOST_SLOTS + 1)
RECORD = struct.Struct(f"<{WORDS}Q")

R0, R1, R2, R3 = range(4)
CONTEXT_REGISTER, RECORD_REGISTER, RETURN_REGISTER, CALL_REGISTER = 6, 7, 8, 9


@dataclass(frozen=True, slots=True)
class RecorderProgram:
    """A program to be loaded.

    number: which its records have, from 0. loads: the places of its target's context that can be loaded, as
    Btf.loadable() gives them. slots: how many its target has; None for a program of several functions, which can load
    none. nested: the entry of the map's header with the address of a function that the program calls each time it runs,
    through massattach_nested(); None: no call. Programs with the same entry count as one: in such a call none of them
    runs or leaves a record (PROG-6), but for lsm programs, which do (LSM-5).
    """

    number: int
    kind: str
    loads: tuple[int, ...] = ()
    slots: int | None = None
    sleepable: bool = False
    func_ip: bool = False
    returns: int = 0
    nested: int | None = None

    @property
    def multi(self) -> bool:
        """Whether it may be attached to several functions by one link."""
        return self.slots is None

    @property
    def attach_type(self) -> int:
        """Its expected_attach_type."""
        return ATTACH_TYPES[self.kind, self.multi]

    @property
    def sees_return(self) -> bool:
        """Whether its context ends in the return slot (TRAMP-4)."""
        return self.kind != "fentry"

    def reads(self, place: int) -> bool:
        """Whether it loads a context word itself.

        The return's is no part of a fentry program's context, and only integers are let to fmod_ret programs; what lsm
        programs may load of it depends on their hook.
        """
        last = self.kind in {"fexit", "fsession"}
        return place in self.loads and place < (self.slots or 0) + last


@dataclass(frozen=True, slots=True)
class Bindings:
    """The map of the records, and kernel functions that programs call, by BTF id; 0 where the kernel lacks one.

    massattach_nested is looked up in the BTF that is entry 1 of the program's fd_array. saved_arguments, saved_result:
    as the kernel's architecture has them.
    """

    map_fd: int
    session_is_return: int = 0
    session_cookie: int = 0
    nested: int = 0
    saved_arguments: tuple[int, ...] = ()
    saved_result: int = 0


def load(
    batch: Batch, program: RecorderProgram, bindings: Bindings, *, btf_id: int = 0, btf_fd: int = 0, nested_btf: int = 0
) -> int:
    """Load a program, as load_program() does. nested_btf: the BTF that has massattach_nested."""
    text, name = assemble(program, bindings), f"m{program.number}"
    if program.kind in KPROBES:
        return load_kprobe(batch, text, name, sleepable=program.sleepable)
    places = {"btf_id": btf_id, "btf_fd": btf_fd, "kfunc_btf": nested_btf}
    return load_program(batch, text, program.attach_type, name, sleepable=program.sleepable, **places)


@lru_cache(maxsize=4096)
def assemble(program: RecorderProgram, bindings: Bindings) -> bytes:
    """The instructions of a program."""
    see = _probe if program.kind in KPROBES else _trace
    body = [*_take_record(bindings), *see(program, bindings)]
    ends = [*code.move(R0, program.returns), code.exit_program()]
    start = [
        code.move_register(CONTEXT_REGISTER, R1),
        *(_skip_if_nested(program.nested, bindings) if program.nested is not None and program.kind != LSM else ()),
        *code.load_map_value(R1, bindings.map_fd, COUNT_AT),
        *code.move(R0, 1),
        code.fetch_add(R1, 0, R0),
        code.jump_if_at_least(R0, RECORDS, len(body)),
    ]
    return code.encode([*start, *body, *ends])


def _probe(program: RecorderProgram, bindings: Bindings) -> list[BpfInstruction]:
    """A kprobe program sees registers in the place of the context, the function's address and the cookie."""
    places = (bindings.saved_result,) if program.kind == "kretprobe" else bindings.saved_arguments
    seen = [*_note(program), *_ask(GET_ATTACH_COOKIE, COOKIE)]
    for place, at in enumerate(places):
        seen += [code.load(R1, CONTEXT_REGISTER, at), code.store(RECORD_REGISTER, SLOT_BYTES * (CONTEXT + place), R1)]
    return seen


def _trace(program: RecorderProgram, bindings: Bindings) -> list[BpfInstruction]:
    """A program of a trampoline notes what it sees, and makes its call."""
    return [
        *_call_helpers(program),
        *_load_context(program),
        *_get_arguments(MOST_SLOTS if program.slots is None else min(program.slots, MOST_SLOTS)),
        *(_use_session(program, bindings) if program.kind == "fsession" else ()),
        *(_call_nested(program.nested, bindings) if program.nested is not None else ()),
    ]


def _skip_if_nested(entry: int, bindings: Bindings) -> list[BpfInstruction]:
    """Return 0 inside a call that this program has made."""
    return [
        *code.load_map_value(R1, bindings.map_fd, NESTED_AT + NESTED_BYTES * entry),
        code.load(R0, R1, UNDER_WAY),
        code.jump_if_zero(R0, 2),
        *code.move(R0, 0),
        code.exit_program(),
    ]


def _take_record(bindings: Bindings) -> list[BpfInstruction]:
    """Set RECORD_REGISTER to the address of the record whose number is in R0."""
    return [
        code.shift_left(R0, RECORD_BITS),
        *code.load_map_value(RECORD_REGISTER, bindings.map_fd, HEADER_BYTES),
        code.add_register(RECORD_REGISTER, R0),
    ]


def _call_helpers(program: RecorderProgram) -> list[BpfInstruction]:
    """Call each helper but bpf_get_func_arg(), and keep the answers."""
    return [
        *_note(program),
        *_ask(GET_FUNC_ARG_CNT, ARG_CNT),
        *_ask(GET_ATTACH_COOKIE, COOKIE),
        *_point_to(R2, RET_VALUE),
        *_ask(GET_FUNC_RET, RET),
    ]


def _note(program: RecorderProgram) -> list[BpfInstruction]:
    """Keep the time, the program's number, and for which function it runs."""
    return [
        code.call_helper(KTIME_GET_NS),
        _keep(TIME),
        code.store_constant(RECORD_REGISTER, SLOT_BYTES * NUMBER, program.number),
        code.store_constant(RECORD_REGISTER, SLOT_BYTES * IS_RETURN, 0),
        *(_ask(GET_FUNC_IP, FUNC_IP) if program.func_ip else ()),
    ]


def _load_context(program: RecorderProgram) -> list[BpfInstruction]:
    words: list[BpfInstruction] = []
    for place in filter(program.reads, program.loads):
        words.append(code.load(R1, CONTEXT_REGISTER, SLOT_BYTES * place))
        words.append(code.store(RECORD_REGISTER, SLOT_BYTES * (CONTEXT + place), R1))
    return words


def _get_arguments(last: int) -> list[BpfInstruction]:
    asked: list[BpfInstruction] = []
    for number in range(last + 1):
        answer = ARGUMENTS + 2 * number
        asked += [*code.move(R2, number), *_point_to(R3, answer + 1), *_ask(GET_FUNC_ARG, answer)]
    return asked


def _use_session(program: RecorderProgram, bindings: Bindings) -> list[BpfInstruction]:
    """Keep what the session cookie holds; at entry, leave the program's number plus one in it."""
    return [
        code.move_register(R1, CONTEXT_REGISTER),
        code.call_kfunc(bindings.session_is_return),
        code.bitwise_and(R0, 1),
        code.move_register(RETURN_REGISTER, R0),
        _keep(IS_RETURN),
        code.move_register(R1, CONTEXT_REGISTER),
        code.call_kfunc(bindings.session_cookie),
        code.load(R1, R0, 0),
        code.store(RECORD_REGISTER, SLOT_BYTES * SESSION, R1),
        code.jump_if_not(RETURN_REGISTER, 0, 1),
        code.store_constant(R0, 0, program.number + 1),
    ]


def _call_nested(entry: int, bindings: Bindings) -> list[BpfInstruction]:
    """Call the function whose address the map's header holds, if any (PROG-5).

    What runs in the call has a context of its own, and gives back that of this program: so its cookie is asked for
    again.
    """
    call = [
        code.store_constant(CALL_REGISTER, UNDER_WAY, 1),
        code.call_kfunc(bindings.nested, 1),
        code.store_constant(CALL_REGISTER, UNDER_WAY, 0),
        *_ask(GET_ATTACH_COOKIE, COOKIE),
    ]
    return [
        *code.load_map_value(CALL_REGISTER, bindings.map_fd, NESTED_AT + NESTED_BYTES * entry),
        code.load(R1, CALL_REGISTER, 0),
        code.jump_if_zero(R1, len(call)),
        *call,
    ]


def _ask(helper: int, word: int) -> tuple[BpfInstruction, ...]:
    """Call a helper with the context, and keep its answer."""
    return code.move_register(R1, CONTEXT_REGISTER), code.call_helper(helper), _keep(word)


def _keep(word: int) -> BpfInstruction:
    return code.store(RECORD_REGISTER, SLOT_BYTES * word, R0)


def _point_to(register: int, word: int) -> tuple[BpfInstruction, ...]:
    """Set a register to the address of a word of the record."""
    return code.move_register(register, RECORD_REGISTER), code.add(register, SLOT_BYTES * word)


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run as it was written down. Words that its program does not write are those of older records.

    time: bpf_ktime_get_ns(). number: the program's.
    """

    time: int
    number: int
    words: tuple[int, ...]

    def run(
        self,
        program: RecorderProgram,
        prog: str,
        prototype: Prototype,
        symbol: Callable[[int], str],
        sessions: Mapping[int, str],
    ) -> ProgramRun:
        """What the program `prog` saw of a function with this prototype.

        symbol: a function's name by its address. sessions: programs' names by their numbers.
        """
        words = self.words
        if program.kind in KPROBES:
            return ProgramRun(
                kind=program.kind,
                prog=prog,
                context=self._read_registers(program, prototype),
                func_ip=symbol(words[FUNC_IP]) if program.func_ip else None,
                arg_cnt=0,
                args=(),
                ret=0,
                cookie=words[COOKIE],
            )
        arguments = self._read_arguments(prototype)
        return ProgramRun(
            kind=program.kind,
            prog=prog,
            context=self._read_context(program, prototype),
            func_ip=symbol(words[FUNC_IP]) if program.func_ip else None,
            arg_cnt=words[ARG_CNT],
            args=arguments,
            ret=_read_answer(words[RET], prototype.returned(words[RET_VALUE])),
            cookie=words[COOKIE],
            is_return=bool(words[IS_RETURN]),
            session=self._read_session(sessions) if program.kind == "fsession" else None,
        )

    def _read_registers(self, program: RecorderProgram, prototype: Prototype) -> tuple[int, ...]:
        """The slots that are in registers, or the return value (KPROBE-8)."""
        if program.kind == "kretprobe":
            return (prototype.returned(self.words[CONTEXT]),)
        words = dict(zip(SYSTEM_V.arguments, self.words[CONTEXT:], strict=False))
        return tuple(_truncate(words[slot.register], slot.size) for slot in prototype.slots if slot.register)

    def _read_context(self, program: RecorderProgram, prototype: Prototype) -> tuple[int, ...]:
        """The words that the program loaded, and for those that it cannot load the answers of the helpers."""
        words = [
            _truncate(self.words[CONTEXT + place if program.reads(place) else _argument_word(place) + 1], slot.size)
            for place, slot in enumerate(prototype.slots[:MOST_SLOTS])
        ]
        if program.sees_return:
            last = len(prototype.slots)
            words.append(prototype.returned(self.words[CONTEXT + last if program.reads(last) else RET_VALUE]))
        return tuple(words)

    def _read_arguments(self, prototype: Prototype) -> tuple[int | str, ...]:
        sizes = [slot.size for slot in prototype.slots[:MOST_SLOTS]]
        return tuple(
            _read_answer(self.words[_argument_word(place)], _truncate(self.words[_argument_word(place) + 1], size))
            for place, size in enumerate([*sizes, SLOT_BYTES])
        )

    def _read_session(self, sessions: Mapping[int, str]) -> str:
        held = self.words[SESSION]
        return sessions.get(held - 1, f"{held:#x}") if held else ""


def _argument_word(place: int) -> int:
    return ARGUMENTS + 2 * place


def _truncate(word: int, size: int) -> int:
    return word % (1 << 8 * size)


def _read_answer(answer: int, value: int) -> int | str:
    """A helper's value, or the name of the errno that it returned."""
    return errno_name(answer - (1 << 64)) if answer else value


def decode(data: bytes) -> tuple[RunRecord, ...]:
    """Records from their bytes; an incomplete last one is left out."""
    found = []
    for at in range(0, len(data) - RECORD_BYTES + 1, RECORD_BYTES):
        words = RECORD.unpack_from(data, at)
        found.append(RunRecord(words[TIME], words[NUMBER], words))
    return tuple(found)
