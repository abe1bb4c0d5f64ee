"""The System: each operation is carried out by the kernel, and then everything that can be seen is looked at."""

from __future__ import annotations

from collections.abc import Mapping

from impl.linux.attachments import Attachments
from impl.linux.bpf import commands as links
from impl.linux.caller import Caller
from impl.linux.declining import Decliner, limits_of
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, Command, Numbers
from impl.linux.ledger import Ledger
from impl.linux.observation import Observer, Spelling
from impl.linux.rails import refusal
from impl.linux.station import Station
from spec import operations as op
from spec.alphabet import alphabet
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Linux"]

CHARGING = (op.Livepatch, op.Unlivepatch, op.RegisterFtraceFunction, op.UnregisterFtraceFunction)


class Linux:
    """A run in a kernel, from the station's snapshot on.

    counts: of the costs only images can be seen of a kernel whose grace periods were made short.
    """

    counts = frozenset({"images_alive"})

    def __init__(self, station: Station, world: World, semantics: Semantics) -> None:
        station.fresh()
        self.name = station.kernel.name
        self.supports = alphabet(semantics)
        self._station = station
        self._ledger = Ledger(world, set(world.modules), semantics.free_filters)
        self._directory = Directory.of(station)
        self._stubs: dict[str, int] = {}
        self._attachments = Attachments(self._directory, self._ledger)
        self._decliner = Decliner(self._directory, self._ledger, self._stubs, semantics.failed_direct_reusable)
        self._observer = Observer(self._directory, Spelling(self._tramp, self._ops, self._attachments.spelled))
        self._caller = Caller(self._directory, self._attachments, self._tramp, self._ops)

    def declines(self, operation: Operation) -> str:
        """Why the kernel is not asked to do this now."""
        return self._decliner.reason(operation)

    def apply(self, operation: Operation) -> Outcome:
        """Have one operation carried out, and look."""
        refused = refusal(operation, self._ledger)
        outcome = refused or self._carried_out(operation)
        batch = Batch()
        observed = self._observer.add(batch)
        warned = observed(self._station.guest.submit(batch))
        patched = self._ledger.patched()
        self._ledger.follow(operation, outcome)
        self._note(operation, outcome, patched, warned=warned)
        if not warned:
            return outcome
        return Errno(outcome.name, warn=True) if isinstance(outcome, Errno) else Ok(warn=True)

    def sites(self) -> Mapping[str, Site]:
        """As they were seen after the last operation."""
        return self._observer.sites

    def console(self) -> str:
        """What the kernel printed in the last operation."""
        return self._observer.warning

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""
        trace = self._caller.call(function, arguments)
        self._observer.check()
        return trace

    def cost(self) -> Cost:
        """Images are the direct entries that are trampolines of BPF."""
        entries = (site.entry or "" for site in self._observer.sites.values())
        return Cost(images_alive=sum(entry.startswith("trampoline:") for entry in entries))

    def close(self) -> None:
        """The next run goes back to the snapshot; nothing need be undone."""

    def _carried_out(self, operation: Operation) -> Outcome:
        match operation:
            case op.Fail():
                self._ledger.armed = operation.count == 1
                return Ok()
            case op.BpfProgLoad():
                return self._attachments.load(operation)
            case op.BpfRawTracepointOpen():
                return self._attachments.open(operation)
            case op.BpfLinkCreate():
                return self._attachments.create(operation)
            case op.BpfLinkDetach():
                return self._attachments.detach(operation)
            case op.RegisterFtraceGraph():
                patterns = [operation.filter] if operation.filter else []
                return _outcome(self._station.graph.register(operation.user, patterns, limits_of(operation)))
            case op.UnregisterFtraceGraph():
                return _outcome(self._station.graph.unregister(operation.user))
            case op.InitModule() | op.DeleteModule():
                return self._module(operation)
        return self._control(operation)

    def _control(self, operation: Operation) -> Outcome:
        """A command of our module."""
        self._give_numbers(operation)
        slots = {name: record.slot for name, record in self._ledger.ops.items()}
        if isinstance(operation, op.FtraceOps):
            slots[operation.ops] = self._ledger.slots
        command = control.encode(operation, Numbers(slots, self._stubs, self._directory.address))
        batch = Batch()
        written = self._charged(batch, operation, command)
        return _outcome(self._station.guest.submit(batch)[written].value)

    def _charged(self, batch: Batch, operation: Operation, command: bytes) -> int:
        """Add a command, which is refused the memory of an image if `fail jit_charge` is armed (IPMODIFY-2, -4)."""

        def add(batch: Batch) -> int:
            return batch.write_file(CONTROL, command)

        if not (self._ledger.armed and isinstance(operation, CHARGING)):
            return add(batch)
        return links.without_jit_charge(batch, add, self._station.jit_limit)

    def _module(self, operation: op.InitModule | op.DeleteModule) -> Outcome:
        """init_module and delete_module of one of the world's modules."""
        name = operation.module
        batch = Batch()
        if isinstance(operation, op.DeleteModule):
            index = control.delete_module(batch, name)
        elif name in self._station.modules.others:
            index = control.init_module(batch, self._station.modules.others[name])
        else:
            return Errno("ENOENT")
        outcome = _outcome(self._station.guest.submit(batch)[index].value)
        if isinstance(outcome, Ok) and isinstance(operation, op.DeleteModule):
            self._hold(*self._directory.forget(name))
        elif isinstance(outcome, Ok):
            self._directory.find(name)
        return outcome

    def _hold(self, first: int, behind: int) -> None:
        batch = Batch()
        written = batch.write_file(CONTROL, control.pack(Command.HOLD, first, behind))
        refused = self._station.guest.submit(batch)[written].value
        if refused < 0:
            raise BadInputError(f"the memory of a module cannot be held: {errno_name(refused)}")

    def _note(self, operation: Operation, outcome: Outcome, patched: set[str], *, warned: bool) -> None:
        """A fault is used up when a charge was refused.

        That shows in an operation that fails, in a detach that warns, and where an IPMODIFY user went from a function
        whose image stayed as it was made for both. patched: the functions that had IPMODIFY users before.
        """
        used = isinstance(outcome, Errno) and outcome.name == "EPERM"
        used |= isinstance(operation, op.BpfLinkDetach) and warned
        used |= any(self._observer.shares(function) for function in patched - self._ledger.patched())
        self._ledger.armed = self._ledger.armed and not used

    def _give_numbers(self, operation: Operation) -> None:
        named = [value for name in ("tramp", "old", "new") if (value := getattr(operation, name, None))]
        for tramp in (*named, *(tramp for _, tramp in getattr(operation, "entries", ()))):
            self._stubs.setdefault(tramp, len(self._stubs))

    def _tramp(self, stub: int) -> str:
        return next((name for name, number in self._stubs.items() if number == stub), f"stub{stub}")

    def _ops(self, slot: int) -> str:
        records = self._ledger.ops.items()
        return next((name for name, record in records if record.slot == slot), f"slot{slot}")


def _outcome(value: int) -> Outcome:
    return Errno(errno_name(value)) if value < 0 else Ok()
