"""The processor on symbols: what the p-code of instructions does to a state, under the rules of the frame."""

from __future__ import annotations

from typing import Final, NoReturn

from properties.prover.architecture import Architecture
from properties.prover.cells import Unknown
from properties.prover.decider import Decider
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import ALIGNED, FRAME_BYTES, NO_LOAD, NO_STORE, STACK_POINTER, Frame, SplitError
from properties.prover.meaning import MODULUS, signed
from properties.prover.operations import Instruction, Op, Place, Space
from properties.prover.pcode import truth
from properties.prover.state import State
from properties.prover.terms import Term, Value, add, extract, linear, or_, sub, symbol, ult, zext
from properties.prover.unknowns import register_name, stack_name

__all__ = ["SymbolicMachine"]

WORD_BYTES: Final = 8

# An enum's members take longer to get at than what is done with them.
CONSTANT: Final = Space.CONSTANT
REGISTER: Final = Space.REGISTER


class SymbolicMachine:
    """Runs instructions on `state`, and shows it to the obligations as a Machine. state: set by whoever runs it."""

    state: State

    def __init__(
        self, image: Image, frame: Frame, architecture: Architecture, decider: Decider, bindings: dict[str, int]
    ) -> None:
        self.architecture = architecture
        self.bindings = bindings
        self.decider = decider
        self._image = image
        self._frame = frame
        self._places = lifter(architecture).registers
        self._names = {offset: name for name, (offset, _) in self._places.items()}
        self._pointer = self._places[architecture.convention.stack_pointer][0]
        self._top = symbol(architecture.convention.stack_pointer, 64)
        self._plain: dict[Value, int] = {}
        self._judged: Value | None = None
        self._volatile = [
            place
            for name, place in self._places.items()
            if name
            not in {*architecture.convention.preserved, *architecture.readable, architecture.convention.stack_pointer}
        ]

    # What instructions do.

    def begin(self) -> None:
        """An instruction begins: memory below the stack pointer, before and after it, is not its to use."""
        state = self.state
        pointer = self._read_stack_pointer()
        floor = self._plain.get(pointer)
        state.floor = self._need_offset(pointer) if floor is None or state.cases else floor

    def _read_stack_pointer(self) -> Value:
        registers = self.state.registers
        cell = registers.cells.get(self._pointer)
        if cell is not None and cell[0] == WORD_BYTES and cell[1] is not None:
            return cell[1]
        return registers.read(self._pointer, WORD_BYTES, self.unknown_register)

    def compute(self, op: Op) -> None:
        """An operation that computes."""
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
        return zext(self.operand(place), 64)

    def condition(self, place: Place) -> Value:
        """A p-code boolean as a predicate."""
        return truth(self.operand(place))

    def load(self, op: Op) -> None:
        """An operation that loads."""
        output = op[2]
        assert output is not None
        size = output[2]
        offset = self._access(self.address(op[3][0]), size, store=False)
        self._put(output, self.state.stack.read(offset, size, self.unknown_stack))

    def store(self, op: Op) -> None:
        """An operation that stores."""
        address, content = op[3]
        offset = self._access(self.address(address), content[2], store=True)
        self.state.stack.write(offset, content[2], self.operand(content))

    def end(self, instruction: Instruction) -> None:
        """An instruction ends. It has kept off what is below the stack pointer as it was, and as it is now.

        The stack pointer is still in the frame. Flags that the instruction leaves undefined are lost.
        """
        state = self.state
        pointer = self._read_stack_pointer()
        if pointer is self._judged and not (state.accesses or state.cases or instruction.undefined):
            return
        offset = self._find_offset(pointer)
        floor = state.floor
        if offset is not None and offset < floor:
            floor = offset
        for stored, low, high in state.accesses:
            allowed = self._frame.store if stored else self._frame.load
            self.demand(NO_STORE if stored else NO_LOAD, int(allowed(low, high, floor)))
        if offset is None or not self._frame.pointer(offset):
            self._judge_stray(pointer)
        if self.architecture.always_aligned:
            self.demand(ALIGNED, int(offset % self.architecture.convention.stack_alignment == 0))
        elif not state.cases:
            self._judged = pointer
        for flag in instruction.undefined:
            state.registers.write(*self._places[flag], None)

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
        """An address as offset from the first stack pointer, if it plainly is one, or is in this case."""
        cases = self.state.cases
        if not cases and address in self._plain:
            return self._plain[address]
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
        """The offset of an access, which end() judges; where it may be any, it must be one that can be right."""
        offset = self._find_offset(address)
        if offset is None:
            high = 0 if store else self._frame.readable
            allowed = self._is_within(address, self._find_lowest(), high - size)
            elsewhere = self._frame.within(address, size, store=store)
            self.demand(NO_STORE if store else NO_LOAD, or_(allowed, elsewhere, 1))
            raise SplitError(self._choose_term(address))
        self.state.accesses.append((store, offset, offset + size))
        return offset

    def _is_within(self, address: Value, low: int, last: int) -> Value:
        """Whether an address is at one of the offsets [low, last], of which there may be none."""
        distance = sub(sub(address, self._top, 64), low % MODULUS, 64)
        return ult(distance, last - low + 1, 64) if low <= last else 0

    def _judge_stray(self, pointer: Value) -> NoReturn:
        self.demand(STACK_POINTER, self._is_within(pointer, -FRAME_BYTES, self._frame.readable))
        raise SplitError(self._choose_term(pointer))

    def _choose_term(self, value: Value) -> Term:
        """What to make cases of: for a constant address the stack pointer."""
        return value if isinstance(value, Term) else self._top

    def unknown_register(self, offset: int, size: int) -> Value:
        """A register that a callee has left unknown; a flag is 0 or 1."""
        return self._name_register(offset, size, self.state.label)

    def unknown_stack(self, offset: int, size: int) -> Value:
        """Bytes of the stack that nobody has written since the last step."""
        return symbol(stack_name(offset, size, self.state.label), 8 * size)

    def unknowns(self, state: State) -> tuple[Unknown, Unknown]:
        """How a state's unknown registers, and bytes of the stack, are called."""
        label = state.label
        return (
            lambda offset, size: self._name_register(offset, size, label),
            lambda offset, size: symbol(stack_name(offset, size, label), 8 * size),
        )

    def _name_register(self, offset: int, size: int, label: tuple[str, ...]) -> Value:
        start = offset if offset in self._names else max(known for known in self._names if known < offset)
        name = self._names[start]
        width = 8 * self._places[name][1]
        full = symbol(register_name(name, label), 64 if width == 64 else 1)
        return extract(full, 8 * (offset - start), 8 * size) if width == 64 else zext(full, width)

    # What obligations see.

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
        return self.state.stack.read(self._need_offset(address), 8, self.unknown_stack)

    def set_word(self, address: Value, value: Value) -> None:
        """See Machine."""
        self.state.stack.write(self._need_offset(address), 8, value)

    def _need_offset(self, address: Value) -> int:
        offset = self._find_offset(address)
        if offset is None:
            raise SplitError(self._choose_term(address))
        return offset

    def inside(self, obligation: str, low: Value, size: int) -> None:
        """See Machine."""
        floor = self._need_offset(self.register(self.architecture.convention.stack_pointer)) + self._pushed
        offset = self._find_offset(low)
        if offset is None:
            self.demand(obligation, self._is_within(low, floor, -size))
            raise SplitError(self._choose_term(low))
        self.demand(obligation, int(floor <= offset and offset + size <= 0))

    @property
    def _pushed(self) -> int:
        return self.architecture.convention.pushed

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

    def clobber(self, step: str) -> None:
        """See Machine."""
        state = self.state
        registers = state.registers
        for offset, size in self._volatile:
            cell = registers.cells.get(offset)
            if cell is not None and cell[0] == size:
                registers.cells[offset] = (size, None)
            else:
                registers.write(offset, size, None)
        for flag in self.architecture.convention.clear:
            state.registers.write(*self._places[flag], 0)
        state.stack.drop_below(
            self._need_offset(self.register(self.architecture.convention.stack_pointer)) + self._pushed
        )
        state.label = (step,)

    def forget(self, address: Value, size: int) -> None:
        """See Machine."""
        self.state.stack.drop(self._need_offset(address), size)


def _refuse_temporary(offset: int, size: int) -> Value:
    raise AssertionError(f"p-code reads a temporary at {offset:#x} ({size}) that it has not written")
