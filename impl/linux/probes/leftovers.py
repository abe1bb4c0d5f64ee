"""What of mass attach a kernel still holds, whoever asked for it: by this a leak shows that no site shows."""

from __future__ import annotations

import struct
from dataclasses import dataclass, fields

from impl.linux.bpf.commands import count_links, count_programs
from impl.linux.guest.guest import Guest
from impl.linux.probes.enabled import direct_functions
from impl.linux.probes.symbols import Symbols

__all__ = ["Leftovers", "read_leftovers"]


@dataclass(frozen=True, slots=True)
class Leftovers:
    """jit_bytes: memory that is charged for code of BPF, images among it. direct_entries: of direct_functions."""

    jit_bytes: int
    programs: int
    links: int
    direct_entries: int

    def beyond(self, other: Leftovers) -> str:
        """What there is more of, or less, than elsewhere; empty if it is the same."""
        pairs = ((each.name, getattr(other, each.name), getattr(self, each.name)) for each in fields(self))
        return ", ".join(f"{name} {there}, and here {here}" for name, there, here in pairs if there != here)


def read_leftovers(guest: Guest, symbols: Symbols) -> Leftovers:
    """Count them. Source: bpf_jit_current of kernel/bpf/core.c."""
    (charged,) = struct.unpack("<q", guest.read_memory([(symbols.address("bpf_jit_current"), 8)])[0])
    entries = direct_functions(guest.read_memory, symbols.address("direct_functions"))
    return Leftovers(charged, count_programs(guest), count_links(guest), len(entries))
