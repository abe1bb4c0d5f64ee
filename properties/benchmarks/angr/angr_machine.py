"""angr's state as a Machine: the obligations of `properties.prover` look at it, and angr's solver decides them.

angr's memory needs numbers as addresses, so that an address which is the first stack pointer plus a number is given to
it as TOP plus that number; all else sees the symbol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import claripy  # type: ignore[import-not-found]

from properties.benchmarks.angr.claripy_terms import ClaripyTerms
from properties.prover.architecture import Architecture
from properties.prover.claims import Claim
from properties.prover.image import Image
from properties.prover.machine import (
    FRAME_BYTES,
    NO_LOAD,
    NO_STALE,
    NO_STORE,
    STACK_POINTER,
    BrokenError,
    Departure,
    InfeasibleError,
    SplitError,
    stack_within,
)
from properties.prover.meaning import signed
from properties.prover.terms import Term, Value, eq, extract, linear, not_, sub, symbol, ult, zext
from properties.prover.written import stack_above, stack_bytes
from spec.abi import SLOT_BYTES

__all__ = ["AngrMachine"]

TOP: Final = 0xFFFFC90000123F00
NO_FLAGS: Final = ("cc_op", "cc_dep2", "cc_ndep")
"""With these 0, VEX's flags are those of cc_dep1."""

PLAIN: Final = {"endness": "Iend_LE", "inspect": False, "disable_actions": True}
"""How the machine itself looks into a state: no breakpoint is hit."""

DEPARTURES: Final[Mapping[str, Departure]] = {"Ijk_Call": "call", "Ijk_Ret": "return"}

FORWARD: Final = 1
"""VEX's dflag where the direction flag is clear."""


