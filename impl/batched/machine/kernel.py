"""The emulated kernel of one system: calls run on its text, and what their code recorded becomes their trace."""

from __future__ import annotations

from functools import cached_property
from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched.machine import addresses as at
from impl.batched.machine.cpu import Cpu, ExecutionError
from impl.batched.machine.entries import entry_address, site_offset
from impl.batched.machine.images import object_index
from impl.batched.machine.loading import Loader
from impl.batched.machine.memory import PAGE, MemoryRegion
from impl.batched.machine.names import StateNames
from impl.batched.machine.records import events, value
from impl.batched.machine.routines import routines
from impl.batched.machine.structs import Globals
from impl.batched.machine.tables import Tables
from impl.batched.machine.text import Text
from impl.batched.machine.threads import AtPoint, Thread, list_places, task_memory
from impl.batched.state import State
from spec.abi import SYSTEM_V
from spec.prototypes import Prototype
from spec.traces import Trace
from spec.worlds import Function

__all__ = ["EmulatedKernel"]

Words = NDArray[np.uint64]

REGISTERS: Final = SYSTEM_V.arguments
TRACE_SPACE: Final = 1 << 26
STACK_SPACE: Final = 1 << 18
JUNK: Final = 0xA5A5A5A5A5A5A5A5
WORD: Final = 8
LONGEST_SECONDS: Final = 60
VECTOR_SPACE: Final = 1 << 24


