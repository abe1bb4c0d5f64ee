"""A kernel that does something wrong without memory is not asked for it while the n-th allocation is armed."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from impl.linux.allocations import Allocations
from impl.linux.run import RunState
from spec import operations as op
from spec.globs import without_bang
from spec.operations import Operation

__all__ = ["FaultDecliner"]


ALWAYS: Final[Mapping[type[Operation], tuple[str, ...]]] = {
    op.InitModule: ("DEFECT-38", "DEFECT-43"),
    op.DeleteModule: ("DEFECT-34",),
    op.UnregisterFtraceGraph: ("DEFECT-25",),
    op.RegisterFtraceGraph: ("DEFECT-26", "DEFECT-30"),
    op.SetFtraceFilter: ("DEFECT-29",),
    op.SetFtraceNotrace: ("DEFECT-29",),
    op.SetGraphFunction: ("DEFECT-46",),
    op.SetGraphNotrace: ("DEFECT-46",),
}
"""Defects that an operation may show whatever there is."""


@dataclass(frozen=True, slots=True)
class FaultDecliner:
    """asked: names of defects that a kernel is asked to show all the same.

    `fail hash` is not declined: a search draws it nowhere, and it is how seeds show these defects.
    """

    run: RunState
    allocations: Allocations
    asked: frozenset[str]

    def reason(self, operation: Operation) -> str:
        """Why the operation is declined in the present state; empty if it is not."""
        if not self.allocations.armed:
            return ""
        known = list(self._defects(operation))
        if not known or not self.asked.isdisjoint(known):
            return ""
        return f"does not do this right where it cannot get memory ({', '.join(known)})"

    def _defects(self, operation: Operation) -> Iterator[str]:
        """The defects of spec/DEFECTS.md that the operation may show."""
        inventory = self.run.inventory
        match operation:
            case op.BpfLinkDetach(name) if name in inventory.links:
                multi = inventory.programs[inventory.links[name].prog].multi
                yield "DEFECT-24" if multi else "DEFECT-1"
            case op.BpfLinkDetach(name) if name in inventory.kprobes:
                yield "DEFECT-35"
            case op.BpfLinkCreate(_, name) if self._is_at_returns(name):
                yield "DEFECT-36"
            case op.FtraceSetFilter(_, glob) | op.FtraceSetNotrace(_, glob) if not without_bang(glob)[1]:
                yield "DEFECT-28"
        yield from ALWAYS.get(type(operation), ())

    def _is_at_returns(self, name: str) -> bool:
        program = self.run.inventory.programs.get(name)
        return program is not None and program.kind == "kretprobe"
