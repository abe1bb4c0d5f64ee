"""A kernel is not asked for some steps of tasks that stand in calls, or beside them; each has its reason here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from impl.linux.directory import Directory
from impl.linux.run import RunState
from impl.linux.tasks import StandingTask, TaskThreads
from spec import operations as op
from spec.inventory import Inventory
from spec.operations import Operation
from spec.prototypes import MODULUS

__all__ = ["TaskDecliner"]

ATTACHING = (op.BpfRawTracepointOpen, op.BpfLinkCreate)

OWN = "calls none of the kernel's own functions in a task: their bodies keep no records"

NOT_PREEMPTED = "does not preempt tasks that spin: it is built without CONFIG_PREEMPT and CONFIG_PREEMPT_DYNAMIC"

SETTLES = "settles only when no task stands in a call, since it waits for all grace periods"

SEVERAL = "has this program once for each function, or BTF, so that a task in one keeps no other from running (TASK-6)"

FREED = "frees a program that a task is on its way to, and then calls it (DEFECT-17)"

UNDER_A_SLEEPER = "frees an image that was put while a task that came to it before sleeps in a program (DEFECT-44)"


@dataclass(frozen=True, slots=True)
class TaskDecliner:
    """asked: names of defects that a kernel is asked to show all the same."""

    directory: Directory
    run: RunState
    tasks: TaskThreads
    asked: frozenset[str]

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def reason(self, operation: Operation) -> str:
        """Why the operation is declined in the present state; empty if it is not."""
        match operation:
            case op.Task():
                return self._begin(operation)
            case op.Step():
                return self._step(operation)
            case op.Settle() if self.tasks.tasks:
                return SETTLES
            case op.BpfRawTracepointOpen() | op.BpfLinkCreate():
                return self._attach(operation)
            case op.BpfLinkDetach():
                return self._detach(operation)
        return ""

    def _begin(self, operation: op.Task) -> str:
        if operation.function in self.directory.station.own:
            return OWN
        return "" if self.directory.station.preempts else NOT_PREEMPTED

    def _step(self, operation: op.Step) -> str:
        """A task that would stand in a program of which there may be several in truth."""
        place, _, prog = (operation.to or "").partition(":")
        program = self._inventory.programs.get(prog)
        if place != "program" or program is None:
            return ""
        if operation.how == "sleep" and self._is_freed_under(operation.task):
            return UNDER_A_SLEEPER
        if program.target is not None:
            return ""
        functions = self._linked(prog)
        if program.multi:
            return SEVERAL if self._are_of_two_btfs(functions) else ""
        return SEVERAL if program.calls or len(functions) > 1 else ""

    def _is_freed_under(self, name: str) -> bool:
        """Whether a task is in an image that does not call the original, and which may have been exchanged."""
        task = self.tasks.tasks.get(name)
        if task is None or "DEFECT-44" in self.asked or "image" not in task.points or "enter" in task.points:
            return False
        links = self._inventory.links.values()
        return {f"before:{link.prog}" for link in links if task.function in link.functions} != {
            point for point in task.points if point.startswith("before:")
        }

    def _attach(self, operation: op.BpfRawTracepointOpen | op.BpfLinkCreate) -> str:
        program = self._inventory.programs.get(operation.prog)
        stood_in = any(task.program == operation.prog for task in self.tasks.tasks.values())
        if not stood_in or program is None or program.target is not None:
            return ""
        if not program.multi or isinstance(operation, op.BpfRawTracepointOpen):
            return "" if program.multi else SEVERAL
        named = (self._inventory.expand(operation.prog, text) or (text,) for text, _ in operation.targets)
        return SEVERAL if self._are_of_two_btfs(self._linked(operation.prog).union(*named)) else ""

    def _linked(self, prog: str) -> set[str]:
        return {name for link in self._inventory.links.values() if link.prog == prog for name in link.functions}

    def _are_of_two_btfs(self, functions: set[str]) -> bool:
        """A multi program is loaded once for the kernel's own functions, and once for those of our module."""
        return len({name in self.directory.station.own for name in functions}) > 1

    def _detach(self, operation: op.BpfLinkDetach) -> str:
        link = self._inventory.links.get(operation.link)
        if link is None or "DEFECT-17" in self.asked or self._inventory.semantics.programs_wait_for_tasks:
            return ""
        program = self._inventory.programs[link.prog]
        if program.multi or program.target is not None:
            return ""
        (function,) = link.functions
        stay = any(function in other.functions for other in self._inventory.links.values() if other is not link)
        heading = (task for task in self.tasks.tasks.values() if self._reaches(task, function, link.prog))
        return FREED if any(stay or task.asleep for task in heading) else ""

    def _reaches(self, task: StandingTask, function: str, prog: str) -> bool:
        """Whether a task that is in the function's image may come to the program, once its image was put."""
        calls = task.points.get(f"before:{prog}", ())
        least = task.place + (task.program == prog)
        if task.function != function or not any(place >= least for place in calls):
            return False
        behind = min(task.points.get("after-body", (0,)))
        skipped = self._inventory.programs[prog].kind == "fexit" and task.place <= behind
        return not skipped or any(self._answers(name) for name in self._ahead(task))

    @staticmethod
    def _ahead(task: StandingTask) -> Iterator[str]:
        for point, places in task.points.items():
            kind, _, prog = point.partition(":")
            if kind == "before" and max(places) >= task.place:
                yield prog

    def _answers(self, prog: str) -> bool:
        """Whether a program keeps the body from running, and so leads past the jump that skips fexit programs."""
        program = self._inventory.programs.get(prog)
        return program is not None and program.kind == "fmod_ret" and (program.returns or 0) % MODULUS > 0
