"""How many grace periods an operation waited for, by flavour.

There are two witnesses. An instance of the function tracer, bound to the agent's process, writes down each call of a
function that waits; only what the operation itself calls is there, so that a grace period that somebody else asked for,
or that was merely under way, is not counted. The sequence numbers of RCU say how many grace periods began and ended
meanwhile: each wait takes one of those for itself, so there cannot be fewer.
"""

from __future__ import annotations

import re
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.symbols import Symbols
from impl.linux.probes.tracefs import ROOT, add_instance, set_patterns, set_tracer
from spec.errors import BadInputError

__all__ = ["FLAVOURS", "Reading", "Waits", "Watch", "completed", "parse_waits", "watch"]

FLAVOURS = ("rcu", "rcu_tasks", "rcu_tasks_rude", "rcu_tasks_trace", "srcu")

INSTANCE = "grace"
DIRECTORY = f"{ROOT}/instances/{INSTANCE}"

CALLS = {
    "synchronize_rcu": "rcu",
    "synchronize_rcu_expedited": "rcu",
    "synchronize_rcu_tasks": "rcu_tasks",
    "synchronize_rcu_tasks_rude": "rcu_tasks_rude",
    "synchronize_rcu_tasks_trace": "rcu_tasks_trace",
    "synchronize_srcu": "srcu",
    "synchronize_srcu_expedited": "srcu",
}
BLOCKED = "__wait_rcu_gp"
"""What a flavour of RCU tasks calls to wait; an empty synchronize_rcu_tasks_rude(), as 7.3 has it, does not."""

NESTED = {("synchronize_rcu", "synchronize_rcu_expedited"), ("synchronize_srcu", "synchronize_srcu_expedited")}
SEQUENCES = {
    "rcu": (("rcu_state", "rcu_state", "gp_seq"), ("rcu_state", "rcu_state", "expedited_sequence")),
    "rcu_tasks": (("rcu_tasks", "rcu_tasks", "tasks_gp_seq"),),
    "rcu_tasks_rude": (("rcu_tasks_rude", "rcu_tasks", "tasks_gp_seq"),),
    "rcu_tasks_trace": (("rcu_tasks_trace", "rcu_tasks", "tasks_gp_seq"),),
}
"""Symbol, type and member of each flavour's sequence numbers: SRCU has one for each user, and none here."""

STATE_BITS = 2
SEQUENCE = struct.Struct("<Q")
EVENT = re.compile(r"^ *(?P<task>.*-[0-9]+) +\[[0-9]+\].*?: (?P<call>\S+) <-(?P<caller>\S+)$", re.MULTILINE)
WRITTEN = re.compile(r"entries-in-buffer/entries-written: (?P<kept>[0-9]+)/(?P<written>[0-9]+)")


@dataclass(frozen=True, slots=True)
class Waits:
    """Grace periods by flavour, flavours at zero left out.

    waited: those that the operation waited for. elapsed: those that began and ended meanwhile, whoever asked for them;
    of SRCU unknown. callers: of the calls that wait, by `flavour caller`.
    """

    waited: Mapping[str, int] = field(default_factory=dict)
    elapsed: Mapping[str, int] = field(default_factory=dict)
    callers: Mapping[str, int] = field(default_factory=dict)

    @property
    def impossible(self) -> tuple[str, ...]:
        """Flavours whose two witnesses contradict each other: more waits than grace periods."""
        known = (flavour for flavour in self.waited if flavour in SEQUENCES)
        return tuple(flavour for flavour in known if self.waited[flavour] > self.elapsed.get(flavour, 0))


@dataclass(frozen=True, slots=True)
class Reading:
    """The sequence numbers of each flavour at one moment, and the tracer's text since the start."""

    numbers: Mapping[str, tuple[int, ...]]
    trace: str

    def since(self, start: Reading) -> Waits:
        """What was waited for between two readings."""
        callers = parse_waits(self.trace)
        waited = Counter[str]()
        for (flavour, _), count in callers.items():
            waited[flavour] += count
        elapsed = {
            flavour: sum(map(completed, words, self.numbers[flavour])) for flavour, words in start.numbers.items()
        }
        named = {f"{flavour} {caller}": count for (flavour, caller), count in sorted(callers.items())}
        return Waits(dict(waited), {flavour: count for flavour, count in elapsed.items() if count}, named)


