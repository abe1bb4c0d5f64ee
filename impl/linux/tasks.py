"""Tasks that stand in the middle of a call (TASK-*): threads of the agent, which our module stops at points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from impl.linux.allocations import Allocations
from impl.linux.attachments import Attachments
from impl.linux.caller import Caller
from impl.linux.directory import NOWHERE, PATCHED, Directory
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, PARKED, Command
from impl.linux.laboratory.tuning import let_tasks_stand
from impl.linux.probes.points import Points, image_points
from impl.linux.probes.stands import image_stands
from impl.linux.run import RunState
from impl.linux.stops import Stops
from impl.linux.threads import PROMISED, AgentThread, Threads, add_look, read_parks
from impl.linux.timeline import Mark, fold
from spec import operations as op
from spec.errors import BadInputError
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.standing import Stand
from spec.traces import Trace

__all__ = ["TaskThreads"]

DONE: Final = "done"
BEHIND: Final = (DONE, "return")
END: Final = 1 << 64
IMAGE_BYTES: Final = 4096
STANDS: Final = 45_000
"""Milliseconds in which a task comes to its point, or to its end, and its thread can be joined.

The guest's clock goes on while the machine has other work, so that nothing is told by them but that it never comes.
"""


@dataclass(slots=True)
class StandingTask:
    """A task. slot: its number in the module and among the threads. at: its point. points: of the call that it is in.

    marks: what was recorded of its call so far. missed: how often each program was in it, which counts when it is over.
    """

    function: str
    slot: int
    points: dict[str, tuple[int, ...]]
    at: str = "site"
    asleep: bool = False
    marks: list[Mark] = field(default_factory=list)
    missed: Counter[str] = field(default_factory=Counter)

    @property
    def place(self) -> int:
        """Where it is in the image that it goes through; behind it, once it has left, and 0 before it or without one.

        It is then at the point itself, or at the call that has led it from the image to where it stands.
        """
        if self.at in BEHIND or "image" not in self.points:
            return END
        if self.at == "body":
            # An image of fentry programs alone has been left for it.
            return min(self.points.get("after-body", (END,)))
        return min(self.points.get(self.at.replace("program:", "before:"), (0,)))

    @property
    def program(self) -> str | None:
        """The program that it is in."""
        place, _, prog = self.at.partition(":")
        return prog if place == "program" else None


@dataclass(slots=True)
class TaskThreads:
    """The tasks of a run by name, and the operation that waits for one: its thread, and what it is.

    entry: the address of the image that a function's site shows, or of what it has in its place; 0 for none.
    check: raises what the kernel complains of. skips: it passes over programs that were detached. displaced: at which
    offset of its image the next step stops, in the place of its point.
    """

    directory: Directory
    run: RunState
    attachments: Attachments
    allocations: Allocations
    caller: Caller
    entry: Callable[[str], int]
    check: Callable[[], None]
    skips: bool
    tasks: dict[str, StandingTask] = field(default_factory=dict)
    threads: Threads = field(init=False)
    stops: Stops = field(init=False)
    displaced: int | None = None
    _pending: AgentThread | None = None
    _answer: int | None = None
    _prepared: bool = False

    def __post_init__(self) -> None:
        self.threads = Threads(self.directory.station.guest, self._traces)
        self.stops = Stops(self.directory, self.threads)

    @property
    def pends(self) -> bool:
        """Whether an operation is held up, so that it has ftrace's locks."""
        return self._pending is not None and self._answer is None

    @property
    def stopped(self) -> bool:
        """Whether an operation stands between two writes to text, so that it has the locks of these, too."""
        return self._pending is not None and self._pending.stopped

    def apply(self, operation: op.Task | op.GracePeriod | op.Await | op.PokeStep) -> Outcome:
        """Carry out an operation on tasks."""
        match operation:
            case op.Task():
                return self.begin(operation)
            case op.GracePeriod():
                return self.elapse(operation)
            case op.PokeStep():
                return self.wait(self.stops.go_on)
            case op.Await():
                return self.wait(self.stops.end)

    def begin(self, operation: op.Task) -> Outcome:
        """A task that stands at the site of a function, which is there."""
        self._prepare()
        address = self.directory.address(operation.function)
        site, behind = self._find_site(address)
        slot = next(slot for slot in range(len(self.tasks) + 1) if slot not in self._slots())
        prototype = self.directory.prototype(operation.function)
        command = control.call(address, prototype, operation.arguments, slot)
        batch = Batch()
        armed = batch.write_file(CONTROL, control.pack(Command.PARK_BEGIN, slot, site))
        called = batch.write_file(CONTROL, command)
        batch.in_thread(called, slot, idle=True)
        stood = batch.write_file(CONTROL, control.pack(Command.PARK_WAIT, slot, STANDS))
        parks = add_look(batch)
        replies = self._submit(batch)
        self._require(replies, (armed, called, stood))
        park = read_parks(replies[parks].data[0])[slot]
        if park.state != PARKED or park.at != site:
            raise BadInputError(f"a task that calls {operation.function} does not come to its site at {site:#x}")
        patched = self.directory.address(operation.function + PATCHED)
        bodies = (behind, patched) if patched > NOWHERE else (behind,)
        points: dict[str, tuple[int, ...]] = {"site": (site,), "body": bodies, "return": (self._return_address(),)}
        self.tasks[operation.task] = StandingTask(operation.function, slot, points)
        return Ok()

    def step(self, operation: op.Step) -> str:
        """Let a task run to a point, or to its end."""
        task = self.tasks[operation.task]
        self._go_on(task, operation.to or "", sleeps=operation.how == "sleep")
        self._settle()
        return task.at

    def finish(self, operation: op.Finish) -> Trace:
        """Let a task run to its end."""
        task = self.tasks[operation.task]
        self._go_on(task, "", sleeps=False)
        self.caller.missed += task.missed
        del self.tasks[operation.task]
        self._settle()
        if not self.tasks:
            self.attachments.release_late()
        return fold(task.marks, task.function)

    def stands(self, function: str) -> tuple[Stand, ...]:
        """Every instruction of the image that the site of a function leads to now."""
        address, code = self._read_image(function)
        if not code:
            return ()
        station = self.directory.station
        architecture, program_at = station.kernel.architecture, self.attachments.program_at
        return image_stands(architecture, address, code, station.helpers, program_at)

    def elapse(self, operation: op.GracePeriod) -> Outcome:
        """Wait for a grace period, unless a task holds it up."""
        self.threads.reap()
        batch = Batch()
        flavour = op.FLAVOURS.index(operation.flavour)
        waits = batch.write_file(CONTROL, control.pack(Command.GRACE_PERIOD, flavour))
        thread = self.threads.start(batch, waits)
        value = self.threads.wait(thread)
        if value is not None:
            return _outcome(value)
        self.threads.late.append(thread)
        return Errno("EBUSY")

    def judge(self, outcome: Outcome) -> Outcome:
        """What an operation answers that was carried out beside tasks."""
        self._pending, self.allocations.held = self.allocations.held, None
        self._answer = None
        return Pending() if self._pending else outcome

    def wait(self, leads: Callable[[AgentThread], int | None]) -> Outcome:
        """Answer for the operation that was held up; Pending if it still is.

        leads: lets one go on that has stopped.
        """
        if self._pending is not None and self._pending.stopped:
            self._answer = leads(self._pending)
        else:
            self._settle()
        if self._answer is None:
            return Pending()
        value, self._pending, self._answer = self._answer, None, None
        self.attachments.keep_promise(PROMISED, value)
        return _outcome(value)

    def _go_on(self, task: StandingTask, to: str, *, sleeps: bool) -> None:
        if task.at == DONE:
            return
        if task.at == "site":
            task.points |= self._find_points(task.function)
        addresses = task.points.get(to, ()) if to != "site" else ()
        may_sleep = to == "body" or (to.startswith("program:") and self._is_sleepable(to.partition(":")[2]))
        if self.displaced is not None:
            addresses = (task.points["image"][0] + self.displaced,)
            self.displaced = None
        task.asleep = sleeps and may_sleep and bool(addresses)
        batch = Batch()
        self.caller.add_start(batch)
        words = (task.slot, STANDS, task.asleep, *addresses)
        stepped = batch.write_file(CONTROL, control.pack(Command.PARK_STEP, *words))
        read = self.caller.add_reads(batch, task.function)
        looked = add_look(batch)
        replies = self._submit(batch)
        self._require(replies, (stepped,))
        before = self.caller.missed.copy()
        task.marks += read(replies)
        task.missed += self.caller.missed - before
        self.caller.missed = before
        parks = read_parks(replies[looked].data[0])
        stands = parks[task.slot].state == PARKED
        if stands and parks[task.slot].at not in addresses:
            raise BadInputError(f"a task stands at {parks[task.slot].at:#x} and not at {to}")
        task.at = to if stands else DONE
        task.asleep = task.asleep and stands
        if not stands:
            self._join(task.slot)

    def _join(self, slot: int) -> None:
        batch = Batch()
        joined = batch.join(slot, STANDS)
        self._require(self._submit(batch), (joined,))

    def _find_points(self, function: str) -> Points:
        """The points of the image that the site of a function leads to now."""
        address, code = self._read_image(function)
        if not code:
            return {}
        station = self.directory.station
        return image_points(
            station.kernel.architecture,
            address,
            code,
            station.helpers,
            self.attachments.program_at,
            skips=self.skips,
        )

    def _read_image(self, function: str) -> tuple[int, bytes]:
        """The address of the image that the site of a function leads to, and its code; no bytes if there is none."""
        address = self.entry(function)
        if not address or self.directory.stub(address) is not None:
            return 0, b""
        (code,) = self.directory.station.guest.read_memory([(address, IMAGE_BYTES)])
        return address, code

    def _find_site(self, address: int) -> tuple[int, int]:
        """The first byte that ftrace patches, and the first one behind."""
        station = self.directory.station
        architecture = station.kernel.architecture
        (code,) = station.guest.read_memory([(address, architecture.site_bytes)])
        site = architecture.decode_site(address, code).address
        return site, site + architecture.site_bytes - architecture.site_offset

    def _return_address(self) -> int:
        """Where our module's call of a function returns to."""
        (address,) = self.directory.symbols.addresses("massattach_returned", "massattach")
        return address

    def _settle(self) -> None:
        """An operation that no task holds up any more goes on to its end, before anything else happens."""
        if self._pending is not None and self._answer is None and not self._pending.stopped:
            self._answer = self.threads.wait(self._pending)

    def _prepare(self) -> None:
        """Let tasks stand for long; once in a run."""
        if not self._prepared:
            let_tasks_stand(self.directory.station.guest)
            self._prepared = self.run.interleaved = True

    def _traces(self) -> bool:
        return any(task.program and self._is_sleepable(task.program) for task in self.tasks.values())

    def _is_sleepable(self, prog: str) -> bool:
        program = self.run.inventory.programs.get(prog)
        return program is not None and program.sleepable

    def _slots(self) -> set[int]:
        return {task.slot for task in self.tasks.values()}

    def _require(self, replies: Sequence[Reply], entries: Sequence[int]) -> None:
        """A task that does not come to its point may have met its end, of which the kernel then tells."""
        for value in (replies[entry].value for entry in entries):
            if value < 0:
                self.check()
                raise BadInputError(f"a task cannot be led to a point: {errno_name(value)}")

    def _submit(self, batch: Batch) -> tuple[Reply, ...]:
        return self.directory.station.guest.submit(batch)


def _outcome(value: int) -> Outcome:
    return Errno(errno_name(value)) if value < 0 else Ok()
