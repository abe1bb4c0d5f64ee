"""The commands for massattach.ko, each of which is one write(2) to /proc/massattach, and the log that it keeps.

A command is u32 verb, u32 number of words, the words (u64), and a text that fills the rest; the write returns the errno
of the kernel's own call, or its length. The log is u64 bytes of records, u64 records that found no room, and the
records: u64 time, u16 kind, u16 number of words, u32 number, u64 ip, the words. All is little endian.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from impl.linux.laboratory.build import CORE, Modules
from spec import operations as op
from spec.abi import SYSTEM_V
from spec.errors import BadInputError
from spec.prototypes import MODULUS, Prototype

__all__ = [
    "CONTROL",
    "DONE",
    "ENCODINGS",
    "OPS_SLOTS",
    "PARKED",
    "RUNNING",
    "STUBS",
    "BeginRecord",
    "BodyRecord",
    "Command",
    "DirectRecord",
    "Log",
    "Numbers",
    "OpsCallRecord",
    "ParkRecord",
    "Record",
    "Run",
    "ValueRecord",
    "call",
    "decode",
    "delete_module",
    "encode",
    "init_module",
    "load_module",
    "pack",
    "parameters",
]

CONTROL = "/proc/massattach"
REGISTERS = SYSTEM_V.arguments
OPS_SLOTS = 256
"""Slots for ops, whose callbacks are symbols massattach_ops0 and so on; one that was freed can be declared anew."""

STUBS = 32
"""Direct stubs, as symbols massattach_stub0 and so on."""

COMMAND_HEADER = struct.Struct("<II")
LOG = struct.Struct("<QQ")
RECORD = struct.Struct("<QHHIQ")
STACK_WORDS = 32
"""Like STUBS and OPS_SLOTS a number of module/sizes.h."""

REMOVE, RESET = 1, 2
RUNNING, PARKED, DONE = range(3)
"""The enum state of module/park.c."""


Command = IntEnum(
    "Command",
    "CLEAR WARN OOPS CALL "
    "OPS_DECLARE OPS_FILTER_IP OPS_FILTER_IPS OPS_FILTER OPS_NOTRACE OPS_FREE OPS_REGISTER OPS_UNREGISTER "
    "DIRECT_REGISTER DIRECT_UNREGISTER DIRECT_MODIFY MULTI_REGISTER MULTI_UNREGISTER MULTI_MODIFY "
    "HASH_ADD HASH_DEL HASH_MOD LIVEPATCH UNLIVEPATCH HOLD SETTLE "
    "PARK_BEGIN PARK_CALL PARK_STEP PARK_WAIT PARK_LOOK GRACE_PERIOD PARK_THREAD",
    start=0,
)
"""Places in the table `verbs` of module/core.c."""

RecordKind = IntEnum("RecordKind", "BODY PATCHED OPS DIRECT VALUE BEGIN PARK")
"""The enum massattach_kind of module/massattach.h."""


@dataclass(frozen=True, slots=True)
class Numbers:
    """The numbers by which the module knows what has a name here.

    ops: slots, below OPS_SLOTS. stubs: numbers of direct stubs by trampoline, below STUBS. address: of a function, 0
    for one that is not there. A livepatch asks for that of NAME__patched, too.
    """

    ops: Mapping[str, int]
    stubs: Mapping[str, int]
    address: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class BodyRecord:
    """The body of a function of the world ran, or its patched twin, with these words, each at its slot's width.

    number: the function's place in the world. time, here and below: ktime_get_mono_fast_ns().
    """

    time: int
    number: int
    patched: bool
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpsCallRecord:
    """The callback of the ops in a slot ran.

    ip: of the site, which is at the function's address or a little behind it.
    """

    time: int
    slot: int
    ip: int


@dataclass(frozen=True, slots=True)
class DirectRecord:
    """A direct stub ran; ip as in an OpsCallRecord."""

    time: int
    stub: int
    ip: int


@dataclass(frozen=True, slots=True)
class BeginRecord:
    """A body or a program is about to call the function at an address."""

    time: int
    address: int


@dataclass(frozen=True, slots=True)
class ValueRecord:
    """The end of a call: all 64 bits of the return register. address: of the function if the host called it, else 0."""

    time: int
    address: int
    value: int


@dataclass(frozen=True, slots=True)
class ParkRecord:
    """Where the task in a slot was, when that was asked.

    at: the address where it stood last. state: RUNNING, PARKED or DONE. depth: its read sections of RCU there.
    holdout: RCU tasks waits for it.
    """

    time: int
    slot: int
    at: int
    state: int
    depth: int
    holdout: bool


Run = BodyRecord | OpsCallRecord | DirectRecord | BeginRecord | ValueRecord
Record = Run | ParkRecord
"""Run: what happened in a call."""


@dataclass(frozen=True, slots=True)
class Log:
    """Records since the last clear, in order, and how many found no room."""

    records: tuple[Record, ...]
    lost: int


def pack(command: Command, *words: int, text: str = "") -> bytes:
    """A command as it is written. HOLD takes the memory between two addresses, which a module has left, for good.

    SETTLE waits until all that was put off till after grace periods is done.
    """
    packed = struct.pack(f"<{len(words)}Q", *(word % MODULUS for word in words))
    return COMMAND_HEADER.pack(command, len(words)) + packed + text.encode()


def call(address: int, prototype: Prototype | None, arguments: tuple[int, ...], slot: int | None = None) -> bytes:
    """The command that calls a function with one argument a slot, converted as a C caller does it (ARG-2, ARG-3).

    Without a prototype as many arguments are passed as there are registers for them. slot: of the task that the writer
    becomes, so that it stops at points.
    """
    registers, stack = _place_arguments(prototype, arguments) if prototype else (_pad(arguments[: len(REGISTERS)]), ())
    if len(stack) > STACK_WORDS:
        raise BadInputError(f"a call with {len(stack)} words on the stack cannot be made: {STACK_WORDS} is the most")
    words = (address, *registers, *stack)
    return pack(Command.CALL, *words) if slot is None else pack(Command.PARK_CALL, slot, *words)


def encode(operation: op.Operation, numbers: Numbers) -> bytes:
    """The command of an operation of ENCODINGS; a KeyError for an ops or a trampoline that has no number."""
    command, words = ENCODINGS[type(operation)]
    text = operation.glob if isinstance(operation, op.FtraceSetFilter | op.FtraceSetNotrace) else ""
    return pack(command, *words(operation, numbers), text=text)


def decode(log: bytes) -> Log:
    """The log, as it was read from CONTROL. BadInputError if it is damaged."""
    try:
        used, lost = LOG.unpack_from(log)
        return Log(tuple(_read_records(log[LOG.size : LOG.size + used])), lost)
    except (struct.error, ValueError) as error:
        raise BadInputError(f"the log of massattach.ko is damaged: {error}", CONTROL) from error


def parameters(modules: Modules, address: Callable[[str], int]) -> bytes:
    """The parameters that massattach.ko is loaded with: addresses of functions that the kernel does not export."""
    return " ".join(f"{name}={address(name):#x}" for name in modules.imports).encode()


def init_module(batch: Batch, image: bytes, parameters: bytes = b"") -> int:
    """Add the system call init_module; the entry's index in the reply."""
    return batch.syscall("init_module", image, len(image), parameters + b"\0")


