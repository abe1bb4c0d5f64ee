"""Tasks that stand in the middle of a call, and operations that wait for them (TASK-*)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Hashable, Mapping
from dataclasses import dataclass, replace

from model.calls import Running, Stops, TaskStruct, begin, run
from model.rules import cite
from model.state import Image, State
from spec import operations as op
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.traces import Trace

__all__ = ["Scheduler"]

DONE = "done"
BEHIND = (DONE, "return")
"""Where a task can reach no image any more."""

FREEING = ("rcu", "rcu_tasks", "rcu_tasks_trace")
Age = tuple[int, ...]
"""How many grace periods of each FREEING flavour have elapsed since images were put."""

NEW: Age = (0, 0, 0)
MOST = 2
"""Nothing waits for more grace periods of one flavour."""


@dataclass
class Parked:
    """A task. at: its point, DONE at the end. asleep: it does not spin. trace: of its call, at the end.

    ages: since images of its function were put, one of which it is in (TASK-10).
    """

    running: Running
    stops: Stops[Trace]
    at: str
    asleep: bool = False
    trace: Trace | None = None
    ages: frozenset[Age] = frozenset()

    @property
    def program(self) -> str | None:
        """The program that it is in."""
        place, _, prog = self.at.partition(":")
        return prog if place == "program" else None

    def go_on(self, to: str | None) -> None:
        """TASK-1: run to the next point of this name, or to the end."""
        self.asleep = False
        while self.trace is None:
            try:
                self.at = next(self.stops)
            except StopIteration as end:
                self.at, self.trace = DONE, end.value
            if self.at in BEHIND:
                self.ages = frozenset()
            if self.at == to:
                return

    def held(self) -> frozenset[str]:
        """TASK-8: the flavours whose grace periods it holds up."""
        found = set() if self.asleep or self.trace else {"rcu_tasks"}
        if self.program:
            sleepable = self.running.state.programs[self.program].sleepable
            found |= {"rcu_tasks_trace"} if sleepable else {"rcu", "rcu_tasks_trace"}
        return frozenset(found)

    def put(self, images: Mapping[str, Image]) -> None:
        """Images of these functions were put."""
        if self.running.image and self.at not in BEHIND and self.running.function.name in images:
            cite("TASK-10")
            self.ages |= {NEW}

    def grow(self, flavours: Collection[str]) -> None:
        """TASK-10: grace periods have elapsed, which brings what was put nearer to its end."""
        self.ages = frozenset(
            tuple(min(count + (flavour in flavours), MOST) for flavour, count in zip(FREEING, age, strict=True))
            for age in self.ages
        )

    def value(self, present: State) -> Hashable:
        """All that its rest depends on, and how it is linked to the present state."""
        running, name = self.running, self.running.function.name
        trampoline = present.trampolines.get(name)
        linked = trampoline.nodes if trampoline else ()
        nodes = running.image.nodes if running.image else ()
        stack = running.task.stack
        return (
            (name, running.words, self.at, self.asleep, self.trace, tuple(running.events)),
            (running.image, present.images.get(name) is running.image),
            tuple(any(other is node for other in linked) for node in nodes),
            (tuple(running.sessions.items()), stack.depth, tuple(stack.opened.items()), frozenset(stack.silent)),
            self.ages,
        )


@dataclass(frozen=True)
class Waiting:
    """An operation that has taken effect, and waits: for which flavours, and what it will answer.

    holders: tasks that stood when a grace period began, each with its flavour, that it has held up since. kept: the
    images that it puts when it goes on, by function.
    """

    operation: Operation
    outcome: Outcome
    flavours: frozenset[str]
    holders: frozenset[tuple[str, str]]
    kept: Mapping[str, Image]


class Scheduler:
    """The tasks that were not finished, by name, and the operation that waits for them.

    State: also the images, by function, that an operation which patches text has yet to put.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, Parked] = {}
        self._waiting: Waiting | None = None
        self._held: Mapping[str, Image] = {}

    def __bool__(self) -> bool:
        return bool(self._tasks) or self._waiting is not None

    def begin(self, state: State, operation: op.Task) -> Outcome:
        """TASK-1: a task that stands at the site of a function, which is there."""
        cite("TASK-1")
        function = state.loaded(operation.function)
        assert function is not None
        running = begin(TaskStruct(), state, None, function, operation.arguments, stops=True)
        stops = run(running)
        self._tasks[operation.task] = Parked(running, stops, next(stops))
        return Ok()

    def step(self, state: State, operation: op.Step) -> str:
        """TASK-1, TASK-2: the point that the task then stands at."""
        cite("TASK-2")
        parked = self._tasks[operation.task]
        self._go_on(state, operation.task, operation.to)
        parked.asleep = operation.how == "sleep" and self._may_sleep(parked)
        self._settle()
        return parked.at

    def finish(self, state: State, operation: op.Finish) -> tuple[Trace, Counter[str]]:
        """TASK-1: the trace of a task's call, which it runs to its end, and how often each program was missed in it."""
        cite("TASK-3")
        self._go_on(state, operation.task, None)
        parked = self._tasks.pop(operation.task)
        assert parked.trace is not None
        self._settle()
        return parked.trace, parked.running.task.missed

    def hold(self, images: Mapping[str, Image]) -> None:
        """POKE-2: the images before an operation that stops while it patches text stay until it is over."""
        self._held = images

    def judge(self, before: State, after: State, operation: Operation, outcome: Outcome) -> Outcome:
        """TASK-7: what an operation answers beside tasks."""
        past, waits = before.cost.grace_periods, after.cost.grace_periods
        flavours = frozenset(flavour for flavour in waits if waits[flavour] > past.get(flavour, 0))
        put = {name: image for name, image in before.images.items() if after.images.get(name) is not image}
        holders = frozenset(holder for holder in self._holders() if holder[0] in flavours)
        self._age(flavours - {flavour for flavour, _ in holders})
        if not holders:
            self._put(put)
            return outcome
        cite("TASK-7", "TASK-8")
        self._waiting = Waiting(operation, outcome, flavours, holders, put)
        return Pending()

    def wait(self) -> Outcome:
        """TASK-7: the outcome of the operation that waits, if nothing holds it up any more."""
        assert self._waiting is not None
        cite("TASK-7")
        if self._waiting.holders:
            return Pending()
        outcome, self._waiting = self._waiting.outcome, None
        self._settle()
        return outcome

    def elapse(self, operation: op.GracePeriod) -> Outcome:
        """TASK-9: whether a grace period may elapse."""
        cite("TASK-8", "TASK-9", "TASK-10")
        if any(flavour == operation.flavour for flavour, _ in self._holders()):
            return Errno("EBUSY")
        self._age({operation.flavour})
        return Ok()

    def busy(self, besides: str | None = None) -> frozenset[str]:
        """TASK-6: the programs that tasks, but for one, are in."""
        if not self._tasks:
            return frozenset()
        return frozenset(parked.program for name, parked in self._tasks.items() if parked.program and name != besides)

    def value(self, present: State) -> Hashable:
        """All that what comes depends on."""
        waiting = self._waiting and (self._waiting.operation, self._waiting.outcome, self._waiting.holders)
        tasks = tuple(
            (name, parked.value(present), self._kept().get(parked.running.function.name) is parked.running.image)
            for name, parked in sorted(self._tasks.items())
        )
        return tasks, waiting

    def _kept(self) -> Mapping[str, Image]:
        return self._waiting.kept if self._waiting else self._held

    def _put(self, images: Mapping[str, Image]) -> None:
        for parked in self._tasks.values():
            parked.put(images)

    def _age(self, flavours: Collection[str]) -> None:
        for parked in self._tasks.values():
            parked.grow(flavours)

    def _go_on(self, state: State, name: str, to: str | None) -> None:
        parked = self._tasks[name]
        task = parked.running.task
        parked.running.present = state
        parked.running.state = state.former.get(parked.running.function.name, state) if parked.at == "site" else state
        task.busy = self.busy(name)
        task.kept = self._kept()
        if self._waiting and parked.program:
            # The section that it has been in ends, though another may begin.
            gone = {holder for holder in self._waiting.holders if holder[1] == name and holder[0] != "rcu_tasks"}
            self._waiting = replace(self._waiting, holders=self._waiting.holders - gone)
        parked.go_on(to)

    def _may_sleep(self, parked: Parked) -> bool:
        """TASK-2: in a body, and in a sleepable program."""
        programs = parked.running.state.programs
        return parked.at == "body" or (parked.program is not None and programs[parked.program].sleepable)

    def _holders(self) -> frozenset[tuple[str, str]]:
        """Flavours whose grace periods are held up, each with the task that does it."""
        return frozenset((flavour, name) for name, parked in self._tasks.items() for flavour in parked.held())

    def _settle(self) -> None:
        """TASK-7: an operation that nothing holds up any more puts its images, before anybody awaits it."""
        if self._waiting is None:
            return
        present = self._holders()
        holders = self._waiting.holders & present
        if _waits_for_tasks(self._waiting.holders) and not _waits_for_tasks(holders):
            # rcu_tasks_postgp() begins a grace period of RCU, which waits for those who are in a section by then.
            holders |= {holder for holder in present if holder[0] == "rcu"}
        self._waiting = replace(self._waiting, holders=holders)
        if not holders:
            self._age(self._waiting.flavours)
            self._put(self._waiting.kept)
            self._waiting = replace(self._waiting, flavours=frozenset(), kept={})


def _waits_for_tasks(holders: frozenset[tuple[str, str]]) -> bool:
    return any(flavour == "rcu_tasks" for flavour, _ in holders)
