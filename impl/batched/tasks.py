"""Tasks that stand in the middle of a call, and the operations that wait for them (TASK-*)."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from impl.batched.jit.template import Template
from impl.batched.lifetimes import Lifetimes
from impl.batched.machine import addresses as at
from impl.batched.machine.entries import jump
from impl.batched.machine.images import PlacedImage
from impl.batched.machine.kernel import EmulatedKernel
from impl.batched.machine.stands import image_stands
from impl.batched.machine.text import Text
from impl.batched.machine.threads import AtPoint, Thread
from impl.batched.state import Program, State
from spec import operations as op
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.standing import Stand
from spec.traces import Trace

__all__ = ["ListedTask", "TaskList", "skip_programs"]

DONE: Final = "done"


@dataclass(eq=False)
class ListedTask:
    """A task. point: as seeds write it. program: that it is in. asleep: it does not spin."""

    thread: Thread
    slot: int
    point: str = "site"
    program: Program | None = None
    asleep: bool = False

    def holds(self) -> set[str]:
        """TASK-8: the flavours whose grace periods it holds up."""
        found = set() if self.asleep or self.point == DONE else {"rcu_tasks"}
        if self.program is not None:
            found |= {"rcu_tasks_trace"} if self.program.sleepable else {"rcu", "rcu_tasks_trace"}
        return found


@dataclass
class HeldUp:
    """An operation that waits for grace periods: what it will answer, and their flavours, none once they are over.

    holders: of each flavour the tasks that stood when its grace period began, and have not let it go by since (TASK-7).
    """

    outcome: Outcome
    flavours: set[str]
    holders: dict[str, list[ListedTask]]

    def let_go(self, tasks: Collection[ListedTask]) -> None:
        """Tasks that have gone, or do not hold a flavour up any more, are waited for no longer."""
        left = {
            flavour: [one for one in holding if one in tasks and flavour in one.holds()]
            for flavour, holding in self.holders.items()
        }
        listed = "rcu_tasks" in self.holders
        self.holders = {flavour: holding for flavour, holding in left.items() if holding}
        if listed and "rcu_tasks" not in self.holders and (holding := [one for one in tasks if "rcu" in one.holds()]):
            # A grace period of RCU is the end of one of RCU tasks, and begins only now.
            self.holders["rcu"] = holding

    def leave_section(self, task: ListedTask) -> None:
        """A task that was in a program has left it, though it may be in another by now."""
        for flavour in self.holders.keys() - {"rcu_tasks"}:
            self.holders[flavour] = [one for one in self.holders[flavour] if one is not task]


class TaskList:
    """tasks: those that were not finished, by name. An operation may wait for them, as long as it has holders.

    displaced: at which offset of its image the next step stops, in the place of its point.
    """

    def __init__(self, state: State, text: Text, kernel: EmulatedKernel) -> None:
        self._state, self._text, self._kernel = state, text, kernel
        self.tasks: dict[str, ListedTask] = {}
        self._waiting: HeldUp | None = None
        self.displaced: int | None = None
        self._lifetimes = Lifetimes(state, text, kernel.unload_program, kernel.references)

    @property
    def live(self) -> bool:
        """Whether somebody must be asked."""
        return bool(self.tasks) or self._waiting is not None

    def begin(self, operation: op.Task) -> Outcome:
        """A task that stands at the site of a function, which is there."""
        slot = next(slot for slot in range(len(self.tasks) + 1) if slot not in self._slots())
        thread = self._kernel.begin(self._state.site(operation.function), operation.arguments, slot)
        self.tasks[operation.task] = ListedTask(thread, slot)
        self._text.put = self._lifetimes.put
        return Ok()

    def step(self, operation: op.Step) -> str:
        """Lets a task run to a point, or to its end."""
        standing = self.tasks[operation.task]
        self._run(standing, operation.to or "")
        standing.asleep = operation.how == "sleep" and self._may_sleep(standing)
        self._settle()
        return standing.point

    def finish(self, operation: op.Finish) -> Trace:
        """Lets a task run to its end."""
        standing = self.tasks[operation.task]
        self._run(standing, "")
        del self.tasks[operation.task]
        trace = self._kernel.end(standing.thread)
        self._settle()
        return trace

    def stands(self, index: int) -> tuple[Stand, ...]:
        """Every instruction of a function's image, if it has one."""
        image = self._text.placed_image(index)
        if image is None:
            return ()
        numbered = self._state.program_numbered
        code = self._text.images.read(*self._text.image(index))
        return image_stands(image, code, lambda number: numbered[number].name)

    def begin_poke(self) -> None:
        """Text is about to be patched: tasks that have yet to pass their sites may pass to the images of now."""
        for standing in self.tasks.values():
            standing.thread.former = self._text.placed_image(standing.thread.index)

    def skip_detached(self) -> None:
        """Tasks pass over detached programs in the images that they are in, where the kernel has them do so."""
        if self._state.facts.skips_detached:
            for standing in self.tasks.values():
                if standing.thread.image is not None and not standing.thread.returned:
                    skip_programs(self._state, self._text, standing.thread.index, standing.thread.image)

    def judge(self, outcome: Outcome, waits: Mapping[str, int], dropped: Program | None) -> Outcome:
        """What an operation answers that waits for grace periods; dropped: a program that may have lost its last link.

        Its images were put by now.
        """
        if dropped is not None and not dropped.links:
            self._lifetimes.drop(dropped)
        holders = {flavour: holding for flavour in waits if (holding := self._holding(flavour))}
        for flavour in waits.keys() - holders.keys():
            self._lifetimes.elapse(flavour)
        if holders:
            self._waiting = HeldUp(outcome, set(waits), holders)
            return Pending()
        self._proceed()
        return outcome

    def wait(self) -> Outcome:
        """The outcome of the operation that waits, if nothing holds it up any more."""
        assert self._waiting is not None
        if self._waiting.holders:
            return Pending()
        outcome, self._waiting = self._waiting.outcome, None
        self._settle()
        return outcome

    def elapse(self, operation: op.GracePeriod) -> Outcome:
        """A grace period is over, if no task holds it up."""
        if self._holding(operation.flavour):
            return Errno("EBUSY")
        self._lifetimes.elapse(operation.flavour)
        return Ok()

    def _run(self, standing: ListedTask, to: str) -> None:
        kind, _, prog = to.partition(":")
        program = self._state.programs.get(prog)
        there = bool(to) and (not prog or program is not None) and (kind != "skip" or self._state.facts.skips_detached)
        leaves = standing.thread.returned
        if self._waiting is not None and standing.program is not None:
            self._waiting.leave_section(standing)
        standing.asleep = False
        point = AtPoint(kind, program.number if program else 0, self.displaced)
        self.displaced = None
        self._kernel.resume(standing.thread, point if there else None)
        stands = not standing.thread.returned or (kind == "return" and not leaves)
        standing.point = to if stands else DONE
        standing.program = program if stands and kind == "program" else None

    @staticmethod
    def _may_sleep(standing: ListedTask) -> bool:
        return standing.point == "body" or (standing.program is not None and standing.program.sleepable)

    def _slots(self) -> set[int]:
        return {standing.slot for standing in self.tasks.values()}

    def _holding(self, flavour: str) -> list[ListedTask]:
        return [standing for standing in self.tasks.values() if flavour in standing.holds()]

    def _settle(self) -> None:
        """Goes on with an operation that nothing holds up any more, and frees what can be freed."""
        waiting = self._waiting
        if waiting is not None and waiting.flavours:
            waiting.let_go(self.tasks.values())
            if not waiting.holders:
                for flavour in waiting.flavours:
                    self._lifetimes.elapse(flavour)
                waiting.flavours.clear()
                self._proceed()
        self._lifetimes.settle()
        if not self.live:
            self._lifetimes.end()
            self._text.put = None

    def _proceed(self) -> None:
        """An operation is over: what it put and detached is skipped by the tasks that are in its images."""
        put = self._lifetimes.proceed()
        facts = self._state.facts
        for standing in self.tasks.values():
            image = standing.thread.image
            if image is None or standing.thread.returned:
                continue
            if facts.image_put_skips_fexit and image.address - at.IMAGES in put:
                skip_fexit(self._text, image.address, image.made)
        self.skip_detached()


def skip_programs(state: State, text: Text, index: int, image: PlacedImage) -> None:
    """bpf_trampoline_skip_prog(): what was detached from a function is passed over in an image of it that lives."""
    sets = state.trampolines.sets
    linked = {int(sets.node_program[node]) for node in sets.row(int(sets.of[index]))}
    for skip in image.made.skips:
        if image.programs[skip.run.link] not in linked:
            place = image.address + skip.at
            text.patch(place, jump(place, image.address + skip.behind))


def skip_fexit(text: Text, address: int, made: Template) -> None:
    """bpf_tramp_image_put(): ip_after_call jumps to the epilogue."""
    if made.after_call is not None:
        assert made.epilogue is not None
        place = address + made.after_call
        text.patch(place, jump(place, address + made.epilogue))
