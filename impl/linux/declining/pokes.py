"""A kernel does not stop in some operations, or take others at a stop, while it patches text: the reasons."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import chain, pairwise

from impl.linux.directory import NOWHERE, Directory
from impl.linux.laboratory.build import CORE
from impl.linux.run import RunState
from impl.linux.tasks import TaskThreads
from spec import operations as op
from spec.costs import POKE_BATCH
from spec.names import names_of
from spec.operations import Operation

__all__ = ["UNSEEN", "PokeDecliner"]

UNSEEN = "shows no site at a stop: readers wait for locks of the operation, and text is between two instructions"

UNSTOPPED = "is not known to synchronise where it patches text: it does so in a function of another kind"

OWN_BATCHES = "patches sites in more batches where they do not follow one another in memory as in the world"

LEADS_BACK = "has programs freed that a task comes to by an old image while they are detached (DEFECT-17)"


@dataclass(frozen=True, slots=True)
class PokeDecliner:
    """asked: names of defects that a kernel is asked to show all the same."""

    directory: Directory
    run: RunState
    tasks: TaskThreads
    asked: frozenset[str]

    def reason(self, operation: Operation) -> str:
        """Why the operation is declined in the present state; empty if it is not."""
        match operation:
            case op.Poke() if not self.tasks.stops.points:
                return UNSTOPPED
            case op.Poke(inner) if not self._is_in_order(self._concerned(inner)):
                return OWN_BATCHES
            case op.ObserveSite() if self.tasks.stopped:
                return UNSEEN
            case op.Step() if self._leads_back(operation):
                return LEADS_BACK
        return ""

    def _concerned(self, operation: Operation) -> Collection[str]:
        """The functions whose sites an operation may patch."""
        inventory, directory = self.run.inventory, self.directory
        if isinstance(operation, op.BpfLinkDetach):
            link = inventory.links.get(operation.link)
            return link.functions if link else ()
        if isinstance(operation, op.BpfLinkCreate) and operation.prog not in inventory.programs:
            return ()
        if isinstance(operation, op.BpfLinkCreate):
            return {function.name for function in directory.functions_of_link(inventory, operation)}
        named = {name.text for name in names_of(operation) if name.space == "function"}
        if isinstance(operation, op.BpfRawTracepointOpen):
            program = inventory.programs.get(operation.prog)
            return named | {program.target} if program and program.target else named
        record = inventory.ops.get(getattr(operation, "ops", ""))
        if record is None:
            return named
        hashes = [record.filter_hash]
        if isinstance(operation, op.FtraceSetFilter | op.FtraceSetFilterIp | op.FtraceSetFilterIps):
            hashes.append(inventory.filter_after(operation))
        # An ops without a filter covers everything.
        return named.union(*hashes) if all(hashes) else inventory.world.by_name

    def _is_in_order(self, functions: Collection[str]) -> bool:
        """Whether sites are patched in the world's order: a batch ends where one follows that is before it in memory.

        The kernel has its own records first, and then those of modules as they were loaded, which may have come into
        holes below others. Up to a batch of them the order in a module does not matter.
        """
        world, directory = self.directory.station.world, self.directory
        places: dict[str | None, list[int]] = {home: [] for home in (None, CORE, *directory.symbols.modules)}
        for function in world.functions:
            if function.name in functions and (address := directory.address(function.name)) != NOWHERE:
                places[directory.home(function)].append(address)
        large = sum(map(len, places.values())) > POKE_BATCH
        ordered = chain.from_iterable(part if large else sorted(part) for part in places.values())
        return all(before < after for before, after in pairwise(ordered))

    def _leads_back(self, operation: op.Step) -> bool:
        """Whether a task comes to an image from which a detach has yet to lead its site away."""
        inventory = self.run.inventory
        task, pending = self.tasks.tasks.get(operation.task), inventory.pending
        detaches = isinstance(pending, op.Poke) and isinstance(pending.operation, op.BpfLinkDetach)
        lasts = inventory.semantics.programs_wait_for_tasks or "DEFECT-17" in self.asked
        return detaches and task is not None and task.at == "site" and not lasts
