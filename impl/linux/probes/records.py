"""What enabled_functions would show, from the kernel's memory: whoever reads the file waits for ftrace's lock.

Source: struct ftrace_page, struct dyn_ftrace, struct ftrace_ops; the flags FTRACE_FL_* of include/linux/ftrace.h.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.enabled import EnabledFunction, Pointer
from impl.linux.probes.symbols import Symbols

__all__ = ["RecordReader"]

ENABLED, REGS, IPMODIFY, DIRECT = 1 << 31, 1 << 30, 1 << 26, 1 << 24
COUNT: Final = (1 << 19) - 1
PAGE: Final = struct.Struct("<QQi")
"""The next page, its records, how many of them there are."""

RECORD: Final = struct.Struct("<QQ")
"""The address of a site, and flags."""

OPS_BYTES: Final = 512
DIRECT_CALLER: Final = "call_direct_funcs"
"""The callback of a direct ops, which names the common caller as its trampoline, and has none of its own."""

MOST: Final = 10_000
"""Pages, or ops: a list that has more has no end."""


@dataclass(frozen=True, slots=True)
class RecordReader:
    """Reads a guest's memory."""

    guest: Guest
    symbols: Symbols
    vmlinux: Btf

    def enabled_functions(self) -> tuple[EnabledFunction, ...]:
        """Every function whose record is enabled, without what is called there."""
        return tuple(self._function(site, flags) for site, flags in self._records() if flags & ENABLED)

    def _function(self, site: int, flags: int) -> EnabledFunction:
        place = self.symbols.at(site)
        return EnabledFunction(
            place.symbol if place else f"{site:#x}",
            place.module if place else None,
            flags & COUNT,
            bool(flags & REGS),
            bool(flags & IPMODIFY),
            bool(flags & DIRECT),
            entry=Pointer(None, address=0) if flags & DIRECT else None,
        )

    def _records(self) -> Iterator[tuple[int, int]]:
        page = self._word(self.symbols.address("ftrace_pages_start"))
        (header,) = self.guest.read_memory([(page, PAGE.size)])
        for _ in range(MOST):
            page, records, count = PAGE.unpack(header)
            places = [(records, RECORD.size * count), *([(page, PAGE.size)] if page else ())]
            text, *following = self.guest.read_memory(places)
            yield from RECORD.iter_unpack(text)
            if not following:
                return
            (header,) = following

    def trampolines(self) -> Mapping[int, str]:
        """The callback of each ops that is registered, by the address of its trampoline."""
        func, following, trampoline = _find_members(self.vmlinux)
        found: dict[int, str] = {}
        ops = self._word(self.symbols.address("ftrace_ops_list"))
        (end,) = self.symbols.addresses("ftrace_list_end")
        for _ in range(MOST):
            if ops in {0, end}:
                break
            (text,) = self.guest.read_memory([(ops, OPS_BYTES)])
            callback, ops, code = (int.from_bytes(text[at : at + 8], "little") for at in (func, following, trampoline))
            place = self.symbols.at(callback)
            if code and place and place.symbol != DIRECT_CALLER:
                found[code] = place.symbol
        return found

    def _word(self, address: int) -> int:
        (text,) = self.guest.read_memory([(address, 8)])
        return int.from_bytes(text, "little")


@lru_cache(maxsize=8)
def _find_members(vmlinux: Btf) -> tuple[int, ...]:
    """Looking for a struct takes most of a second."""
    return tuple(vmlinux.member_offset("ftrace_ops", name) for name in ("func", "next", "trampoline"))
