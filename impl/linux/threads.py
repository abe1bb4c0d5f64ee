"""System calls in threads of the agent, since what they wait for may be held up by a task that stands (TASK-7).

Whether one is held up is told by where its thread waits, and by what RCU knows of the tasks.
"""

from __future__ import annotations

import errno
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, PARKED, Command, ParkRecord
from spec.errors import BadInputError

__all__ = ["PROMISED", "STOPPER", "Threads"]

PROMISED: Final = (1 << 31) - 1
"""Stands for what a thread will have answered that is held up: a success, and perhaps a descriptor."""

STOPPER: Final = 3
"""The slot of our module for the thread that stops while it patches text (POKE-1); those below are of tasks."""

FIRST: Final = 8
"""Threads with lower numbers are tasks."""

LAST: Final = 63
LOOK: Final = 5
"""Milliseconds in which a thread may be done before it is looked for."""

SOON: Final = 1
"""The same for one that stops many times."""

LOOKS: Final = 2
"""So many times in turn it must be seen to be held up."""

PATIENCE: Final = 60.0
STACK: Final = "/proc/1/task/{}/stack"
WAITED: Final = re.compile(r"\b_*synchronize_(rcu_tasks_trace|rcu_tasks_rude|rcu_tasks|srcu|rcu)")
"""The function that waits for a grace period tells of which flavour; 7.3 has SRCU for tasks trace RCU."""


@dataclass(slots=True)
class AgentThread:
    """One that was started. number: by which it is joined; id: the kernel's.

    stops: it stops while it patches text; stopped: it was seen to have.
    """

    number: int
    id: int
    stops: bool = False
    stopped: bool = False


@dataclass(slots=True)
class Threads:
    """Those of a run. tracing: whether a task stands in a read section of tasks trace RCU.

    late: threads whose answer nobody waits for.
    """

    guest: Guest
    tracing: Callable[[], bool]
    late: list[AgentThread] = field(default_factory=list)
    _used: set[int] = field(default_factory=set)

    def begin(self, batch: Batch) -> None:
        """Nothing is to be done before an operation that does not stop."""

    def start(self, batch: Batch, index: int) -> AgentThread:
        """Have a batch carried out whose entry is for a thread."""
        number = next(number for number in range(FIRST, LAST + 1) if number not in self._used)
        batch.in_thread(index, number)
        started = self.guest.submit(batch)[index].value
        if started < 0:
            raise BadInputError(f"the guest starts no thread: {errno_name(started)}")
        self._used.add(number)
        return AgentThread(number, started)

    def wait(self, thread: AgentThread) -> int | None:
        """What a thread answers; None if a task holds it up, or it has stopped."""
        looks, deadline = 0, time.monotonic() + PATIENCE
        while looks < LOOKS:
            value, held = self._look(thread)
            if thread.stopped:
                return None
            if value != -errno.EINPROGRESS:
                self._used.discard(thread.number)
                return value
            looks = looks + 1 if held else 0
            if time.monotonic() > deadline:
                raise BadInputError(f"an operation does not end, though no task holds it up, within {PATIENCE:g} s")
        return None

    def reap(self) -> None:
        """Forget late threads that are done."""
        self.late = [thread for thread in self.late if self._look(thread)[0] == -errno.EINPROGRESS]

    def _look(self, thread: AgentThread) -> tuple[int, bool]:
        """What a thread answered, and whether a task holds it up if it has not."""
        batch = Batch()
        joined = batch.join(thread.number, SOON if thread.stops else LOOK)
        stack = batch.read_file(STACK.format(thread.id))
        parks = add_look(batch)
        replies = self.guest.submit(batch)
        value, standing = replies[joined].value, read_parks(replies[parks].data[0])
        thread.stopped = value == -errno.EINPROGRESS and thread.stops and standing[STOPPER].state == PARKED
        if value != -errno.EINPROGRESS:
            return value, False
        waits = replies[stack].data[0].decode(errors="replace")
        waited = WAITED.search(waits)
        return value, waited is not None and self._holds(waited[1], standing)

    def _holds(self, flavour: str, parks: Sequence[ParkRecord]) -> bool:
        """Whether a task holds up grace periods of a flavour; those of tasks and tasks trace RCU wait for RCU, too."""
        standing = [park for park in parks if park.state == PARKED]
        match flavour:
            case "rcu_tasks_rude":
                return False
            case "rcu_tasks":
                return any(park.holdout or park.depth for park in standing)
            case "rcu":
                return any(park.depth for park in standing)
        return self.tracing() or any(park.depth for park in standing)


def add_look(batch: Batch) -> int:
    """Ask where all tasks are; the entry whose data read_parks() takes."""
    batch.write_file(CONTROL, control.pack(Command.CLEAR))
    batch.write_file(CONTROL, control.pack(Command.PARK_LOOK))
    return batch.read_file(CONTROL)


def read_parks(log: bytes) -> list[ParkRecord]:
    """The tasks that were asked for."""
    return [record for record in control.decode(log).records if isinstance(record, ParkRecord)]
