"""Which blocks of the kernel's own code the runs executed, and what would reach the others."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from impl.linux.instruments.code import Block, CodeFunction, find_code
from impl.linux.station import Station

__all__ = ["Executed"]


@dataclass(slots=True)
class Executed:
    """Gathers what each run executed. code: the functions that are looked at; runs: by name, the addresses."""

    code: tuple[CodeFunction, ...] = ()
    runs: dict[str, set[int]] = field(default_factory=dict)

    def watch(self, station: Station) -> None:
        """Have a guest note what it executes, from now on. The text of a kernel is the same in every guest."""
        self.code = self.code or find_code(station.guest, station.symbols)
        station.guest.watch([(block.start, block.end) for function in self.code for block in function.blocks])

    def note(self, run: str, station: Station) -> None:
        """A run has ended."""
        self.runs.setdefault(run, set()).update(station.guest.executed())
