"""Reading trace events from pages of the ring buffer."""

from __future__ import annotations

import struct

import pytest

from impl.linux.probes.ringbuffer import Formats, parse_formats, parse_page
from spec.errors import BadInputError

HEADER_PAGE = """\
\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;
\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;
\tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;
\tfield: char data;\toffset:16;\tsize:4080;\tsigned:1;
"""
HEADER_EVENT = """\
# compressed entry header
\ttype_len    :    5 bits
\ttime_delta  :   27 bits
\tarray       :   32 bits

\tpadding     : type == 29
\ttime_extend : type == 30
\ttime_stamp : type == 31
\tdata max type_len  == 28
"""
COMMON = """\
format:
\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;
\tfield:unsigned char common_flags;\toffset:2;\tsize:1;\tsigned:0;
\tfield:unsigned char common_preempt_count;\toffset:3;\tsize:1;\tsigned:0;
\tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;

"""
ENTRY_6_1 = f"""name: funcgraph_entry\nID: 11\n{COMMON}\
\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;
\tfield:int depth;\toffset:16;\tsize:4;\tsigned:1;
"""
ENTRY_7_3 = f"""name: funcgraph_entry\nID: 11\n{COMMON}\
\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned long depth;\toffset:16;\tsize:8;\tsigned:0;
\tfield:unsigned long args[];\toffset:24;\tsize:0;\tsigned:0;
"""
EXIT = f"""name: funcgraph_exit\nID: 10\n{COMMON}\
\tfield:unsigned long func;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned int depth;\toffset:16;\tsize:4;\tsigned:0;
\tfield:unsigned long long calltime;\toffset:24;\tsize:8;\tsigned:0;
\tfield:unsigned long long rettime;\toffset:32;\tsize:8;\tsigned:0;
"""
FUNCTION = f"""name: function\nID: 1\n{COMMON}\
\tfield:unsigned long ip;\toffset:8;\tsize:8;\tsigned:0;
\tfield:unsigned long parent_ip;\toffset:16;\tsize:8;\tsigned:0;
"""
PID = 7


def formats(entry: str = ENTRY_6_1) -> Formats:
    return parse_formats(HEADER_PAGE, HEADER_EVENT, [entry, EXIT, FUNCTION])


def event(number: int, *words: int) -> bytes:
    return struct.pack("<HBBi", number, 0, 0, PID) + b"".join(struct.pack("<Q", word) for word in words)


def record(delta: int, data: bytes) -> bytes:
    return struct.pack("<I", delta << 5 | len(data) // 4) + data


def page(*records: bytes, time: int = 1000, flags: int = 0) -> bytes:
    body = b"".join(records)
    return (struct.pack("<QQ", time, len(body) | flags) + body).ljust(4096, b"\xaa")


@pytest.mark.parametrize("entry", [ENTRY_6_1, ENTRY_7_3])
def test_events(entry: str) -> None:
    """Entry, return and function events, in the formats of 6.1 and 7.3; times add up."""
    found = parse_page(
        page(
            record(0, event(11, 0x8100, 0)),
            record(5, event(1, 0x8200, 0x8109)),
            record(7, event(10, 0x8100, 0, 1001, 1012)),
        ),
        formats(entry),
    )

    times = [(one.time, one.kind, one.address, one.depth, one.pid) for one in found.events]
    assert [
        (1000, "entry", 0x8100, 0, PID),
        (1005, "function", 0x8200, None, PID),
        (1012, "return", 0x8100, 0, PID),
    ] == times
    assert [0x8109, 1012] == [found.events[1].fields["parent_ip"], found.events[2].fields["rettime"]]
    assert not found.missed


@pytest.mark.parametrize(("begin", "end"), [(0, 1012), (1013, 1012)])
def test_events_of_calls_that_cannot_be(begin: int, end: int) -> None:
    """One that has not begun, or later than it ended."""
    with pytest.raises(BadInputError, match=f"the graph tracer saw a call from {begin} to {end} ns"):
        parse_page(page(record(7, event(10, 0x8100, 0, begin, end))), formats())


def times(*records: bytes, time: int = 1000) -> list[int]:
    return [one.time for one in parse_page(page(*records, time=time), formats()).events]


def test_event_times() -> None:
    """Long gaps are records of their own; an absolute time, of 59 bits, takes the place of what was counted."""
    one = record(3, event(1, 1, 2))
    extend = struct.pack("<II", 9 << 5 | 30, 2)
    absolute = struct.pack("<II", 9 << 5 | 31, 2)

    assert [1003, 1003 + 9 + (2 << 27) + 3] == times(one, extend, one)
    assert [1003, 9 + (2 << 27) + 3] == times(one, absolute, one)
    assert [(1 << 59) + 9 + (2 << 27) + 3] == times(absolute, one, time=(1 << 59) + 1)
    assert [(2 << 59) + 9 + (2 << 27) + 3] == times(absolute, one, time=(2 << 59) - 1)


def test_events_that_are_none() -> None:
    """A discarded event counts neither as an event nor as time; nothing follows the padding at a page's end."""
    one = record(3, event(1, 1, 2))
    discarded = struct.pack("<II", 4 << 5 | 29, 12) + bytes(8)
    end = struct.pack("<I", 29)

    assert [1003, 1006] == times(one, discarded, one, end, one)


def test_events_of_any_length() -> None:
    """A long event tells its length in a word of its own; events of other kinds are passed over."""
    long = struct.pack("<II", 3 << 5, 4 + 216) + event(1, *range(26))
    other = record(2, event(5, 1, 2))

    assert [1003, 1008] == times(long, other, record(3, event(1, 1, 2)))


def test_events_lost() -> None:
    """A page says whether the ring lost events before it."""
    assert parse_page(page(record(0, event(1, 1, 2)), flags=3 << 30), formats()).missed


@pytest.mark.parametrize("data", [b"short", struct.pack("<QQ", 0, 4000) + bytes(100)])
def test_event_page_malformed(data: bytes) -> None:
    """A page that is shorter than it says is bad input."""
    with pytest.raises(BadInputError, match="a page of the ring buffer"):
        parse_page(data, formats())


@pytest.mark.parametrize("text", ["", "ID: 3\n"])
def test_event_format_malformed(text: str) -> None:
    """An event's format has a name and a number."""
    with pytest.raises(BadInputError, match="an event's format file has no name or no ID"):
        parse_formats(HEADER_PAGE, HEADER_EVENT, [text])
    with pytest.raises(BadInputError, match="the format of the ring buffer's pages is not one that is known"):
        parse_formats(text, HEADER_EVENT, [FUNCTION])
