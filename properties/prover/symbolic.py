"""The processor on symbols: what the p-code of instructions does to a state, under the rules of the frame."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache
from typing import Final, NamedTuple, NoReturn

from properties.prover.architecture import Architecture
from properties.prover.cells import Cell, Cells, Unknown
from properties.prover.decider import Decider
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import (
    ALIGNED,
    FRAME_BYTES,
    NO_LOAD,
    NO_STALE,
    NO_STORE,
    STACK_POINTER,
    Departure,
    FrameBounds,
    SplitError,
    stack_within,
)
from properties.prover.meaning import MODULUS, signed
from properties.prover.operations import LiftedInstruction, Op, Place, Space
from properties.prover.pcode import truth
from properties.prover.state import PathState, nobody_reads
from properties.prover.terms import Term, Value, add, extract, linear, or_, sub, symbol, ult, zext
from properties.prover.unknowns import register_name, undefined_name
from properties.prover.written import stack_above, stack_bytes

__all__ = ["SymbolicMachine"]

WORD_BYTES: Final = 8

# Looking up an enum's member takes longer than what is then done with it.
CONSTANT: Final = Space.CONSTANT
REGISTER: Final = Space.REGISTER


class SymbolicMachine:
    """Runs instructions on `state`, and shows it to the obligations as a Machine. state: set by whoever runs it."""

    state: PathState

    def __init__(
        self, image: Image, frame: FrameBounds, architecture: Architecture, decider: Decider, bindings: dict[str, int]
    ) -> None:
        self.architecture = architecture
        self.bindings = bindings
        self.decider = decider
        self._image = image
        self._frame = frame
        self._places, self._names, self._kept, self._left = _lay_out(architecture)
        self._pushed = architecture.convention.pushed
        self._pointer = self._places[architecture.convention.stack_pointer][0]
        self._top = symbol(architecture.convention.stack_pointer, 64)
        self._plain: dict[Value, int] = {}

    # What instructions do.

    def settle(self) -> None:
        """Takes note of where the stack pointer is, once something else than an instruction has moved it."""
        self.state.floor = self._need_offset(self._read_stack_pointer())
        self.state.pointer = None

    def _read_stack_pointer(self) -> Value:
        registers = self.state.registers
        cell = registers.cells.get(self._pointer)
        if cell is not None and cell[0] == WORD_BYTES and cell[1] is not None:
            return cell[1]
        return registers.read(self._pointer, WORD_BYTES, self.unknown_register)

    def compute(self, op: Op) -> None:
        """Runs an operation that computes."""
        _, function, output, inputs = op
        assert function is not None
        assert output is not None
        if len(inputs) == 1:
            value = function(self.operand(inputs[0]))
        else:
            value = function(self.operand(inputs[0]), self.operand(inputs[1]))
        self._put(output, value)

    def operand(self, place: Place) -> Value:
        """The value of an operand."""
        space, offset, size = place
        if space is CONSTANT:
            return offset
        cells = self.state.registers if space is REGISTER else self.state.temporaries
        cell = cells.cells.get(offset)
        if cell is not None and cell[0] == size and cell[1] is not None:
            return cell[1]
        return cells.read(offset, size, self.unknown_register if space is REGISTER else _refuse_temporary)

    def address(self, place: Place) -> Value:
        """An operand that is an address; one of fewer bits is filled with zeros."""
        value = self.operand(place)
        return value if place[2] == WORD_BYTES else zext(value, 64)

    def condition(self, place: Place) -> Value:
        """A p-code boolean as a predicate."""
        return truth(self.operand(place))

    def load(self, op: Op) -> None:
        """Runs an operation that loads."""
        output = op[2]
        assert output is not None
        size = output[2]
        offset = self._access(self.address(op[3][0]), size, store=False)
        self._put(output, self.state.stack.read(offset, size, nobody_reads))

    def store(self, op: Op) -> None:
        """Runs an operation that stores."""
        address, content = op[3]
        offset = self._access(self.address(address), content[2], store=True)
        self.state.stack.write(offset, content[2], self.operand(content))
        self._mark(offset, content[2])

    def end(self, instruction: LiftedInstruction) -> None:
        """Ends an instruction, and forgets flags that it leaves undefined.

        It must not have used memory below the stack pointer, as that was and as it becomes.
        """
        state = self.state
        pointer = self._read_stack_pointer()
        if pointer is state.pointer and not (state.accesses or state.cases or instruction.undefined):
            return
        offset = self._find_offset(pointer)
        floor = state.floor if offset is None else min(offset, state.floor)
        demand, path = self.decider.demand, state.path
        for stored, low, high, written in state.accesses:
            if stored:
                demand(path, NO_STORE, int(self._frame.store(low, high, floor)))
            else:
                demand(path, NO_LOAD, int(self._frame.load(low, high, floor)))
                demand(path, NO_STALE, written)
        if offset is None or not self._frame.pointer(offset):
            self._judge_stray(pointer)
        if offset > state.floor:
            self._drop_below(offset)
        if self.architecture.always_aligned:
            self.demand(ALIGNED, int(offset % self.architecture.convention.stack_alignment == 0))
        state.floor, state.pointer = offset, pointer
        if instruction.undefined:
            self._forget_flags(instruction.undefined)

    def _forget_flags(self, flags: Iterable[str]) -> None:
        """Gives flags that an instruction leaves undefined values that nothing else has."""
        state = self.state
        count = state.undefined[state.pc] = state.undefined.get(state.pc, 0) + 1
        for flag in flags:
            offset, size = self._places[flag]
            name = undefined_name(flag, state.pc - self._image.address, count)
            state.registers.write(offset, size, zext(symbol(name, 1), 8 * size))

    def _drop_below(self, offset: int) -> None:
        """Makes what is below the stack pointer, which is here now, such as nothing has written."""
        self.state.stack.drop_below(offset)
        self.state.written = self.state.written.only(stack_above(offset))

    def _mark(self, offset: int, size: int) -> None:
        self.state.written = self.state.written.plus(stack_bytes(offset, offset + size))

    def _put(self, place: Place, value: Value) -> None:
        space, offset, size = place
        if space is not REGISTER:
            self.state.temporaries.cells[offset] = (size, value)
            return
        registers = self.state.registers
        cell = registers.cells.get(offset)
        if cell is not None and cell[0] == size:
            registers.cells[offset] = (size, value)
        else:
            registers.write(offset, size, value)

    def _find_offset(self, address: Value) -> int | None:
        """Finds the offset of an address from the first stack pointer, if that is plain, on this path."""
        cases = self.state.cases
        known = None if cases else self._plain.get(address)
        if known is not None:
            return known
        base, offset = linear(address)
        if base is self._top and not cases:
            return self._plain.setdefault(address, signed(offset, 64))
        if isinstance(base, Term) and base in cases:
            base, offset = linear(add(cases[base], offset, 64))
        if base is self._top:
            return signed(offset, 64)
        place = self._frame.place(add(base, offset, 64)) if self._frame.regions else None
        if place is not None:
            return place
        top = cases.get(self._top)
        return signed((offset - top) % MODULUS, 64) if isinstance(base, int) and isinstance(top, int) else None

    def _find_lowest(self) -> int:
        now = self._find_offset(self.state.registers.read(self._pointer, 8, self.unknown_register))
        return self.state.floor if now is None else min(now, self.state.floor)

    def _access(self, address: Value, size: int, *, store: bool) -> int:
        """Finds the offset of an access, which end() judges. An open one must at least be within what is allowed."""
        offset = self._find_offset(address)
        if offset is None:
            high = 0 if store else self._frame.readable
            allowed = stack_within(self._top, address, self._find_lowest(), high - size)
            elsewhere = self._frame.within(address, size, store=store)
            self.demand(NO_STORE if store else NO_LOAD, or_(allowed, elsewhere, 1))
            raise SplitError(self._choose_term(address))
        written = 1 if store else self.state.written.has(stack_bytes(offset, offset + size))
        self.state.accesses.append((store, offset, offset + size, written))
        return offset

    def _judge_stray(self, pointer: Value) -> NoReturn:
        self.demand(STACK_POINTER, stack_within(self._top, pointer, -FRAME_BYTES, self._frame.readable))
        raise SplitError(self._choose_term(pointer))

    def _choose_term(self, value: Value) -> Term:
        """Chooses what to make cases of: for a constant address the stack pointer."""
        return value if isinstance(value, Term) else self._top

    def unknown_register(self, offset: int, size: int) -> Value:
        """A register that a callee has left unknown; a flag is 0 or 1."""
        return self._name_register(offset, size, self.state.label)

    def unknown_of(self, state: PathState) -> Unknown:
        """How a state's unknown registers are called."""
        label = state.label
        return lambda offset, size: self._name_register(offset, size, label)

    def _name_register(self, offset: int, size: int, label: tuple[str, ...]) -> Value:
        start = offset if offset in self._names else max(known for known in self._names if known < offset)
        name = self._names[start]
        width = 8 * self._places[name][1]
        full = symbol(register_name(name, label), 64 if width == 64 else 1)
        return extract(full, 8 * (offset - start), 8 * size) if width == 64 else zext(full, width)

    # What obligations see.

    @property
    def departure(self) -> Departure:
        """See Machine."""
        return self.state.departure

    def symbol(self, name: str, bits: int) -> Value:
        """See Machine."""
        return symbol(name, bits)

    def register(self, name: str) -> Value:
        """See Machine."""
        return self.state.registers.read(*self._places[name], self.unknown_register)

    def set_register(self, name: str, value: Value) -> None:
        """See Machine."""
        self.state.registers.write(*self._places[name], value)

    def word(self, address: Value) -> Value:
        """See Machine. Where inside() has let a term pass, it must be a number here."""
        return self.state.stack.read(self._need_offset(address), WORD_BYTES, nobody_reads)

    def set_word(self, address: Value, value: Value) -> None:
        """See Machine."""
        offset = self._need_offset(address)
        self.state.stack.write(offset, WORD_BYTES, value)
        self._mark(offset, WORD_BYTES)

    def written(self, obligation: str, address: Value, size: int) -> None:
        """See Machine."""
        offset = self._need_offset(address)
        written = self.state.written.has(stack_bytes(offset, offset + size))
        self.decider.demand(self.state.path, obligation, written)

    def _need_offset(self, address: Value) -> int:
        offset = self._find_offset(address)
        if offset is None:
            raise SplitError(self._choose_term(address))
        return offset

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """See Machine."""
        floor = self.state.floor + self._pushed
        offset = self._find_offset(low)
        if offset is None:
            self.demand(obligation, stack_within(self._top, low, floor, -size))
            raise SplitError(self._choose_term(low))
        self.demand(obligation, int(floor <= offset and offset + size <= 0))

    def known(self, predicate: Value) -> bool | None:
        """See Machine."""
        return self.state.path.known(predicate)

    def demand(self, obligation: str, predicate: Value) -> None:
        """See Machine."""
        self.decider.demand(self.state.path, obligation, predicate)

    def same(self, obligation: str, got: Value, expected: Value, bits: int = 64) -> None:
        """See Machine."""
        self.decider.same(self.state.path, obligation, got, expected, bits)

    def constant(self, value: Value) -> int:
        """See Machine."""
        if isinstance(value, int):
            return value
        base, offset = linear(value)
        known = self.state.cases.get(base) if isinstance(base, Term) else None
        if not isinstance(known, int):
            raise SplitError(value)
        return (known + offset) % (1 << value.bits)

    def in_image(self, address: Value) -> Value:
        """See Machine."""
        return ult(sub(address, self._image.address, 64), self._image.used, 64)

    def resume(self, address: int, pointer: Value) -> None:
        """See Machine."""
        self.state.pc = address
        self.set_register(self.architecture.convention.stack_pointer, pointer)
        self.settle()

    def clobber(self, step: str) -> None:
        """See Machine."""
        state = self.state
        kept = {offset: cell for offset, cell in state.registers.cells.items() if offset in self._kept}
        state.registers = Cells({**self._left, **kept})
        self._drop_below(state.floor + self._pushed)
        state.label = (step,)

    def forget(self, address: Value, size: int) -> None:
        """See Machine."""
        offset = self._need_offset(address)
        self.state.stack.drop(offset, size)
        self.state.written = self.state.written.only(~stack_bytes(offset, offset + size))


def _refuse_temporary(offset: int, size: int) -> Value:
    raise AssertionError(f"p-code reads a temporary at {offset:#x} ({size}) that it has not written")


class _Registers(NamedTuple):
    """The registers in p-code. kept: the bytes of those that a callee keeps; left: what it leaves of the others."""

    places: Mapping[str, tuple[int, int]]
    names: Mapping[int, str]
    kept: frozenset[int]
    left: Mapping[int, Cell]


@cache
def _lay_out(architecture: Architecture) -> _Registers:
    places, convention = lifter(architecture).registers, architecture.convention
    kept = {*convention.preserved, *architecture.readable, convention.stack_pointer}
    return _Registers(
        places,
        {offset: name for name, (offset, _) in places.items()},
        frozenset(offset for name in kept for offset in range(places[name][0], sum(places[name]))),
        {
            at: (size, 0 if name in convention.clear else None)
            for name, (at, size) in places.items()
            if name not in kept
        },
    )
