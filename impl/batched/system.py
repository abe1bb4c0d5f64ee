"""The System: each operation to its function of the kernel, and observations computed when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import fields
from functools import cached_property
from typing import Any, Final, NamedTuple

from impl.batched import direct, filters, graph, links, modules, programs, registration, settling, sysctl
from impl.batched.enabled_functions import EnabledFunctions
from impl.batched.faults import Refused
from impl.batched.functions import functions_of
from impl.batched.machine.images import PlacedImage
from impl.batched.machine.kernel import EmulatedKernel
from impl.batched.machine.text import Text
from impl.batched.state import Program, State
from impl.batched.tasks import TaskList, skip_programs
from spec import operations as op
from spec.alphabet import INTERLEAVED, POKING, STOPPING, alphabet
from spec.capabilities import Linking
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import Operation
from spec.outcomes import Ok, Outcome, Pending
from spec.semantics import Semantics
from spec.sharing import LEVELS
from spec.sites import Site
from spec.standing import Stand
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Batched"]

OK: Final = Ok()


def _fail(state: State, operation: op.Fail) -> None:
    if operation.point not in op.UNSEEN:
        state.faults.arm(operation.point, operation.count)


HANDLERS: Final[Mapping[type[Operation], Callable[[State, Any], Outcome | None]]] = {
    op.FtraceOps: filters.declare,
    op.FtraceSetFilterIp: filters.set_filter_ips,
    op.FtraceSetFilterIps: filters.set_filter_ips,
    op.FtraceSetFilter: filters.set_filter,
    op.FtraceSetNotrace: filters.set_notrace,
    op.FtraceFreeFilter: filters.free_filter,
    op.RegisterFtraceFunction: registration.register,
    op.UnregisterFtraceFunction: registration.unregister,
    op.RegisterFtraceDirect: direct.register_direct,
    op.UnregisterFtraceDirect: direct.unregister_direct,
    op.ModifyFtraceDirect: direct.modify_direct,
    op.RegisterFtraceDirectMulti: direct.register_direct_multi,
    op.UnregisterFtraceDirectMulti: direct.unregister_direct_multi,
    op.ModifyFtraceDirectMulti: direct.modify_direct_multi,
    op.UpdateFtraceDirectAdd: direct.update_direct_add,
    op.UpdateFtraceDirectDel: direct.update_direct_del,
    op.UpdateFtraceDirectMod: direct.update_direct_mod,
    op.RegisterFtraceGraph: graph.register,
    op.UnregisterFtraceGraph: graph.unregister,
    op.SetFtraceFilter: graph.set_filter,
    op.SetFtraceNotrace: graph.set_notrace,
    op.SetGraphFunction: graph.set_graph_function,
    op.SetGraphNotrace: graph.set_graph_notrace,
    op.FtraceEnabled: sysctl.write,
    op.Livepatch: registration.livepatch,
    op.Unlivepatch: registration.unlivepatch,
    op.BpfProgLoad: programs.load,
    op.BpfRawTracepointOpen: links.open_raw_tracepoint,
    op.BpfLinkCreate: links.create,
    op.BpfLinkDetach: links.detach,
    op.InitModule: modules.init_module,
    op.DeleteModule: modules.delete_module,
    op.Fail: _fail,
    op.Settle: settling.settle,
}


class _Effect(NamedTuple):
    """An operation's outcome, the grace periods that it waits for by flavour, and the program that it detaches."""

    outcome: Outcome
    waits: Mapping[str, int]
    detached: Program | None


