"""What the host says to massattach.ko, one write(2) to /proc/massattach a command, and what its log says back.

A command is u32 verb, u32 number of words, the words (u64), and a text that fills the rest; the write returns the errno
of the kernel's own call, or its length. The log is u64 bytes of records, u64 records that found no room, and the
records: u64 time, u16 kind, u16 number of words, u32 number, u64 ip, the words. All is little endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

from impl.linux.guest.frames import Batch
from impl.linux.laboratory.build import Modules
from spec import operations as op
from spec.abi import SYSTEM_V
from spec.errors import BadInputError
from spec.prototypes import MODULUS, Prototype

__all__ = [
    "CONTROL",
    "ENCODED",
    "OPS_SLOTS",
    "STUBS",
    "BeginRecord",
    "BodyRecord",
    "DirectRecord",
    "Log",
    "Numbers",
    "OpsRecord",
    "Record",
    "ValueRecord",
    "call",
    "clear",
    "decode",
    "delete_module",
    "encode",
    "hold",
    "init_module",
    "oops",
    "parameters",
    "warn",
]

CONTROL = "/proc/massattach"
REGISTERS = SYSTEM_V.arguments
OPS_SLOTS = 256
"""Slots for ops, whose callbacks are symbols massattach_ops0 and so on; one that was freed can be declared anew."""

STUBS = 32
"""Direct stubs, as symbols massattach_stub0 and so on."""

COMMAND = struct.Struct("<II")
LOG = struct.Struct("<QQ")
RECORD = struct.Struct("<QHHIQ")
STACK_WORDS = 32
"""As STUBS and OPS_SLOTS a number of module/sizes.h."""

SYS_INIT_MODULE, SYS_DELETE_MODULE = 175, 176
O_NONBLOCK = 0o4000
REMOVE, RESET = 1, 2


class Verb(IntEnum):
    """Places in the table `verbs` of module/core.c."""

    CLEAR = 0
    WARN = 1
    OOPS = 2
    CALL = 3
    OPS_DECLARE = 4
    OPS_FILTER_IP = 5
    OPS_FILTER_IPS = 6
    OPS_FILTER = 7
    OPS_NOTRACE = 8
    OPS_FREE = 9
    OPS_REGISTER = 10
    OPS_UNREGISTER = 11
    DIRECT_REGISTER = 12
    DIRECT_UNREGISTER = 13
    DIRECT_MODIFY = 14
    MULTI_REGISTER = 15
    MULTI_UNREGISTER = 16
    MULTI_MODIFY = 17
    HASH_ADD = 18
    HASH_DEL = 19
    HASH_MOD = 20
    LIVEPATCH = 21
    UNLIVEPATCH = 22
    HOLD = 23


class Kind(IntEnum):
    """Enum massattach_kind of module/massattach.h."""

    BODY = 1
    PATCHED = 2
    OPS = 3
    DIRECT = 4
    VALUE = 5
    BEGIN = 6


@dataclass(frozen=True, slots=True)
class Numbers:
    """What the module knows names by.

    ops: slots, below OPS_SLOTS. stubs: numbers of direct stubs by trampoline, below STUBS. address: of a function, 0
    for one that is not there. A livepatch needs that of NAME__patched, too.
    """

    ops: Mapping[str, int]
    stubs: Mapping[str, int]
    address: Callable[[str], int]


@dataclass(frozen=True, slots=True)
class BodyRecord:
    """The body of a function of the world ran (or its patched twin), with these words, each at its slot's width.

    number: the function's place in the world. time, here and below: ktime_get_mono_fast_ns().
    """

    time: int
    number: int
    patched: bool
    words: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class OpsRecord:
    """The callback of the ops in a slot ran.

    ip: of the site, which is at the function's address, or 4 behind it if the function begins with endbr64.
    """

    time: int
    slot: int
    ip: int


@dataclass(frozen=True, slots=True)
class DirectRecord:
    """A direct stub ran; ip as in an OpsRecord."""

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
    """The end of a call: all 64 bits of rax. The function's address if it was the host's call, else 0."""

    time: int
    address: int
    value: int


Record = BodyRecord | OpsRecord | DirectRecord | BeginRecord | ValueRecord


@dataclass(frozen=True, slots=True)
class Log:
    """Records since the last clear, in order, and how many found no room."""

    records: tuple[Record, ...]
    lost: int


def clear() -> bytes:
    """The command that empties the log."""
    return _command(Verb.CLEAR)


def warn() -> bytes:
    """The command that makes the kernel warn."""
    return _command(Verb.WARN)


def oops() -> bytes:
    """The command that makes the kernel oops in the writer."""
    return _command(Verb.OOPS)


def hold(first: int, behind: int) -> bytes:
    """The command that takes the memory between two addresses, which a module has left, for good."""
    return _command(Verb.HOLD, first, behind)


def call(address: int, prototype: Prototype | None, arguments: tuple[int, ...]) -> bytes:
    """The command that calls a function with one argument a slot, converted as a C caller does it (ARG-2, ARG-3).

    Without a prototype the first six arguments are passed in registers.
    """
    registers, stack = _places(prototype, arguments) if prototype else (_padded(arguments[: len(REGISTERS)]), ())
    if len(stack) > STACK_WORDS:
        raise BadInputError(f"a call with {len(stack)} words on the stack cannot be made: {STACK_WORDS} is the most")
    return _command(Verb.CALL, address, *registers, *stack)


def encode(operation: op.Operation, numbers: Numbers) -> bytes:
    """The command of an operation, one of ENCODED; a KeyError for an ops or a trampoline that has no number."""
    return ENCODERS[type(operation)](operation, numbers)


def decode(log: bytes) -> Log:
    """What reading CONTROL gave. BadInputError if it is damaged."""
    try:
        used, lost = LOG.unpack_from(log)
        return Log(tuple(_records(log[LOG.size : LOG.size + used])), lost)
    except (struct.error, ValueError) as error:
        raise BadInputError(f"the log of massattach.ko is damaged: {error}", CONTROL) from error


def parameters(modules: Modules, address: Callable[[str], int]) -> bytes:
    """The parameters that massattach.ko is loaded with: addresses of functions that the kernel does not export."""
    return " ".join(f"{name}={address(name):#x}" for name in modules.imports).encode()


def init_module(batch: Batch, image: bytes, parameters: bytes = b"") -> int:
    """Add the system call init_module; the entry's index in the reply."""
    return batch.syscall(SYS_INIT_MODULE, image, len(image), parameters + b"\0")