@dataclass(frozen=True, slots=True)
class Watch:
    """A guest in which waits are written down. symbols: functions that the watch itself traces. counters: addresses."""

    symbols: frozenset[str]
    counters: Mapping[str, tuple[int, ...]]

    def start(self, batch: Batch) -> Callable[[Sequence[Reply]], Reading]:
        """Count from here on."""
        batch.write_file(f"{DIRECTORY}/trace", b"")
        return self.read(batch)

    def read(self, batch: Batch) -> Callable[[Sequence[Reply]], Reading]:
        """Read both witnesses, in the same batch as start() or in a later one."""
        entries = {
            flavour: [batch.read_memory(address, SEQUENCE.size) for address in addresses]
            for flavour, addresses in self.counters.items()
        }
        trace = batch.read_file(f"{DIRECTORY}/trace")

        def reading(replies: Sequence[Reply]) -> Reading:
            numbers = {
                flavour: tuple(SEQUENCE.unpack(replies[entry].data[0])[0] for entry in words)
                for flavour, words in entries.items()
            }
            return Reading(numbers, replies[trace].data[0].decode())

        return reading


def watch(guest: Guest, symbols: Symbols, vmlinux: Btf) -> Watch:
    """Begin to write down the waits of the agent, and of all programs that it starts from now on."""
    present = [name for name in (*CALLS, BLOCKED) if symbols.addresses(name)]
    batch = Batch()
    add_instance(batch, INSTANCE)
    process = batch.syscall("getpid")
    number = guest.submit(batch)[process].value
    batch = Batch()
    answers = [set_patterns(batch, f"{DIRECTORY}/set_ftrace_filter", present)]
    batch.write_file(f"{DIRECTORY}/options/function-fork", b"1")
    batch.write_file(f"{DIRECTORY}/set_ftrace_pid", str(number).encode())
    answers.append(set_tracer(batch, DIRECTORY, "function"))
    replies = guest.submit(batch)
    if min(answer(replies) for answer in answers):
        raise BadInputError("the kernel does not trace the functions that wait for grace periods")
    return Watch(frozenset(present), _find_counters(symbols, vmlinux))


def _find_counters(symbols: Symbols, vmlinux: Btf) -> dict[str, tuple[int, ...]]:
    """The addresses of the sequence numbers of each flavour that the kernel has."""
    return {
        flavour: tuple(symbols.address(name) + vmlinux.member_offset(kind, member) for name, kind, member in places)
        for flavour, places in SEQUENCES.items()
        if symbols.addresses(places[0][0])
    }


def completed(before: int, after: int) -> int:
    """How many grace periods began and ended between two readings of a sequence number, which may have wrapped.

    A sequence number is counter and state; while a grace period is under way the state is not 0. The one under way at
    the first reading does not count. Source: kernel/rcu/rcu.h, rcu_seq_start and rcu_seq_end.
    """
    modulus = 1 << 64
    started = (before + (1 << STATE_BITS) - 1) % modulus >> STATE_BITS
    count = ((after >> STATE_BITS) - started) % (modulus >> STATE_BITS)
    # the one that was under way may be so still
    return 0 if count == (modulus >> STATE_BITS) - 1 else count


def parse_waits(trace: str) -> dict[tuple[str, str], int]:
    """The waits that the text of the instance's `trace` has, by flavour and caller; BadInputError if some are lost."""
    written = WRITTEN.search(trace)
    if written is None or written["kept"] != written["written"]:
        raise BadInputError("the tracer's buffer did not hold all calls that wait for grace periods")
    by_task: dict[str, list[tuple[str, str]]] = {}
    for event in EVENT.finditer(trace):
        by_task.setdefault(event["task"], []).append((event["call"], event["caller"]))
    return dict(Counter(wait for events in by_task.values() for wait in _find_waits(events)))


def _find_waits(events: Sequence[tuple[str, str]]) -> Iterator[tuple[str, str]]:
    """Flavour and caller of each wait among the events of one task."""
    following = [call for call, _ in events[1:]] + [""]
    previous = ""
    for (call, caller), after in zip(events, following, strict=True):
        flavour = CALLS.get(call)
        nested = (previous, call) in NESTED
        empty = flavour is not None and flavour.startswith("rcu_tasks") and after != BLOCKED
        if flavour and not nested and not empty:
            yield flavour, caller
        previous = call
