"""The System: each operation is carried out by the kernel, and then everything that can be seen is looked at."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import replace

from impl.linux.allocations import Allocations
from impl.linux.attachments import Attachments
from impl.linux.bpf import commands
from impl.linux.caller import Caller
from impl.linux.declining.decliner import Decliner
from impl.linux.declining.faults import FaultDecliner
from impl.linux.declining.graph import limits_of
from impl.linux.declining.pokes import UNSEEN, PokeDecliner
from impl.linux.declining.tasks import TaskDecliner
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.injection import Injector
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, Command, Numbers
from impl.linux.observation import Observer, Spelling, legible
from impl.linux.run import RunState
from impl.linux.station import Station
from impl.linux.tasks import TaskThreads
from spec import operations as op
from spec.alphabet import STOPPING, alphabet
from spec.capabilities import HashSetting, Linking
from spec.costs import Cost
from spec.errors import BadInputError
from spec.following import follow
from spec.inventory import Inventory
from spec.names import names_of
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.semantics import Semantics
from spec.sites import Site
from spec.standing import Stand
from spec.traces import Trace
from spec.worlds import World

__all__ = ["HalfDoneError", "Linux"]

SWITCH = "/proc/sys/kernel/ftrace_enabled"
COMMON = frozenset({"ftrace_caller", "ftrace_regs_caller"})
LACKING = {"ENOMEM"}
"""How an operation fails that cannot get memory."""

LOAD_LACKING = LACKING | {"EINVAL", "ENOTSUPP"}
"""As which BPF_PROG_LOAD may tell it, without a struct for the program, or memory for its code."""
NO_THREAD = (op.Task, op.GracePeriod, op.Await, op.PokeStep, op.BpfProgLoad)
"""What never waits for a task, or does so in threads of its own."""

CHARGING = (op.Livepatch, op.Unlivepatch, op.RegisterFtraceFunction, op.UnregisterFtraceFunction)


FIRST_TABLE = 64
"""So many entries the first table of direct calls takes; for more in one call 6.1 exchanges it again (DEFECT-33)."""


class HalfDoneError(Exception):
    """An operation failed for lack of memory, and was not undone."""


class Linux:
    """A run in a kernel, from the station's snapshot on.

    answered: what the last operation answered in which an allocation was made to fail; None if none was.
    _spared: an operation did without the memory that it was refused. asked: known defects that the kernel is
    asked to show all the same.

    counts: of the costs only images, and runs that were missed, can be seen of a kernel whose grace periods were made
    short.
    """

    counts = frozenset({"images_alive", "missed"})

    def __init__(self, station: Station, world: World, semantics: Semantics, *, asked: Collection[str] = ()) -> None:
        station.fresh()
        self.name = station.kernel.name
        self.supports = alphabet(semantics) | STOPPING
        self._station = station
        self._run = RunState(Inventory.at_start(world, semantics))
        self._directory = Directory.of(station)
        self._injector = Injector(station.guest, station.symbols)
        self._allocations = Allocations(station.guest, station.fail_nth, self._injector)
        self._attachments = Attachments(self._directory, self._run, self._allocations)
        shown = frozenset(asked)
        self._decliner = Decliner(self._directory, self._run, semantics.failed_direct_reusable, shown)
        self._fault_decliner = FaultDecliner(self._run, self._allocations, shown)
        self._observer = Observer(self._directory, Spelling(self._tramp, self._ops, self._attachments.spelled))
        self.answered: Outcome | None = None
        self._spared = False
        self._loses_tables = semantics.growth_waits and len(world.functions) > FIRST_TABLE
        self._caller = Caller(self._directory, self._attachments, self._tramp, self._ops)
        self._tasks = TaskThreads(
            self._directory,
            self._run,
            self._attachments,
            self._allocations,
            self._caller,
            self._entry,
            self._observer.check,
            semantics.skips_detached,
        )
        self._task_decliner = TaskDecliner(self._directory, self._run, self._tasks, shown)
        self._poke_decliner = PokeDecliner(self._directory, self._run, self._tasks, shown)

    @property
    def fails_nth(self) -> bool:
        """Whether the kernel has /proc/self/fail-nth."""
        return self._station.fail_nth is not None

    def declines(self, operation: Operation) -> str:
        """Why the kernel is not asked to do this now."""
        decliners = self._poke_decliner, self._task_decliner, self._decliner, self._fault_decliner
        return next(filter(None, (each.reason(operation) for each in decliners)), "")

    def apply(self, operation: Operation) -> Outcome:
        """Have one operation carried out, and look.

        One that an allocation of it made fail has changed nothing, and is carried out again (FAIL-4).
        """
        before = self._observer.sites
        outcome = self._try_out(operation)
        if not isinstance(operation, op.Fail):
            self._allocations.disarm()
        if self._allocations.failed:
            self._allocations.failed, self.answered = False, outcome
            if isinstance(outcome, Errno) and not outcome.warn and outcome.name in _lacking(operation):
                _require_same(before, self._observer.sites)
                return self._try_out(operation)
            self._spared = self._spared or isinstance(outcome, Ok)
        return outcome

    def _try_out(self, operation: Operation) -> Outcome:
        stops = isinstance(operation, op.Poke)
        inner = operation.operation if isinstance(operation, op.Poke) else operation
        beside = stops or (bool(self._tasks.tasks) and not isinstance(operation, NO_THREAD))
        self._allocations.threads = (self._tasks.stops if stops else self._tasks.threads) if beside else None
        armed = frozenset(self._run.failing)
        with self._injector.failing(self._run.failing, operation):
            outcome = self._carry_out(inner)
        if beside:
            outcome = self._tasks.judge(outcome)
        batch = Batch()
        blind = isinstance(operation, op.GracePeriod) or self._tasks.stopped
        look = self._observer.add_warnings(batch) if blind else self._observer.add(batch, locked=self._tasks.pends)
        warned = look(self._station.guest.submit(batch))
        if warned:
            outcome = replace(outcome, warn=True)
        before = self._run.inventory
        self._run.inventory = follow(before, operation, outcome)
        done = Ok() if isinstance(outcome, Pending) else outcome
        self._run.follow_quiet(inner, done, self._station.foreign)
        self._run.follow_death(inner, done)
        self._use_up_fault(operation, outcome, before, armed - self._run.failing)
        return outcome

    def unseen(self) -> str:
        """At a stop whoever reads what ftrace shows would wait, and text is between two instructions (POKE-1)."""
        return UNSEEN if self._tasks.stopped else ""

    def _entry(self, function: str) -> int:
        """The site of a function leads to this address directly, also while it is being patched."""
        if self._tasks.stopped:
            return self._observer.entry_behind(self._tasks.stops.site(function))
        return self._observer.entry(function)

    def sites(self) -> Mapping[str, Site]:
        """As they were seen after the last operation."""
        shown = self._observer.sites
        return {name: self._with_own(name, site) for name, site in shown.items()} if self._spared else shown

    def _with_own(self, name: str, site: Site) -> Site:
        """The site as if its only ops had the trampoline for which there may have been no memory (FAIL-4)."""
        if site.count != 1 or site.target not in COMMON:
            return site
        inventory = self._run.inventory
        ops = (f"ops:{each}" for each, record in inventory.ops.items() if record.enabled and record.covers(name))
        if self._has_fprobe(name):
            return replace(site, target="ops:fprobe")
        return replace(site, target=next(ops, "ops:klp_ops" if name in inventory.livepatches else "ops:graph_ops"))

    def _has_fprobe(self, name: str) -> bool:
        """Whether an ops of fprobes covers the function; those at returns may be a user of the graph tracer."""
        inventory = self._run.inventory
        shared = inventory.semantics.fprobes_shared
        links = (link for link in inventory.kprobes.values() if name in link.functions)
        return any(not shared or inventory.programs[link.prog].kind == "kprobe" for link in links)

    def console(self) -> str:
        """What the kernel printed in the last operation."""
        return self._observer.warning

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""
        trace = self._caller.call(function, arguments)
        self._observer.check()
        return trace

    def step(self, operation: op.Step) -> str:
        """Let a task run to a point."""
        at = self._tasks.step(operation)
        self._observer.check()
        return at

    def stands(self, function: str) -> tuple[Stand, ...]:
        """Every instruction of the image that a function's site leads to."""
        return self._tasks.stands(function)

    def stand_at(self, offset: int) -> None:
        """The next step of a task stops at this offset of its image, in the place of the point that it names."""
        self._tasks.displaced = offset

    def finish(self, operation: op.Finish) -> Trace:
        """Let a task run to its end."""
        trace = self._tasks.finish(operation)
        self._run.inventory = follow(self._run.inventory, operation, Ok())
        self._observer.check()
        return trace

    def cost(self) -> Cost:
        """Images are the direct entries that are trampolines of BPF; while ftrace is off no site shows them."""
        entries = (site.entry or "" for site in self._observer.sites.values())
        shown = sum(entry.startswith("trampoline:") for entry in entries)
        alive = self._observer.count_images() if self._run.inventory.off else shown
        return Cost(images_alive=alive, missed=dict(self._caller.missed))

    def originals(self) -> Mapping[str, str]:
        """How the images that sites show reach the original (IMAGE-3).

        One that found no memory to be made anew goes on taking it from the stack, which is the same place (FAIL-4).
        """
        ways = self._observer.originals()
        shared = self._run.inventory.ipmodify_users()
        return {name: way if name in shared else "address" for name, way in ways.items()} if self._spared else ways

    def link_info(self, operation: Linking) -> str:
        """Describe the link that an operation has just made, as the link itself does (LINK-18)."""
        return self._attachments.info(operation.link)

    def hash_file(self, operation: HashSetting) -> str:
        """Read the file that an operation has just written; functions that are not in the world are left out."""
        with legible():
            symbols, lines = self._station.graph.read_hash(operation.user, operation.verb)
        known = {(function.symbol, self._directory.home(function)) for function in self._station.world.functions}
        return " ".join([*sorted(symbol for symbol, home in symbols if (symbol, home) in known), *sorted(lines)])

    def left_over(self) -> str:
        """What is left in the kernel's memory, once what undoing leaves is given back, too: programs, ops, filters."""
        self._attachments.give_back()
        self._station.graph.give_back()
        for name in self._run.inventory.ops:
            self._control(op.FtraceFreeFilter(name))
        return self._station.left_over(loses_tables=self._loses_tables)

    def close(self) -> None:
        """Look what the kernel has said since; the next run goes back to the snapshot, nothing need be undone."""
        self._observer.check()

    def _carry_out(self, operation: Operation) -> Outcome:
        match operation:
            case op.Fail():
                self._arm(operation)
                return Ok()
            case op.BpfProgLoad() | op.BpfRawTracepointOpen() | op.BpfLinkCreate() | op.BpfLinkDetach():
                return self._attachments.apply(operation)
            case op.Task() | op.GracePeriod() | op.Await() | op.PokeStep():
                return self._tasks.apply(operation)
            case op.RegisterFtraceGraph() | op.UnregisterFtraceGraph():
                return self._graph_user(operation)
            case op.SetFtraceFilter() | op.SetFtraceNotrace() | op.SetGraphFunction() | op.SetGraphNotrace():
                act = self._allocations.submit
                return _outcome(self._station.graph.set_hash(operation.user, operation.verb, operation.glob, act))
            case op.InitModule() | op.DeleteModule():
                return self._module(operation)
            case op.FtraceEnabled():
                return self._switch(operation)
        return self._answer_for_klp(operation) or self._control(operation)

    def _graph_user(self, operation: op.RegisterFtraceGraph | op.UnregisterFtraceGraph) -> Outcome:
        graph, act = self._station.graph, self._allocations.submit
        if isinstance(operation, op.UnregisterFtraceGraph):
            return _outcome(graph.unregister(operation.user, act))
        patterns = [operation.filter] if operation.filter else []
        beside = () if patterns else self._directory.beside_the_world(self._run.inventory.modules)
        return _outcome(graph.register(operation.user, patterns, limits_of(operation), act, beside=beside))

    def _arm(self, operation: op.Fail) -> None:
        """The point fails next, or a fault that was armed is taken back."""
        if operation.point == "nth":
            self._allocations.armed = operation.count
        elif operation.point == "hash":
            self._allocations.hashes = True
        elif operation.point == "jit_charge":
            self._run.charge_fails = operation.count == 1
        elif operation.count == 1:
            self._run.failing.add(operation.point)
        else:
            self._run.failing.discard(operation.point)

    def _answer_for_klp(self, operation: Operation) -> Outcome | None:
        """The host stands for klp_patch_func() and klp_unpatch_func(): it knows what is patched."""
        patched = self._run.inventory.livepatches
        if isinstance(operation, op.Livepatch) and operation.function in patched:
            return Errno("EBUSY", harness="IPMODIFY-7")
        if isinstance(operation, op.Unlivepatch) and operation.function not in patched:
            return Errno("EINVAL", harness="IPMODIFY-8")
        return None

    def _control(self, operation: Operation) -> Outcome:
        """A command of our module."""
        self._give_numbers(operation)
        inventory = self._run.inventory
        slots = {name: record.slot for name, record in inventory.ops.items()}
        if isinstance(operation, op.FtraceOps):
            slots[operation.ops] = inventory.declared
        command = control.encode(operation, Numbers(slots, self._run.stubs, self._directory.address))
        written, replies = self._allocations.submit(lambda batch: self._add_charged(batch, operation, command))
        return _outcome(replies[written].value)

    def _add_charged(self, batch: Batch, operation: Operation, command: bytes) -> int:
        """Add a command, which is refused the memory of an image if `fail jit_charge` is armed (IPMODIFY-2, -4)."""

        def add(batch: Batch) -> int:
            return batch.write_file(CONTROL, command)

        if not (self._run.charge_fails and isinstance(operation, CHARGING)):
            return add(batch)
        return commands.without_jit_charge(batch, add, self._station.jit_limit)

    def _module(self, operation: op.InitModule | op.DeleteModule) -> Outcome:
        """init_module and delete_module of one of the world's modules."""
        name, images = operation.module, self._station.modules.others
        if name not in images and isinstance(operation, op.InitModule):
            return Errno("ENOENT", harness="MODULE-1")

        def add(batch: Batch) -> int:
            if isinstance(operation, op.DeleteModule):
                return control.delete_module(batch, name)
            return control.init_module(batch, images[name])

        index, replies = self._allocations.submit(add)
        outcome = _outcome(replies[index].value)
        if isinstance(outcome, Ok) and isinstance(operation, op.DeleteModule):
            self._hold(*self._directory.forget(name))
        elif isinstance(outcome, Ok):
            self._directory.find(name)
        return outcome

    def _switch(self, operation: op.FtraceEnabled) -> Outcome:
        written, replies = self._allocations.submit(lambda batch: batch.write_file(SWITCH, operation.switch.encode()))
        return _outcome(replies[written].value)

    def _hold(self, first: int, behind: int) -> None:
        batch = Batch()
        written = batch.write_file(CONTROL, control.pack(Command.HOLD, first, behind))
        refused = self._station.guest.submit(batch)[written].value
        if refused < 0:
            raise BadInputError(f"the memory of a module cannot be held: {errno_name(refused)}")

    def _use_up_fault(self, operation: Operation, outcome: Outcome, before: Inventory, failed: Collection[str]) -> None:
        """A fault is used up when a charge was refused; failed: the other points that failed.

        That shows in an operation that fails, in a detach that warns for no other reason, and where an IPMODIFY user
        went from a function whose image stayed as it was made for both.
        """
        used = isinstance(outcome, Errno) and outcome.name == "EPERM"
        used |= isinstance(operation, op.BpfLinkDetach) and outcome.warn and not failed
        unpatched = before.ipmodify_users() - self._run.inventory.ipmodify_users()
        used |= any(map(self._observer.shares, unpatched))
        self._run.charge_fails = self._run.charge_fails and not used

    def _give_numbers(self, operation: Operation) -> None:
        for name in names_of(operation, "names"):
            if name.space == "tramp":
                self._run.stubs.setdefault(name.text, len(self._run.stubs))

    def _tramp(self, stub: int) -> str:
        return next((name for name, number in self._run.stubs.items() if number == stub), f"stub{stub}")

    def _ops(self, slot: int) -> str:
        records = self._run.inventory.ops.items()
        return next((name for name, record in records if record.slot == slot), f"slot{slot}")


def _lacking(operation: Operation) -> Collection[str]:
    """The errors by which an operation may say that it could not get memory (FAIL-4)."""
    return LOAD_LACKING if isinstance(operation, op.BpfProgLoad) else LACKING


def _require_same(before: Mapping[str, Site], after: Mapping[str, Site]) -> None:
    """HalfDoneError names each site that an operation left in another state, though it failed for lack of memory."""
    names = sorted(name for name in {*before, *after} if before.get(name) != after.get(name))
    if names:
        told = "; ".join(f"{name} {before.get(name, 'nop')}, then {after.get(name, 'nop')}" for name in names)
        raise HalfDoneError(f"failed for lack of memory, and yet changed: {told}")


def _outcome(value: int) -> Outcome:
    return Errno(errno_name(value)) if value < 0 else Ok()
