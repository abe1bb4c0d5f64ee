"""Proves images by angr, for comparison: the obligations of `properties.proofs`, as hooks and breakpoints of angr's.

Runs where angr is installed. The statement is the prover's: for all values of registers, stack arguments and stack
pointers. angr's memory needs numbers as addresses, so an address that is the first stack pointer plus a number is
given to it as TOP plus that number; all else sees the symbol.

Two rules of the prover it does not have: that no instruction writes other registers, and that the stack pointer stays
in the frame after every instruction.
"""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

import angr  # type: ignore[import-not-found]
import claripy  # type: ignore[import-not-found]

from properties.benchmarks.angr.wire import Answer
from properties.prover.goal import Goal, Run
from properties.prover.image import Image
from properties.prover.machine import NO_LOAD, NO_STORE, STACK_POINTER
from properties.prover.steps import CALLER, Step, steps
from spec.abi import Slot

__all__ = ["Prover"]

TOP: Final = 0xFFFFC90000123F00
POINTER: Final = claripy.BVS("rsp", 64, explicit_name=True)
RUN_CONTEXT_BYTES: Final = 16
PRESERVED: Final = ("rbx", "rbp", "r12", "r13", "r14", "r15")
VOLATILE: Final = ("rax", "rcx", "rdx", "rsi", "rdi", "r8", "r9", "r10", "r11", "cc_dep1")
KINDS: Final = frozenset({"fentry", "fexit", "fmod_ret"})
ZERO: Final = claripy.BVV(0, 64)
NOTHING_OF_CC: Final = ("cc_op", "cc_dep2", "cc_ndep")
"""With these 0, VEX's flags are those of cc_dep1."""

ADDED: Final = {
    angr.options.LAZY_SOLVES,
    angr.options.NO_IP_CONCRETIZATION,
    angr.options.SYMBOL_FILL_UNCONSTRAINED_MEMORY,
    angr.options.SYMBOL_FILL_UNCONSTRAINED_REGISTERS,
}
REMOVED: Final = angr.options.simplification | angr.options.refs


@dataclass(frozen=True, slots=True)
class _Progress:
    """How far a path is; predicates are booleans of claripy's, or Python's where they are known."""

    position: int = 0
    entered: Any = False
    running: Any = False
    alive: Any = True
    slot: Any = ZERO
    ticket: Any = ZERO
    run_context: int = 0
    saved: Any = ZERO


class _BrokenError(Exception):
    """An obligation does not hold."""


class _Outside(angr.SimProcedure):  # type: ignore[misc]
    """The hook of an address outside the image."""

    NO_RET = True

    def run(self, *, prover: Prover) -> None:
        """Judges the step, and goes on where the callee returns to."""
        for state, target in prover.event(self.state, self.state.regs.ip):
            self.successors.add_successor(state, target, claripy.true(), "Ijk_Ret")