def load_module(guest: Guest, modules: Modules, name: str, address: Callable[[str], int]) -> None:
    """Load CORE or a module of the world; BadInputError if the kernel refuses. address: of the kernel's functions."""
    batch = Batch()
    if name == CORE:
        init_module(batch, modules.massattach, parameters(modules, address))
    else:
        init_module(batch, modules.others[name])
    refused = guest.submit(batch)[0].value
    if refused:
        raise BadInputError(f"the kernel refuses the module {name}.ko: {errno_name(refused)}")


def settle(guest: Guest) -> None:
    """Wait until all that the kernel put off till after grace periods is done."""
    batch = Batch()
    written = batch.write_file(CONTROL, pack(Command.SETTLE))
    refused = guest.submit(batch)[written].value
    if refused < 0:
        raise BadInputError(f"the kernel does not settle: {errno_name(refused)}")


def delete_module(batch: Batch, name: str) -> int:
    """Add the system call delete_module, which does not wait for users; the entry's index in the reply."""
    return batch.syscall("delete_module", name.encode() + b"\0", os.O_NONBLOCK)


def _place_arguments(prototype: Prototype, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The registers and the stack words; an integer is extended to 64 bits by its sign."""
    registers, stack = dict.fromkeys(REGISTERS, 0), dict[int, int]()
    for slot, word in zip(prototype.slots, prototype.words(arguments), strict=True):
        kind = prototype.arguments[slot.argument]
        passed = word if kind.by_value or slot.size < kind.size or slot.offset else kind.extend(word)
        if slot.register:
            registers[slot.register] = passed
        elif slot.stack is not None:
            stack[slot.stack] = passed
    return tuple(registers.values()), tuple(stack[place] for place in sorted(stack))


def _pad(words: tuple[int, ...]) -> tuple[int, ...]:
    return words + (0,) * (len(REGISTERS) - len(words))


def _read_records(packed: bytes) -> Iterator[Record]:
    at = 0
    while at < len(packed):
        time, kind, count, number, ip = RECORD.unpack_from(packed, at)
        words = struct.unpack_from(f"<{count}Q", packed, at + RECORD.size)
        at += RECORD.size + 8 * count
        yield _make_record(RecordKind(kind), time, number, ip, words)


def _make_record(kind: RecordKind, time: int, number: int, ip: int, words: tuple[int, ...]) -> Record:
    if kind is RecordKind.OPS:
        return OpsCallRecord(time, number, ip)
    if kind is RecordKind.DIRECT:
        return DirectRecord(time, number, ip)
    if kind is RecordKind.BEGIN:
        return BeginRecord(time, ip)
    if kind is RecordKind.VALUE:
        (value,) = words
        return ValueRecord(time, ip, value)
    if kind is RecordKind.PARK:
        state, depth, holdout = words
        return ParkRecord(time, number, ip, state, depth, bool(holdout))
    return BodyRecord(time, number, kind is RecordKind.PATCHED, words)


def _encode_how(operation: op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> int:
    return REMOVE * operation.remove | RESET * operation.reset


def _encode_flags(operation: op.FtraceOps) -> int:
    """A bit for each flag, in the order of flags_of_bits of module/ops.c."""
    flags = ("save_regs", "ipmodify", "recursion", "rcu", "permanent", "dynamic")
    return sum(1 << place for place, flag in enumerate(flags) if getattr(operation, flag))


def _encode_ops(operation: Any, numbers: Numbers) -> Iterable[int]:
    yield numbers.ops[operation.ops]


def _encode_pattern(operation: op.FtraceSetFilter | op.FtraceSetNotrace, numbers: Numbers) -> Iterable[int]:
    return numbers.ops[operation.ops], RESET * operation.reset


def _encode_single(operation: op.RegisterFtraceDirect | op.UnregisterFtraceDirect, numbers: Numbers) -> Iterable[int]:
    return numbers.address(operation.function), numbers.stubs[operation.tramp]


def _encode_multi(operation: Any, numbers: Numbers) -> Iterable[int]:
    return numbers.ops[operation.ops], numbers.stubs[operation.tramp]


def _encode_entries(operation: Any, numbers: Numbers) -> Iterable[int]:
    yield numbers.ops[operation.ops]
    for function, tramp in operation.entries:
        yield from (numbers.address(function), numbers.stubs[tramp])


ENCODINGS: dict[type[op.Operation], tuple[Command, Callable[[Any, Numbers], Iterable[int]]]] = {
    op.FtraceOps: (Command.OPS_DECLARE, lambda o, n: (n.ops[o.ops], _encode_flags(o))),
    op.FtraceSetFilterIp: (Command.OPS_FILTER_IP, lambda o, n: (n.ops[o.ops], _encode_how(o), n.address(o.function))),
    op.FtraceSetFilterIps: (
        Command.OPS_FILTER_IPS,
        lambda o, n: (n.ops[o.ops], _encode_how(o), *map(n.address, o.functions)),
    ),
    op.FtraceSetFilter: (Command.OPS_FILTER, _encode_pattern),
    op.FtraceSetNotrace: (Command.OPS_NOTRACE, _encode_pattern),
    op.FtraceFreeFilter: (Command.OPS_FREE, _encode_ops),
    op.RegisterFtraceFunction: (Command.OPS_REGISTER, _encode_ops),
    op.UnregisterFtraceFunction: (Command.OPS_UNREGISTER, _encode_ops),
    op.RegisterFtraceDirect: (Command.DIRECT_REGISTER, _encode_single),
    op.UnregisterFtraceDirect: (Command.DIRECT_UNREGISTER, _encode_single),
    op.ModifyFtraceDirect: (
        Command.DIRECT_MODIFY,
        lambda o, n: (n.address(o.function), n.stubs[o.old], n.stubs[o.new]),
    ),
    op.RegisterFtraceDirectMulti: (Command.MULTI_REGISTER, _encode_multi),
    op.UnregisterFtraceDirectMulti: (Command.MULTI_UNREGISTER, lambda o, n: (*_encode_multi(o, n), o.free)),
    op.ModifyFtraceDirectMulti: (Command.MULTI_MODIFY, _encode_multi),
    op.UpdateFtraceDirectAdd: (Command.HASH_ADD, _encode_entries),
    op.UpdateFtraceDirectDel: (Command.HASH_DEL, _encode_entries),
    op.UpdateFtraceDirectMod: (Command.HASH_MOD, _encode_entries),
    op.Livepatch: (Command.LIVEPATCH, lambda o, n: (n.address(o.function), n.address(f"{o.function}__patched"))),
    op.Unlivepatch: (Command.UNLIVEPATCH, lambda o, n: (n.address(o.function),)),
    op.Settle: (Command.SETTLE, lambda _, __: ()),
}
"""The command of each operation that has one, and its words. Where a kernel lacks the call, it is -EOPNOTSUPP."""
