"""The emulated kernel of one system: calls run on its text, and what their code recorded becomes their trace."""

from __future__ import annotations

from functools import cached_property
from typing import Final

from impl.batched.machine import addresses as at
from impl.batched.machine.cpu import Cpu, ExecutionError
from impl.batched.machine.loading import Loader
from impl.batched.machine.memory import PAGE, Region
from impl.batched.machine.names import StateNames
from impl.batched.machine.records import events, value
from impl.batched.machine.routines import Globals
from impl.batched.machine.tables import Tables
from impl.batched.machine.text import Text
from impl.batched.state import State
from spec.prototypes import REGISTERS, Prototype
from spec.traces import Trace

__all__ = ["Kernel"]

TRACE_SPACE: Final = 1 << 26
STACK_SPACE: Final = 1 << 18
JUNK: Final = 0xA5A5A5A5A5A5A5A5
WORD: Final = 8


class Kernel:
    """Text, code and data of one system, and the processor that runs them."""

    def __init__(self, state: State, text: Text) -> None:
        self.state = state
        self.text = text
        self._names = StateNames(state)
        self._loader = Loader(state, text)
        self._tables = Tables(state, text, self._loader.ops_objects)
        self._trace = Region(at.TRACE, TRACE_SPACE)
        self._stack = Region(at.STACK, STACK_SPACE)
        self._stop = Region(at.STOP, PAGE)

    @cached_property
    def _cpu(self) -> Cpu:
        own = (self.text.entries, self.text.images, self._trace, self._stack, self._stop)
        return Cpu((*own, *self._loader.regions, *self._tables.regions))

    def call(self, index: int, arguments: tuple[int, ...]) -> Trace:
        """Runs one function to its return. ExecutionError if it does not come back in order."""
        function = self.state.functions.all[index]
        self._loader.load(index)
        self._tables.follow()
        self._tables.begin()
        self._cpu.written(self.text.take_written())
        result = self._run(index, *_passed(function.prototype, arguments))
        self._settled()
        count = (self._tables.get(Globals.TRACE) - at.TRACE) // WORD
        words: list[int] = self._trace.u64[:count].tolist()
        return Trace(events(words, self._names, function, len(arguments)), value(function, result))

    def _run(self, index: int, registers: list[int], stacked: list[int]) -> int:
        top = STACK_SPACE - PAGE
        words = [at.STOP, *stacked]
        self._stack.u64[top // WORD : top // WORD + len(words)] = words
        return self._cpu.call(at.TEXT + at.FUNCTION_BYTES * index, registers, at.STACK + top)

    def _settled(self) -> None:
        """Nobody is in an image, in a program or on the shadow stack when a call is over."""
        for place, what in (
            (Globals.IN_FLIGHT, "an image was entered and not left"),
            (Globals.CURRENT, "a program's run context is still current"),
            (Globals.DEPTH, "a frame is left on the shadow stack"),
        ):
            if self._tables.get(place):
                raise ExecutionError(what)


def _passed(prototype: Prototype | None, arguments: tuple[int, ...]) -> tuple[list[int], list[int]]:
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
