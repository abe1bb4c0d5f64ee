"""What a call costs in bulk, in a loop inside the emulator, against one in a new emulator with Python hooks."""

from __future__ import annotations

from functools import partial
from typing import Any, Final

import numpy as np
import unicorn
from unicorn import unicorn_const, x86_const

from impl.batched import Batched, per_function
from impl.batched.machine import addresses as at
from properties.benchmarks.figures import Figure, Measure, taking_turns, worked
from properties.systems.naming import semantics_named, world_named
from spec.seeds import parse_operation

__all__ = ["measures"]

FUNCTION: Final = "foo6"
ARITY: Final = 6
BULK: Final = 20_000
SINGLE: Final = 20
LINES: Final = ("bpf_prog_load p1 fentry multi", f"bpf_link_create l1 p1 {FUNCTION}")
STACK: Final = at.STACK + 0x8000
REGISTERS: Final = tuple(getattr(x86_const, f"UC_X86_REG_{name}") for name in ("RDI", "RSI", "RDX", "RCX", "R8", "R9"))


def measures() -> list[Measure]:
    """The figure."""
    return [calls_in_bulk]


def calls_in_bulk() -> Figure:
    """Calls of a function of six arguments through a trampoline with one program that records what it sees."""
    system = per_function(world_named("synthetic"), semantics_named("linux-7.3"))
    for line in LINES:
        system.apply(parse_operation(line))
    system.call(FUNCTION, tuple(range(ARITY)))
    index = system.state.functions.index(FUNCTION)
    vectors = np.random.default_rng(1).integers(0, 1 << 63, (BULK, ARITY), dtype=np.uint64)
    bulk = partial(worked, lambda: system.kernel.calls(index, vectors))
    single = partial(worked, lambda: [_hooked_call(system, index, row) for row in vectors[:SINGLE]])
    slow, fast = taking_turns(5, single, bulk)
    name = "emulated calls in bulk, faster than a new emulator with Python hooks for each"
    return Figure(name, (slow / SINGLE) / (fast / BULK), 100, "higher", "times")


def _hooked_call(system: Batched, index: int, words: Any) -> list[int]:
    """Makes the same call in an emulator of its own, and returns the addresses that were executed."""
    machine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)  # type: ignore[attr-defined, no-untyped-call]
    machine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    for region in system.kernel.regions:
        machine.mem_map_ptr(region.address, region.size, unicorn.UC_PROT_ALL, region.pointer)
    executed: list[int] = []
    machine.hook_add(unicorn_const.UC_HOOK_CODE, lambda _machine, address, _size, _data: executed.append(address))
    for number, word in zip(REGISTERS, words.tolist(), strict=True):
        machine.reg_write(number, word)
    machine.mem_write(STACK, at.STOP.to_bytes(8, "little"))
    machine.reg_write(x86_const.UC_X86_REG_RSP, STACK)
    machine.emu_start(at.TEXT + at.FUNCTION_BYTES * index, at.STOP)
    return executed
