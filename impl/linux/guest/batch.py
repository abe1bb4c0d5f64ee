"""A batch of system calls as the bytes that the guest's agent carries out, which are called a frame, and its reply.

A frame is one block of memory; offsets count from its start. It holds, without gaps and little endian:

    header    u32 magic, bytes sent, bytes in the guest's memory (those not sent are zero), and how many of each follow
    entries   u8 kind, thread, whether it is idle, 0, u32 system call number, u64 six arguments
    pointers  u32 at, u32 target: before the batch runs, the address of the byte `target` is stored at `at`
    refs      u32 entry, u32 at, u32 of, u32 width: before `entry` runs, `width` bytes of the result of `of` go to `at`
    outs      u32 entry, u32 at, u32 size: after `entry` has run, these bytes become part of its reply
    data      buffers that have bytes; then, not sent, buffers that have none

The reply is a u32 of its length; then for each entry i64 value, u64 nanoseconds, u32 number of buffers, u32 0; and for
each buffer u32 size and its bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

__all__ = ["AT_FDCWD", "Batch", "Out", "Ref", "Reply", "Struct", "parse_replies"]

HEADER = struct.Struct("<8I")
ENTRY = struct.Struct("<4BI6Q")
POINTER = struct.Struct("<2I")
REF = struct.Struct("<4I")
OUT = struct.Struct("<3I")
RESULT = struct.Struct("<qQII")
SIZE = struct.Struct("<I")

MAGIC = 0x6D617331
AT_FDCWD = -100
SYSCALL, READ_FILE, WRITE_FILE, READ_MEMORY, SPAWN, JOIN = range(6)
ARGUMENTS_AT = 8


@dataclass(frozen=True, slots=True)
class Out:
    """An output buffer of `size` bytes, zero before the call."""

    size: int


@dataclass(frozen=True, slots=True)
class Ref:
    """The return value of an earlier entry of the same batch."""

    index: int


@dataclass(frozen=True, slots=True)
class Struct:
    """Bytes in guest memory: at offset k the 8-byte address of pointers[k], or the 4-byte value of refs[k].

    With `out` its bytes are part of the reply, as they are after the call.
    """

    data: bytes
    pointers: Mapping[int, bytes | Out | Struct] = field(default_factory=dict)
    refs: Mapping[int, Ref] = field(default_factory=dict)
    out: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """The reply to one entry: its value or -errno, its duration, its output buffers in the order of the arguments.

    A Struct's own bytes come before those of what it points to.
    """

    value: int
    nanoseconds: int
    data: tuple[bytes, ...]


Buffer = bytes | Out | Struct
Argument = int | Buffer | Ref


@dataclass(frozen=True, slots=True)
class _Entry:
    """syscall: its name; empty if the entry is of another kind. thread: one more than its thread's number, or 0."""

    kind: int
    syscall: str
    arguments: tuple[Argument, ...]
    thread: int = 0
    idle: bool = False


@dataclass(slots=True)
class _Tables:
    """A place is ("data", "zeros" or "entries", offset there), as the tables have their sizes only at the end."""

    data: bytearray = field(default_factory=bytearray)
    zeros: int = 0
    pointers: list[tuple[tuple[str, int], tuple[str, int]]] = field(default_factory=list)
    refs: list[tuple[int, tuple[str, int], int, int]] = field(default_factory=list)
    outs: list[tuple[int, tuple[str, int], int]] = field(default_factory=list)

    def place(self, entry: int, buffer: Buffer) -> tuple[str, int]:
        """Give a buffer, and all that it points to, its place in the frame."""
        if isinstance(buffer, Out):
            place = ("zeros", self.zeros)
            self.zeros += _align(buffer.size)
            self.outs.append((entry, place, buffer.size))
            return place
        place = ("data", len(self.data))
        content = buffer if isinstance(buffer, bytes) else buffer.data
        self.data += content.ljust(_align(len(content)), b"\0")
        if isinstance(buffer, Struct):
            self._place_members(entry, place[1], buffer)
        return place

    def _place_members(self, entry: int, start: int, buffer: Struct) -> None:
        if buffer.out:
            self.outs.append((entry, ("data", start), len(buffer.data)))
        for offset, target in buffer.pointers.items():
            _check_inside(buffer, offset, 8)
            self.pointers.append((("data", start + offset), self.place(entry, target)))
        for offset, ref in buffer.refs.items():
            _check_inside(buffer, offset, 4)
            self.refs.append((entry, ("data", start + offset), _check_earlier(ref, entry), 4))

    def argument(self, entry: int, position: int, argument: Argument) -> int:
        """The immediate value of an argument: 0 where a pointer or a result will be stored."""
        at = ("entries", ENTRY.size * entry + ARGUMENTS_AT + 8 * position)
        if isinstance(argument, int):
            return argument & 0xFFFFFFFFFFFFFFFF
        if isinstance(argument, Ref):
            self.refs.append((entry, at, _check_earlier(argument, entry), 8))
        else:
            self.pointers.append((at, self.place(entry, argument)))
        return 0


