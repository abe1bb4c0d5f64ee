"""The processor: unicorn over memory that numpy shares. `written` drops the translation of code that has changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Final

import unicorn
from unicorn import UcError, x86_const  # type: ignore[attr-defined]

from impl.batched.machine.entries import SITE_BYTES
from impl.batched.machine.gate import GIVEN, KEPT, MARKS, Gate
from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.stopping import emulate

__all__ = ["Context", "Cpu", "ExecutionError"]

PLACE: Final = ("rip", "rsp", "rbp")
MOST_INSTRUCTIONS: Final = 1_000_000
MICROSECONDS: Final = 1_000_000
BREAKPOINT: Final = 3
WORD: Final = 8


Context = Any
"""All registers of a task that does not run now."""


class ExecutionError(Exception):
    """A call did not return as it should: it faulted, trapped, went astray, or lost a register."""


class Cpu:
    """One processor over some regions."""

    def __init__(self, regions: Iterable[MemoryRegion]) -> None:
        self._gate = Gate()
        self._regions = (*regions, self._gate.region)
        machine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)  # type: ignore[attr-defined, no-untyped-call]
        # A physical address is cut to 52 bits, so that the kernel's addresses need the virtual TLB.
        machine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
        for region in self._regions:
            machine.mem_map_ptr(region.address, region.size, unicorn.UC_PROT_ALL, region.pointer)
        self._machine = machine
        self._hook: int | None = None
        self._vector: Mapping[int, bytes] = {}
        self._lost = ""

    def catch(self, vector: Mapping[int, bytes]) -> None:
        """Handles the traps at these addresses, where the instructions are about to be; others remain faults."""
        self._vector = vector
        if vector and self._hook is None:
            self._hook = self._machine.hook_add(unicorn.UC_HOOK_INTR, self._trap)
        elif not vector and self._hook is not None:
            self._machine.hook_del(self._hook)
            self._hook = None

    def _trap(self, machine: Any, number: int, _data: object) -> None:
        place = self._read_pc() - 1
        if number != BREAKPOINT or place not in self._vector:
            self._lost = f"a trap at {place:#x}"
            machine.emu_stop()
            return
        target, pushes = emulate(self._vector[place], place)
        if pushes:
            stack = int(machine.reg_read(x86_const.UC_X86_REG_RSP)) - WORD
            machine.reg_write(x86_const.UC_X86_REG_RSP, stack)
            machine.mem_write(stack, (place + SITE_BYTES).to_bytes(WORD, "little"))
        machine.reg_write(x86_const.UC_X86_REG_RIP, target)

    def written(self, ranges: list[tuple[int, int]] | None) -> None:
        """Drops translations of code that has changed at these ranges, [low, high), or anywhere if None."""
        if ranges is None:
            self._machine.ctl_flush_tb()
            return
        for low, high in ranges:
            self._machine.ctl_remove_cache(low, high)

    def call(self, function: int, arguments: Sequence[int], stack: int, *, seconds: int = 0) -> int:
        """Calls a function, its six argument registers given, with the return address STOP at `stack`; returns rax.

        ExecutionError if it does not come back within MOST_INSTRUCTIONS, or, if they are given, these seconds; or
        without what C preserves. To count instructions takes longer than a short call, to wait longer than a long one.
        """
        machine, gate = self._machine, self._gate
        self._lost = ""
        gate.aim(function, arguments, stack)
        try:
            machine.emu_start(gate.enter, gate.left, seconds * MICROSECONDS, 0 if seconds else MOST_INSTRUCTIONS)
        except UcError as error:
            raise ExecutionError(f"{error} at {self._read_pc():#x}") from error
        if self._lost:
            raise ExecutionError(self._lost)
        if self._read_pc() != gate.left:
            after = f"{seconds} seconds" if seconds else f"{MOST_INSTRUCTIONS} instructions"
            raise ExecutionError(f"not back after {after}, at {self._read_pc():#x}")
        return _read_result(gate.kept, stack)

    def map(self, region: MemoryRegion) -> None:
        """Memory that comes later."""
        self._machine.mem_map_ptr(region.address, region.size, unicorn.UC_PROT_ALL, region.pointer)

    def begin(self, arguments: Sequence[int], stack: int, start: int) -> Context:
        """The registers of a task that begins a call as `call` does, with the return address STOP at `stack`."""
        machine = self._machine
        machine.reg_write_batch(list(zip(map(_number, GIVEN), (*arguments, *MARKS, stack), strict=True)))
        machine.reg_write(x86_const.UC_X86_REG_RIP, start)
        return machine.context_save()

    def resume(self, context: Context, stops: frozenset[int]) -> tuple[int, int, int]:
        """Runs a task from where it stands to the next of some addresses; its rip, rsp and rbp there.

        The context is that of the task behind it. ExecutionError as of `call`.
        """
        machine = self._machine
        machine.context_restore(context)
        machine.ctl_exits_enabled(True)
        try:
            if self._read_pc() in stops:
                self._run_to(stops - {self._read_pc()}, 1)
            if self._read_pc() not in stops:
                self._run_to(stops, MOST_INSTRUCTIONS)
        finally:
            machine.ctl_exits_enabled(False)
        machine.context_update(context)
        found: list[int] = machine.reg_read_batch(list(map(_number, PLACE)))
        if found[0] not in stops:
            raise ExecutionError(f"not back after {MOST_INSTRUCTIONS} instructions, at {found[0]:#x}")
        return found[0], found[1], found[2]

    def _run_to(self, stops: frozenset[int], count: int) -> None:
        machine = self._machine
        machine.ctl_set_exits(sorted(stops))
        self._forget(stops)
        try:
            machine.emu_start(self._read_pc(), 0, 0, count)
        except UcError as error:
            raise ExecutionError(f"{error} at {self._read_pc():#x}") from error
        finally:
            self._forget(stops)

    def _forget(self, stops: frozenset[int]) -> None:
        """What was translated when these were no stops goes on beyond them; what is, ends there for ever."""
        for stop in stops:
            self._machine.ctl_remove_cache(stop, stop + 1)

    def end(self, context: Context, stack: int) -> int:
        """What a task that is back at STOP returns; ExecutionError as of `call`."""
        self._machine.context_restore(context)
        return _read_result(self._machine.reg_read_batch(list(map(_number, KEPT))), stack)

    def _read_pc(self) -> int:
        return int(self._machine.reg_read(x86_const.UC_X86_REG_RIP))


def _read_result(words: Sequence[int], stack: int) -> int:
    """Checks the registers KEPT, as a call left them; returns rax."""
    *kept, result = words
    if kept != [*MARKS, stack + WORD]:
        raise ExecutionError("the stack pointer is another after the call, or a register that C preserves is lost")
    return int(result)


@cache
def _number(name: str) -> int:
    """The number by which unicorn knows a register."""
    return int(getattr(x86_const, f"UC_X86_REG_{name.upper()}"))
