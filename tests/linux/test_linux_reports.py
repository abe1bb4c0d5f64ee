"""What a kernel says of itself is told apart by its kind, and kept whole."""

from __future__ import annotations

import pytest

from impl.linux.allocations import failed_at
from impl.linux.probes.reports import Kind, parse_reports, without_stamps

TRACE = """Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 foo_update+0x4e/0x90
 </TASK>"""

WARNED = f"""------------[ cut here ]------------
WARNING: kernel/trace/ftrace.c:2645 at ftrace_get_addr_new+0xa1/0xb0, CPU#0: init/1
Modules linked in: massattach(OE)
CPU: 0 UID: 0 PID: 1 Comm: init Tainted: G OE 7.3.4 #1 PREEMPT
RIP: 0010:ftrace_get_addr_new+0xa1/0xb0
{TRACE}
---[ end trace 0000000000000000 ]---"""

OLD_WARNED = f"""------------[ cut here ]------------
WARNING: CPU: 0 PID: 1 at kernel/trace/ftrace.c:2567 ftrace_get_addr_new+0x9a/0xa0
RIP: 0010:ftrace_get_addr_new+0x9a/0xa0
{TRACE}
---[ end trace 0000000000000000 ]---"""

KASAN = f"""==================================================================
BUG: KASAN: slab-use-after-free in bpf_trampoline_update+0x51a/0x9c0
Read of size 8 at addr ffff888004a3c2c8 by task init/1

CPU: 0 UID: 0 PID: 1 Comm: init Not tainted 7.3.4 #1 PREEMPT
{TRACE}

Freed by task 12:
 kfree+0x121/0x3b0
=================================================================="""

UBSAN = f"""------------[ cut here ]------------
UBSAN: array-index-out-of-bounds in kernel/bpf/trampoline.c:611:23
index 40 is out of range for type 'bpf_tramp_link *[38]'
{TRACE}
---[ end trace ]---"""

CIRCULAR = f"""
======================================================
WARNING: possible circular locking dependency detected
7.3.4 #1 Not tainted
------------------------------------------------------
init/1 is trying to acquire lock:
ffffffff82a5d2c8 (ftrace_lock){{+.+.}}-{{4:4}}, at: register_ftrace_direct+0x3a/0x210
{TRACE}"""

SUSPICIOUS = f"""
=============================
WARNING: suspicious RCU usage
7.3.4 #1 Not tainted
-----------------------------
kernel/trace/ftrace.c:5891 suspicious rcu_dereference_check() usage!
{TRACE}"""

SLEEPING = f"""BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585
in_atomic(): 1, irqs_disabled(): 0, non_block: 0, pid: 1, name: init
{TRACE}"""

LEAK = "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)"
STALL = """rcu: INFO: rcu_preempt self-detected stall on CPU
rcu: \t0-....: (5249 ticks this GP) idle=3e2c/1/0x4000000000000000 softirq=188/188 fqs=2624"""
TASKS_STALL = "INFO: rcu_tasks detected stalls on tasks:"
LOCKUP = "watchdog: BUG: soft lockup - CPU#0 stuck for 26s! [init:1]"
OOPS = f"""BUG: unable to handle page fault for address: ffffffffc0201000
#PF: supervisor instruction fetch in kernel mode
Oops: Oops: 0010 [#1] SMP KASAN NOPTI
{TRACE}
---[ end trace 0000000000000000 ]---"""
INT3 = "int3: 0000 [#1] SMP KASAN NOPTI\nRIP: 0010:0xffffffffc0203001"
PANIC = "Kernel panic - not syncing: Attempted to kill init! exitcode=0x0000000b"
LIST = f"""------------[ cut here ]------------
list_del corruption. prev->next should be ffff888004a3c2c8, but was dead000000000100. (prev=ffff888004a3c100)
{WARNED.partition(chr(10))[2]}"""
SLAB = "BUG kmalloc-64 (Tainted: G    B      OE ): Poison overwritten"

