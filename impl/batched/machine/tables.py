"""The data that the kernel's routines read: the list of ops, the graph tracer's users, direct_functions."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices, Mask
from impl.batched.machine import addresses as at
from impl.batched.machine.memory import PAGE, MemoryRegion
from impl.batched.machine.structs import Globals, OpsObject
from impl.batched.machine.text import Text
from impl.batched.sites import DIRECT, GRAPH, KLP
from impl.batched.state import PLAIN, Kprobe, Ops, State

__all__ = ["SavedTask", "Tables"]

OBJECT_SPACE: Final = 1 << 26
HIGH_HALF: Final = np.uint64(0xFFFFFFFF << 32)
COVERAGE_SPACE: Final = 1 << 27
WORD: Final = 8
SavedTask = list[tuple[int, NDArray[np.uint64]]]
"""Words of the globals, with their places."""

FRESH_FLAGS: Final = np.array([Globals.NEVER_OPENED, 0] * 16, np.uint64)


class Tables:
    """regions: all memory that it fills."""

    def __init__(self, state: State, text: Text, ops_objects: MemoryRegion) -> None:
        count = max(1, state.functions.count)
        self.state = state
        self.text = text
        self._ops_objects = ops_objects
        self._count = state.functions.count
        self.globals = MemoryRegion(at.GLOBALS, Globals.SIZE)
        self._loaded = MemoryRegion(at.LOADED, count)
        self._slots = MemoryRegion(at.SLOT_COUNTS, count)
        self._direct = MemoryRegion(at.DIRECT_FUNCTIONS, WORD * count)
        self._coverage = MemoryRegion(at.COVERAGE, COVERAGE_SPACE)
        self._objects = MemoryRegion(at.IMAGE_OBJECTS, OBJECT_SPACE)
        self.regions = (self.globals, self._loaded, self._slots, self._direct, self._coverage, self._objects)
        self._slots.u8[: self._count] = state.functions.slots[:-1]
        self._masks = 0
        self._version: tuple[int, bool] | None = None

    def follow(self) -> None:
        """Brings the tables up to the state."""
        state = self.state
        version = state.version, self.text.is_late
        if self._version == version:
            return
        self._version = version
        self._masks = 0
        self._loaded.u8[: self._count] = state.sites.mapped[:-1]
        direct = self.text.shown_direct()
        self._direct.u64[: self._count] = np.where(direct, direct | HIGH_HALF, np.uint64(0))
        self._list_ops(direct != 0)
        self._list_probes()
        self._list_users()
        self._set(Globals.SLOT0_RETURNS, int(state.facts.slot0_returns))

    def begin(self, trace: int = at.TRACE) -> None:
        """Starts a fresh task with an empty trace at this address."""
        for place in (Globals.CURRENT, Globals.CALLING, Globals.DEPTH, Globals.IN_FLIGHT, Globals.HOOKS):
            self._set(place, 0)
        self._set(Globals.TRACE, trace)
        start = Globals.FLAGS // WORD
        self.globals.u64[start : start + len(FRESH_FLAGS)] = FRESH_FLAGS

    def save(self) -> SavedTask:
        """What belongs to the running task alone."""
        words, flags, frames = Globals.SLOT0_RETURNS // WORD, Globals.FLAGS // WORD, Globals.FRAMES // WORD
        count = self.get(Globals.DEPTH) * Globals.FRAME_BYTES // WORD
        parts = ((0, words), (flags, len(FRESH_FLAGS)), (frames, count))
        return [(start, self.globals.u64[start : start + size].copy()) for start, size in parts]

    def restore(self, saved: SavedTask) -> None:
        """Another task runs."""
        for start, words in saved:
            self.globals.u64[start : start + len(words)] = words

    def references(self, number: int) -> int:
        """How many tasks a struct bpf_tramp_image counts."""
        return int(self._objects.u64[number])

    def get(self, place: int) -> int:
        """A word of the globals."""
        return int(self.globals.u64[place // WORD])

    def _set(self, place: int, word: int) -> None:
        self.globals.u64[place // WORD] = word

    def _list_ops(self, direct: Mask) -> None:
        """Lists every enabled ops, newest first; DIRECT and KLP record nothing, so their place makes no difference."""
        state = self.state
        found = [
            (entry.code, self._mark(state.sites.covered(entry.filter_hash, entry.notrace_hash)))
            for entry in state.ops_list
            if isinstance(entry, Ops)
        ]
        place = next((place for place, entry in enumerate(state.ops_list) if not isinstance(entry, Ops)), None)
        if place is not None:
            found.insert(place, (GRAPH, self._cover_graph()))
        found += [(DIRECT, direct), (KLP, state.livepatched[:-1])]
        assert len(found) < Globals.MOST_OPS
        start = Globals.OPS_LIST // WORD
        for number, (code, covered) in enumerate(found):
            self.globals.u64[start + number] = at.OPS_OBJECTS + OpsObject.SIZE * code
            self._ops_objects.u64[(OpsObject.SIZE * code + OpsObject.COVERAGE) // WORD] = self._put_mask(covered)
        self.globals.u64[start + len(found)] = 0

    def _list_probes(self) -> None:
        """The fprobes of each ops that has some: its own, or all that are at entries."""
        for entry in self.state.ops_list:
            if isinstance(entry, Ops) and entry.routine != PLAIN:
                own = [kprobe for kprobe in self.state.kprobes.values() if kprobe.ops is entry]
                probes = self._put_probes(own or self.state.kprobes_of("kprobe"))
                self._ops_objects.u64[(OpsObject.SIZE * entry.code + OpsObject.PROBES) // WORD] = probes

    def _put_probes(self, kprobes: list[Kprobe]) -> int:
        """Writes a list of fprobes, the newest first, and returns its address."""
        listed = [self._put_probe(kprobe) for kprobe in reversed(kprobes)]
        return self._put_bytes(np.array([*listed, 0], np.uint64).view(np.uint8))

    def _put_probe(self, kprobe: Kprobe) -> int:
        times, cookies = np.zeros(self._count, np.uint8), np.zeros(self._count, np.uint64)
        np.add.at(times, kprobe.where, 1)
        if not self.state.facts.fprobes_shared:
            times = np.minimum(times, 1)
        cookies[kprobe.where] = kprobe.cookies
        words = [self._put_bytes(times), kprobe.program.number, self._put_bytes(cookies.view(np.uint8))]
        return self._put_bytes(np.array(words, np.uint64).view(np.uint8))

    def _cover_graph(self) -> Mask:
        return self._mark(self.state.graph.covered(self.state.sites))

    def _mark(self, where: Indices) -> Mask:
        marked = np.zeros(self._count, np.bool_)
        marked[where] = True
        return marked

    def _list_users(self) -> None:
        users = self.state.graph.by_slot()
        self._set(Globals.USER_COUNT, len(users))
        for number, user in enumerate(users):
            # The only user is asked wherever graph_ops is called (GRAPH-13).
            takes = self._put_mask(user.takes()[:-1]) if len(users) > 1 or user.fprobes else 0
            probes = self._put_probes(self.state.kprobes_of("kretprobe")) if user.fprobes else 0
            limits = [self._put_mask(mask[:-1]) if mask.any() else 0 for mask in (user.function, user.notrace)]
            start = (Globals.USERS + Globals.USER_BYTES * number) // WORD
            words = (user.slot, user.slot, takes, *limits, user.depth or 0, probes)
            self.globals.u64[start : start + len(words)] = words

    def _put_mask(self, mask: NDArray[np.bool_]) -> int:
        """Writes a mask as a table of bytes, and returns its address."""
        return self._put_bytes(mask.view(np.uint8))

    def _put_bytes(self, data: NDArray[np.uint8]) -> int:
        size = -(-len(data) // PAGE) * PAGE
        start, self._masks = self._masks, self._masks + size
        if self._masks > len(self._coverage.u8):
            raise MemoryError("the emulated kernel has no room for so many hashes")
        self._coverage.u8[start : start + len(data)] = data
        return at.COVERAGE + start
