"""Proves images by angr, for comparison: angr runs the paths, and the obligations of `properties.prover` judge them.

Runs where angr is installed. The statement is the prover's, for all values of registers, stack arguments and stack
pointers; so are the obligations, to which AngrMachine shows angr's states. Only the engine is another.
"""

from __future__ import annotations

import io
from typing import Any, Final, Literal

import angr  # type: ignore[import-not-found]
import claripy  # type: ignore[import-not-found]

from properties.benchmarks.angr.angr_machine import AngrMachine
from properties.benchmarks.angr.wire import AngrAnswer
from properties.prover.claims import claim_of
from properties.prover.goal import Goal
from properties.prover.image import Image
from properties.prover.machine import ONLY_GENERAL, BrokenError, InfeasibleError, SplitError, instruction_limit
from properties.prover.steps import steps
from properties.prover.terms import Term, Value, forget
from properties.prover.x86_64 import X86_64

__all__ = ["AngrProver"]

CASES: Final = 64
"""Values that a term may have where it must be a number."""

INTERNAL: Final = ("cc_op", "cc_dep1", "cc_dep2", "cc_ndep", "dflag", "ip")
"""Registers in which VEX has the flags, and the address of the instruction."""

ADDED: Final = {
    angr.options.LAZY_SOLVES,
    # Registers are right after every instruction, not only at the end of a block.
    angr.options.NO_CROSS_INSN_OPT,
    angr.options.NO_IP_CONCRETIZATION,
    angr.options.SYMBOL_FILL_UNCONSTRAINED_MEMORY,
    angr.options.SYMBOL_FILL_UNCONSTRAINED_REGISTERS,
}
REMOVED: Final = angr.options.simplification | angr.options.refs


class _Callee(angr.SimProcedure):  # type: ignore[misc]
    """What is hooked outside the image."""

    NO_RET = True

    def run(self, *, prover: AngrProver) -> None:
        """Lets the step be judged, and goes on where the callee returns to."""
        for state in prover.judge_step(self.state, self.addr):
            self.successors.add_successor(state, state.regs.ip, claripy.true(), "Ijk_Ret")


class AngrProver:
    """One image and its goal. It may be proved again and again, and keeps its lifted blocks."""

    def __init__(self, image: Image, goal: Goal) -> None:
        self._image, self._goal = image, goal
        self._project = angr.Project(
            io.BytesIO(image.code),
            main_opts={"backend": "blob", "arch": "amd64", "base_addr": image.address, "entry_point": image.address},
            auto_load_libs=False,
        )
        self._offsets = {name: place for name, (place, _) in self._project.arch.registers.items()}
        self._writable = {self._offsets[name] for name in (*X86_64.general, *INTERNAL)}
        self._limit = instruction_limit(image)
        for address in {target for step in steps(goal) for target in step.targets if isinstance(target, int)}:
            self._project.hook(address, _Callee(prover=self))

    def prove(self) -> AngrAnswer:
        """Runs all paths."""
        forget()
        claim = claim_of(self._image, self._goal, X86_64)
        self._demands = claim.demands
        self._machine = AngrMachine(self._image, claim, X86_64, self._offsets)
        self._left = 0
        waiting = [self._begin()]
        try:
            while waiting:
                waiting += self._run(waiting.pop())
        except BrokenError as error:
            return self._answer("refuted", error.obligation)
        except (SplitError, angr.errors.AngrError, angr.errors.SimError):
            return self._answer("undecided")
        return self._answer("proved" if self._left else "undecided")

    def judge_step(self, state: Any, target: Value) -> list[Any]:
        """Judges a state that has left the image: the states to go on with, after the callee has returned."""
        if state.has_plugin("callstack"):
            # It asks the solver for the stack pointer's value at each call, and nobody reads it.
            state.release_plugin("callstack")
        self._judge_pointer(state)
        try:
            progress = self._demands.event(self._machine, state.globals["progress"], target)
        except SplitError as error:
            return self._split(state, error.term)
        if progress is None:
            self._left += 1
            return []
        state.globals["progress"], state.globals["departure"] = progress, None
        return [state]

    def _answer(self, outcome: Literal["proved", "refuted", "undecided"], broken: str = "") -> AngrAnswer:
        return AngrAnswer(outcome, self._machine.decided, self._left, broken)

    def _begin(self) -> Any:
        """Makes the first state."""
        state = self._project.factory.blank_state(addr=self._image.address, add_options=ADDED, remove_options=REMOVED)
        self._machine.state = state
        self._machine.begin()
        state.globals["progress"] = self._demands.start()
        state.inspect.b("instruction", when=angr.BP_BEFORE, action=self._judge_pointer)
        state.inspect.b("mem_read", when=angr.BP_BEFORE, action=self._judge_load)
        state.inspect.b("mem_write", when=angr.BP_BEFORE, action=self._judge_store)
        return state

    def _run(self, state: Any) -> list[Any]:
        """Runs a state for one block, or past one step outside the image."""
        self._machine.state = state
        at = self._machine.register("ip")
        try:
            if isinstance(at, int) and (self._image.holds(at) or self._project.is_hooked(at)):
                return self._run_block(state)
            return self.judge_step(state, at)
        except (InfeasibleError, angr.errors.SimUnsatError):
            # The path turns out to be none: solving is lazy.
            return []

    def _run_block(self, state: Any) -> list[Any]:
        if state.history.block_count > self._limit:
            self._machine.demand(f"the image is left within {self._limit} instructions", 0)
        after = self._project.factory.successors(state)
        block = after.artifacts.get("irsb")
        if block and any(each.tag == "Ist_Put" and each.offset not in self._writable for each in block.statements):
            self._machine.demand(ONLY_GENERAL, 0)
        return [*after.flat_successors, *after.unconstrained_successors]

    def _split(self, state: Any, term: Term) -> list[Any]:
        """Makes a case of each value that a term may have, in which the step is to be judged again."""
        numbers = self._machine.cases(term, CASES + 1)
        if len(numbers) > CASES:
            raise SplitError(term)
        found = []
        for number in numbers:
            case = state.copy()
            self._machine.state = case
            self._machine.suppose(term, number)
            found.append(case)
        return found

    def _judge_pointer(self, state: Any) -> None:
        self._machine.state = state
        self._machine.judge_pointer()

    def _judge_load(self, state: Any) -> None:
        access = state.inspect
        access.mem_read_address = self._machine.load(access.mem_read_address, access.mem_read_length)

    def _judge_store(self, state: Any) -> None:
        access, length = state.inspect, state.inspect.mem_write_length
        size = length if isinstance(length, int) else length.concrete_value
        access.mem_write_address = self._machine.store(access.mem_write_address, size)
