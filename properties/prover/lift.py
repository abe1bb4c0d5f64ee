"""Machine code to p-code: SLEIGH's translation, prepared for evaluation, one instruction at a time and cached."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from functools import cache
from typing import Any, NamedTuple

import pypcode
from pypcode import OpCode

from properties.prover.agreement import CODE, Agreement
from properties.prover.architecture import Architecture
from properties.prover.forwarding import without_copies
from properties.prover.liveness import BRANCHES, skips, without_dead_flags, without_dead_temporaries
from properties.prover.machine import Departure
from properties.prover.operations import LiftedInstruction, Op, OpKind, Place, Space
from properties.prover.pcode import Function, function
from properties.prover.tools import disassembler

__all__ = ["Lifter", "lifter"]

LONGEST = 16
"""Bytes that are enough for any instruction."""

SCRATCH = 1 << 40
"""Above the offset of any register."""

CACHED = 1 << 16

SWEPT = 1 << 10
"""The most images whose instructions are kept."""

STATES = 12
"""On how many random states p-code and unicorn must agree."""

ELSEWHERE = 0x3FFFFFFF0000
"""The distance to another address, at which a constant made from the address is another one."""


class Lean(NamedTuple):
    """The instructions of an image by address, and to which of its addresses they branch."""

    instructions: Mapping[int, LiftedInstruction]
    targets: frozenset[int]


class Lifter:
    """SLEIGH for one architecture; one context a process. registers: (offset, size) in p-code by name."""

    def __init__(self, architecture: Architecture) -> None:
        self._context = pypcode.Context(architecture.language)
        self._disassembler = disassembler(architecture)
        self._compares: Agreement | None = None
        self._opinions: dict[bytes, str] = {}
        self._architecture = architecture
        numbered = {name.lower(): node for name, node in self._context.registers.items()}
        names = (*architecture.general, *architecture.flags, *architecture.readable)
        self.registers = {name: (numbered[name].offset, numbered[name].size) for name in names}
        self._flags = {self.registers[name][0]: name for name in architecture.flags}
        self._written = self._cover_bytes((*architecture.general, *architecture.flags))
        self._read = self._written | self._cover_bytes(architecture.readable)
        pc = numbered[architecture.pc]
        self._pc = frozenset(range(pc.offset, pc.offset + pc.size))
        self._scratch = {numbered[name].offset for name in architecture.scratch}
        self._anywhere: dict[bytes, LiftedInstruction] = {}
        self._swept: dict[tuple[bytes, int, int], dict[int, LiftedInstruction]] = {}
        self._leaned: dict[tuple[bytes, int, int, frozenset[int]], Lean] = {}

    def _cover_bytes(self, names: tuple[str, ...]) -> frozenset[int]:
        return frozenset(at for name in names for at in range(self.registers[name][0], sum(self.registers[name])))

    def sweep(self, code: bytes, address: int, used: int) -> dict[int, LiftedInstruction]:
        """The instructions of the first `used` bytes by address, as far as one follows the other from the start."""
        key = code, address, used
        known = self._swept.get(key)
        if known is not None:
            return known.copy()
        found: dict[int, LiftedInstruction] = {}
        at = 0
        while at < used:
            instruction = self.one(code, address, address + at)
            if not instruction.size:
                break
            found[address + at] = instruction
            at += instruction.size
        _remember(self._swept, key, found, SWEPT)
        return found.copy()

    def lean(self, code: bytes, address: int, used: int, patched: frozenset[int]) -> Lean:
        """As sweep(), without what computes flags that nobody reads. patched: see without_dead_flags()."""
        key = code, address, used, patched
        known = self._leaned.get(key)
        if known is None:
            judged = {self.registers[name][0] for name in self._architecture.convention.clear}
            flags, image = self._flags.keys(), range(address, address + used)
            instructions = without_dead_flags(self.sweep(code, address, used), image, flags, judged, patched)
            known = Lean(instructions, _find_branch_targets(instructions.values()).intersection(image))
            _remember(self._leaned, key, known, SWEPT)
        return known

    def one(self, code: bytes, address: int, at: int) -> LiftedInstruction:
        """The instruction at one address of the code that begins at `address`."""
        start = at - address
        # No instruction's bytes are the beginning of another's.
        for end in range(start + 1, start + LONGEST):
            known = self._anywhere.get(code[start:end])
            if known is not None:
                return known
        try:
            translation = self._context.translate(code[start : start + LONGEST], at, max_instructions=1)
        except (pypcode.BadDataError, pypcode.UnimplError):
            return LiftedInstruction(0, (), unmodelled="these bytes are no instruction that SLEIGH knows")
        ops = list(translation.ops)
        end = start + ops[0].inputs[0].size
        # SLEIGH takes what is missing at the end for zeros.
        if end > len(code):
            return LiftedInstruction(0, (), unmodelled="it goes beyond the end of the code")
        return self._lift(code[start:end], at, ops[1:])

    def _lift(self, code: bytes, at: int, ops: list[pypcode.PcodeOp]) -> LiftedInstruction:
        """Most instructions mean the same wherever they stand, and are prepared once."""
        prepared = self._prepare(code, ops)
        if not prepared.unmodelled:
            prepared = self._believe(code, prepared)
        if not _has_target(prepared) and (prepared.unmodelled or prepared == self._prepare_at(code, at ^ ELSEWHERE)):
            _remember(self._anywhere, code, prepared)
        return prepared

    def _prepare_at(self, code: bytes, at: int) -> LiftedInstruction:
        """An instruction, prepared for one address."""
        return self._prepare(code, list(self._context.translate(code, at, max_instructions=1).ops)[1:])

    def _believe(self, code: bytes, instruction: LiftedInstruction) -> LiftedInstruction:
        """The instruction, or one without a model where a second opinion is another."""
        mnemonic = self._name(code)
        if mnemonic is None:
            return LiftedInstruction(len(code), (), unmodelled="a second decoder does not know these bytes")
        reason = self._architecture.doubt(code, mnemonic)
        empty = all(op[0] is OpKind.NOTHING for op in instruction.ops)
        if reason is None and empty and not self._architecture.effectless(code, mnemonic):
            reason = f"SLEIGH knows no effect of {mnemonic}"
        if reason is None and not empty and not self._architecture.is_usual(code, mnemonic):
            reason = self._compare(code)
        return LiftedInstruction(len(code), (), unmodelled=reason) if reason else instruction

    def _compare(self, code: bytes) -> str:
        """Why an unusual instruction cannot be believed, if it cannot."""
        known = self._opinions.get(code)
        if known is None:
            compared, difference = self._make_agreement().compared(self._prepare_at(code, CODE), code, STATES)
            known = f"p-code and unicorn differ: {difference}" if difference else ""
            known = known if compared else "p-code and unicorn could not be compared"
            _remember(self._opinions, code, known)
        return known

    def _make_agreement(self) -> Agreement:
        if self._compares is None:
            self._compares = Agreement(self._architecture, self.registers)
        return self._compares

    def _prepare(self, code: bytes, ops: list[pypcode.PcodeOp]) -> LiftedInstruction:
        try:
            prepared = _Preparation(self._architecture, self._read, self._written | self._pc, self._scratch)
            for op in ops:
                prepared.add(op)
            done = prepared.finish()
        except _UnmodelledError as error:
            return LiftedInstruction(len(code), (), unmodelled=str(error))
        sets_flags = any(self._is_flag(op.output) for op in ops)
        undefined = self._architecture.undefined(code, self._name(code) or "") if sets_flags else ()
        departures: Iterator[Departure] = (_DEPARTURES[op.opcode] for op in ops if op.opcode in _DEPARTURES)
        return LiftedInstruction(len(code), done, next(departures, "jump"), undefined)

    def _name(self, code: bytes) -> str | None:
        """What capstone calls it: SLEIGH also decodes some encodings on which a processor faults."""
        found = next(self._disassembler.disasm_lite(code, 0, 1), None)
        return str(found[2]) if found is not None and found[1] == len(code) else None

    def _is_flag(self, node: pypcode.Varnode | None) -> bool:
        return node is not None and node.space.name == "register" and node.offset in self._flags


def _remember(cache: dict[Any, Any], key: object, value: object, most: int = CACHED) -> None:
    if len(cache) >= most:
        cache.clear()
    cache[key] = value


def _has_target(instruction: LiftedInstruction) -> bool:
    """Whether it has the address of another instruction."""
    return bool(_find_branch_targets([instruction]))


def _find_branch_targets(instructions: Iterable[LiftedInstruction]) -> frozenset[int]:
    return frozenset(
        op[3][0][1]
        for instruction in instructions
        for op in instruction.ops
        if op[0] in BRANCHES and op[3][0][0] == Space.CONSTANT
    )


@cache
def lifter(architecture: Architecture) -> Lifter:
    """The process's lifter of this architecture; loading SLEIGH's tables takes 0.1 s."""
    return Lifter(architecture)


class _UnmodelledError(Exception):
    """An operation has no model; the text says which."""


class _Preparation:
    """One instruction's operations, as they are made. Temporaries of our own have negative offsets."""

    def __init__(
        self, architecture: Architecture, read: frozenset[int], written: frozenset[int], scratch: AbstractSet[int]
    ) -> None:
        self._architecture = architecture
        self._readable = read
        self._writable = written
        self._scratch = scratch
        self._scratched: set[int] = set()
        self._made: list[Op] = []
        self._starts: list[int] = []
        self._temporaries = 0

    def add(self, op: pypcode.PcodeOp) -> None:
        """Prepares the next operation; _UnmodelledError if it has no model."""
        self._starts.append(len(self._made))
        opcode, nodes = op.opcode, op.inputs
        prepare = _SPECIAL.get(opcode)
        if prepare is not None:
            prepare(self, opcode, nodes, op.output)
            return
        output = op.output
        known = function(opcode, 8 * output.size, 8 * nodes[0].size) if output else None
        if known is None or output is None:
            raise _UnmodelledError(f"the p-code operation {opcode.__name__} has no model")
        self._compute(OpKind.COMPUTE, known, output, tuple(map(self._read_input, nodes)))

    def finish(self) -> tuple[Op, ...]:
        """The operations, those left out whose result nobody reads, and jumps within the instruction resolved."""
        made = tuple(self._made)
        return tuple(map(self._resolve, made)) if skips(made) else without_dead_temporaries(without_copies(made))

    def _resolve(self, op: Op) -> Op:
        if op[0] not in {OpKind.SKIP, OpKind.SKIP_IF}:
            return op
        target = op[3][0][1]
        place = self._starts[target] if target < len(self._starts) else len(self._made)
        return op[0], None, None, ((Space.CONSTANT, place, 8), *op[3][1:])

    def goto(self, opcode: OpCode, nodes: list[pypcode.Varnode], _: object) -> None:
        """A branch, call or return. One to a constant is a jump within the instruction."""
        node = nodes[0]
        if opcode not in _DIRECT:
            self._made.append((OpKind.GOTO, None, None, (self._read_input(node),)))
        elif node.space.name == "const":
            self._made.append((OpKind.SKIP, None, None, (self._find_operation(node),)))
        else:
            self._made.append((OpKind.GOTO, None, None, ((Space.CONSTANT, node.offset, 8),)))

    def branch(self, _: OpCode, nodes: list[pypcode.Varnode], __: object) -> None:
        """A conditional branch."""
        node, condition = nodes[0], self._read_input(nodes[1])
        if node.space.name == "const":
            self._made.append((OpKind.SKIP_IF, None, None, (self._find_operation(node), condition)))
        else:
            self._made.append((OpKind.GOTO_IF, None, None, ((Space.CONSTANT, node.offset, 8), condition)))

    def load(self, _: OpCode, nodes: list[pypcode.Varnode], output: pypcode.Varnode) -> None:
        """A load; the first input is the address space."""
        self._compute(OpKind.LOAD, None, output, (self._read_input(nodes[1]),))

    def store(self, _: OpCode, nodes: list[pypcode.Varnode], __: object) -> None:
        """A store; the first input is the address space."""
        self._made.append((OpKind.STORE, None, None, (self._read_input(nodes[1]), self._read_input(nodes[2]))))

    def _find_operation(self, node: pypcode.Varnode) -> Place:
        distance = node.offset - (1 << (8 * node.size)) if node.offset >> (8 * node.size - 1) else node.offset
        if distance <= 0:
            raise _UnmodelledError("it repeats itself")
        return Space.CONSTANT, len(self._starts) - 1 + distance, 8

    def other(self, _: OpCode, nodes: list[pypcode.Varnode], __: object) -> None:
        """An operation that the architecture's description names."""
        name = nodes[0].getUserDefinedOpName()
        if name not in self._architecture.harmless:
            raise _UnmodelledError(f"the operation {name} has no model")
        self._made.append((OpKind.NOTHING, None, None, ()))

    def _compute(self, kind: OpKind, known: Function | None, node: pypcode.Varnode, inputs: tuple[Place, ...]) -> None:
        """An operation with a result, which may be a fixed place in memory."""
        space = node.space.name
        if space == "ram":
            place = self._make_temporary(node.size)
            self._made.append((kind, known, place, inputs))
            self._made.append((OpKind.STORE, None, None, ((Space.CONSTANT, node.offset, 8), place)))
            return
        if space == "unique":
            place = (Space.UNIQUE, node.offset, node.size)
        elif node.offset in self._scratch:
            self._scratched.add(node.offset)
            place = _place_scratch(node)
        else:
            place = self._find_register(node, self._writable, "writes")
        self._made.append((kind, known, place, inputs))

    def _read_input(self, node: pypcode.Varnode) -> Place:
        """An operand; one in memory at a fixed address is loaded first."""
        space = node.space.name
        if space == "const":
            return Space.CONSTANT, node.offset, node.size
        if space == "unique":
            return Space.UNIQUE, node.offset, node.size
        if space == "register":
            if node.offset in self._scratched:
                return _place_scratch(node)
            return self._find_register(node, self._readable | self._writable, "reads")
        place = self._make_temporary(node.size)
        self._made.append((OpKind.LOAD, None, place, ((Space.CONSTANT, node.offset, 8),)))
        return place

    def _find_register(self, node: pypcode.Varnode, allowed: frozenset[int], verb: str) -> Place:
        if not allowed.issuperset(range(node.offset, node.offset + node.size)):
            raise _UnmodelledError(f"it {verb} {node.getRegisterName() or 'a register'}, which has no model")
        return Space.REGISTER, node.offset, node.size

    def _make_temporary(self, size: int) -> Place:
        self._temporaries -= LONGEST
        return Space.UNIQUE, self._temporaries, size


def _place_scratch(node: pypcode.Varnode) -> Place:
    """A temporary in place of a register of SLEIGH's own; no other temporary is this far from 0."""
    return Space.UNIQUE, node.offset - SCRATCH, node.size


_DEPARTURES: dict[OpCode, Departure] = {OpCode.CALL: "call", OpCode.CALLIND: "call", OpCode.RETURN: "return"}
_DIRECT = {OpCode.BRANCH, OpCode.CALL}
_SPECIAL: dict[OpCode, Callable[[_Preparation, OpCode, list[pypcode.Varnode], Any], None]] = {
    OpCode.BRANCH: _Preparation.goto,
    OpCode.CALL: _Preparation.goto,
    OpCode.BRANCHIND: _Preparation.goto,
    OpCode.CALLIND: _Preparation.goto,
    OpCode.RETURN: _Preparation.goto,
    OpCode.CBRANCH: _Preparation.branch,
    OpCode.LOAD: _Preparation.load,
    OpCode.STORE: _Preparation.store,
    OpCode.CALLOTHER: _Preparation.other,
}
