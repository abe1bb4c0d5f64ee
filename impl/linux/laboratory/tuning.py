"""Settings of the running kernel: short grace periods, preemption, patience with tasks that stand, and no taint."""

from __future__ import annotations

import struct

from impl.linux.guest.batch import Batch
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.symbols import Symbols

__all__ = ["let_tasks_stand", "preempt", "shorten_grace_periods", "untaint"]

PREEMPTION = "/sys/kernel/debug/sched/preempt"
PATIENCE = {
    "/sys/module/rcupdate/parameters/rcu_cpu_stall_suppress": b"1",
    "/sys/module/rcupdate/parameters/rcu_task_stall_timeout": b"0",
    "/proc/sys/kernel/watchdog": b"0",
    "/proc/sys/kernel/hung_task_timeout_secs": b"0",
}
FLAVOURS = ("rcu_tasks", "rcu_tasks_rude", "rcu_tasks_trace")
WAITS = {"gp_sleep": 0, "init_fract": 1}
"""Jiffies that a grace period of RCU tasks sleeps before it looks for laggards; 0 and 1 are the least."""


def shorten_grace_periods(guest: Guest, symbols: Symbols, vmlinux: Btf) -> None:
    """Let grace periods end as soon as they can: they stay what they are, but take milliseconds.

    A flavour that the kernel lacks is left out. Source: rcu_tasks_kthread() and rcu_tasks_wait_gp() of
    kernel/rcu/tasks.h.
    """
    batch = Batch()
    batch.write_file("/sys/kernel/rcu_expedited", b"1")
    guest.submit(batch)
    for address in (address for flavour in FLAVOURS for address in symbols.addresses(flavour)):
        for name, value in WAITS.items():
            guest.poke(address + vmlinux.member_offset("rcu_tasks", name), struct.pack("<i", value))


def preempt(guest: Guest, symbols: Symbols) -> bool:
    """Have tasks preempted wherever they spin. Returns whether they are: by the setting, or as the kernel was built.

    Without CONFIG_PREEMPT_RCU, which has __rcu_read_lock(), a task in a program that does not sleep is never preempted.
    The setting takes a tenth of a second, since it patches the kernel: sched_dynamic_update() of kernel/sched/core.c.
    """
    if not symbols.addresses("__rcu_read_lock"):
        return False
    batch = Batch()
    dynamic, version = batch.write_file(PREEMPTION, b"full"), batch.read_file("/proc/version")
    replies = guest.submit(batch)
    return replies[dynamic].value > 0 or b" PREEMPT " in replies[version].data[0]


def let_tasks_stand(guest: Guest) -> None:
    """Let nobody mind that a task spins or sleeps for long: neither RCU nor the watchdogs tell of it."""
    batch = Batch()
    for path, value in PATIENCE.items():
        batch.write_file(path, value)
    guest.submit(batch)


def untaint(guest: Guest, symbols: Symbols, taint: int) -> None:
    """Put the taint mask back, and let every WARN_ONCE warn again."""
    guest.poke(symbols.address("tainted_mask"), struct.pack("<Q", taint))
    batch = Batch()
    batch.write_file("/sys/kernel/debug/clear_warn_once", b"1")
    guest.submit(batch)
