"""The model as a System: one table from operation to concept, and the step that all operations take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from model import direct, filters, graph, links, modules, programs, registration
from model.calls import call
from model.direct import failed_registration
from model.faults import Faults
from model.links import Warned
from model.regs import settled
from model.rules import CITATIONS, Citations, Refused, cite
from model.sites import sites
from model.state import State
from spec import operations as op
from spec.alphabet import alphabet
from spec.border import bordered
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome
from spec.semantics import Semantics
from spec.sharing import image_key
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Model", "system"]

Handler = Callable[[State, Any, Faults], State | Warned]


def fail(state: State, operation: op.Fail, faults: Faults) -> State:
    """FAIL-1."""
    faults.arm(operation.point, operation.count)
    return state


HANDLERS: Mapping[type[Operation], Handler] = {
    op.FtraceOps: filters.ftrace_ops,
    op.FtraceSetFilterIp: filters.set_filter_ips,
    op.FtraceSetFilterIps: filters.set_filter_ips,
    op.FtraceSetFilter: filters.set_filter,
    op.FtraceSetNotrace: filters.set_notrace,
    op.FtraceFreeFilter: filters.free_filter,
    op.RegisterFtraceFunction: registration.register,
    op.UnregisterFtraceFunction: registration.unregister,
    op.RegisterFtraceDirect: direct.register,
    op.UnregisterFtraceDirect: direct.unregister,
    op.ModifyFtraceDirect: direct.modify,
    op.RegisterFtraceDirectMulti: direct.register_multi,
    op.UnregisterFtraceDirectMulti: direct.unregister_multi,
    op.ModifyFtraceDirectMulti: direct.modify_multi,
    op.UpdateFtraceDirectAdd: direct.update_add,
    op.UpdateFtraceDirectDel: direct.update_del,
    op.UpdateFtraceDirectMod: direct.update_mod,
    op.RegisterFtraceGraph: graph.register,
    op.UnregisterFtraceGraph: graph.unregister,
    op.Livepatch: registration.livepatch,
    op.Unlivepatch: registration.unlivepatch,
    op.BpfProgLoad: programs.load,
    op.BpfRawTracepointOpen: links.raw_tracepoint_open,
    op.BpfLinkCreate: links.link_create,
    op.BpfLinkDetach: links.detach,
    op.InitModule: modules.init,
    op.DeleteModule: modules.delete,
    op.Fail: fail,
}
UNPATCHED = (op.InitModule, op.DeleteModule)


def step(state: State, operation: Operation, faults: Faults) -> tuple[State, Outcome]:
    """One operation, to its end: the state after it, and what it answers."""
    handler = HANDLERS[type(operation)]
    try:
        done = handler(state, operation, faults)
        after, warn = (done.state, True) if isinstance(done, Warned) else (done, False)
        if _pokes(state, after, operation) and faults.fails("patch"):
            return _died(state, operation)
    except Refused as refused:
        cite("FAIL-3", "COST-1")
        return _left(state, operation, refused.errno), Errno(refused.errno, refused.warn)
    return settled(after), Ok(warn)


def _pokes(before: State, after: State, operation: Operation) -> bool:
    return after.cost.sites_patched > before.cost.sites_patched and not isinstance(operation, UNPATCHED)


def _died(state: State, operation: Operation) -> tuple[State, Outcome]:
    """DEAD-1: the text could not be patched, and ftrace is no more."""
    cite("DEAD-1")
    dead = replace(state, dead=True)
    if isinstance(operation, op.BpfLinkDetach):
        done = links.detach(dead, operation, Faults({}))
        return done.state if isinstance(done, Warned) else done, Ok(warn=True)
    return _left(dead, operation, "ENODEV"), Errno("ENODEV", warn=True)


def _left(state: State, operation: Operation, errno: str) -> State:
    """What a failed operation leaves behind."""
    if isinstance(operation, op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd):
        return failed_registration(state, operation, errno)
    return state


class Model:
    """The reference model. `reached`, `cited` and `images` are what properties ask it beyond the System protocol."""

    name = "model"

    def __init__(self, world: World, semantics: Semantics) -> None:
        self.state = State(world, semantics, frozenset(world.modules), graph_slots=tuple(range(semantics.graph_users)))
        self.supports = alphabet(semantics)
        self._faults = Faults({})
        self._citations = Citations()

    def apply(self, operation: Operation) -> Outcome:
        """Carry one operation out."""
        self._begin()
        self.state, outcome = step(self.state, operation, self._faults)
        return outcome

    def sites(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""
        CITATIONS.set(self._citations)
        return sites(self.state)

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""
        self._begin()
        return call(self.state, function, arguments)

    def cost(self) -> Cost:
        """The totals so far, for one image a function."""
        return replace(self.state.cost, images_alive=len(self.state.images))

    def close(self) -> None:
        """Nothing to give back."""

    def reached(self) -> Mapping[str, int]:
        """How many operations cited each rule so far."""
        return self._citations.totals

    def cited(self) -> tuple[str, ...]:
        """The rules that the last operation cited, in order."""
        return tuple(self._citations.current)

    def images(self, level: str) -> int:
        """COST-7: how many images a system that shares at this level has alive."""
        functions = self.state.world.by_name
        return len({(image_key(level, functions[name]), image) for name, image in self.state.images.items()})

    def _begin(self) -> None:
        CITATIONS.set(self._citations)
        self._citations.begin()


def system(world: World, semantics: Semantics) -> Model:
    """The model behind the border, at the start of a run."""
    return bordered(Model(world, semantics), world, semantics)