class EmulatedKernel:
    """Text, code and data of one system, and the processor that runs them."""

    def __init__(self, state: State, text: Text) -> None:
        self.state = state
        self.text = text
        self._names = StateNames(state)
        self._loader = Loader(state, text)
        self._tables = Tables(state, text, self._loader.ops_objects)
        self._trace = MemoryRegion(at.TRACE, TRACE_SPACE)
        self._stack = MemoryRegion(at.STACK, STACK_SPACE)
        self._vectors = MemoryRegion(at.VECTORS, VECTOR_SPACE)
        self._task_memory: dict[int, MemoryRegion] = {}

    @property
    def regions(self) -> tuple[MemoryRegion, ...]:
        """All memory of the emulated kernel."""
        own = (self.text.entries, self.text.images, self._trace, self._stack, self._vectors)
        return (*own, *self._loader.regions, *self._tables.regions)

    @cached_property
    def _cpu(self) -> Cpu:
        return Cpu(self.regions)

    def call(self, index: int, arguments: tuple[int, ...]) -> Trace:
        """Runs one function to its return. Raises ExecutionError if it does not return properly."""
        function = self.state.functions.all[index]
        self._prepare(index)
        self._tables.begin()
        result = self._enter(entry_address(index), *_pass(function.prototype, arguments))
        words: list[int] = self.recorded().tolist()
        return self._read(words, function, len(arguments), result)

    def calls(self, index: int, vectors: Words) -> tuple[Words, Words]:
        """Runs one function once for each vector of arguments, in a loop inside the emulator.

        vectors: a row a call, a column a slot. The return registers, and the records of all calls, one behind the
        other. ExecutionError as of `call`.
        """
        rows = _make_rows(self.state.functions.all[index].prototype, vectors)
        self._prepare(index)
        stacked = rows.shape[1] - len(REGISTERS)
        results, records = [], []
        start, count = 0, 1
        while start < len(rows):
            chunk = rows[start : start + count]
            self._tables.begin()
            self._vectors.u64[: chunk.size] = chunk.ravel()
            found = at.VECTORS + WORD * chunk.size
            registers = [at.VECTORS, len(chunk), found, entry_address(index), stacked, 0]
            self._enter(routines().address["calls"], registers, [], seconds=LONGEST_SECONDS)
            results.append(self._vectors.u64[chunk.size : chunk.size + len(chunk)].copy())
            records.append(self.recorded().copy())
            start += count
            count = self._count_room(len(records[0]), rows.shape[1])
        return np.concatenate(results), np.concatenate(records)

    def begin(self, index: int, arguments: tuple[int, ...], slot: int) -> Thread:
        """A task that stands at the site of a function, in the memory of this number."""
        function = self.state.functions.all[index]
        if slot not in self._task_memory:
            self._task_memory[slot] = task_memory(slot)
            self._cpu.map(self._task_memory[slot])
        self._prepare(index)
        region = self._task_memory[slot]
        thread = Thread(index, len(arguments), region, None, [])
        registers, stacked = _pass(function.prototype, arguments)
        words = [at.STOP, *stacked]
        place = (thread.stack - region.address) // WORD
        region.u64[place : place + len(words)] = words
        self._tables.begin(thread.records)
        thread.saved = self._tables.save()
        thread.context = self._cpu.begin(registers, thread.stack, at.TEXT + site_offset(index))
        return thread

    def resume(self, thread: Thread, point: AtPoint | None) -> None:
        """Lets a task run to a point of its call, or to its return. Raises ExecutionError as `call`."""
        if thread.returned:
            return
        self._prepare(thread.index)
        if not thread.begun and (point is None or point.kind != "site"):
            thread.begun, thread.image = True, self.text.reached_image(thread.index, thread.former)
        places = frozenset(list_places(thread, point, thread.image)) if point else frozenset[int]()
        self._tables.restore(thread.saved)
        stands = False
        while not stands:
            rip, rsp, rbp = self._cpu.resume(thread.context, places | {at.STOP})
            thread.returned = rip == at.STOP
            stands = thread.returned or (point is not None and thread.stands_at(point, rsp, rbp))
        thread.saved = self._tables.save()
        if thread.returned:
            self._check_settled()

    def end(self, thread: Thread) -> Trace:
        """The trace of a task whose call is over."""
        function = self.state.functions.all[thread.index]
        result = self._cpu.end(thread.context, thread.stack)
        return self._read(thread.recorded(), function, thread.given, result)

    def _read(self, words: list[int], function: Function, given: int, result: int) -> Trace:
        """The trace of a call of a function with this number of words; the programs that it missed are entered."""
        found, missed = events(words, self._names, function, given)
        self.state.ledger.miss(missed)
        return Trace(found, value(function, result))

    def references(self, place: int) -> int:
        """How many tasks are counted by the image at a place of the arena."""
        return self._tables.references(object_index(place))

    def load_programs(self) -> None:
        """Loads the code of all programs that links hold."""
        self._loader.load_programs()

    def unload_program(self, number: int) -> None:
        """Frees a program's code."""
        self._loader.unload_program(number)

    def _count_room(self, recorded: int, width: int) -> int:
        """How many calls fit into memory, if each records at most twice what the first one did."""
        return min(len(self._trace.u64) // (2 * max(1, recorded)), len(self._vectors.u64) // (width + 1))

    def _prepare(self, index: int) -> None:
        self._loader.load(index)
        self._tables.follow()
        self._cpu.written(self.text.take_written())
        self._cpu.catch(self.text.vector)

    def _enter(self, function: int, registers: list[int], stacked: list[int], *, seconds: int = 0) -> int:
        """Calls code with these registers and words on the stack; the return register."""
        top = STACK_SPACE - PAGE
        words = [at.STOP, *stacked]
        self._stack.u64[top // WORD : top // WORD + len(words)] = words
        result = self._cpu.call(function, registers, at.STACK + top, seconds=seconds)
        self._check_settled()
        return result

    def recorded(self) -> Words:
        """The records since the trace was emptied."""
        return self._trace.u64[: (self._tables.get(Globals.TRACE) - at.TRACE) // WORD]

    def _check_settled(self) -> None:
        """When a call is over, no image, program or frame of the shadow stack is still active."""
        for place, what in (
            (Globals.IN_FLIGHT, "an image was entered and not left"),
            (Globals.CURRENT, "a program's run context is still current"),
            (Globals.DEPTH, "a frame is left on the shadow stack"),
        ):
            if self._tables.get(place):
                raise ExecutionError(what)


def _make_rows(prototype: Prototype | None, vectors: Words) -> Words:
    """Vectors as the routine takes them: six registers, then the words on the stack."""
    slots = prototype.slots if prototype else ()
    rows = np.full((len(vectors), len(REGISTERS) + sum(slot.stack is not None for slot in slots)), JUNK, np.uint64)
    for number, slot in enumerate(slots):
        place = REGISTERS.index(slot.register) if slot.register else len(REGISTERS) + (slot.stack or 0)
        rows[:, place] = vectors[:, number]
    return rows


def _pass(prototype: Prototype | None, arguments: tuple[int, ...]) -> tuple[list[int], list[int]]:
    """The argument registers and the words on the stack; above an argument's width they hold junk (ARG-3)."""
    registers = dict.fromkeys(REGISTERS, JUNK)
    if prototype is None:
        given = [word % (1 << 64) for word in arguments[: len(REGISTERS)]]
        return given + [0] * (len(REGISTERS) - len(given)), []
    stacked = {}
    for slot, word in zip(prototype.slots, prototype.words(arguments), strict=True):
        bits = 8 * slot.size
        passed = (word | JUNK << bits) % (1 << 64)
        if slot.register:
            registers[slot.register] = passed
        else:
            stacked[slot.stack] = passed
    return list(registers.values()), [stacked[place] for place in range(len(stacked))]
