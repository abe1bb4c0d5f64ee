"""Every sequence of a small world up to a length: states merged by the model's value, and every edge run by systems.

Two sequences that leave the model in equal states are continued once. Systems are not copied: a run walks on from edge
to edge, over edges that it knows where those at hand are done, and begins anew where that is farther.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Final

from properties.lockstep.divergence import Divergence
from properties.lockstep.lockstep import Lockstep
from spec.alphabet import INTERLEAVED, alphabet
from spec.operations import Await, Finish, GracePeriod, Operation, Task
from spec.operations import Step as TaskStep
from spec.seeds import Step, parse_seed
from spec.semantics import Semantics
from spec.system import SystemFactory
from spec.worlds import synthetic

__all__ = ["START", "Exhausted", "Exhaustion", "edges"]

START: Final = ("ftrace_ops o1", "bpf_prog_load p1 fentry", "bpf_prog_load p2 fexit")
"""The steps before the first operation that counts."""

EDGES: Final = (
    "ftrace_set_filter_ip o1 foo1",
    "ftrace_set_filter_ip o1 foo2",
    "ftrace_set_filter_ip o1 foo1 remove",
    "ftrace_set_filter_ip o1 foo2 remove",
    "register_ftrace_function o1",
    "unregister_ftrace_function o1",
    "bpf_raw_tracepoint_open l1 p1 foo1",
    "bpf_raw_tracepoint_open l2 p1 foo2",
    "bpf_raw_tracepoint_open l3 p2 foo1",
    "bpf_raw_tracepoint_open l4 p2 foo2",
    "bpf_link_detach l1",
    "bpf_link_detach l2",
    "bpf_link_detach l3",
    "bpf_link_detach l4",
    "register_ftrace_graph g1",
    "unregister_ftrace_graph g1",
    "call foo1 1",
    "call foo2 1 2",
)
"""The small world: two functions, two programs, one ops, and the graph tracer."""

EDGES_OF_DIRECT: Final = (
    "ftrace_free_filter o1",
    "register_ftrace_direct_multi o1 T1",
    "unregister_ftrace_direct_multi o1 T1",
    "modify_ftrace_direct_multi o1 T2",
    "register_ftrace_direct foo1 T1",
    "unregister_ftrace_direct foo1 T1",
)
"""Without tasks, that ops may become direct."""

EDGES_OF_GRACE: Final = ("grace_period rcu", "grace_period rcu_tasks", "grace_period rcu_tasks_trace")
"""With tasks, what they may hold up."""

EDGES_OF_TASK: Final = (
    "task TASK foo1 1",
    "step TASK to=image",
    "step TASK to=program:p1",
    "step TASK to=body how=sleep",
    "step TASK to=before:p2",
    "step TASK to=exit",
    "finish TASK",
)
"""A task stands where it is dangerous; `await` belongs to whatever pends."""

REACH: Final = 500
"""States that are looked at for a way to one that has edges left; beyond, a new run is begun."""


NOWHERE: Final = -1
"""In no state: the first steps diverge."""


@dataclass(frozen=True, slots=True)
class Exhausted:
    """depth: so many operations, or as many as it took to the divergence. states: that they reach.

    transitions: edges from states that fewer reach; operations: executed in all. divergence: the first, with the
    operations of its run; shortest: the shortest way to its edge, which diverges too unless it takes more than a state.
    """

    depth: int
    states: int
    transitions: int
    operations: int
    divergence: Divergence | None = None
    steps: tuple[Operation, ...] = ()
    shortest: tuple[Operation, ...] = ()


@dataclass(slots=True)
class _Node:
    """A state. depth: operations to it on the shortest way that is known; way: that way's last edge, and from where.

    left: edges that were not run; edges: where the others led.
    """

    depth: int
    way: tuple[int, Operation] | None
    left: list[Operation]
    edges: dict[Operation, int] = field(default_factory=dict)


def edges(tasks: int) -> tuple[str, ...]:
    """The operations of the small world with so many tasks in it, as lines of a seed."""
    if not tasks:
        return (*EDGES, *EDGES_OF_DIRECT)
    own = (line.replace("TASK", f"t{number}") for number in range(1, tasks + 1) for line in EDGES_OF_TASK)
    return (*EDGES, *EDGES_OF_GRACE, *own)


class Exhaustion:
    """One search. tell: is given the numbers of states and of transitions so far. tasks: how many are in the world."""

    def __init__(
        self,
        semantics: Semantics,
        factories: Sequence[SystemFactory],
        depth: int,
        tell: Callable[[int, int], None] = lambda _, __: None,
        *,
        tasks: int = 0,
    ) -> None:
        self._world, self._semantics, self._factories = synthetic(), semantics, tuple(factories)
        self._most, self._depth, self._tell = depth, 1, tell
        self._start, self._alphabet = (_parse(lines, semantics) for lines in (START, edges(tasks)))
        self._numbers: dict[Hashable, int] = {}
        self._nodes: list[_Node] = []
        self._open: list[tuple[int, int, int]] = []
        self._pushed = count()
        self._operations = 0
        self._run: Lockstep | None = None

    def search(self) -> Exhausted:
        """Run each edge of all states that less than `depth` operations reach, near ones first, or to a divergence."""
        at = NOWHERE
        try:
            found, at = self._begin(())
            self._check_tasks()
            while not found and (route := self._route(at)) is not None:
                fresh, operations = route
                if fresh:
                    found, at = self._begin(operations[:-1])
                    operations = operations[-1:]
                for operation in operations:
                    if not found:
                        found, at = self._take(at, operation)
            return self._conclude(found, at)
        finally:
            self._end()

    def _check_tasks(self) -> None:
        """UnsupportedError if a system has no tasks in whose world they are."""
        assert self._run is not None
        for operation in self._alphabet:
            if isinstance(operation, Task):
                self._run.check(Step(operation))

    def _conclude(self, found: Divergence | None, at: int) -> Exhausted:
        transitions = sum(len(node.edges) for node in self._nodes)
        states = sum(node.depth <= self._depth for node in self._nodes)
        if found is None:
            return Exhausted(self._most, states, transitions, self._operations)
        assert self._run is not None
        steps = tuple(step.operation for step in self._run.history)
        shortest = (*self._start, *self._list_way(at), steps[-1]) if at != NOWHERE else steps
        return Exhausted(self._depth, states, transitions, self._operations, found, steps, shortest)

    def _begin(self, operations: Sequence[Operation]) -> tuple[Divergence | None, int]:
        """Begin a run, and walk from its start."""
        self._end()
        self._run = Lockstep(self._world, self._semantics, self._factories)
        if found := self._run.run(map(Step, self._start)):
            return found[0], NOWHERE
        at = self._meet(self._run.value(), 0, None)
        for operation in operations:
            divergence, at = self._take(at, operation)
            if divergence:
                return divergence, at
        return None, at

    def _end(self) -> None:
        if self._run is not None:
            self._run.close()
            self._run = None

    def _take(self, at: int, operation: Operation) -> tuple[Divergence | None, int]:
        """Take an edge, which may be known already, and meet the state that it leads to."""
        assert self._run is not None
        node = self._nodes[at]
        found = self._run.step(Step(operation)).divergences
        self._operations += 1
        if found:
            return found[0], at
        there = self._meet(self._run.value(), node.depth + 1, (at, operation))
        node.edges[operation] = there
        if operation in node.left:
            node.left.remove(operation)
            self._tell(len(self._nodes), self._operations)
        return None, there

    def _meet(self, value: Hashable, depth: int, way: tuple[int, Operation] | None) -> int:
        """Note a state, and that those behind it are nearer than they were thought."""
        assert self._run is not None
        number = self._numbers.setdefault(value, len(self._nodes))
        if number == len(self._nodes):
            self._nodes.append(_Node(depth, way, list(self._list_lawful(self._run))))
            self._push(number)
            return number
        nearer = deque([(number, depth, way)])
        while nearer:
            here, depth, way = nearer.popleft()
            node = self._nodes[here]
            if depth < node.depth:
                node.depth, node.way = depth, way
                self._push(here)
                nearer.extend((there, depth + 1, (here, edge)) for edge, there in node.edges.items())
        return number

    def _push(self, number: int) -> None:
        heapq.heappush(self._open, (self._nodes[number].depth, next(self._pushed), number))

    def _list_lawful(self, run: Lockstep) -> Iterator[Operation]:
        """List the edges of the state that a run is in: what the harness lets a seed do there."""
        pending = run.inventory.pending
        for operation in (*self._alphabet, *((Await(pending),) if pending else ())):
            if type(operation) in run.supports and not (_lacks_task(operation, run) or run.declined(operation)):
                yield operation

    def _is_open(self, number: int) -> bool:
        node = self._nodes[number]
        return bool(node.left) and node.depth < self._depth

    def _route(self, at: int) -> tuple[bool, tuple[Operation, ...]] | None:
        """Whether a run must begin for the next edge, and the operations up to it, itself the last; None at the end."""
        while self._open and not self._is_open(self._open[0][2]):
            if self._open[0][0] < self._depth:
                heapq.heappop(self._open)
            elif self._depth == self._most:
                return None
            else:
                self._depth += 1
        if not self._open:
            return None
        nearest = self._open[0][2]
        way = self._find_way(at, self._nodes[nearest].depth + 1)
        if way is not None:
            return False, way
        return True, (*self._list_way(nearest), self._nodes[nearest].left[0])

    def _find_way(self, at: int, longest: int) -> tuple[Operation, ...] | None:
        """Find a short way over known edges to an edge that is left."""
        seen: dict[int, tuple[Operation, ...]] = {at: ()}
        waiting = deque([at])
        while waiting and len(seen) < REACH:
            here = waiting.popleft()
            if self._is_open(here):
                return (*seen[here], self._nodes[here].left[0])
            if len(seen[here]) < longest:
                for edge, there in self._nodes[here].edges.items():
                    if there not in seen:
                        seen[there] = (*seen[here], edge)
                        waiting.append(there)
        return None

    def _list_way(self, number: int) -> tuple[Operation, ...]:
        """List the operations of the shortest way from the start."""
        operations: list[Operation] = []
        while (way := self._nodes[number].way) is not None:
            number, operation = way
            operations.append(operation)
        return tuple(reversed(operations))


def _lacks_task(operation: Operation, run: Lockstep) -> bool:
    """Whether an operation is about a task that is not there; nothing would change."""
    match operation:
        case TaskStep() | Finish():
            return operation.task not in run.inventory.tasks
        case GracePeriod():
            return not run.inventory.tasks
    return False


def _parse(lines: Sequence[str], semantics: Semantics) -> tuple[Operation, ...]:
    """Parse lines of a seed, as far as the semantics have their operations."""
    seed = parse_seed("\n".join(("world synthetic", f"semantics {semantics.name}", "---", *lines)), "the small world")
    known = alphabet(semantics) | INTERLEAVED
    return tuple(step.operation for step in seed.steps if type(step.operation) in known)
