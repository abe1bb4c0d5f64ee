"""A stretch of bytes as cells: registers, temporaries, or the stack. Overlapping accesses are exact to the byte."""

from __future__ import annotations

from collections.abc import Callable

from properties.prover.terms import Value, concat, extract

__all__ = ["Cell", "Cells", "Unknown"]

WIDEST = 16

Unknown = Callable[[int, int], Value]
"""Called for bytes that no cell has: (offset, size in bytes) to a value, which then stays."""


Cell = tuple[int, Value | None]
"""Its size in bytes, and its value."""


class Cells:
    """Little-endian values by offset. Cells do not overlap, and none is wider than 16 bytes.

    A cell without a value stands for unknown bytes, as does no cell; it only spares a search.
    """

    __slots__ = ("cells",)

    def __init__(self, cells: dict[int, Cell] | None = None) -> None:
        self.cells = {} if cells is None else cells

    def copy(self) -> Cells:
        """An independent copy."""
        return Cells(self.cells.copy())

    def read(self, offset: int, size: int, unknown: Unknown) -> Value:
        """The value of these bytes."""
        cell = self.cells.get(offset)
        if cell is not None and cell[0] == size and cell[1] is not None:
            return cell[1]
        return self._assemble(offset, size, unknown)

    def write(self, offset: int, size: int, value: Value | None) -> None:
        """Gives these bytes a value, or, for registers, makes them one cell without."""
        cell = self.cells.get(offset)
        if cell is None or cell[0] != size:
            self.drop(offset, size)
        self.cells[offset] = (size, value)

    def fits(self, offset: int, size: int) -> bool:
        """Whether these bytes are one cell, or all unknown."""
        cell = self.cells.get(offset)
        if cell is not None:
            return cell[0] == size
        return all(self._find_covering(at) is None for at in range(offset, offset + size))

    def drop(self, offset: int, size: int) -> None:
        """Makes these bytes unknown."""
        end = offset + size
        touched = range(offset - WIDEST + 1, end)
        cells = self.cells
        # Stacks and register files are words: few of these bytes begin a cell, and most often none does.
        if cells.keys().isdisjoint(touched):
            return
        for start in [start for start in touched if start in cells]:
            cell = cells[start]
            if start + cell[0] <= offset:
                continue
            del self.cells[start]
            self._keep(start, cell, start, offset)
            self._keep(start, cell, end, start + cell[0])

    def drop_below(self, offset: int) -> None:
        """Makes all bytes below an offset unknown."""
        for start in [start for start in self.cells if start < offset]:
            if start + self.cells[start][0] <= offset:
                del self.cells[start]
            else:
                self.drop(start, offset - start)

    def _keep(self, start: int, cell: Cell, low: int, high: int) -> None:
        """The part [low, high) of a cell that was at start."""
        if low < high and cell[1] is not None:
            self.cells[low] = (high - low, extract(cell[1], 8 * (low - start), 8 * (high - low)))

    def _find_covering(self, at: int) -> int | None:
        for start in range(at, at - WIDEST, -1):
            cell = self.cells.get(start)
            if cell is not None:
                return start if start + cell[0] > at else None
        return None

    def _assemble(self, offset: int, size: int, unknown: Unknown) -> Value:
        value: Value = 0
        at, end = offset, offset + size
        while at < end:
            start = self._find_covering(at)
            if start is None:
                start = at
                self._fill(at, end, unknown)
            width, content = self.cells[start]
            if content is None:
                content = unknown(start, width)
                self.cells[start] = (width, content)
            taken = min(start + width, end) - at
            piece = extract(content, 8 * (at - start), 8 * taken)
            done = 8 * (at - offset)
            value = concat(piece, value, done, done + 8 * taken) if done else piece
            at += taken
        return value

    def _fill(self, at: int, end: int, unknown: Unknown) -> None:
        stop = next((other for other in range(at, end) if other in self.cells), end)
        self.cells[at] = (stop - at, unknown(at, stop - at))