class AngrMachine:
    """See Machine. state: set by whoever runs it. decided: how often each obligation was, by name, in order."""

    state: Any

    def __init__(self, image: Image, claim: Claim, architecture: Architecture, offsets: dict[str, int]) -> None:
        self.architecture = architecture
        self.bindings = dict(claim.bindings)
        self.decided: dict[str, int] = {}
        self._image = image
        self._claim = claim
        self._frame = claim.frame
        self._offsets = offsets
        self._terms = ClaripyTerms()
        self._pointer_name = architecture.convention.stack_pointer
        self._top = symbol(self._pointer_name, 64)
        kept = {*architecture.convention.preserved, self._pointer_name}
        self._volatile = [name for name in architecture.general if name not in kept]

    def begin(self) -> None:
        """Makes the state the one at the beginning of the claim."""
        globals_ = self.state.globals
        globals_["lowest"], globals_["pointer"], globals_["written"] = 0, 0, self._claim.written
        globals_["departure"] = None
        for name in self.architecture.general:
            value = self._claim.registers[name]
            assert value is not None
            self.set_register(name, value)
        self._forget_flags("the beginning")
        for place, word in self._claim.memory.items():
            self._write(place, word)
        self.state.add_constraints(*(self._terms.predicate(fact) for fact in self._claim.facts()))

    # What instructions do.

    def load(self, address: Any, size: int) -> Any:
        """Judges a load: where angr has what is there."""
        place = self._access(NO_LOAD, self._frame.load, self._terms.understand(address), size, self._frame.readable)
        self.demand(NO_STALE, self.state.globals["written"].has(stack_bytes(place, place + size)))
        return claripy.BVV(TOP + place, 64)

    def store(self, address: Any, size: int) -> Any:
        """Judges a store: where angr is to put it."""
        place = self._access(NO_STORE, self._frame.store, self._terms.understand(address), size, 0)
        self._mark(place, size)
        return claripy.BVV(TOP + place, 64)

    def judge_pointer(self) -> None:
        """Judges where the stack pointer is; if it has been raised, what is below it is not written any more."""
        pointer, globals_ = self._find_pointer(), self.state.globals
        if not self._frame.pointer(pointer):
            self.demand(STACK_POINTER, 0)
        if pointer > globals_["pointer"]:
            globals_["written"] = globals_["written"].only(stack_above(pointer))
        globals_["pointer"] = pointer

    def _mark(self, place: int, size: int) -> None:
        globals_ = self.state.globals
        globals_["written"] = globals_["written"].plus(stack_bytes(place, place + size))

    def _access(
        self, obligation: str, allowed: Callable[[int, int, int], bool], address: Value, size: int, end: int
    ) -> int:
        floor = self._find_pointer()
        if not self._is_plain(address):
            self.demand(obligation, stack_within(self._top, address, floor, end - size))
        place = self._find_place(address)
        self.demand(obligation, int(allowed(place, place + size, floor)))
        self.state.globals["lowest"] = min(place, self.state.globals["lowest"])
        return place

    def _find_pointer(self) -> int:
        """Finds the stack pointer, from the first one on."""
        pointer = self.register(self._pointer_name)
        if not self._is_plain(pointer):
            self.demand(STACK_POINTER, stack_within(self._top, pointer, -FRAME_BYTES, self._frame.readable))
        return self._find_place(pointer)

    def _is_plain(self, address: Value) -> bool:
        return linear(address)[0] is self._top

    def _find_place(self, address: Value) -> int:
        """Finds an address, from the first stack pointer on. SplitError where it may be at several places."""
        return signed(self.constant(sub(address, self._top, 64)), 64)

    def _read(self, place: int) -> Value:
        return self._terms.understand(self.state.memory.load(TOP + place, SLOT_BYTES, **PLAIN))

    def _write(self, place: int, value: Value) -> None:
        self.state.memory.store(TOP + place, self._terms.vector(value, 64), **PLAIN)

    def _get(self, name: str) -> Value:
        return self._terms.understand(self.state.registers.load(self._offsets[name], SLOT_BYTES, **PLAIN))

    def _forget_flags(self, step: str) -> None:
        self.set_register("cc_dep1", symbol(f"flags after {step}", 64))
        for name in NO_FLAGS:
            self.set_register(name, 0)
        self.set_register("dflag", FORWARD)

    # What obligations see.

    @property
    def departure(self) -> Departure:
        """See Machine. A state that is a case of another has left the image as that one has."""
        globals_, history = self.state.globals, self.state.history
        if globals_["departure"] is None:
            globals_["departure"] = DEPARTURES.get(history.jumpkind or history.parent.jumpkind, "jump")
        departure: Departure = globals_["departure"]
        return departure

    def symbol(self, name: str, bits: int) -> Value:
        """See Machine."""
        return symbol(name, bits)

    def register(self, name: str) -> Value:
        """See Machine. Of the flags only the direction's is asked for."""
        return zext(not_(eq(self._get("dflag"), FORWARD, 64)), 8) if name == "df" else self._get(name)

    def set_register(self, name: str, value: Value) -> None:
        """See Machine."""
        self.state.registers.store(self._offsets[name], self._terms.vector(value, 64), **PLAIN)

    def word(self, address: Value) -> Value:
        """See Machine."""
        return self._read(self._find_place(address))

    def set_word(self, address: Value, value: Value) -> None:
        """See Machine."""
        place = self._find_place(address)
        self._write(place, value)
        self._mark(place, SLOT_BYTES)

    def written(self, obligation: str, address: Value, size: int) -> None:
        """See Machine."""
        place = self._find_place(address)
        self.demand(obligation, self.state.globals["written"].has(stack_bytes(place, place + size)))

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """See Machine."""
        floor = self._find_pointer() + self.architecture.convention.pushed
        if not self._is_plain(low):
            self.demand(obligation, stack_within(self._top, low, floor, -size))
        place = self._find_place(low)
        self.demand(obligation, int(floor <= place and place + size <= 0))

    def known(self, predicate: Value) -> bool | None:
        """See Machine: plainly, as one of the path's conditions, or by z3."""
        if isinstance(predicate, int):
            return predicate == 1
        wanted, solver = self._terms.predicate(predicate), self.state.solver
        if wanted.is_true() or wanted.is_false():
            return bool(wanted.is_true())
        opposite = claripy.Not(wanted)
        for condition in solver.constraints:
            if condition is wanted or condition is opposite:
                return condition is wanted
        if not solver.satisfiable(extra_constraints=[opposite]):
            return True
        return None if solver.satisfiable(extra_constraints=[wanted]) else False

    def demand(self, obligation: str, predicate: Value) -> None:
        """See Machine."""
        self.decided[obligation] = self.decided.get(obligation, 0) + 1
        if self.known(predicate) is True:
            return
        if self.state.solver.satisfiable():
            raise BrokenError(obligation)
        raise InfeasibleError

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """See Machine."""
        self.demand(obligation, eq(extract(got, 0, bits), extract(expected, 0, bits), bits) if bits else 1)

    def constant(self, value: Value) -> int:
        """See Machine."""
        if isinstance(value, int):
            return value
        cases = self.cases(value, 2)
        if len(cases) > 1:
            raise SplitError(value)
        return cases[0]

    def cases(self, value: Term, most: int) -> list[int]:
        """Values that a term may have, at most so many."""
        if value.bits == 1:
            return [0, 1]
        return [int(found) for found in self.state.solver.eval_upto(self._terms.vector(value, value.bits), most)]

    def suppose(self, value: Term, number: int) -> None:
        """Makes the state one of those in which a term has this value."""
        self.state.add_constraints(self._terms.predicate(eq(value, number, value.bits)))

    def in_image(self, address: Value) -> Value:
        """See Machine."""
        return ult(sub(address, self._image.address, 64), self._image.used, 64)

    def resume(self, address: int, pointer: Value) -> None:
        """See Machine."""
        self.set_register("ip", address)
        self.set_register(self._pointer_name, pointer)

    def clobber(self, step: str) -> None:
        """See Machine. What is below the stack pointer is unknown as far down as it was used."""
        for name in self._volatile:
            self.set_register(name, symbol(f"{name} after {step}", 64))
        self._forget_flags(step)
        lowest, live = self.state.globals["lowest"], self._find_pointer() + self.architecture.convention.pushed
        for place in range(lowest - lowest % SLOT_BYTES, live, SLOT_BYTES):
            self._write(place, symbol(f"{place:#x} after {step}", 64))
        globals_ = self.state.globals
        globals_["lowest"] = globals_["pointer"] = live
        globals_["written"] = globals_["written"].only(stack_above(live))

    def forget(self, address: Value, size: int) -> None:
        """See Machine."""
        start, globals_ = self._find_place(address), self.state.globals
        globals_["written"] = globals_["written"].only(~stack_bytes(start, start + size))
        for place in range(start, start + size, SLOT_BYTES):
            self._write(place, symbol(f"{place:#x} after a callee that owns it", 64))
