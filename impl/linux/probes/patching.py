"""The places between two writes to a kernel's text, and the instructions that it is about to write (POKE-1).

Source: text_poke_bp_batch() and struct bp_patching_desc of alternative.c in 6.1 and 6.12; in 7.3 its
smp_text_poke_batch_finish() and struct smp_text_poke_array, which holds the patches itself.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, NamedTuple

from impl.linux.architectures import Flow
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.symbols import Symbols

__all__ = ["PHASES", "PatchReader", "TextPatch", "find_stops"]

PHASES: Final = 3
"""The traps, the bytes behind them, the first bytes: all processors synchronise behind each."""

WRITERS: Final = ("smp_text_poke_batch_finish", "text_poke_bp_batch")
SYNCHRONISING: Final = ("smp_text_poke_sync_each_cpu", "text_poke_sync", "on_each_cpu_cond_mask")
"""A writer calls one of these, or has inlined it as far as the call of the last one."""

VECTORS: Final = ("text_poke_array", "bp_desc")

START: Final = "_stext"
"""Places of patches are told from here."""

MOST: Final = 4096


@dataclass(frozen=True, slots=True)
class TextPatch:
    """An instruction that is being exchanged. old, new: its bytes; now: those that stand there."""

    address: int
    old: bytes
    new: bytes
    now: bytes


def find_stops(guest: Guest, symbols: Symbols) -> tuple[int, ...]:
    """The addresses at which the kernel goes on behind each synchronisation, in order.

    None where the function that writes text is not to be found, or does not synchronise once behind each phase.
    """
    writers = [address for name in WRITERS for address in symbols.addresses(name)]
    if len(writers) != 1 or not any(map(symbols.addresses, VECTORS)):
        return ()
    (start,), starts = writers, symbols.kernel.starts
    end = starts[bisect_right(starts, start)]
    (text,) = guest.read_memory([(start, end - start)])
    wanted = {address for name in SYNCHRONISING for address in symbols.addresses(name)}
    code = guest.kernel.architecture.read_flow(start, text)
    behind = tuple(each.address + each.size for each in code if each.flow is Flow.CALL and each.target in wanted)
    return behind if len(behind) == PHASES else ()


class PatchLayout(NamedTuple):
    """Of the struct that has the patches, and of one of them. inline: they are in it, and not elsewhere."""

    symbol: str
    inline: bool
    holder: Mapping[str, int]
    size: int
    patch: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class PatchReader:
    """Reads a guest's memory, while an operation stands behind a synchronisation."""

    guest: Guest
    symbols: Symbols
    vmlinux: Btf

    def read(self) -> tuple[TextPatch, ...]:
        """Read the instructions that are being exchanged."""
        found = tuple(self._read_patches())
        places = [(address, len(new)) for address, _, new in found]
        texts = self.guest.read_memory(places)
        return tuple(
            TextPatch(address, bytes([first]) + now[1:], new, now)
            for (address, first, new), now in zip(found, texts, strict=True)
        )

    def _read_patches(self) -> Iterator[tuple[int, int, bytes]]:
        """The address of each, the first byte that stood there, and the bytes that are to stand there."""
        layout = _find_layout(self.vmlinux)
        at = self.symbols.address(layout.symbol)
        count, vector = self._word(at + layout.holder["nr_entries"], 4), at + layout.holder["vec"]
        if not layout.inline:
            vector = self._word(vector, 8)
        (text,) = self.guest.read_memory([(vector, layout.size * min(count, MOST))])
        start, offsets = self.symbols.address(START), layout.patch
        for place in range(0, len(text), layout.size):
            one = text[place : place + layout.size]
            distance = int.from_bytes(one[offsets["rel_addr"] :][:4], "little", signed=True)
            length = one[offsets["len"]]
            yield start + distance, one[offsets["old"]], one[offsets["text"] :][:length]

    def _word(self, address: int, size: int) -> int:
        (text,) = self.guest.read_memory([(address, size)])
        return int.from_bytes(text, "little")


@lru_cache(maxsize=8)
def _find_layout(vmlinux: Btf) -> PatchLayout:
    for holder, one, symbol, inline in (
        ("smp_text_poke_array", "smp_text_poke_loc", VECTORS[0], True),
        ("bp_patching_desc", "text_poke_loc", VECTORS[1], False),
    ):
        for (_, members), (size, patch) in zip(vmlinux.structs(holder), vmlinux.structs(one), strict=False):
            return PatchLayout(symbol, inline, members, size, patch)
    raise AssertionError("a kernel whose writer of text is known has its vector")
