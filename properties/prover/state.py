"""One symbolic state of the processor on its way through an image, and how two that meet become one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from properties.prover.cells import Cell, Cells, Unknown
from properties.prover.machine import Departure
from properties.prover.obligations import Progress
from properties.prover.paths import Path
from properties.prover.terms import Term, Value, eq, ite
from properties.prover.unknowns import BEGINNING
from properties.prover.written import Written

__all__ = ["Access", "PathState", "nobody_reads"]


Access = tuple[bool, int, int, Value]
"""One use that an instruction has made of the stack.

It tells whether it stored, the bytes [low, high), and, as a predicate, whether those that it loaded were written.
"""


class PathState:
    """pc and index: the next operation, as instruction and place in it. stack: by offset from the first stack pointer.

    label: the last step, or steps on merged paths, which names what it left unknown. instructions: how many were
    executed. written: which bytes of the stack are. undefined: how often the instruction at an address has left flags
    undefined. departure: by which kind of instruction control has left the image last. floor: the offset of the stack
    pointer before the instruction; pointer: the stack pointer that was judged then, if it was; accesses: what of the
    stack the instruction has used. cases: what terms are equal to on this path, where they
    had to be numbers. passed: the places that the kernel patches to which the path has come.
    """

    __slots__ = (
        "accesses",
        "cases",
        "departure",
        "floor",
        "index",
        "instructions",
        "label",
        "passed",
        "path",
        "pc",
        "pointer",
        "progress",
        "registers",
        "stack",
        "temporaries",
        "undefined",
        "written",
    )

    def __init__(self, pc: int, registers: Cells, stack: Cells, path: Path, progress: Progress) -> None:
        self.pc = pc
        self.index = 0
        self.floor = 0
        self.pointer: Value | None = None
        self.accesses: list[Access] = []
        self.cases: dict[Term, Value] = {}
        self.temporaries = Cells()
        self.registers = registers
        self.stack = stack
        self.path = path
        self.progress = progress
        self.label: tuple[str, ...] = (BEGINNING,)
        self.instructions = 0
        self.written = Written()
        self.undefined: dict[int, int] = {}
        self.passed: frozenset[int] = frozenset()
        self.departure: Departure = "jump"

    def fork(self, path: Path) -> PathState:
        """An independent copy on another path."""
        other = PathState(self.pc, self.registers.copy(), self.stack.copy(), path, self.progress)
        other.accesses = self.accesses.copy()
        other.index, other.temporaries = self.index, self.temporaries.copy()
        other.floor, other.pointer = self.floor, self.pointer
        other.label, other.instructions, other.cases = self.label, self.instructions, self.cases.copy()
        other.undefined, other.passed = self.undefined.copy(), self.passed
        other.departure, other.written = self.departure, self.written
        return other

    def finish(self, pc: int) -> None:
        """The instruction is at its end, and the next is at pc."""
        self.pc = pc
        self.index = 0
        if self.accesses:
            self.accesses.clear()
        if self.temporaries.cells:
            self.temporaries.cells.clear()

    def agrees(self, other: PathState) -> bool:
        """Whether this and another state, at the same address, are the same in what is no value."""
        return (
            not (self.index or other.index)
            and self.cases == other.cases
            and self.departure == other.departure
            and len(self.progress.counted) == len(other.progress.counted)
        )

    def merge(self, other: PathState, mine: Unknown, its: Unknown) -> None:
        """Becomes the state that is this one on its path, and the other on its.

        Both are at the same instruction and step, and agree. mine, its: what to call unknown registers of each.
        """
        self.path, here = self.path.merged(other.path)
        self.registers = _merge((self.registers, mine), (other.registers, its), here)
        self.stack = _merge((self.stack, nobody_reads), (other.stack, nobody_reads), here)
        self.written = self.written.merged(other.written, here)
        for at, count in other.undefined.items():
            self.undefined[at] = max(count, self.undefined.get(at, 0))
        self.passed |= other.passed
        self.progress = _merge_progress(self.progress, other.progress, here)
        self.instructions = max(self.instructions, other.instructions)
        self.label = (*self.label, *(step for step in other.label if step not in self.label))

    def learn(self) -> None:
        """Puts a 0 for the return slot where the path says that it is 0: with many programs its term stays small."""
        slot = self.progress.slot
        if isinstance(slot, int) or not self.path.known(eq(slot, 0, 64)):
            return
        for cells in (self.registers, self.stack):
            for offset, (size, value) in cells.cells.items():
                if value is slot:
                    cells.cells[offset] = (size, 0)
        self.progress = self.progress._replace(slot=0)


def nobody_reads(_: int, __: int) -> Value:
    """Stands for bytes of the stack that are not written: whoever reads them breaks an obligation."""
    return 0


Side = tuple[Cells, Unknown]
"""A side of a merge: its bytes, and what to call the unknown ones."""


def _merge(mine: Side, its: Side, here: Value) -> Cells:
    """Merges two sides. Bytes that only one of them knows get a name on the other."""
    (one, first), (other, second) = mine, its
    result = one.cells.copy()
    for offset in _list_differences(one.cells, other.cells):
        cell, counterpart = one.cells.get(offset), other.cells.get(offset)
        size = (cell or counterpart or (0, 0))[0]
        if not (one.fits(offset, size) and other.fits(offset, size)):
            return _merge_bytes(mine, its, here)
        value = ite(here, one.read(offset, size, first), other.read(offset, size, second), 8 * size)
        result[offset] = (size, value)
    return Cells(result)


def _list_differences(one: Mapping[int, Cell], other: Mapping[int, Cell]) -> list[int]:
    """Lists the offsets at which not both have the same cell: there are few of many."""
    changed = [offset for offset, cell in one.items() if other.get(offset) != cell]
    return changed + [offset for offset in other if offset not in one]


def _merge_bytes(mine: Side, its: Side, here: Value) -> Cells:
    """Merges byte by byte, where the sides divide the bytes into different cells."""
    (one, first), (other, second) = mine, its
    result = Cells()
    for at in sorted(set(_list_bytes(one)) | set(_list_bytes(other))):
        result.write(at, 1, ite(here, one.read(at, 1, first), other.read(at, 1, second), 8))
    return result


def _list_bytes(cells: Cells) -> Iterable[int]:
    return (at for start, (size, _) in cells.cells.items() for at in range(start, start + size))


def _merge_progress(one: Progress, other: Progress, here: Value) -> Progress:
    if one == other:
        return one
    fields: list[object] = [one.position, one.slots]
    for name, mine, its in zip(Progress._fields[2:-2], one[2:-2], other[2:-2], strict=True):
        fields.append(_choose(here, mine, its, 1 if name in PREDICATES else 64))
    for several, others in (one.counted, other.counted), (one.sessions, other.sessions):
        fields.append(tuple(_choose(here, mine, its, 64) for mine, its in zip(several, others, strict=True)))
    return Progress(*fields)  # type: ignore[arg-type]


PREDICATES = frozenset({"entered", "running", "alive", "called"})


def _choose(here: Value, mine: Value, its: Value, bits: int) -> Value:
    return mine if mine == its else ite(here, mine, its, bits)
