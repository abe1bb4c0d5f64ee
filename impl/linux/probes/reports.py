"""What a kernel says of itself: the reports on its console, each with its kind, its first line and its text.

A report begins with a line that only its maker prints, and ends where the next one begins, or behind its closing mark.
Sources: kernel/panic.c, kernel/locking/lockdep.c, kernel/sched/core.c, kernel/rcu/tree_stall.h, kernel/watchdog.c,
mm/kasan/report.c, mm/slub.c, mm/kmemleak.c, lib/ubsan.c, lib/list_debug.c, kernel/time/hrtimer.c.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

__all__ = ["Kind", "Report", "parse_reports", "without_stamps"]


class Kind(StrEnum):
    """Who speaks, or of what."""

    WARNING = "warning"
    """WARN and its kin; they taint the kernel."""
    KASAN = "KASAN"
    UBSAN = "UBSAN"
    LOCKDEP = "lockdep"
    RCU = "PROVE_RCU"
    SLEEP = "sleeping in atomic context"
    CORRUPTION = "corruption"
    """Of a list or a slab object, where the debugging of these finds it."""
    LEAK = "kmemleak"
    OOPS = "oops"
    PANIC = "panic"
    STALL = "stall"
    """Something took longer than it may: under emulation the fault of the machine, not of the kernel."""
    SLOWNESS = "slowness"
    """A remark on time that nothing follows from."""


@dataclass(frozen=True, slots=True)
class Report:
    """One report. title: its first line without time stamps; text: all of it, as it was printed."""

    kind: Kind
    title: str
    text: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.title}"


STAMP: Final = re.compile(r"^(?:<\d+>)?(?:\[[ \d.]+\](?:\[ *[TC]\d+\])? ?)?", re.MULTILINE)
"""What CONFIG_PRINTK_TIME and CONFIG_PRINTK_CALLER put before a line."""

_LOCKS = (
    r"WARNING: (?:possible (?:circular|recursive) locking|possible irq lock inversion|\S+-safe -> \S+-unsafe lock order"
    r"|inconsistent lock state|bad unlock balance|bad contention|Nested lock was not taken|held lock freed"
    r"|chain_key collision|lock held when returning to user space|.* still has locks held)"
)
_BEGINNINGS: Final = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in (
        (Kind.STALL, r"(?:rcu: )?INFO: \S+ (?:self-)?detected (?:expedited )?stalls?\b"),
        (Kind.STALL, r"(?:rcu: )?\S+ kthread (?:starved for|timer wakeup didn't happen)"),
        (Kind.STALL, r"(?:watchdog: )?BUG: (?:soft lockup - CPU#|workqueue lockup - pool)"),
        (Kind.STALL, r"(?:NMI watchdog: |watchdog: )?(?:Watchdog detected hard LOCKUP|CPU\d+: Watchdog detected hard)"),
        (Kind.STALL, r"INFO: task \S+ blocked(?: on an? \S+)? for more than \d+ seconds"),
        (Kind.SLOWNESS, r"hrtimer: interrupt took \d+ ns"),
        (Kind.SLOWNESS, r"perf: interrupt took too long"),
        (Kind.SLOWNESS, r"INFO: NMI handler \(.*\) took too long"),
        (Kind.SLOWNESS, r"workqueue: \S+ hogged CPU for"),
        (Kind.SLOWNESS, r"(?:sched: RT throttling activated|clocksource: .*(?:skew|unstable|read-back delay))"),
        (Kind.KASAN, r"BUG: KASAN: "),
        (Kind.UBSAN, r"UBSAN: "),
        (Kind.RCU, r"WARNING: suspicious RCU usage"),
        (Kind.LOCKDEP, _LOCKS),
        (Kind.LOCKDEP, r"\[ BUG: Invalid wait context \]|BUG: (?:MAX_LOCK\w*|MAX_STACK_TRACE_ENTRIES) too low!"),
        (Kind.SLEEP, r"BUG: (?:sleeping function called from invalid context|scheduling while atomic)"),
        (Kind.SLEEP, r"BUG: (?:scheduling in a non-blocking section|assuming (?:atomic|non migratable) context)"),
        (Kind.CORRUPTION, r"list_(?:add|del) (?:corruption|double add)|BUG \S+ \(.*\): "),
        (Kind.LEAK, r"kmemleak: \d+ new suspected memory leaks?|unreferenced object(?: \(percpu\))? 0x"),
        (Kind.PANIC, r"Kernel panic - not syncing"),
        (Kind.OOPS, r"BUG: (?:unable to handle|kernel NULL pointer dereference|TASK stack guard page)"),
        (Kind.OOPS, r"kernel BUG at |Oops: |(?:general protection|stack segment|double) fault|invalid opcode: |int3: "),
        (Kind.WARNING, r"WARNING: .*\b(?:at |PID: )"),
    )
)
"""The first line of each kind; of several patterns the first that matches counts."""

_OPENING: Final = re.compile(r"-+\[ cut here \]|[=-]{20,}$")
"""What may stand before a report's first line."""

_CLOSING: Final = re.compile(r"---\[ end |={20,}$")
MOST_BEFORE: Final = 4


@dataclass(slots=True)
class _Unfinished:
    """A report while its lines come."""

    kind: Kind
    title: str
    lines: list[str]

    def finish(self) -> Report:
        return Report(self.kind, self.title, "\n".join(self.lines))


def parse_reports(console: str) -> tuple[Report, ...]:
    """Every report in what a console printed, in its order."""
    return tuple(_parse(console.splitlines()))


def without_stamps(text: str) -> str:
    """The text without the times, and the tasks, at the beginning of its lines."""
    return STAMP.sub("", text)


def _parse(lines: Iterable[str]) -> Iterator[Report]:
    report: _Unfinished | None = None
    before: list[str] = []
    for line in lines:
        bare = STAMP.sub("", line)
        kind = _kind_of(bare)
        if kind and not (report and kind is report.kind is Kind.OOPS):
            if report:
                yield report.finish()
            report, before = _Unfinished(kind, bare.strip(), [*before, line]), []
        elif report:
            report.lines.append(line)
            if _CLOSING.match(bare):
                yield report.finish()
                report = None
        else:
            before = [*before, line][-MOST_BEFORE:] if before or _OPENING.match(bare) else []
    if report:
        yield report.finish()


def _kind_of(line: str) -> Kind | None:
    return next((kind for kind, pattern in _BEGINNINGS if pattern.match(line)), None)
