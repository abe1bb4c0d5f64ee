"""The kernel's text of one system: functions whose sites are patched, and images. It follows the state's arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.direct_functions import BPF
from impl.batched.jit.template import Template
from impl.batched.machine import addresses as at
from impl.batched.machine.arena import Arena
from impl.batched.machine.entries import SITE_BYTES, body_address, branches, fresh_text, jump, site_offset, site_offsets
from impl.batched.machine.images import JUMPED, NOTHING, Images, Pieces, PlacedImage
from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.poke import INT3, poke
from impl.batched.machine.routines import routines
from impl.batched.machine.stopping import SteppedPoke, emulate, passages
from impl.batched.sites import DIRECT
from impl.batched.state import State

__all__ = ["OPS_BYTES", "RAW_BYTES", "Text"]

IMAGE_SPACE: Final = 1 << 29
OPS_BYTES: Final = 256
"""Of an ops' trampoline."""

RAW_BYTES: Final = 32
"""Of a direct trampoline that is not BPF's."""

FEW: Final = 64
MOST_SPARE: Final = 4
SPARE_BYTES: Final = 1 << 25
LOW_HALF: Final = (1 << 32) - 1
HIGH_HALF: Final = LOW_HALF << 32
ALONE: Final = 1
NO_TRAPS: Final[Mapping[int, bytes]] = {}


_SPARE: Final[list[Arena]] = []
"""Arenas that no system uses: writing to pages that were touched before is faster than touching fresh ones."""


