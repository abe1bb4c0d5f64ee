"""One symbolic state of the processor on its way through an image, and how two that meet become one."""

from __future__ import annotations

from collections.abc import Iterable

from properties.prover.cells import Cells, Unknown
from properties.prover.obligations import Progress
from properties.prover.paths import Path
from properties.prover.terms import Term, Value, eq, ite
from properties.prover.unknowns import BEGINNING

__all__ = ["State"]


class State:
    """pc and index: the next operation, as instruction and place in it. stack: by offset from the first stack pointer.

    label: the last step, or steps on merged paths, which names what it left unknown. instructions: how many were
    executed. floor: the stack pointer before the instruction; accesses: what of the stack it has used, as (whether it
    stored, low, high). cases: what terms are equal to on this path, where they had to be numbers.
    """

    __slots__ = (
        "accesses",
        "cases",
        "floor",
        "index",
        "instructions",
        "label",
        "path",
        "pc",
        "progress",
        "registers",
        "stack",
        "temporaries",
    )

    def __init__(self, pc: int, registers: Cells, stack: Cells, path: Path, progress: Progress) -> None:
        self.pc = pc
        self.index = 0
        self.floor = 0
        self.accesses: list[tuple[bool, int, int]] = []
        self.cases: dict[Term, Value] = {}
        self.temporaries = Cells()
        self.registers = registers
        self.stack = stack
        self.path = path
        self.progress = progress
        self.label: tuple[str, ...] = (BEGINNING,)
        self.instructions = 0

    def fork(self, path: Path) -> State:
        """An independent copy on another path."""
        other = State(self.pc, self.registers.copy(), self.stack.copy(), path, self.progress)
        other.accesses = self.accesses.copy()
        other.index, other.floor, other.temporaries = self.index, self.floor, self.temporaries.copy()
        other.label, other.instructions, other.cases = self.label, self.instructions, self.cases.copy()
        return other

    def finish(self, pc: int) -> None:
        """The instruction is at its end, and the next is at pc."""
        self.pc = pc
        self.index = 0
        self.accesses.clear()
        self.temporaries.cells.clear()

    def merge(self, other: State, mine: tuple[Unknown, Unknown], its: tuple[Unknown, Unknown]) -> None:
        """Becomes the state that is this one on its path, and the other on its.

        Both are at the same instruction and step, in the same cases. mine, its: what to call unknown registers, and
        words of the stack, of each.
        """
        self.path, here = self.path.merged(other.path)
        self.registers = _merge((self.registers, mine[0]), (other.registers, its[0]), here)
        self.stack = _merge((self.stack, mine[1]), (other.stack, its[1]), here)
        self.progress = _merge_progress(self.progress, other.progress, here)
        self.instructions = max(self.instructions, other.instructions)
        self.label = (*self.label, *(step for step in other.label if step not in self.label))

    def learn(self) -> None:
        """Where the path says that the return slot is 0, a 0 stands for it: the slots of many programs stay small."""
        slot = self.progress.slot
        if isinstance(slot, int) or not self.path.known(eq(slot, 0, 64)):
            return
        for cells in (self.registers, self.stack):
            for offset, (size, value) in cells.cells.items():
                if value is slot:
                    cells.cells[offset] = (size, 0)
        self.progress = self.progress._replace(slot=0)


Side = tuple[Cells, Unknown]
"""A side of a merge: its bytes, and what to call the unknown ones."""


def _merge(mine: Side, its: Side, here: Value) -> Cells:
    """Where a side does not know bytes that the other knows, they get a name."""
    (one, first), (other, second) = mine, its
    result = one.cells.copy()
    for offset in one.cells.keys() | other.cells.keys():
        cell, counterpart = one.cells.get(offset), other.cells.get(offset)
        if cell == counterpart:
            continue
        size = (cell or counterpart or (0, 0))[0]
        if not (one.fits(offset, size) and other.fits(offset, size)):
            return _merge_bytes(mine, its, here)
        value = ite(here, one.read(offset, size, first), other.read(offset, size, second), 8 * size)
        result[offset] = (size, value)
    return Cells(result)


def _merge_bytes(mine: Side, its: Side, here: Value) -> Cells:
    """The same where the sides divide the bytes into different cells: byte by byte."""
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
    for name, mine, its in zip(Progress._fields[2:-1], one[2:-1], other[2:-1], strict=True):
        fields.append(_choose(here, mine, its, 1 if name in PREDICATES else 64))
    sessions = zip(one.sessions, other.sessions, strict=True)
    fields.append(tuple(_choose(here, mine, its, 64) for mine, its in sessions))
    return Progress(*fields)  # type: ignore[arg-type]


PREDICATES = frozenset({"entered", "running", "alive", "called"})


def _choose(here: Value, mine: Value, its: Value, bits: int) -> Value:
    return mine if mine == its else ite(here, mine, its, bits)