class Batched:
    """Mass attach with bookkeeping in bulk; `sharing` is one of spec.sharing.LEVELS."""

    counts = frozenset(entry.name for entry in fields(Cost))

    def __init__(self, world: World, semantics: Semantics, sharing: str = LEVELS[0]) -> None:
        self.name = f"batched:{sharing}"
        self._shares = sharing != LEVELS[0]
        self.supports = alphabet(semantics) | POKING | (frozenset() if self._shares else INTERLEAVED)
        self.state = State(functions_of(world), semantics, sharing)
        self.text = Text(self.state, sharing)
        self._lines = EnabledFunctions(self.state)
        self._tasks: TaskList | None = None
        self._poked: _Effect | None = None
        self._cost: tuple[tuple[int, int], Cost] | None = None
        self._sites: tuple[int, Mapping[str, Site]] | None = None

    def declines(self, operation: Operation) -> str:
        """Why it will not carry the operation out: in an image of several functions nothing is skipped for one."""
        detaches = isinstance(operation, op.Poke) and isinstance(operation.operation, op.BpfLinkDetach)
        if self._shares and detaches and self.state.facts.skips_detached:
            return "does not stop in a detach, as its images serve several functions"
        return ""

    def apply(self, operation: Operation) -> Outcome:
        """Carry one operation out, whole or not at all."""
        if isinstance(operation, op.Poke):
            return self._begin_poke(operation)
        if self._poked is not None and type(operation) in POKING:
            return self._go_on(self._poked, to_end=isinstance(operation, op.Await))
        if type(operation) in STOPPING:
            return self._interleave(operation)
        if self._tasks is None or not self._tasks.live:
            return self._carry_out(operation)
        return self._judge(self._take_effect(operation))

    def _carry_out(self, operation: Operation) -> Outcome:
        watched = sysctl.may_find_records(self.state)
        try:
            outcome = HANDLERS[type(operation)](self.state, operation) or OK
        except Refused as refused:
            outcome = refused.outcome
        if watched and not sysctl.has_ops(self.state):
            self.state.dead, outcome = True, Ok(warn=True)
        self.text.follow()
        return outcome

    def _begin_poke(self, operation: op.Poke) -> Outcome:
        """Carry one operation out as far as its first stop; its books are those of its end (POKE-1).

        Until that end sites may call a program whose last link it takes away, even one that was freed and linked again.
        """
        inner = operation.operation
        if self._tasks is not None:
            self.kernel.load_programs()
            self._tasks.begin_poke()
        left = self._list_left(inner)
        self.text.stop_in_next()
        effect = self._take_effect(inner)
        for index, image in left:
            skip_programs(self.state, self.text, index, image)
        if self._tasks is not None:
            self._tasks.skip_detached()
        return self._go_on(effect, to_end=False)

    def _go_on(self, effect: _Effect, *, to_end: bool) -> Outcome:
        """The next stop of a poke, or what its operation answers."""
        while stands := self.text.advance():
            if not to_end:
                break
        self._poked = effect if stands else None
        return Pending() if stands else self._judge(effect)

    def _take_effect(self, operation: Operation) -> _Effect:
        """Carry one operation out, and note what it waits for and which program it detaches."""
        before = self.state.ledger.waits.copy()
        detached = self.state.links[operation.link].program if isinstance(operation, op.BpfLinkDetach) else None
        outcome = self._carry_out(operation)
        return _Effect(outcome, self.state.ledger.waits - before, detached)

    def _judge(self, effect: _Effect) -> Outcome:
        """Answer for an operation, or let it wait for the tasks that there are."""
        if self._tasks is None or not self._tasks.live:
            return effect.outcome
        return self._tasks.judge(*effect)

    def _list_left(self, operation: Operation) -> list[tuple[int, PlacedImage]]:
        """Images that a detach leaves, with their functions, where the kernel passes over what is detached."""
        if not (self.state.facts.skips_detached and isinstance(operation, op.BpfLinkDetach)):
            return []
        placed = (
            (index, self.text.placed_image(index)) for index in self.state.links[operation.link].functions.tolist()
        )
        return [(index, image) for index, image in placed if image is not None]

    def _interleave(self, operation: Operation) -> Outcome:
        tasks = self._scheduled()
        match operation:
            case op.Task():
                return tasks.begin(operation)
            case op.GracePeriod():
                return tasks.elapse(operation)
        return tasks.wait()

    def _scheduled(self) -> TaskList:
        if self._tasks is None:
            self._tasks = TaskList(self.state, self.text, self.kernel)
        return self._tasks

    def stands(self, function: str) -> tuple[Stand, ...]:
        """Every instruction of the image that a function's site leads to."""
        return self._scheduled().stands(self.state.functions.index(function))

    def stand_at(self, offset: int) -> None:
        """The next step of a task stops at this offset of its image, in the place of the point that it names."""
        self._scheduled().displaced = offset

    def step(self, operation: op.Step) -> str:
        """Let a task run to a point."""
        assert self._tasks is not None
        return self._tasks.step(operation)

    def finish(self, operation: op.Finish) -> Trace:
        """Let a task run to its end."""
        assert self._tasks is not None
        return self._tasks.finish(operation)

    def link_info(self, operation: Linking) -> str:
        """Describe the link that an operation has just made, as the link itself does."""
        return links.info(self.state, operation.link)

    def sites(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""
        version = self.state.version
        if self._sites is None or self._sites[0] != version:
            self._sites = version, self._lines.read()
        return self._sites[1]

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return; an empty trace if it is not there (NAME-8)."""
        index = self.state.functions.index(function)
        if index < 0 or not self.state.sites.mapped[index]:
            return Trace((), None)
        prototype = self.state.functions.all[index].prototype
        if prototype is not None and len(arguments) != len(prototype.slots):
            raise BadInputError(f"'{function}' takes {len(prototype.slots)} words, one a slot: write as many")
        return self.kernel.call(index, arguments)

    def cost(self) -> Cost:
        """The totals so far."""
        version = self.state.version, self.state.ledger.missed.total()
        if self._cost is None or self._cost[0] != version:
            self._cost = version, self.state.ledger.total(self.state.trampolines.alive())
        return self._cost[1]

    @cached_property
    def kernel(self) -> EmulatedKernel:
        """The kernel that calls run on; made for the first call."""
        return EmulatedKernel(self.state, self.text)

    def close(self) -> None:
        """The memory of images goes to the next system."""
        self.__dict__.pop("kernel", None)
        self.text.close()