EVERY = (
    (WARNED, Kind.WARNING, "WARNING: kernel/trace/ftrace.c:2645 at ftrace_get_addr_new+0xa1/0xb0, CPU#0: init/1"),
    (OLD_WARNED, Kind.WARNING, "WARNING: CPU: 0 PID: 1 at kernel/trace/ftrace.c:2567 ftrace_get_addr_new+0x9a/0xa0"),
    (KASAN, Kind.KASAN, "BUG: KASAN: slab-use-after-free in bpf_trampoline_update+0x51a/0x9c0"),
    (UBSAN, Kind.UBSAN, "UBSAN: array-index-out-of-bounds in kernel/bpf/trampoline.c:611:23"),
    (CIRCULAR, Kind.LOCKDEP, "WARNING: possible circular locking dependency detected"),
    (SUSPICIOUS, Kind.RCU, "WARNING: suspicious RCU usage"),
    (SLEEPING, Kind.SLEEP, "BUG: sleeping function called from invalid context at kernel/locking/mutex.c:585"),
    (LEAK, Kind.LEAK, LEAK),
    (STALL, Kind.STALL, "rcu: INFO: rcu_preempt self-detected stall on CPU"),
    (TASKS_STALL, Kind.STALL, TASKS_STALL),
    (LOCKUP, Kind.STALL, LOCKUP),
    (OOPS, Kind.OOPS, "BUG: unable to handle page fault for address: ffffffffc0201000"),
    (INT3, Kind.OOPS, "int3: 0000 [#1] SMP KASAN NOPTI"),
    (PANIC, Kind.PANIC, PANIC),
    (SLAB, Kind.CORRUPTION, SLAB),
    ("hrtimer: interrupt took 9876543 ns", Kind.SLOWNESS, "hrtimer: interrupt took 9876543 ns"),
)
LOCKS = (
    "WARNING: possible recursive locking detected",
    "WARNING: bad unlock balance detected!",
    "WARNING: inconsistent lock state",
    "WARNING: possible irq lock inversion dependency detected",
    "WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected",
    "WARNING: held lock freed!",
    "WARNING: lock held when returning to user space!",
    "WARNING: init/1 still has locks held!",
    "[ BUG: Invalid wait context ]",
)
ALLOCATION = """FAULT_INJECTION: forcing a failure.
name failslab, interval 1, probability 0, space 0, times 0
Call Trace:
 <TASK>
 dump_stack_lvl+0x5d/0x80
 should_fail_ex+0x2aa/0x350
 should_failslab+0xc2/0x110
 __kmalloc_noprof+0xca/0x4d0
 ? __pfx_alloc_ftrace_hash+0x10/0x10
 alloc_ftrace_hash+0xc6/0x170
 ftrace_add_mod+0x88/0x90
 ftrace_set_hash+0x1c4/0x3a0
 ftrace_set_filter_ips+0x5c/0x80
 massattach_write+0x12a/0x3b0 [massattach]
 do_syscall_64+0x82/0x190
 entry_SYSCALL_64_after_hwframe+0x77/0x7f
 </TASK>"""


def stamped(text: str) -> str:
    """As the console shows it, with the time and the task before each line."""
    return "\n".join(f"[   12.345678][    T1] {line}" for line in text.split("\n"))


@pytest.mark.parametrize(("text", "kind", "title"), EVERY)
@pytest.mark.parametrize("shown", [str, stamped])
def test_each_kind_is_told_by_its_first_line(text: str, kind: Kind, title: str, shown: type[str]) -> None:
    """With time stamps and without; the report has all of the text but blank lines before it."""
    (report,) = parse_reports(shown(text))

    assert (kind, title, text.strip()) == (report.kind, report.title, without_stamps(report.text))


@pytest.mark.parametrize("line", LOCKS)
def test_lockdep_is_told_from_a_warning(line: str) -> None:
    """A report of a lock begins like a WARN, and taints nothing."""
    assert [Kind.LOCKDEP] == [report.kind for report in parse_reports(f"\n=====================\n{line}\n")]


def test_reports_that_follow_one_another_are_told_apart() -> None:
    """Each has its own text, also where the next begins without a blank line."""
    texts = [text for text, _, _ in EVERY]
    found = parse_reports("\n".join(texts))

    assert [kind for _, kind, _ in EVERY] == [report.kind for report in found]


def test_a_corrupt_list_is_told_before_its_warning() -> None:
    """CONFIG_DEBUG_LIST prints a line, and then warns."""
    assert [Kind.CORRUPTION, Kind.WARNING] == [report.kind for report in parse_reports(LIST)]


@pytest.mark.parametrize(
    "line",
    [
        "ftrace: allocating 24016 entries in 96 pages",
        "rcu: Preemptible hierarchical RCU implementation.",
        "rcu: \tRCU lockdep checking is enabled.",
        "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
        "kasan: KernelAddressSanitizer initialized (generic)",
        "kmemleak: Kernel memory leak detector disabled",
        "massattach: loading out-of-tree module taints kernel.",
        "x86: The rcu_tasks detected value is no stall",
    ],
)
def test_what_a_kernel_says_of_itself_is_no_report(line: str) -> None:
    """Sanitizers name themselves when they start."""
    assert () == parse_reports(line)


@pytest.mark.parametrize("shown", [str, stamped])
def test_the_place_of_an_allocation_is_its_caller(shown: type[str]) -> None:
    """And the callers of that, to the system call: neither allocators nor what the unwinder is not sure of."""
    told = failed_at(shown(f"{ALLOCATION}\n"))

    assert "alloc_ftrace_hash < ftrace_add_mod < ftrace_set_hash < ftrace_set_filter_ips < massattach_write" == told
    assert "" == failed_at(TRACE)
