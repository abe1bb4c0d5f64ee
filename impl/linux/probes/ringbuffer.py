"""Trace events in binary: pages of trace_pipe_raw as events in order, with the nanoseconds that text output rounds off.

The places of fields come from the guest's own format files. Source: include/linux/ring_buffer.h and
events/header_page, events/header_event, events/ftrace/*/format in tracefs.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from impl.linux.guest.batch import AT_FDCWD, Batch, Out, Ref, Reply
from impl.linux.guest.guest import Guest
from spec.errors import BadInputError

__all__ = [
    "ROOT",
    "EventField",
    "EventFormat",
    "Formats",
    "Page",
    "TracerEvent",
    "add_reads",
    "parse_format",
    "parse_formats",
    "parse_page",
    "read_formats",
]

ROOT = "/sys/kernel/tracing"
BUFFER, PAGES_AT_ONCE = "per_cpu/cpu0/trace_pipe_raw", 2
# ftrace's own events that are read, and their kinds
KINDS = {
    "function": "function",
    "funcgraph_entry": "entry",
    "fgraph_retaddr_entry": "entry",
    "funcgraph_exit": "return",
}
ADDRESS_FIELDS = ("ip", "func")

# Bits of the header's commit field that are not part of the length. Source: RB_MISSED_* of ring_buffer.c.
MISSED_EVENTS, MISSED_STORED = 1 << 31, 1 << 30

FIELD = re.compile(
    r"field:.*?(?P<name>\w+)(?:\[\w*\])?;"
    r"\s*offset:(?P<offset>\d+);\s*size:(?P<size>\d+);\s*signed:(?P<signed>[01]);"
)


@dataclass(frozen=True, slots=True)
class EventField:
    """The place of a field in a record, in bytes."""

    offset: int
    size: int
    signed: bool

    def read(self, data: bytes, at: int = 0) -> int:
        """The field of the record that begins at `at`."""
        start = at + self.offset
        return int.from_bytes(data[start : start + self.size], "little", signed=self.signed)


@dataclass(frozen=True, slots=True)
class EventFormat:
    """One format file."""

    name: str
    id: int
    fields: Mapping[str, EventField]


@dataclass(frozen=True, slots=True)
class Formats:
    """All that is needed to read a page: fields of its header, numbers of types, the field of an event's id, events."""

    header: Mapping[str, EventField]
    padding: int
    time_extend: int
    time_stamp: int
    id: EventField
    events: Mapping[int, EventFormat]

    @property
    def page_size(self) -> int:
        """Bytes of a page, its header included."""
        return self.header["data"].offset + self.header["data"].size


@dataclass(frozen=True, slots=True)
class TracerEvent:
    """One event. time: nanoseconds of the trace clock. kind: entry, return or function.

    address: of the site. depth: how many frames are below on the task's shadow stack, None for a function event. pid:
    the task. fields: the others, by name.
    """

    time: int
    kind: str
    address: int
    depth: int | None
    pid: int
    fields: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Page:
    """The events of one page, oldest first; missed: the ring lost events before them."""

    events: tuple[TracerEvent, ...]
    missed: bool


def parse_format(text: str) -> EventFormat:
    """An event's format file."""
    name, number = re.search(r"^name: (\S+)", text, re.MULTILINE), re.search(r"^ID: (\d+)", text, re.MULTILINE)
    if not name or not number:
        raise BadInputError("an event's format file has no name or no ID")
    return EventFormat(name[1], int(number[1]), _parse_fields(text))


def _parse_fields(text: str) -> dict[str, EventField]:
    return {
        match["name"]: EventField(int(match["offset"]), int(match["size"]), match["signed"] == "1")
        for match in FIELD.finditer(text)
    }


def parse_formats(header_page: str, header_event: str, formats: Sequence[str]) -> Formats:
    """The formats by the texts of their files."""
    header = _parse_fields(header_page)
    types = {name: int(number) for name, number in re.findall(r"(\w+)\s*: type == (\d+)", header_event)}
    events = [parse_format(text) for text in formats]
    if not {"timestamp", "commit", "data"} <= header.keys() or len(types) != 3 or not events:
        raise BadInputError("the format of the ring buffer's pages is not one that is known")
    return Formats(
        header,
        types["padding"],
        types["time_extend"],
        types["time_stamp"],
        events[0].fields["common_type"],
        {event.id: event for event in events},
    )


