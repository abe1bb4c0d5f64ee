"""Settings of the running kernel that are written into its memory: short grace periods, and no taint."""

from __future__ import annotations

import struct

from impl.linux.guest.frames import Batch
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf, Kind
from impl.linux.probes.symbols import Symbols
from spec.errors import BadInputError

__all__ = ["member_offset", "shorten_grace_periods", "untaint"]

FLAVOURS = ("rcu_tasks", "rcu_tasks_rude")
WAITS = {"gp_sleep": 0, "init_fract": 1}
"""Jiffies that a grace period of RCU tasks sleeps before it looks for laggards; 0 and 1 are the least."""

BITS_PER_BYTE = 8


def shorten_grace_periods(guest: Guest, symbols: Symbols, vmlinux: Btf) -> None:
    """Let grace periods end as soon as they can: they stay what they are, but take milliseconds.

    Source: rcu_tasks_kthread() and rcu_tasks_wait_gp() of kernel/rcu/tasks.h.
    """
    batch = Batch()
    batch.write_file("/sys/kernel/rcu_expedited", b"1")
    guest.submit(batch)
    for flavour in FLAVOURS:
        for name, value in WAITS.items():
            address = symbols.address(flavour) + member_offset(vmlinux, "rcu_tasks", name)
            guest.poke(address, struct.pack("<i", value))


def untaint(guest: Guest, symbols: Symbols, taint: int) -> None:
    """Put the taint mask back, and let every WARN_ONCE warn again."""
    guest.poke(symbols.address("tainted_mask"), struct.pack("<Q", taint))
    batch = Batch()
    batch.write_file("/sys/kernel/debug/clear_warn_once", b"1")
    guest.submit(batch)


def member_offset(btf: Btf, wanted: str, member: str) -> int:
    """The offset in bytes of a member of a struct; BadInputError if the kernel has none such."""
    for number in range(1, btf.end_of_ids):
        words, at = btf.place(number)
        if words[at + 1] >> 24 & 0x1F == Kind.STRUCT and btf.name(words[at]) == wanted:
            for place in range(at + 3, at + 3 + 3 * (words[at + 1] & 0xFFFF), 3):
                if btf.name(words[place]) == member:
                    return (words[place + 2] & 0xFFFFFF) // BITS_PER_BYTE
    raise BadInputError(f"this kernel has no member {member} in its struct {wanted}")