class Text:
    """The text of one system. A site's target is the low half of an address, with bit 0 set for a jump; 0 is a nop.

    written: ranges of code, [low, high), that have changed since `take_written`; None stands for too many to list.
    unused: images that no site calls any more once a poke that stops is over.
    put: what becomes of images that no site calls any more; without it they are freed, as no task can be in them.
    """

    def __init__(self, state: State, level: str) -> None:
        count = state.functions.count
        self.entries = MemoryRegion(at.TEXT, max(1, count) * at.FUNCTION_BYTES)
        arena = _SPARE.pop() if _SPARE else Arena(MemoryRegion(at.IMAGES, IMAGE_SPACE))
        self._lent: Arena | None = arena
        self.images = arena.region
        self.written: list[tuple[int, int]] | None = []
        self.put: Callable[[Pieces], None] | None = None
        self._state = state
        self._rows = self.entries.u8[: count * at.FUNCTION_BYTES].reshape(count, at.FUNCTION_BYTES)
        self._rows[:] = fresh_text(count)
        self._targets = np.zeros(count, np.uint32)
        self._loaded = state.sites.mapped[:count].copy()
        self._image_of = Images(state.functions, level, arena, jmp_sites=state.facts.jmp_sites)
        self._version = state.version
        self._stepped: SteppedPoke | None = None
        self._stops = False
        self._former = np.zeros(0, np.uint32)
        self.unused = NOTHING

    def close(self) -> None:
        """The next system may use this memory, whose pages have been touched."""
        if self._lent is not None and self._lent.touched <= SPARE_BYTES and len(_SPARE) < MOST_SPARE:
            self._lent.clear()
            _SPARE.append(self._lent)
        self._lent = None

    def follow(self) -> None:
        """Brings text up to the state: builds images, pokes sites, then frees images that no site calls."""
        stops, self._stops = self._stops, False
        if self._version == self._state.version:
            return
        self._version = self._state.version
        self._follow_modules()
        unused = self._image_of.change(self._state)
        if stops:
            self.unused = unused
            self._begin_poke()
            return
        self._poke()
        if len(unused.where):
            (self.put or self.free)(unused)

    def stop_in_next(self) -> None:
        """Lets the next `follow` stop behind each phase of its poke (POKE-1)."""
        self._stops = True
        self._former = self.direct()
        self._state.direct.patched = np.empty(0, np.int64)

    def advance(self) -> bool:
        """Goes to the next stop of a poke that stops; whether there is one, or all is done."""
        if self._stepped is None:
            return False
        if self._stepped.advance():
            return True
        self._stepped = None
        if len(self.unused.where):
            (self.put or self.free)(self.unused)
        return False

    @property
    def is_late(self) -> bool:
        """Whether a poke stops before entries are changed in place."""
        return self._stepped is not None and self._stepped.late

    @property
    def vector(self) -> Mapping[int, bytes]:
        """The instructions that a poke which stops is about to write, by their addresses."""
        return self._stepped.vector if self._stepped is not None else NO_TRAPS

    def free(self, pieces: Pieces) -> None:
        """Images that nobody can reach go."""
        self.note(_list_ranges(at.IMAGES, pieces.where, pieces.size))
        self._image_of.release(pieces)

    def patch(self, address: int, code: bytes) -> None:
        """Code in an image changes."""
        self.images.write(address, code)
        self.note([(address, address + len(code))])

    def note(self, ranges: list[tuple[int, int]] | None) -> None:
        """Code has changed at these ranges, or at too many to list."""
        self.written = None if ranges is None or self.written is None else self.written + ranges

    def take_written(self) -> list[tuple[int, int]] | None:
        """Returns what has changed since the last call."""
        taken, self.written = self.written, []
        return taken

    def jump_to(self, index: int, target: int) -> None:
        """A function jumps to this target behind its site."""
        place = body_address(index)
        code = jump(place, target)
        if self.entries.read(place, len(code)) != code:
            self.entries.write(place, code)
            self.note([(place, place + len(code))])

    def image_sizes(self) -> NDArray[np.uint16]:
        """The size of each function's image in bytes, 0 without one."""
        return self._image_of.size

    def template_of(self, index: int) -> Template:
        """The template of a function's image."""
        return self._image_of.template_of(self._state, index)

    def image(self, index: int) -> tuple[int, int]:
        """The address of a function's image, and its size."""
        return at.IMAGES + self._image_of.where(index), int(self._image_of.size[index])

    def site(self, index: int) -> bytes:
        """The instruction at a function's site."""
        start = site_offset(index)
        return self.entries.u8[start : start + SITE_BYTES].tobytes()

    def placed_image(self, index: int) -> PlacedImage | None:
        """A function's image, if it has one."""
        return self._image_of.placed(self._state, index)

    def reached_image(self, index: int, former: PlacedImage | None) -> PlacedImage | None:
        """The image that a function's site leads to; while a poke stops that may be the former one, or none yet."""
        present = self.placed_image(index)
        if self._stepped is None:
            return present
        reached = self._find_reached(index)
        return next((image for image in (former, present) if image and image.address == reached), None)

    def _find_reached(self, index: int) -> int:
        """A site leads to this address, past ftrace's callers, who ask direct_functions."""
        place, known = at.TEXT + site_offset(index), routines().address
        target, _ = emulate(self.vector.get(place, self.site(index)), place)
        if target in {known["ftrace_caller"], known["ftrace_regs_caller"]}:
            target = HIGH_HALF | int(self.shown_direct()[index])
        return target & ~JUMPED

    def _follow_modules(self) -> None:
        """Entries of modules are written when they are loaded, and become traps when they go."""
        loaded = self._state.sites.mapped[:-1]
        if (loaded == self._loaded).all():
            return
        changed = np.flatnonzero(loaded != self._loaded)
        fresh = fresh_text(len(loaded))[changed]
        self._rows[changed] = np.where(loaded[changed, None], fresh, INT3)
        self._targets[changed] = 0
        self._loaded = loaded.copy()
        self.note(None)

    def _poke(self) -> None:
        """Patches every site whose instruction changes."""
        targets = self._find_targets()
        changed = np.flatnonzero(targets != self._targets)
        if not len(changed):
            return
        places = site_offsets(changed)
        code = branches(places, targets[changed])
        for _ in poke(self.entries.u8, places, code):
            pass
        self._targets = targets
        self.note(_list_ranges(at.TEXT, places, SITE_BYTES))

    def _begin_poke(self) -> None:
        """Begins to patch what changes and what an entry is written for; the first to `advance` comes to a stop."""
        old, new, entries = self._targets, self._find_targets(), self.direct()
        direct = (self._former != 0) & (old == self._former) & (entries != 0) & (new == entries)
        changed = np.flatnonzero(old != new)
        patched = self._state.direct.patched if not self._state.sites.off else np.empty(0, np.int64)
        written = np.union1d(changed[direct[changed]], patched)
        caller = np.uint32(routines().address["ftrace_regs_caller"] & LOW_HALF)
        self._targets = new
        passes = passages(new, np.setdiff1d(changed, written), written, caller)
        self._stepped = SteppedPoke(self.entries, passes, self._synchronize)

    def _synchronize(self, places: NDArray[np.int64]) -> None:
        """text_poke_sync(): every processor drops what it has read of these sites."""
        self.note(_list_ranges(at.TEXT, places, SITE_BYTES))

    def _find_targets(self) -> NDArray[np.uint32]:
        """The target of each site (SITE-1 to SITE-5)."""
        sites = self._state.sites
        known = routines().address
        caller, regs_caller = (np.uint32(known[name] & LOW_HALF) for name in ("ftrace_caller", "ftrace_regs_caller"))
        codes = sites.codes[:-1].astype(np.uint32)
        own = codes * np.uint32(OPS_BYTES) + np.uint32(at.OPS_TRAMPOLINES & LOW_HALF)
        alone = np.where(codes == DIRECT, self.direct(), own)
        together = np.where(sites.shows_regs()[:-1], regs_caller, caller)
        count = sites.count[:-1] if not sites.off else np.zeros_like(codes)
        return np.where(count == 0, np.uint32(0), np.where(count == ALONE, alone, together))

    def direct(self) -> NDArray[np.uint32]:
        """The entry in direct_functions of each site that a direct ops covers, 0 for the others."""
        entries = self._state.direct.entry[:-1]
        own = entries.astype(np.uint32) * np.uint32(RAW_BYTES) + np.uint32(at.RAW_TRAMPOLINES & LOW_HALF)
        found = np.where(entries > 0, own, np.uint32(0))
        np.copyto(found, self._image_of.targets(), where=entries == BPF)
        found[~self._state.sites.direct[:-1]] = 0
        return found

    def shown_direct(self) -> NDArray[np.uint32]:
        """The same as calls find it, while a poke stops before entries are changed in place (POKE-3)."""
        entries = self.direct()
        if not self.is_late:
            return entries
        return np.where((self._former != 0) & (entries != 0), self._former, entries)


def _list_ranges(base: int, places: NDArray[np.int64], size: NDArray[np.int64] | int) -> list[tuple[int, int]] | None:
    """Pieces of code at these offsets from an address, or None if they are many."""
    if len(places) > FEW:
        return None
    sizes = np.broadcast_to(size, places.shape).tolist()
    return [(base + low, base + low + one) for low, one in zip(places.tolist(), sizes, strict=True)]