def read_formats(guest: Guest) -> Formats:
    """The formats that a guest has."""
    batch = Batch()
    for name in KINDS:
        batch.read_file(f"{ROOT}/events/ftrace/{name}/format")
    # not every kernel has every event
    formats = [reply.data[0].decode() for reply in guest.submit(batch) if reply.value > 0]
    page, event = guest.read(f"{ROOT}/events/header_page", f"{ROOT}/events/header_event")
    return parse_formats(page.decode(), event.decode(), formats)


def parse_page(page: bytes, formats: Formats) -> Page:
    """The events of a page as trace_pipe_raw gives it. Events of ftrace that are not of KINDS are left out."""
    if len(page) < formats.header["data"].offset:
        raise BadInputError(f"a page of the ring buffer has only {len(page)} bytes")
    commit = formats.header["commit"].read(page) & 0xFFFFFFFF
    start = formats.header["data"].offset
    end = start + (commit & ~(MISSED_EVENTS | MISSED_STORED))
    if end > len(page):
        raise BadInputError(f"a page of the ring buffer ends at {end}, behind its {len(page)} bytes")
    records = _walk_records(page, start, end, formats)
    found = (_read_event(time, page, at, formats) for time, at in records)
    return Page(tuple(event for event in found if event), bool(commit & MISSED_EVENTS))


def _walk_records(page: bytes, at: int, end: int, formats: Formats) -> Iterator[tuple[int, int]]:
    """Time and place of each record."""
    time = formats.header["timestamp"].read(page)
    while at + 4 <= end:
        word, array = _read_u32(page, at), _read_u32(page, at + 4)
        kind, delta = word & 31, word >> 5
        if kind == formats.padding:
            if not delta:
                return
            # A discarded event: its time is not counted, as in rb_update_read_stamp().
            at += 4 + array
        elif kind == formats.time_extend:
            time += delta | array << 27
            at += 8
        elif kind == formats.time_stamp:
            time = _complete_stamp(delta | array << 27, time)
            at += 8
        else:
            time += delta
            yield time, at + (4 if kind else 8)
            at += 4 + (4 * kind if kind else _align(array))


def _read_u32(page: bytes, at: int) -> int:
    return int.from_bytes(page[at : at + 4], "little")


def _align(length: int) -> int:
    return (length + 3) // 4 * 4


def _complete_stamp(stamp: int, before: int) -> int:
    # An absolute stamp has 59 bits; the rest are those of the time before. Source: rb_fix_abs_ts().
    high = before >> 59 << 59
    full = stamp | high
    return full if full >= before else full + (1 << 59)


def _read_event(time: int, page: bytes, at: int, formats: Formats) -> TracerEvent | None:
    found = formats.events.get(formats.id.read(page, at))
    if not found:
        return None
    values = {name: field.read(page, at) for name, field in found.fields.items()}
    address = next(values.pop(name) for name in ADDRESS_FIELDS if name in values)
    pid = values.pop("common_pid")
    depth = values.pop("depth", None)
    _require_duration(values)
    return TracerEvent(time, KINDS[found.name], address, depth, pid, values)


def _require_duration(values: Mapping[str, int]) -> None:
    """A call that returns has begun, and not later than it ends."""
    begin, end = (values.get(name) for name in ("calltime", "rettime"))
    if begin is not None and end is not None and not 0 < begin <= end:
        raise BadInputError(f"the graph tracer saw a call from {begin} to {end} ns")


def add_reads(batch: Batch, directory: str, formats: Formats) -> Callable[[Sequence[Reply]], tuple[Page, ...]]:
    """Add reads of two pages of a tracer's buffer, which take the events out of it; a guest has one CPU.

    directory: that of the tracer's instance. What is returned makes Pages of the reply; if there are two, more may
    wait. A tracer cannot be switched while its buffer is open, so it is closed again.
    """
    size = formats.page_size
    descriptor = batch.syscall("openat", AT_FDCWD, f"{directory}/{BUFFER}\0".encode(), os.O_NONBLOCK, 0)
    entries = [batch.syscall("read", Ref(descriptor), Out(size), size) for _ in range(PAGES_AT_ONCE)]
    batch.syscall("close", Ref(descriptor))

    def result(replies: Sequence[Reply]) -> tuple[Page, ...]:
        # an empty buffer answers -EAGAIN
        return tuple(parse_page(replies[entry].data[0], formats) for entry in entries if replies[entry].value > 0)

    return result
