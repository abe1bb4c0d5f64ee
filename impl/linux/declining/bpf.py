"""A real kernel is not asked for some BPF programs and links: the reasons."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from impl.linux.attachments import TRIALS
from impl.linux.declining.ftrace import HALF_STARTED
from impl.linux.declining.ipmodify import IpmodifyDecliner
from impl.linux.directory import Directory
from impl.linux.laboratory.build import CORE
from impl.linux.probes.tracefs import ALONE
from impl.linux.run import RunState
from spec import operations as op
from spec.inventory import Inventory
from spec.operations import Operation
from spec.worlds import Function

__all__ = ["BpfDecliner", "keeps_no_records"]

UNSEEN_DEATH = "says that images come and go after ftrace has died, where its direct_ops is live (DEFECT-18)"


@dataclass(frozen=True, slots=True)
class BpfDecliner:
    """retries: a second try to attach works (DEFECT-2)."""

    directory: Directory
    run: RunState
    retries: bool
    ipmodify: IpmodifyDecliner

    @property
    def handlers(self) -> dict[type[Operation], Callable[[Any], str]]:
        """Each finds why an operation of its kind is declined, or an empty text."""
        return {
            op.BpfProgLoad: self._load,
            op.BpfRawTracepointOpen: self._open,
            op.BpfLinkCreate: self._link,
            op.BpfLinkDetach: self._detach,
        }

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def _load(self, operation: op.BpfProgLoad) -> str:
        if operation.kind == "freplace":
            return "has no functions that an extension may replace"
        if operation.kind == op.LSM and TRIALS[op.LSM] not in self.directory.station.vmlinux.functions:
            return "has no hooks of LSM that programs attach to: it is built without CONFIG_BPF_LSM"
        own = operation.calls is not None and keeps_no_records(self.directory, operation.calls)
        return "calls none of the kernel's own functions: their bodies keep no records" if own else ""

    def _direct_ops_lives(self, beside: int) -> bool:
        """Whether ftrace has died with a direct_ops that stays live, with more links than these."""
        shared = self._inventory.semantics.single_direct_ops
        return self._inventory.dead and shared and len(self._inventory.links) > beside

    def _attaches_dead(self) -> str:
        """Attaching where all of BPF's functions have one ops, which is live, or was enabled when ftrace died."""
        if self.run.half_started and self._inventory.semantics.single_direct_ops:
            return HALF_STARTED
        return UNSEEN_DEATH if self._direct_ops_lives(0) else ""

    def _open(self, operation: op.BpfRawTracepointOpen) -> str:
        if reason := self._attaches_dead():
            return reason
        program = self._inventory.programs.get(operation.prog)
        target = (program.target if program else None) or operation.function or ""
        found = self.directory.station.world.find(target)
        if found and found.lookup == "no_site" and self.directory.home(found):
            return "has this function in a module, where BPF patches no text but sites of ftrace (LINK-16)"
        return (self._second_try(program.kind, target) if program else "") or self.ipmodify.ask_neighbours(
            {target}, {target}
        )

    def _second_try(self, kind: str, function: str) -> str:
        """An image that did not call the original must now share it with an IPMODIFY user (IPMODIFY-5)."""
        links = self._inventory.links.values()
        present = [self._inventory.programs[link.prog] for link in links if function in link.functions]
        changes = present and kind != "fentry" and all(one.kind == "fentry" for one in present)
        if self.retries or not changes or function not in self._inventory.ipmodify_users():
            return ""
        return "lets the second try of an attach reset an ops that is live, and ends ftrace at the next call (DEFECT-2)"

    def _link(self, operation: op.BpfLinkCreate) -> str:
        program = self._inventory.programs.get(operation.prog)
        if program is None or program.kind in op.KPROBES:
            return self._joins_unfiltered(program)
        if reason := self._attaches_dead():
            return reason
        targets = {function.name for function in self.directory.functions_of_link(self._inventory, operation)}
        if not program.multi:
            return self._second_try(program.kind, operation.targets[0][0]) or self.ipmodify.ask_neighbours(
                targets, targets
            )
        home = self.directory.home_of_link(self._inventory, operation)
        if home not in {None, CORE} and home not in self._inventory.modules:
            return "has no BTF of a module that is not loaded"
        if program.calls is not None and self._is_elsewhere(operation.prog, home):
            return "has this program once for each BTF, so that one does not meet itself in the function that it calls"
        functions = self.directory.functions_of_link(self._inventory, operation)
        if any(self._means_something(function, home) for function in functions):
            return "makes links over these two BTFs only where ids of one mean nothing in the other"
        return self.ipmodify.ask_neighbours(targets, targets)

    def _joins_unfiltered(self, program: op.BpfProgLoad | None) -> str:
        """The user of fprobes at returns, beside one that hides the rest of the kernel by its notrace hash."""
        returns = program is not None and program.kind == "kretprobe" and self._inventory.semantics.fprobes_shared
        alone = any(map(self.directory.station.graph.is_unfiltered, self._inventory.graph_users))
        return f"cannot register the user of fprobes at returns: {ALONE}" if returns and alone else ""

    def _is_elsewhere(self, prog: str, home: str | None) -> bool:
        """Whether a program is linked over another BTF than this one."""
        linked = (name for link in self._inventory.links.values() if link.prog == prog for name in link.functions)
        found = map(self.directory.station.world.find, linked)
        return any(self.directory.home(function) != home for function in found if function is not None)

    def _means_something(self, function: Function, home: str | None) -> bool:
        """Whether the kernel finds in the BTF of `home` what the world has not, by the id of a function (LINK-17).

        CORE's functions are vmlinux's in the world, and their BTF is a module's in truth.
        """
        own = self.directory.home(function)
        if own == home or (None in {own, home} and CORE not in {own, home}):
            return False
        known = self.directory.station.btfs[home].functions
        return own in {None, CORE} or self.directory.btf_id(function) in known.values()

    def _detach(self, operation: op.BpfLinkDetach) -> str:
        if operation.link in self._inventory.kprobes:
            return ""
        if self._direct_ops_lives(1):
            return UNSEEN_DEATH
        if (
            self._inventory.dead
            and not self._inventory.semantics.single_direct_ops
            and not self.keeps_a_program(operation.link)
        ):
            return "frees the ops of a trampoline that ftrace, once dead, keeps in its list (DEFECT-21)"
        link = self._inventory.links.get(operation.link)
        if self.run.charge_fails and link and len(link.functions) > 1:
            return "would refuse the charge of each of the link's functions"
        others = [other for name, other in self._inventory.links.items() if name != operation.link]
        functions = link.functions if link else frozenset[str]()
        kept = {name for name in functions if any(name in other.functions for other in others)}
        return self.ipmodify.ask_neighbours(kept, functions)

    def keeps_a_program(self, name: str) -> bool:
        """Whether the link's one function keeps another program, so that its trampoline stays (NAME-12)."""
        link = self._inventory.links.get(name)
        if link is None or len(link.functions) > 1 or self._inventory.programs[link.prog].multi:
            return link is None
        others = (other for key, other in self._inventory.links.items() if key != name)
        return any(link.functions <= other.functions for other in others)


def keeps_no_records(directory: Directory, function: str) -> bool:
    """Whether a body does something that nobody notes: one of the kernel's own that is not empty (TRACE-7)."""
    found = directory.station.world.find(function)
    return found is not None and found.name in directory.station.own and "empty" not in found.attributes
