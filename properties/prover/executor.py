"""Symbolic execution of a whole image: all paths, lowest address first, so that paths that meet become one.

Trampolines branch forward only; merging where branches meet keeps the number of states, and so the time, linear in the
number of programs.

A place that the kernel may patch while a task is in the image is an open branch: there, and nowhere else, it matters
whether the kernel has been there. Where each is come to once at most, and no instruction begins within one, the states
at an instruction are all in which a task may stand there, whatever was patched before, and what follows is all that may
come of it, whatever is patched then.
"""

from __future__ import annotations

import heapq
from typing import Final

from properties.prover.architecture import Architecture
from properties.prover.cells import Cells
from properties.prover.claims import Claim
from properties.prover.decider import Decider
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import NOP_THERE, WHOLE_PLACES, InfeasibleError, SplitError, instruction_limit
from properties.prover.operations import LiftedInstruction, Op, OpKind
from properties.prover.paths import Path
from properties.prover.state import PathState
from properties.prover.symbolic import SymbolicMachine
from properties.prover.terms import Term, Value, add, eq, evaluate, linear, not_, postorder, sub, symbol
from properties.prover.z3_backend import Model

__all__ = ["Executor", "UndecidedError"]

INSTRUCTIONS: Final = 200_000
"""The most that one proof may execute, over all paths."""

NOW_AND_THEN: Final = 1024
"""After so many instructions the clock is looked at, which takes as long as some of them; most proofs have fewer."""

# Looking up an enum's member takes longer than what is then done with it.
COMPUTE: Final = OpKind.COMPUTE
LOAD: Final = OpKind.LOAD
STORE: Final = OpKind.STORE
GOTO: Final = OpKind.GOTO
GOTO_IF: Final = OpKind.GOTO_IF

CASES: Final = 64
"""Values that a term may have where it must be a number."""


class UndecidedError(Exception):
    """Neither proved nor refuted; the text says why. model: symbols that lead there, if an execution may tell more."""

    def __init__(self, reason: str, model: Model | None = None) -> None:
        super().__init__(reason)
        self.model = model


