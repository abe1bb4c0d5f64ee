"""A pattern selects more of a real kernel than of the world, or something else: the reasons to decline it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from impl.linux.directory import Directory
from impl.linux.laboratory.build import CORE
from impl.linux.run import RunState
from spec.globs import FilterLine, filter_line, matcher, module_matcher, record_index

__all__ = ["EVERYTHING", "Patterns"]

EVERYTHING = "does not trace every function of the kernel: that takes the emulator too long"


@dataclass(frozen=True, slots=True)
class Patterns:
    """Patterns select functions in the kernel of a run."""

    directory: Directory
    run: RunState

    def beyond(self, pattern: str) -> str:
        """A pattern that also selects functions of the kernel that the world does not have."""
        match = matcher(pattern)
        if any(map(match, self.directory.station.foreign)):
            return f"has functions outside of the world that '{pattern}' selects"
        return self.refuse_number(pattern)

    def alone(self, pattern: str) -> str:
        """A pattern that does no harm to others, but which selects nothing else."""
        return self.refuse_number(pattern) if self.run.inventory.matching(pattern) else self.beyond(pattern)

    def refuse_number(self, pattern: str) -> str:
        """A pattern that is a record's number."""
        return "numbers its records in another way" if record_index(pattern) is not None else ""

    def line(self, text: str | None, selects: Callable[[str], str]) -> str:
        """A line of a filter file that the kernel understands in another way; selects: what is asked of a glob."""
        if text is None:
            return ""
        line = filter_line(text)
        if line.module is None:
            return selects(line.glob)
        return self.refuse_number(line.glob) or self._name_modules(line, line.module)

    def _name_modules(self, line: FilterLine, module: str) -> str:
        """Most functions of the world's kernel proper are in a module of ours there, and other modules are loaded."""
        station, wanted, match = self.directory.station, module_matcher(module), matcher(line.glob or "*")
        if not {module, line.awaits}.isdisjoint({CORE, *station.foreign_modules}):
            return f"has a module {module} that the world has not"
        if any(map(wanted, (None, *station.foreign_modules))) and any(map(match, station.foreign)):
            return f"has functions outside of the world that '{line.glob}:mod:{module}' selects"
        ours = (f.symbol for f in station.world.functions if self.directory.home(f) == CORE)
        differs = wanted(None) != wanted(CORE) and any(map(match, ours))
        return f"has the module {CORE} where the world has functions of the kernel" if differs else ""
