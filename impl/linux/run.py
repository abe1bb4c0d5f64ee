"""What a run remembers: a running kernel has no names for ops, programs and links, and crashes on some misuses."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field

from spec import operations as op
from spec.globs import matcher, without_bang
from spec.inventory import Inventory
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome

__all__ = ["RunState"]


@dataclass(slots=True)
class RunState:
    """State of one run.

    inventory: what exists by the kernel's answers; nothing that can be observed is answered from it. charge_fails: the
    next charge for an image's memory will be refused. failing: the other points that will fail when the kernel comes by
    them. quiet: ops whose notrace hash holds every function that the kernel has beside the world's. stubs: the numbers
    of direct trampolines, by name. interleaved: there was a task. half_started: ftrace died as a program was attached.
    """

    inventory: Inventory
    charge_fails: bool = False
    failing: set[str] = field(default_factory=set)
    quiet: set[str] = field(default_factory=set)
    stubs: dict[str, int] = field(default_factory=dict)
    interleaved: bool = False
    half_started: bool = False

    def follow_death(self, operation: Operation, outcome: Outcome) -> None:
        """Note what ftrace died of in an operation, if it did."""
        died = isinstance(outcome, Errno) and outcome.warn and outcome.name == "ENODEV"
        self.half_started |= died and isinstance(operation, op.BpfRawTracepointOpen | op.BpfLinkCreate)

    def follow_quiet(self, operation: Operation, outcome: Outcome, foreign: Collection[str]) -> None:
        """Note which ops are quiet after an operation. foreign: the symbols of the kernel's other records."""
        match operation, outcome:
            case op.FtraceOps(name), Ok():
                self.quiet.discard(name)
            case op.FtraceSetNotrace(name), Ok():
                pattern, removes = without_bang(operation.glob)
                selects = matcher(pattern)
                if removes and any(map(selects, foreign)):
                    self.quiet.discard(name)
                elif not removes and all(map(selects, foreign)):
                    self.quiet.add(name)
                elif operation.reset:
                    self.quiet.discard(name)