class Executor:
    """One proof's execution. left: how many paths, after merging, have left the image as they should.

    stands: the instructions that control comes to. places: what the kernel may patch.
    """

    def __init__(self, image: Image, claim: Claim, architecture: Architecture, *, thorough: bool) -> None:
        self._demands = claim.demands
        self.decider = Decider(claim.facts, thorough=thorough)
        self.bindings = dict(claim.bindings)
        self.left = 0
        self.instructions = 0
        self.at = image.address
        self._machine = SymbolicMachine(image, claim.frame, architecture, self.decider, self.bindings)
        self._bases = [
            symbol(architecture.convention.stack_pointer, 64),
            *(region.base for region in claim.frame.regions),
        ]
        self._image = image
        self._start, self._end = image.address, image.end
        self._lifter = lifter(architecture)
        self._patches = {patch.at: patch for patch in image.patches if patch.name in claim.patches}
        self._within = image.within(self._patches.values(), architecture)
        self._misplaced = image.misplaced(self._patches.values(), architecture)
        self._again: int | None = None
        self.stands: set[int] = set()
        self.places = frozenset(self._patches)
        lean = self._lifter.lean(image.code, image.address, image.used, self.places)
        self._known = dict(lean.instructions)
        self._joins = lean.targets.union(patch.target for patch in self._patches.values())
        self._limit = instruction_limit(image)
        self._waiting: dict[int, list[PathState]] = {}
        self._order: list[int] = []
        self._forked: list[PathState] = []
        self._push(self._make_first(claim))

    def run(self) -> None:
        """Executes all paths. RefutedError, UndecidedError, or UnknownError of the solver, if not all is well."""
        while self._order:
            for state in self._merge(self._waiting.pop(heapq.heappop(self._order))):
                self._advance(state)
        if not self.left:
            raise UndecidedError("no path leaves the image")
        if self._again is not None:
            at = self._again - self._image.address
            raise UndecidedError(f"control comes to the place at +{at:#x} again, which may be patched by then")

    def _make_first(self, claim: Claim) -> PathState:
        places = self._lifter.registers
        registers = Cells({places[name][0]: (places[name][1], value) for name, value in claim.registers.items()})
        memory = Cells({place: (8, word) for place, word in claim.memory.items()})
        state = PathState(self._image.address, registers, memory, Path(), self._demands.start())
        state.written = claim.written
        self._machine.state = state
        self._machine.settle()
        return state

    def _push(self, state: PathState) -> None:
        if state.pc not in self._waiting:
            self._waiting[state.pc] = []
            heapq.heappush(self._order, state.pc)
        self._waiting[state.pc].append(state)

    def _merge(self, states: list[PathState]) -> list[PathState]:
        kept: list[PathState] = []
        for state in states:
            for other in kept:
                if self._agree(other, state):
                    other.merge(state, self._machine.unknown_of(other), self._machine.unknown_of(state))
                    break
            else:
                kept.append(state)
        return kept

    def _agree(self, one: PathState, other: PathState) -> bool:
        """Whether two states may merge: at the same step, or one may go on to it; and with one stack pointer."""
        if not one.agrees(other):
            return False
        pointer = self._machine.architecture.convention.stack_pointer
        place = self._lifter.registers[pointer]
        if one.registers.cells.get(place[0]) != other.registers.cells.get(place[0]):
            return False
        position = max(one.progress.position, other.progress.position)
        return self._move_on(one, position) and self._move_on(other, position)

    def _move_on(self, state: PathState, position: int) -> bool:
        self._machine.state = state
        progress = state.progress
        if progress.position < position and not self._demands.skips(self._machine, progress, position):
            return False
        alive = state.path.known(progress.alive)
        state.progress = progress._replace(position=position, alive=progress.alive if alive is None else int(alive))
        return True

    def _advance(self, state: PathState) -> None:
        try:
            self._run(state)
        except InfeasibleError:
            return
        except SplitError as error:
            self._split(state, error.term)
        finally:
            for forked in self._forked:
                self._push(forked)
            self._forked.clear()

    def _run(self, state: PathState) -> None:
        """Runs a state until it ends, or reaches an address where it may meet others."""
        self._machine.state = state
        while True:
            at = state.pc
            if not (self._step(state) if self._start <= at < self._end else self._leave(state, at)):
                return
            if state.pc <= at or state.pc in self._joins:
                self._push(state)
                return

    def _step(self, state: PathState) -> bool:
        """Runs the instruction at state.pc. Returns whether the state goes on, at state.pc."""
        self.at = at = state.pc
        if not state.index:
            self._count(state)
            if self._patches and self._jump_patched(state, at):
                return True
        instruction = self._known.get(at) or self._fetch(at)
        if instruction.unmodelled:
            model = self.decider.feasible(state.path)
            reason = f"the instruction at +{at - self._image.address:#x}: {instruction.unmodelled}"
            raise UndecidedError(reason, model)
        return self._execute(state, instruction)

    def _jump_patched(self, state: PathState, at: int) -> bool:
        """Takes the jump that may be at an address, where the kernel patches the image: as _branch()."""
        if at in self._within:
            self._machine.demand(WHOLE_PLACES, 0)
        patch = self._patches.get(at)
        if patch is None:
            return False
        self._machine.demand(NOP_THERE, int(at not in self._misplaced))
        if at in state.passed:
            self._again = at
        state.passed |= {at}
        return self._branch(state, symbol(patch.name, 1), patch.target)

    def _count(self, state: PathState) -> None:
        self.instructions += 1
        self.stands.add(state.pc)
        state.instructions += 1
        if self.instructions > INSTRUCTIONS:
            raise UndecidedError(f"more than {INSTRUCTIONS} instructions over all paths")
        if not self.instructions % NOW_AND_THEN:
            self.decider.solver.check_time()
        if state.instructions > self._limit:
            self._machine.demand(f"the image is left within {self._limit} instructions", 0)

    def _fetch(self, at: int) -> LiftedInstruction:
        instruction = self._lifter.one(self._image.code, self._image.address, at)
        self._known[at] = instruction
        return instruction

    def _execute(self, state: PathState, instruction: LiftedInstruction) -> bool:
        """Runs an instruction's operations, from state.index on. Returns whether the state goes on, at state.pc."""
        machine = self._machine
        index, ops = state.index, instruction.ops
        while index < len(ops):
            op = ops[index]
            kind = op[0]
            state.index = index
            index += 1
            if kind is COMPUTE:
                machine.compute(op)
            elif kind is LOAD:
                machine.load(op)
            elif kind is STORE:
                machine.store(op)
            elif kind is GOTO:
                return self._go(state, instruction, machine.address(op[3][0]))
            elif kind is GOTO_IF:
                if self._branch(state, machine.condition(op[3][1]), op[3][0][1]):
                    return True
            elif kind is not OpKind.NOTHING:
                index = self._skip(state, op, index)
        # A case that is made of something at the end goes on there: an operation may not be run twice.
        state.index = index
        machine.end(instruction)
        state.finish(state.pc + instruction.size)
        return True

    def _go(self, state: PathState, instruction: LiftedInstruction, target: Value) -> bool:
        """Lets control go to an address. Returns whether the state goes on, at state.pc."""
        self._machine.end(instruction)
        state.departure = instruction.departure
        if isinstance(target, int):
            state.finish(target)
            return True
        return self._leave(state, target)

    def _leave(self, state: PathState, target: Value) -> bool:
        """Lets a step outside the image be judged. Returns whether control comes back, at state.pc."""
        progress = self._demands.event(self._machine, state.progress, target)
        if progress is None:
            self.left += 1
            return False
        state.progress = progress
        state.departure = "jump"
        state.finish(state.pc)
        return True

    def _branch(self, state: PathState, condition: Value, target: int) -> bool:
        """Takes a conditional branch, if it plainly is taken, and returns whether; if it is open, a copy takes it."""
        known = self._fork(state, condition)
        if isinstance(known, PathState):
            known.finish(target)
        elif known:
            state.finish(target)
        return known is True

    def _fork(self, state: PathState, condition: Value) -> PathState | bool:
        """Makes a waiting copy on which a condition holds; on the state it does not.

        If it plainly holds, or does not, that is the answer.
        """
        yes, no = state.path.where(condition), state.path.where(not_(condition))
        if yes is None or no is None:
            return no is None
        taken = state.fork(yes)
        state.path = no
        state.learn()
        taken.learn()
        self._forked.append(taken)
        return taken

    def _skip(self, state: PathState, op: Op, index: int) -> int:
        """Jumps within the instruction, and returns the index of the next operation."""
        target = op[3][0][1]
        if op[0] is OpKind.SKIP:
            return target
        known = self._fork(state, self._machine.condition(op[3][1]))
        if isinstance(known, PathState):
            known.index = target
            return index
        return target if known else index

    def _split(self, state: PathState, term: Term) -> None:
        """Makes a case of each value that a term may have; of an address, from the first stack pointer."""
        inner, _ = linear(term)
        assert isinstance(inner, Term)
        bases = (base for base in self._bases if isinstance(base, Term) and inner is not base)
        base = next((base for base in bases if _mentions(inner, base)), 0)
        asked = sub(inner, base, inner.bits)
        for value in self._list_values(state, asked, inner.bits):
            path = state.path.where(eq(asked, value, inner.bits))
            if path is not None:
                case = state.fork(path)
                case.cases[inner] = add(base, value, inner.bits)
                self._push(case)

    def _list_values(self, state: PathState, asked: Value, bits: int) -> list[int]:
        found: list[int] = []
        while True:
            others = [not_(eq(asked, value, bits)) for value in found]
            model = self.decider.solver.model([*state.path.predicates, *others])
            if model is None:
                return sorted(found)
            if len(found) == CASES:
                raise UndecidedError(f"at +{self.at - self._image.address:#x}: more than {CASES} cases of one value")
            found.append(_evaluate_in(asked, model))


def _mentions(term: Term, part: Term) -> bool:
    done: dict[Term, bool] = {}
    for inner in postorder(term, done):
        done[inner] = True
    return part in done


def _evaluate_in(value: Value, model: Model) -> int:
    """Evaluates in a model, where what the solver did not need is 0."""
    return evaluate(value, lambda name, _: model.get(name, 0))
