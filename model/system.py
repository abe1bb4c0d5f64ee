"""The model as a System: one table from operation to handler, and the step that all operations take."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, replace
from typing import Any

from model import direct, filters, graph, links, modules, programs, registration, sysctl
from model.calls import call
from model.endings import Refused, Warned
from model.faults import fail
from model.poke import ftrace_run_update_code
from model.poking import Poker
from model.regs import settle_regs
from model.rules import CITATIONS, Citations, cite
from model.settling import originals, settle
from model.sites import sites
from model.state import State, initial
from model.tasks import Scheduler
from spec import operations as op
from spec.alphabet import STOPPING, alphabet
from spec.border import bordered
from spec.capabilities import HashSetting, Linking
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.semantics import Semantics
from spec.sharing import image_key
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World

__all__ = ["Model", "step", "system"]

Handler = Callable[[State, Any], State | Warned]

HANDLERS: Mapping[type[Operation], Handler] = {
    op.FtraceOps: filters.ftrace_ops,
    op.FtraceSetFilterIp: filters.ftrace_set_filter_ips,
    op.FtraceSetFilterIps: filters.ftrace_set_filter_ips,
    op.FtraceSetFilter: filters.ftrace_set_filter,
    op.FtraceSetNotrace: filters.ftrace_set_notrace,
    op.FtraceFreeFilter: filters.ftrace_free_filter,
    op.RegisterFtraceFunction: registration.register_ftrace_function,
    op.UnregisterFtraceFunction: registration.unregister_ftrace_function,
    op.RegisterFtraceDirect: direct.register_ftrace_direct,
    op.UnregisterFtraceDirect: direct.unregister_ftrace_direct,
    op.ModifyFtraceDirect: direct.modify_ftrace_direct,
    op.RegisterFtraceDirectMulti: direct.register_ftrace_direct_multi,
    op.UnregisterFtraceDirectMulti: direct.unregister_ftrace_direct_multi,
    op.ModifyFtraceDirectMulti: direct.modify_ftrace_direct_multi,
    op.UpdateFtraceDirectAdd: direct.update_ftrace_direct_add,
    op.UpdateFtraceDirectDel: direct.update_ftrace_direct_del,
    op.UpdateFtraceDirectMod: direct.update_ftrace_direct_mod,
    op.RegisterFtraceGraph: graph.register_ftrace_graph,
    op.UnregisterFtraceGraph: graph.unregister_ftrace_graph,
    op.SetFtraceFilter: graph.set_ftrace_filter,
    op.SetFtraceNotrace: graph.set_ftrace_notrace,
    op.SetGraphFunction: graph.set_graph_function,
    op.SetGraphNotrace: graph.set_graph_notrace,
    op.FtraceEnabled: sysctl.ftrace_enable_sysctl,
    op.Livepatch: registration.klp_patch_func,
    op.Unlivepatch: registration.klp_unpatch_func,
    op.BpfProgLoad: programs.bpf_prog_load,
    op.BpfRawTracepointOpen: links.bpf_raw_tracepoint_open,
    op.BpfLinkCreate: links.link_create,
    op.BpfLinkDetach: links.bpf_tracing_link_release,
    op.InitModule: modules.init_module,
    op.DeleteModule: modules.delete_module,
    op.Fail: fail,
    op.Settle: settle,
}


def step(state: State, operation: Operation) -> tuple[State, Outcome]:
    """One operation, to its end: the state after it, and what it answers."""
    try:
        done = HANDLERS[type(operation)](state, operation)
        if isinstance(done, Warned):
            return settle_regs(state, done.state), Ok(warn=True)
        after = settle_regs(state, ftrace_run_update_code(state, done))
        checked = sysctl.check_records(state, after)
        return (checked.state, Ok(warn=True)) if isinstance(checked, Warned) else (checked, Ok())
    except Refused as refused:
        cite(*refused.rules, "FAIL-3", "COST-1")
        return refused.state, Errno(refused.errno, refused.warn)


class Model:
    """The reference model. Properties ask it for more than a System has: `reached`, `cited`, `images`, and `value`."""

    name = "model"
    counts = frozenset(entry.name for entry in fields(Cost))

    def __init__(self, world: World, semantics: Semantics) -> None:
        self.state = initial(world, semantics)
        self.supports = alphabet(semantics) | STOPPING
        self._tasks = Scheduler()
        self._poker = Poker()
        self._citations = Citations()
        self._missed = Counter[str]()

    def apply(self, operation: Operation) -> Outcome:
        """Carry one operation out."""
        self._begin()
        match operation:
            case op.Task():
                return self._tasks.begin(self.state, operation)
            case op.Poke():
                return self._begin_poke(operation)
            case op.PokeStep() | op.Await():
                return self._go_on(to_end=isinstance(operation, op.Await))
            case op.GracePeriod():
                return self._tasks.elapse(operation)
        before = self.state
        self.state, outcome = step(before, operation)
        return self._judge(before, operation, outcome)

    def _judge(self, before: State, operation: Operation, outcome: Outcome) -> Outcome:
        """An operation that has taken effect answers, or waits for the tasks that there are."""
        return self._tasks.judge(before, self.state, operation, outcome) if self._tasks else outcome

    def _begin_poke(self, operation: op.Poke) -> Outcome:
        before = self.state
        after, outcome = step(replace(before, patched=()), operation.operation)
        self.state, poking = self._poker.begin(before, after, operation.operation, outcome)
        if not poking:
            return self._judge(before, operation.operation, outcome)
        self._tasks.hold(before.images)
        return Pending()

    def _go_on(self, *, to_end: bool) -> Outcome:
        """An operation goes on that has stopped or waits."""
        if not self._poker:
            return self._tasks.wait()
        self.state, over = self._poker.go_on(self.state, to_end=to_end)
        if over is None:
            return Pending()
        self._tasks.hold({})
        if self._tasks:
            cite("POKE-4")
        return self._judge(over.former, over.operation, over.outcome)

    def sites(self) -> Mapping[str, Site]:
        """Every site that is not a plain nop."""
        CITATIONS.set(self._citations)
        return sites(self.state)

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Run one function to its return."""
        self._begin()
        return self._count(*call(self.state, function, arguments, self._tasks.busy()))

    def step(self, operation: op.Step) -> str:
        """Let a task run to a point."""
        self._begin()
        return self._tasks.step(self.state, operation)

    def finish(self, operation: op.Finish) -> Trace:
        """Let a task run to its end."""
        self._begin()
        return self._count(*self._tasks.finish(self.state, operation))

    def cost(self) -> Cost:
        """The totals so far, for one image a function."""
        return replace(self.state.cost, images_alive=len(self.state.images), missed=dict(self._missed))

    def close(self) -> None:
        """Nothing to give back."""

    def reached(self) -> Mapping[str, int]:
        """How many operations cited each rule so far."""
        return self._citations.totals

    def cited(self) -> tuple[str, ...]:
        """The rules that the last operation cited, in order."""
        return tuple(self._citations.current)

    def value(self) -> Hashable:
        """The state as a value, without its costs."""
        more = tuple(part for part in (self._poker.value(), self._tasks and self._tasks.value(self.state)) if part)
        return (self.state.value(), *more) if more else self.state.value()

    def images(self, level: str) -> int:
        """COST-7: how many images a system that shares at this level has alive."""
        functions = self.state.world.by_name
        return len({(image_key(level, functions[name]), image) for name, image in self.state.images.items()})

    def originals(self) -> Mapping[str, str]:
        """IMAGE-3: how the images that sites show reach the original."""
        CITATIONS.set(self._citations)
        return originals(self.state)

    def link_info(self, operation: Linking) -> str:
        """LINK-18: a link describes itself."""
        CITATIONS.set(self._citations)
        return links.link_info(self.state, operation.link)

    def hash_file(self, operation: HashSetting) -> str:
        """GRAPH-10: a file shows what was written to it."""
        CITATIONS.set(self._citations)
        return graph.hash_file(self.state, operation)

    def _count(self, trace: Trace, missed: Counter[str]) -> Trace:
        self._missed += missed
        return trace

    def _begin(self) -> None:
        CITATIONS.set(self._citations)
        self._citations.begin()


def system(world: World, semantics: Semantics) -> Model:
    """The model behind the border, at the start of a run."""
    return bordered(Model(world, semantics), world, semantics)
