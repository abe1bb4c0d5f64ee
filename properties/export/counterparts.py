"""What of a seed has no counterpart outside of the harness, and why: a sentence each, which follows the step's line."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from impl.linux.declining.graph import limits_of
from impl.linux.laboratory.control import OPS_SLOTS
from impl.linux.probes.tracefs import Limits
from properties.export.recorded import Recorded, RecordedSeed, SeedSetting
from properties.systems.naming import KERNELS
from spec import operations as op
from spec.errors import BadInputError
from spec.globs import is_glob, matcher, record_index, without_bang
from spec.inventory import Inventory
from spec.operations import Operation
from spec.seeds import print_operation

__all__ = ["check_counterparts", "homes_of", "is_charged", "stopping_in"]

GRAPH_USERS = 4
"""Instances of the tracer that an exported program makes."""

NEVER = 1000
"""From so many on a `fail` takes an earlier one back."""

EVERYTHING = "an ops without a filter traces every function of the kernel, and not the world's alone"


Homes = tuple[str | None, ...]


def check_counterparts(recording: RecordedSeed) -> None:
    """BadInputError names the first step that no program on a kernel can take."""
    setting = recording.setting
    if setting.semantics.name not in KERNELS:
        known = ", ".join(KERNELS)
        text = f"the semantics {setting.semantics.name} are those of no kernel: write one of {known}"
        raise BadInputError(text, str(setting.path))
    users: dict[str, Limits] = {}
    homes: dict[str, Homes] = {}
    for recorded in recording.steps:
        reason = (
            ""
            if recorded.harness
            else _reason(setting, recorded) or _limits(recorded, users) or _moves(setting, recorded, homes)
        )
        if reason:
            text = f"'{print_operation(recorded.step.operation)}' has no counterpart in a program: {reason}"
            raise BadInputError(text, str(setting.path), recorded.step.line)


def _limits(recorded: Recorded, users: dict[str, Limits]) -> str:
    """What tracefs has once for all users must not be asked for by one alone. users: those so far, to which it adds."""
    operation = recorded.step.operation
    if not isinstance(operation, op.RegisterFtraceGraph):
        return ""
    users[operation.user] = wanted = limits_of(operation)
    others = (users[user] for user in recorded.before.graph_users if user != operation.user)
    differ = any(other != wanted for other in others)
    return "set_graph_function, set_graph_notrace and max_graph_depth are the same for all users" if differ else ""


def _moves(setting: SeedSetting, recorded: Recorded, homes: dict[str, Homes]) -> str:
    """The program loads a multi program where its first link wants it. homes: those so far, to which it adds."""
    operation = recorded.step.operation
    if not isinstance(operation, op.BpfLinkCreate):
        return ""
    wanted = homes_of(setting, _linked(recorded.before, operation))
    differ = bool(wanted) and homes.setdefault(operation.prog, wanted) != wanted
    return "its program is loaded for another BTF" if differ else ""


def homes_of(setting: SeedSetting, functions: tuple[str, ...]) -> Homes:
    """The homes of functions, each once: None is the kernel itself, and a function that is nowhere has none."""
    known = [setting.world.by_name[name] for name in functions if name in setting.world.by_name]
    return tuple(dict.fromkeys(None if f.name in setting.own else f.module or "massattach" for f in known))


def is_charged(recorded: Recorded) -> bool:
    """Whether the step uses up a `fail jit_charge` that was armed, if one was.

    That shows in an operation that fails, in a detach that warns, and where an IPMODIFY user leaves a function whose
    image calls the original, which would be built anew.
    """
    operation, outcome = recorded.step.operation, recorded.predicted
    if outcome.startswith("-EPERM") or (isinstance(operation, op.BpfLinkDetach) and outcome.endswith("WARN")):
        return True
    return outcome == "0" and isinstance(operation, op.Unlivepatch) and _calls_original(recorded, operation.function)


def _calls_original(recorded: Recorded, function: str) -> bool:
    links = recorded.before.links.values()
    kinds = {recorded.before.programs[link.prog].kind for link in links if function in link.functions}
    return bool(kinds - {"fentry"})


def _reason(setting: SeedSetting, recorded: Recorded) -> str:
    operation = recorded.step.operation
    if reason := _interleaved(recorded):
        return reason
    judge = _JUDGES.get(type(operation))
    shared = next((name for name in recorded.sites if "@" in name), None)
    if shared:
        return f"{shared} is one of several functions of a name, which enabled_functions does not tell apart"
    reason = judge(setting, recorded.before, operation) if judge else ""
    return "" if reason == EVERYTHING and recorded.predicted != "0" else reason


def _call(setting: SeedSetting, _before: Inventory, operation: op.Call | op.Task) -> str:
    own = operation.function in setting.own
    return "the bodies of the kernel's own functions keep no records" if own else ""


BESIDE = (
    *(op.BpfProgLoad, op.BpfRawTracepointOpen, op.BpfLinkCreate, op.BpfLinkDetach),
    *(op.Step, op.Finish, op.GracePeriod, op.ObserveSite),
)
"""A program does these while its task sleeps, which keeps its module busy."""


HELD_UP = "it does not wait for what its own task holds up"
SLEEPERS = "it stops a task only in a sleepable program, by to=program:PROG how=sleep"


def _interleaved(recorded: Recorded) -> str:
    """A program has one task, which stops where a program sleeps that is sleepable."""
    operation = recorded.step.operation
    if recorded.before.tasks and not isinstance(operation, BESIDE):
        return "its module is busy with the call of its task"
    if recorded.predicted == "pending" or isinstance(operation, op.Await):
        return HELD_UP
    programs = recorded.before.programs
    match operation:
        case op.Task():
            return "" if any(program.sleepable for program in programs.values()) else SLEEPERS
        case op.Step():
            program = programs.get(stopping_in(operation))
            stops = program and program.sleepable and operation.how == "sleep" and recorded.predicted == operation.to
            return "" if stops else SLEEPERS
        case op.GracePeriod():
            return "" if recorded.predicted == "0" else HELD_UP
    return ""


def stopping_in(operation: op.Step) -> str:
    """The program in which a task is to stop; empty if it is to stop elsewhere."""
    where, _, program = (operation.to or "").partition(":")
    return program if where == "program" else ""


def _fail(_setting: SeedSetting, _before: Inventory, operation: op.Fail) -> str:
    if operation.point != "jit_charge":
        return f"nothing outside of the kernel makes '{operation.point}' fail"
    return "bpf_jit_limit refuses the next charge, and not a later one" if 1 < operation.count < NEVER else ""


def _filter(setting: SeedSetting, before: Inventory, operation: op.FtraceSetFilter) -> str:
    pattern, removes = without_bang(operation.glob)
    reason = _alone(setting, before, pattern) if removes else _beyond(setting, pattern)
    return reason or _becomes_empty(setting, before, operation)


def _notrace(setting: SeedSetting, before: Inventory, operation: op.FtraceSetNotrace) -> str:
    return _alone(setting, before, without_bang(operation.glob)[0])


def _beyond(setting: SeedSetting, pattern: str) -> str:
    if record_index(pattern) is not None:
        return "a kernel numbers its records in another way"
    match = matcher(pattern)
    found = next((name for name in sorted(setting.foreign) if match(name)), None)
    return f"it selects functions that the world does not have, as {found}" if found else ""


def _alone(setting: SeedSetting, before: Inventory, pattern: str) -> str:
    """A pattern that does no harm to others, but which selects nothing else."""
    if record_index(pattern) is not None or not before.matching(pattern):
        return _beyond(setting, pattern)
    return ""


def _becomes_empty(
    _setting: SeedSetting,
    before: Inventory,
    operation: op.FtraceSetFilter | op.FtraceSetFilterIp | op.FtraceSetFilterIps,
) -> str:
    record = before.ops.get(operation.ops)
    if record is None or not record.enabled or record.ipmodify or record.direct:
        return ""
    return EVERYTHING if not before.filter_after(operation) else ""


def _declare(_setting: SeedSetting, before: Inventory, _operation: op.FtraceOps) -> str:
    return f"its module has {OPS_SLOTS} ops" if before.declared >= OPS_SLOTS else ""


def _register(_setting: SeedSetting, before: Inventory, operation: op.RegisterFtraceFunction) -> str:
    record = before.ops.get(operation.ops)
    return EVERYTHING if record and not (record.filter_hash or record.ipmodify or record.direct) else ""


def _graph(setting: SeedSetting, before: Inventory, operation: op.RegisterFtraceGraph) -> str:
    patterns = [p for p in (operation.filter, operation.function, operation.notrace) if p]
    if not operation.filter:
        return "a user without a filter traces every function of the kernel"
    if any(pattern.startswith("!") for pattern in patterns):
        return "tracefs removes what a pattern with ! selects"
    reasons = (_beyond(setting, operation.filter), *(_alone(setting, before, pattern) for pattern in patterns))
    if reason := next(filter(None, reasons), ""):
        return reason
    if operation.function and operation.depth:
        return "all calls are made in one task, in which the graph tracer's flag may stay set (GRAPH-6)"
    most = min(GRAPH_USERS, before.semantics.graph_users)
    return f"tracefs has {most} of its users here" if len(before.graph_users) >= most else ""


def _change_graph(_setting: SeedSetting, _before: Inventory, _operation: Operation) -> str:
    return "its users of the graph tracer keep what tracefs was given for them at first"


def _livepatch(setting: SeedSetting, _before: Inventory, operation: op.Livepatch) -> str:
    return "a function of the kernel's own has no patched body" if operation.function in setting.own else ""


def _load(setting: SeedSetting, _before: Inventory, operation: op.BpfProgLoad) -> str:
    if operation.kind == "freplace":
        return "extensions replace functions of programs, and none of the kernel"
    if operation.kind in op.KPROBES:
        return "its programs are those of trampolines, and no kprobe programs"
    if operation.kind == op.LSM:
        return "its module has no hooks of LSM, and programs for those of the kernel are not written yet"
    return "the bodies of the kernel's own functions keep no records" if operation.calls in setting.own else ""


def _link(setting: SeedSetting, before: Inventory, operation: op.BpfLinkCreate) -> str:
    homes = homes_of(setting, _linked(before, operation))
    return "its functions are not of one BTF" if len(homes) > 1 else ""


def _open(setting: SeedSetting, before: Inventory, operation: op.BpfRawTracepointOpen) -> str:
    program = before.programs.get(operation.prog)
    function = setting.world.find((program.target if program else None) or operation.function or "")
    kept = function is not None and function.lookup == "no_site" and function.name not in setting.own
    return "its function is in a module, where BPF patches no text but sites of ftrace" if kept else ""


def _linked(before: Inventory, operation: op.BpfLinkCreate) -> tuple[str, ...]:
    """The functions that a multi program is to be linked to."""
    program = before.programs.get(operation.prog)
    if program is None or not program.multi:
        return ()
    return tuple(n for t, _ in operation.targets for n in (before.matching(t) if is_glob(t) else (t,)))


def _detach(_setting: SeedSetting, before: Inventory, operation: op.BpfLinkDetach) -> str:
    link = before.links.get(operation.link)
    several = "jit_charge" in before.armed and link and len(link.functions) > 1
    return "bpf_jit_limit would refuse the charge of each of its functions" if several else ""


_JUDGES: dict[type[Operation], Callable[[SeedSetting, Inventory, Any], str]] = {
    op.Call: _call,
    op.Task: _call,
    op.Fail: _fail,
    op.FtraceOps: _declare,
    op.FtraceSetFilter: _filter,
    op.FtraceSetFilterIp: _becomes_empty,
    op.FtraceSetFilterIps: _becomes_empty,
    op.FtraceSetNotrace: _notrace,
    op.RegisterFtraceFunction: _register,
    op.RegisterFtraceGraph: _graph,
    op.SetFtraceFilter: _change_graph,
    op.SetFtraceNotrace: _change_graph,
    op.SetGraphFunction: _change_graph,
    op.SetGraphNotrace: _change_graph,
    op.Livepatch: _livepatch,
    op.BpfProgLoad: _load,
    op.BpfLinkCreate: _link,
    op.BpfRawTracepointOpen: _open,
    op.BpfLinkDetach: _detach,
}