def delete_module(batch: Batch, name: str) -> int:
    """Add the system call delete_module, which does not wait for users; the entry's index in the reply."""
    return batch.syscall(SYS_DELETE_MODULE, name.encode() + b"\0", O_NONBLOCK)


def _command(verb: Verb, *words: int, text: str = "") -> bytes:
    packed = struct.pack(f"<{len(words)}Q", *(word % MODULUS for word in words))
    return COMMAND.pack(verb, len(words)) + packed + text.encode()


def _places(prototype: Prototype, arguments: tuple[int, ...]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The six registers and the stack words; an integer is extended to 64 bits by its sign."""
    registers, stack = dict.fromkeys(REGISTERS, 0), dict[int, int]()
    for slot, word in zip(prototype.slots, prototype.words(arguments), strict=True):
        kind = prototype.arguments[slot.argument]
        passed = word if kind.by_value or slot.size < kind.size or slot.offset else kind.extend(word)
        if slot.register:
            registers[slot.register] = passed
        elif slot.stack is not None:
            stack[slot.stack] = passed
    return tuple(registers.values()), tuple(stack[place] for place in sorted(stack))


def _padded(words: tuple[int, ...]) -> tuple[int, ...]:
    return words + (0,) * (len(REGISTERS) - len(words))


def _records(packed: bytes) -> Iterator[Record]:
    at = 0
    while at < len(packed):
        time, kind, count, number, ip = RECORD.unpack_from(packed, at)
        words = struct.unpack_from(f"<{count}Q", packed, at + RECORD.size)
        at += RECORD.size + 8 * count
        yield _record(Kind(kind), time, number, ip, words)


def _record(kind: Kind, time: int, number: int, ip: int, words: tuple[int, ...]) -> Record:
    if kind is Kind.OPS:
        return OpsRecord(time, number, ip)
    if kind is Kind.DIRECT:
        return DirectRecord(time, number, ip)
    if kind is Kind.BEGIN:
        return BeginRecord(time, ip)
    if kind is Kind.VALUE:
        (value,) = words
        return ValueRecord(time, ip, value)
    return BodyRecord(time, number, kind is Kind.PATCHED, words)


def _how(operation: op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> int:
    return REMOVE * operation.remove | RESET * operation.reset


def _declare(operation: op.FtraceOps, numbers: Numbers) -> bytes:
    flags = ("save_regs", "ipmodify", "recursion", "rcu", "permanent", "dynamic")
    bits = sum(1 << place for place, flag in enumerate(flags) if getattr(operation, flag))
    return _command(Verb.OPS_DECLARE, numbers.ops[operation.ops], bits)


def _filter_ip(operation: op.FtraceSetFilterIp, numbers: Numbers) -> bytes:
    slot, address = numbers.ops[operation.ops], numbers.address(operation.function)
    return _command(Verb.OPS_FILTER_IP, slot, _how(operation), address)


def _filter_ips(operation: op.FtraceSetFilterIps, numbers: Numbers) -> bytes:
    slot, addresses = numbers.ops[operation.ops], map(numbers.address, operation.functions)
    return _command(Verb.OPS_FILTER_IPS, slot, _how(operation), *addresses)


def _glob(verb: Verb) -> Encoder:
    def encoder(operation: op.FtraceSetFilter | op.FtraceSetNotrace, numbers: Numbers) -> bytes:
        return _command(verb, numbers.ops[operation.ops], RESET * operation.reset, text=operation.glob)

    return encoder


def _of_ops(verb: Verb) -> Encoder:
    def encoder(
        operation: op.FtraceFreeFilter | op.RegisterFtraceFunction | op.UnregisterFtraceFunction, numbers: Numbers
    ) -> bytes:
        return _command(verb, numbers.ops[operation.ops])

    return encoder


def _single(verb: Verb) -> Encoder:
    def encoder(operation: op.RegisterFtraceDirect | op.UnregisterFtraceDirect, numbers: Numbers) -> bytes:
        return _command(verb, numbers.address(operation.function), numbers.stubs[operation.tramp])

    return encoder


def _modify_single(operation: op.ModifyFtraceDirect, numbers: Numbers) -> bytes:
    old, new = numbers.stubs[operation.old], numbers.stubs[operation.new]
    return _command(Verb.DIRECT_MODIFY, numbers.address(operation.function), old, new)


def _multi(verb: Verb) -> Encoder:
    def encoder(operation: op.RegisterFtraceDirectMulti | op.ModifyFtraceDirectMulti, numbers: Numbers) -> bytes:
        return _command(verb, numbers.ops[operation.ops], numbers.stubs[operation.tramp])

    return encoder


def _unregister_multi(operation: op.UnregisterFtraceDirectMulti, numbers: Numbers) -> bytes:
    slot, stub = numbers.ops[operation.ops], numbers.stubs[operation.tramp]
    return _command(Verb.MULTI_UNREGISTER, slot, stub, operation.free)


def _hash(verb: Verb) -> Encoder:
    def encoder(
        operation: op.UpdateFtraceDirectAdd | op.UpdateFtraceDirectDel | op.UpdateFtraceDirectMod, numbers: Numbers
    ) -> bytes:
        pairs = ((numbers.address(function), numbers.stubs[tramp]) for function, tramp in operation.entries)
        return _command(verb, numbers.ops[operation.ops], *(word for pair in pairs for word in pair))

    return encoder


def _livepatch(operation: op.Livepatch, numbers: Numbers) -> bytes:
    patched = numbers.address(f"{operation.function}__patched")
    return _command(Verb.LIVEPATCH, numbers.address(operation.function), patched)


def _unlivepatch(operation: op.Unlivepatch, numbers: Numbers) -> bytes:
    return _command(Verb.UNLIVEPATCH, numbers.address(operation.function))


Encoder = Callable[[Any, Numbers], bytes]
ENCODERS: dict[type[op.Operation], Encoder] = {
    op.FtraceOps: _declare,
    op.FtraceSetFilterIp: _filter_ip,
    op.FtraceSetFilterIps: _filter_ips,
    op.FtraceSetFilter: _glob(Verb.OPS_FILTER),
    op.FtraceSetNotrace: _glob(Verb.OPS_NOTRACE),
    op.FtraceFreeFilter: _of_ops(Verb.OPS_FREE),
    op.RegisterFtraceFunction: _of_ops(Verb.OPS_REGISTER),
    op.UnregisterFtraceFunction: _of_ops(Verb.OPS_UNREGISTER),
    op.RegisterFtraceDirect: _single(Verb.DIRECT_REGISTER),
    op.UnregisterFtraceDirect: _single(Verb.DIRECT_UNREGISTER),
    op.ModifyFtraceDirect: _modify_single,
    op.RegisterFtraceDirectMulti: _multi(Verb.MULTI_REGISTER),
    op.UnregisterFtraceDirectMulti: _unregister_multi,
    op.ModifyFtraceDirectMulti: _multi(Verb.MULTI_MODIFY),
    op.UpdateFtraceDirectAdd: _hash(Verb.HASH_ADD),
    op.UpdateFtraceDirectDel: _hash(Verb.HASH_DEL),
    op.UpdateFtraceDirectMod: _hash(Verb.HASH_MOD),
    op.Livepatch: _livepatch,
    op.Unlivepatch: _unlivepatch,
}
ENCODED = frozenset(ENCODERS)
"""The operations that encode() knows; a kernel that lacks the call of one answers -EOPNOTSUPP."""