class Batch:
    """System calls, which are carried out in order whatever each returns.

    Every method adds one entry, and returns its index in the reply.
    """

    def __init__(self) -> None:
        self._entries: list[_Entry] = []

    def __len__(self) -> int:
        return len(self._entries)

    def syscall(self, name: str, *arguments: int | bytes | Out | Struct | Ref) -> int:
        """A system call by the name that an Architecture has it by; a buffer is passed by its address.

        Strings need their NUL.
        """
        if len(arguments) > 6:
            raise ValueError("a system call has at most six arguments")
        return self._add(SYSCALL, name, arguments)

    def read_file(self, path: str) -> int:
        """The whole file becomes data[0]; the value is its length, or -errno."""
        return self._add(READ_FILE, "", (_terminate(path),))

    def write_file(self, path: str, data: bytes, append: bool = False) -> int:
        """One write(2) to a file that is truncated, or with `append` opened for appending, and made if it can be.

        The value is what write returned, or -errno of open or write.
        """
        return self._add(WRITE_FILE, "", (_terminate(path), data, len(data), int(append)))

    def read_memory(self, address: int, length: int) -> int:
        """Kernel memory, through /proc/kcore, becomes data[0]; the value is its length, or -errno."""
        return self._add(READ_MEMORY, "", (address, length))

    def spawn(self, path: str, arguments: Sequence[str], output: str | None = None, *, wait: bool = True) -> int:
        """Run a program of the guest, `arguments` without its name, its output and errors into a file of the guest.

        The value is its exit status (128 + signal if it was killed), or without `wait` its process id; -errno if it
        could not be started.
        """
        words = [_terminate(word) for word in (path, *arguments)]
        pointers = {8 * place: word for place, word in enumerate(words)}
        argv = Struct(bytes(8 * len(words) + 8), pointers)
        return self._add(SPAWN, "", (words[0], argv, _terminate(output) if output else 0, int(wait)))

    def in_thread(self, index: int, number: int, *, idle: bool = False) -> None:
        """Let a thread carry out an entry, a system call or a write to a file, while later entries go on.

        The entry's value is the id of the thread, or -errno; it has no output. number: by which the thread is joined,
        below 64. An idle thread runs when no other wants to.
        """
        self._entries[index] = replace(self._entries[index], thread=number + 1, idle=idle)

    def join(self, number: int, milliseconds: int) -> int:
        """Wait for a thread's answer, or get -EINPROGRESS after these milliseconds. Its number is free again."""
        return self._add(JOIN, "", (number, milliseconds))

    def _add(self, kind: int, syscall: str, arguments: tuple[Argument, ...]) -> int:
        self._entries.append(_Entry(kind, syscall, arguments))
        return len(self._entries) - 1

    def encode(self, syscalls: Mapping[str, int]) -> bytes:
        """The frame as it is sent. syscalls: the numbers of system calls by name."""
        tables = _Tables()
        entries = b"".join(_encode_entry(tables, index, entry, syscalls) for index, entry in enumerate(self._entries))
        lengths = (
            HEADER.size,
            len(entries),
            POINTER.size * len(tables.pointers),
            REF.size * len(tables.refs),
            OUT.size * len(tables.outs),
        )
        data_at = _align(sum(lengths))
        sent = data_at + len(tables.data)
        starts = {"entries": HEADER.size, "data": data_at, "zeros": sent}
        counts = (len(self._entries), len(tables.pointers), len(tables.refs), len(tables.outs), 0)
        header = HEADER.pack(MAGIC, sent, sent + tables.zeros, *counts)
        return (header + entries + _encode_tables(tables, starts)).ljust(data_at, b"\0") + tables.data


def parse_replies(body: bytes) -> tuple[Reply, ...]:
    """A reply without its leading length, entry by entry."""
    replies = []
    at = 0
    while at < len(body):
        value, nanoseconds, buffers, _ = RESULT.unpack_from(body, at)
        at += RESULT.size
        ends = [at]
        for _ in range(buffers):
            ends.append(ends[-1] + SIZE.size + SIZE.unpack_from(body, ends[-1])[0])
        at = ends[-1]
        data = tuple(body[start + SIZE.size : end] for start, end in pairwise(ends))
        replies.append(Reply(value, nanoseconds, data))
    return tuple(replies)


def _encode_entry(tables: _Tables, index: int, entry: _Entry, syscalls: Mapping[str, int]) -> bytes:
    number = syscalls[entry.syscall] if entry.syscall else 0
    values = [tables.argument(index, position, argument) for position, argument in enumerate(entry.arguments)]
    return ENTRY.pack(entry.kind, entry.thread, entry.idle, 0, number, *values, *[0] * (6 - len(values)))


def _encode_tables(tables: _Tables, starts: Mapping[str, int]) -> bytes:
    def offset(place: tuple[str, int]) -> int:
        return starts[place[0]] + place[1]

    pointers = [POINTER.pack(offset(at), offset(target)) for at, target in tables.pointers]
    refs = [REF.pack(entry, offset(at), of, width) for entry, at, of, width in tables.refs]
    outs = [OUT.pack(entry, offset(at), size) for entry, at, size in tables.outs]
    return b"".join(pointers + refs + outs)


def _align(size: int) -> int:
    # even an empty buffer has an address of its own
    return max(8, (size + 7) // 8 * 8)


def _terminate(text: str) -> bytes:
    return text.encode() + b"\0"


def _check_earlier(ref: Ref, entry: int) -> int:
    if not 0 <= ref.index < entry:
        raise ValueError(f"entry {entry} refers to the result of entry {ref.index}, which is not an earlier one")
    return ref.index


def _check_inside(buffer: Struct, offset: int, width: int) -> None:
    if not 0 <= offset <= len(buffer.data) - width:
        raise ValueError(f"{width} bytes at {offset} are not inside a struct of {len(buffer.data)} bytes")