class Prover:
    """One image and its goal. It may be proved again and again, and keeps its lifted blocks."""

    def __init__(self, image: Image, goal: Goal) -> None:
        if not KINDS.issuperset(program.kind for program in goal.programs):
            raise ValueError(f"the peer knows programs of {', '.join(sorted(KINDS))} only")
        self._image, self._goal = image, goal
        self._steps = steps(goal)
        self._words = 2 if goal.site == "call" else 1
        self._stacked = sum(slot.stack is not None for slot in goal.prototype.slots)
        self._symbols: dict[str, Any] = {}
        self._obligations: dict[str, int] = {}
        self._left = 0
        self._project = angr.Project(
            io.BytesIO(image.code),
            main_opts={"backend": "blob", "arch": "amd64", "base_addr": image.address, "entry_point": image.address},
            auto_load_libs=False,
        )
        self._offsets = {name: place for name, (place, _) in self._project.arch.registers.items()}
        for address in {target for step in self._steps for target in step.targets if isinstance(target, int)}:
            self._project.hook(address, _Outside(prover=self))

    def prove(self) -> Answer:
        """Runs all paths."""
        self._obligations = {}
        self._left = 0
        waiting = [self._first()]
        try:
            while waiting:
                waiting += self._after(waiting.pop())
        except _BrokenError as error:
            return Answer("refuted", self._obligations, self._left, str(error))
        except (angr.errors.AngrError, angr.errors.SimError):
            return Answer("undecided", self._obligations, self._left)
        outcome: Literal["proved", "undecided"] = "proved" if self._left else "undecided"
        return Answer(outcome, self._obligations, self._left)

    def event(self, state: Any, target: Any) -> Iterator[tuple[Any, int]]:
        """Control is outside the image: the states after the callee has returned, and where each goes on."""
        if state.has_plugin("callstack"):
            # It asks the solver for the stack pointer's value at each call, and nobody reads it.
            state.release_plugin("callstack")
        for case in self._cases(state, target, state.globals["progress"].position):
            progress = case.globals["progress"]
            step = self._steps[progress.position]
            self._demand(case, f"{step.text}: df is clear", self._register(case, "dflag") == 1)
            if step.what == "leave":
                self._leave(case, progress)
                self._left += 1
                continue
            pointer = self._pointer(case)
            self._demand(case, f"{step.text}: the stack pointer is aligned", pointer % 8 == 0)
            inside = f"{step.text}: it returns into the image"
            back = self._constant(case, self._word(case, pointer), inside)
            self._demand(case, inside, self._image.holds(back))
            after = self._called(case, progress, step, pointer)
            case.globals["progress"] = replace(after, position=progress.position + 1)
            self._put(case, "rsp", POINTER + (pointer + 8))
            yield case, back

    # The paths.

    def _first(self) -> Any:
        state = self._project.factory.blank_state(addr=self._image.address, add_options=ADDED, remove_options=REMOVED)
        names = (*PRESERVED, *VOLATILE)
        for name in names:
            self._put(state, name, self._symbol(name))
        self._put(state, "rsp", POINTER)
        self._no_flags(state)
        words = [claripy.BVV(self._goal.body, 64)] * (self._words == 2) + [self._symbol(CALLER)]
        words += [self._symbol(f"stack argument {number}") for number in range(self._stacked)]
        for number, word in enumerate(words):
            self._set_word(state, 8 * number, word)
        state.globals["progress"] = _Progress()
        state.globals["lowest"] = 0
        state.inspect.b("mem_read", when=angr.BP_BEFORE, action=self._loads)
        state.inspect.b("mem_write", when=angr.BP_BEFORE, action=self._stores)
        return state

    def _after(self, state: Any) -> list[Any]:
        """The states after one block, or one event."""
        if not self._image.holds(state.addr) and not self._project.is_hooked(state.addr):
            return [case for case, _ in self.event(state, state.regs.ip)]
        if state.history.block_count > 4 * self._image.used + 64:
            raise _BrokenError(f"the image is left within {4 * self._image.used + 64} instructions")
        try:
            after = self._project.factory.successors(state)
        except angr.errors.SimUnsatError:
            # The path turns out to be none: solving is lazy, and two cases of one state are never made of such a one.
            return []
        for away in after.unconstrained_successors:
            for _ in self.event(away, away.regs.ip):
                raise _BrokenError("the image calls an address that is not a number")
        return list(after.flat_successors)

    def _loads(self, state: Any) -> None:
        low = self._offset(state, state.inspect.mem_read_address, NO_LOAD)
        high = low + state.inspect.mem_read_length
        self._demand(state, NO_LOAD, self._pointer(state) <= low and high <= 8 * (self._words + self._stacked))
        state.inspect.mem_read_address = claripy.BVV(TOP + low, 64)

    def _stores(self, state: Any) -> None:
        low = self._offset(state, state.inspect.mem_write_address, NO_STORE)
        length = state.inspect.mem_write_length
        high = low + (length if isinstance(length, int) else length.concrete_value)
        self._demand(state, NO_STORE, self._pointer(state) <= low and high <= 0)
        state.globals["lowest"] = min(low, state.globals["lowest"])
        state.inspect.mem_write_address = claripy.BVV(TOP + low, 64)

    def _cases(self, state: Any, target: Any, position: int) -> Iterator[Any]:
        """The state for each step that it may be at: one, unless a condition for a step is open."""
        if position == len(self._steps):
            raise AssertionError("the last step is always due")
        step = self._steps[position]
        due = self._guard(step, state.globals["progress"])
        known = self._known(state, due)
        if known is None:
            other = state.copy()
            other.add_constraints(claripy.Not(due))
            yield from self._cases(other, target, position + 1)
            state.add_constraints(due)
        if known is False:
            yield from self._cases(state, target, position + 1)
            return
        expected = [self._symbol(CALLER) if address == CALLER else address for address in step.targets]
        self._demand(state, f"{step.text}: {step.name} is reached", claripy.Or(*(target == each for each in expected)))
        state.globals["progress"] = replace(state.globals["progress"], position=position)
        yield state

    def _guard(self, step: Step, progress: _Progress) -> Any:
        if step.what == "program":
            return progress.running
        if step.what == "exit":
            return progress.entered
        if step.what == "original" or (step.run is not None and step.run.list == "fmod_ret"):
            return progress.alive
        return True

    # The steps.

    def _called(self, state: Any, progress: _Progress, step: Step, pointer: int) -> _Progress:
        if step.run is None:
            if step.what == "original":
                return self._original(state, progress, step, pointer)
            self._bound(state, f"{step.text}: its image is passed", "im", self._register(state, "rdi"))
            self._clobber(state, step, pointer)
            return progress
        if step.what == "enter":
            return self._enter(state, progress, step, step.run, pointer)
        if step.what == "program":
            return self._program(state, progress, step, step.run, pointer)
        return self._exit(state, progress, step, step.run, pointer)

    def _enter(self, state: Any, progress: _Progress, step: Step, run: Run, pointer: int) -> _Progress:
        passed = self._register(state, "rdi")
        self._bound(state, f"{step.text}: its program is passed", f"prog {run.program}", passed)
        inside = f"{step.text}: the run context is in the frame"
        context = self._offset(state, self._register(state, "rsi"), inside)
        self._inside(state, inside, context, RUN_CONTEXT_BYTES, pointer)
        self._clobber(state, step, pointer)
        ticket, saved = self._symbol(f"{step.text} returned"), self._symbol(f"{step.text} saved")
        self._put(state, "rax", ticket)
        self._set_word(state, context + 8, saved)
        return replace(progress, entered=True, running=ticket != 0, ticket=ticket, run_context=context, saved=saved)

    def _program(self, state: Any, progress: _Progress, step: Step, run: Run, pointer: int) -> _Progress:
        context = self._offset(state, self._register(state, "rdi"), f"{step.place}: the context is in the frame")
        self._context(state, progress, step, run, context)
        self._clobber(state, step, pointer)
        result = self._symbol(f"{step.text} returned")
        self._put(state, "rax", result)
        return replace(progress, running=False, slot=result if run.list == "fmod_ret" else progress.slot)

    def _context(self, state: Any, progress: _Progress, step: Step, run: Run, context: int) -> None:
        goal = self._goal
        slots = goal.prototype.slots
        below, returned = 8 * (1 + goal.func_ip), run.list != "fentry"
        size = 8 * (len(slots) + returned) + below
        self._inside(state, f"{step.place}: the context is in the frame", context - below, size, self._pointer(state))
        for number, slot in enumerate(slots):
            got = self._word(state, context + 8 * number)
            name = f"{step.place}: ctx[{number}] is {_word_of(slot)}"
            self._same(state, name, got, self._value(slot), 8 * slot.size)
        if returned:
            got = self._word(state, context + 8 * len(slots))
            name = f"{step.place}: ctx[{len(slots)}] is the return slot"
            self._same(state, name, got, progress.slot, self._result_bits)
        if goal.func_ip:
            name = f"{step.place}: ctx[-2] is the function's address"
            self._same(state, name, self._word(state, context - 16), claripy.BVV(goal.function, 64))
        cookie = self._word(state, progress.run_context)
        self._bound(state, f"{step.place}: the run context has its cookie", f"cookie {run.program}", cookie)
        count = claripy.BVV(len(slots), 64)
        self._same(state, f"{step.place}: ctx[-1] is the number of slots", self._word(state, context - 8), count)

    def _exit(self, state: Any, progress: _Progress, step: Step, run: Run, pointer: int) -> _Progress:
        passed = self._register(state, "rdi")
        self._bound(state, f"{step.text}: its program is passed", f"prog {run.program}", passed)
        ticket = self._register(state, "rsi")
        self._same(state, f"{step.text}: what enter returned is passed", ticket, progress.ticket)
        context = POINTER + progress.run_context
        self._same(state, f"{step.text}: the same run context is passed", self._register(state, "rdx"), context)
        saved = self._word(state, progress.run_context + 8)
        self._same(state, f"{step.text}: the saved run context is intact", saved, progress.saved)
        self._clobber(state, step, pointer)
        alive = progress.slot == 0 if run.list == "fmod_ret" else progress.alive
        return replace(progress, entered=False, running=False, alive=alive)

    def _original(self, state: Any, progress: _Progress, step: Step, pointer: int) -> _Progress:
        self._arguments(state, "reaches the original", pointer)
        self._clobber(state, step, pointer)
        for number in range(self._stacked):
            lost = self._symbol(f"stack argument {number} after {step.text}")
            self._set_word(state, pointer + 8 + 8 * number, lost)
        result = self._symbol("the original returned")
        self._put(state, "rax", result)
        return replace(progress, slot=result)

    def _leave(self, state: Any, progress: _Progress) -> None:
        origin = self._words if self._goal.calls_original else self._words - 1
        self._same(state, "rsp is restored", self._register(state, "rsp"), POINTER + 8 * origin)
        for name in PRESERVED:
            self._same(state, f"{name} is restored", self._register(state, name), self._symbol(name))
        if not self._goal.calls_original:
            self._arguments(state, "is restored", None)
            return
        got = self._register(state, "rax")
        self._same(state, "the caller gets the return value", got, progress.slot, self._result_bits)

    def _arguments(self, state: Any, ending: str, pointer: int | None) -> None:
        for slot in self._goal.prototype.slots:
            if slot.register is not None:
                name = f"{_word_of(slot)} ({slot.register}) {ending}"
                got = self._register(state, slot.register)
                self._same(state, name, got, self._value(slot), 8 * slot.size)
            elif pointer is not None:
                assert slot.stack is not None
                got = self._word(state, pointer + 8 + 8 * slot.stack)
                self._same(state, f"stack argument {slot.stack} {ending}", got, self._value(slot), 8 * slot.size)

    def _clobber(self, state: Any, step: Step, pointer: int) -> None:
        """A callee has run: registers that it need not keep are unknown, and what is below the stack pointer."""
        for name in VOLATILE:
            self._put(state, name, self._symbol(f"{name} after {step.text}"))
        self._no_flags(state)
        lowest = state.globals["lowest"]
        for place in range(lowest - lowest % 8, pointer + 8, 8):
            self._set_word(state, place, self._symbol(f"{place:#x} after {step.text}"))
        state.globals["lowest"] = pointer + 8

    # What is demanded.

    def _bound(self, state: Any, obligation: str, name: str, value: Any) -> None:
        self._same(state, obligation, value, claripy.BVV(self._goal.known[name], 64))

    def _inside(self, state: Any, obligation: str, low: int, size: int, pointer: int) -> None:
        self._demand(state, obligation, pointer + 8 <= low and low + size <= 0)

    def _same(self, state: Any, obligation: str, got: Any, expected: Any, bits: int = 64) -> None:
        if got is expected or not bits:
            self._count(obligation)
        elif bits == 64:
            self._demand(state, obligation, got == expected)
        else:
            self._demand(state, obligation, got[bits - 1 : 0] == expected[bits - 1 : 0])

    def _demand(self, state: Any, obligation: str, predicate: Any) -> None:
        self._count(obligation)
        if self._known(state, predicate) is not True and state.solver.satisfiable():
            raise _BrokenError(obligation)

    def _count(self, obligation: str) -> None:
        self._obligations[obligation] = self._obligations.get(obligation, 0) + 1

    def _known(self, state: Any, predicate: Any) -> bool | None:
        """Whether a predicate is true on a path: plainly, as one of its conditions, or by z3."""
        if isinstance(predicate, bool):
            return predicate
        if predicate.is_true() or predicate.is_false():
            return bool(predicate.is_true())
        conditions = state.solver.constraints
        opposite = claripy.Not(predicate)
        for condition in conditions:
            if condition is predicate or condition is opposite:
                return condition is predicate
        if not state.solver.satisfiable(extra_constraints=[opposite]):
            return True
        return None if state.solver.satisfiable(extra_constraints=[predicate]) else False

    # The state.

    @property
    def _result_bits(self) -> int:
        return 8 * min(self._goal.prototype.returns.size, 8)

    def _symbol(self, name: str) -> Any:
        """The unknown of this name, the same one each time."""
        if name not in self._symbols:
            self._symbols[name] = claripy.BVS(name, 64, explicit_name=True)
        return self._symbols[name]

    def _value(self, slot: Slot) -> Any:
        return self._symbol(slot.register or f"stack argument {slot.stack}")

    def _pointer(self, state: Any) -> int:
        """The stack pointer, as offset from the first one."""
        return self._offset(state, self._register(state, "rsp"), STACK_POINTER)

    def _offset(self, state: Any, address: Any, obligation: str) -> int:
        """An address as offset from the first stack pointer; what may have several breaks the obligation."""
        number = _plain(address)
        return _signed(self._constant(state, address - POINTER, obligation) if number is None else number)

    def _constant(self, state: Any, value: Any, obligation: str) -> int:
        if value.op == "BVV":
            return int(value.args[0])
        found = state.solver.eval_upto(value, 2)
        if len(found) > 1:
            raise _BrokenError(obligation)
        return int(found[0])

    def _register(self, state: Any, name: str) -> Any:
        return state.registers.load(self._offsets[name], 8, endness="Iend_LE", inspect=False, disable_actions=True)

    def _put(self, state: Any, name: str, value: Any) -> None:
        state.registers.store(self._offsets[name], value, endness="Iend_LE", inspect=False, disable_actions=True)

    def _no_flags(self, state: Any) -> None:
        for name in NOTHING_OF_CC:
            self._put(state, name, ZERO)
        self._put(state, "dflag", claripy.BVV(1, 64))

    def _word(self, state: Any, address: int) -> Any:
        return state.memory.load(TOP + address, 8, endness="Iend_LE", inspect=False, disable_actions=True)

    def _set_word(self, state: Any, address: int, value: Any) -> None:
        state.memory.store(TOP + address, value, endness="Iend_LE", inspect=False, disable_actions=True)


def _signed(number: int) -> int:
    number %= 1 << 64
    return number - (number >> 63 << 64)


def _plain(address: Any) -> int | None:
    """What an address is beyond the first stack pointer, if it is a sum with numbers alone."""
    if address is POINTER:
        return 0
    if address.op not in {"__add__", "__sub__"}:
        return None
    number = _plain(address.args[0])
    if number is None or any(part.op != "BVV" for part in address.args[1:]):
        return None
    rest = sum(part.args[0] for part in address.args[1:])
    return int(number + rest if address.op == "__add__" else number - rest)


def _word_of(slot: Slot) -> str:
    return f"argument {slot.argument}" + (f" word {slot.offset // 8}" if slot.offset else "")
