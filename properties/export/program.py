"""A seed as a program in C: the runtime, tables of what the seed speaks of, and calls of the runtime for each step."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Self

from impl.linux.attachments import OTHER_TRIAL, TRIALS
from impl.linux.bpf.recorders import ATTACH_TYPES
from impl.linux.laboratory import control
from impl.linux.laboratory.build import CORE, SOURCES
from impl.linux.laboratory.control import COMMAND_HEADER, ENCODINGS, Command, Numbers
from impl.linux.laboratory.sources import (
    UNKNOWN,
    fmodret_functions,
    functions_of,
    functions_text,
    module_text,
)
from impl.linux.system import CHARGING
from properties.export.counterparts import check_counterparts, homes_of, is_charged, stopping_in
from properties.export.language import Action, Invocation, Raw, Value, identifier, spell, templates
from properties.export.recorded import Recorded, RecordedSeed, SeedSetting
from spec import operations as op
from spec.errors import BadInputError
from spec.globs import is_glob
from spec.names import names_of
from spec.seeds import print_operation
from spec.sites import Site
from spec.traces import Body, Event, GraphEntry, GraphReturn, NestedCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = ["program_files", "spell_trace"]

NO_PLACE = Raw("-1")
PATCHED = "__patched"


class AddressOf(int):
    """Stands for the address of a function, or with PATCHED behind its name of its twin, in a command's words."""

    function: str

    def __new__(cls, function: str) -> Self:
        address = super().__new__(cls, 0)
        address.function = function
        return address


@dataclass(frozen=True, slots=True)
class FunctionRow:
    """A function as the program's table has it."""

    name: str
    symbol: str
    home: str
    nth: int
    widths: tuple[int, ...]
    returns: int
    returns_signed: bool
    constant: str


@dataclass(frozen=True, slots=True)
class ProgramRow:
    """A program as the program's table has it. calls: a function's constant, or -1. stops: a task stops in it."""

    name: str
    kind: str
    attach_type: int
    sleepable: bool
    func_ip: bool
    returns: int
    calls: str
    nested: int
    constant: str
    stops: bool


@dataclass(frozen=True, slots=True)
class ModuleRow:
    """A module, and its functions to which fmod_ret programs may attach."""

    name: str
    fmodret: tuple[str, ...]


def program_files(recording: RecordedSeed, about: Iterable[str]) -> dict[str, str]:
    """The files of a seed as a program, by their paths: its source, a Makefile, and the sources of its modules.

    about: lines that say what the seed is about. BadInputError: a step has no counterpart.
    """
    check_counterparts(recording)
    setting = recording.setting
    writer = _Writer(recording)
    actions = [writer.act(recorded) for recorded in recording.steps]
    try:
        modules, sources = _list_modules(setting), _module_files(setting)
    except BadInputError as error:
        raise BadInputError(str(error), str(setting.path)) from error
    values = {
        "name": setting.name,
        "about": list(about),
        "semantics": setting.semantics.name,
        "commands": [command.name for command in Command],
        "modules": modules,
        "functions": writer.rows(),
        "ops": writer.ops,
        "tramps": list(writer.tramps),
        "programs": writer.programs,
        "links": list(writer.links),
        "graph": writer.graph,
        "tasks": writer.tasks,
        "actions": actions,
    }
    return {
        f"{setting.name}.c": templates().get_template("program.c").render(values),
        "Makefile": templates().get_template("Makefile").render(values),
        **{f"module/{name}": text for name, text in sources.items()},
    }


def _list_modules(setting: SeedSetting) -> list[ModuleRow]:
    absent = setting.own
    return [
        ModuleRow(
            module or CORE, tuple(name for name, _ in fmodret_functions(functions_of(setting.world, module, absent)))
        )
        for module in (None, *setting.world.modules)
    ]


def _module_files(setting: SeedSetting) -> dict[str, str]:
    """The laboratory's own sources, and the functions of the world."""
    world, absent = setting.world, setting.own
    own = {path.name: path.read_text() for path in sorted(SOURCES.iterdir())}
    others = {f"functions_{name}.c": module_text(world, name, absent) for name in world.modules}
    return {**own, "functions.c": functions_text(world, None, absent), **others}


@dataclass(slots=True)
class _Writer:
    """Makes the actions, and gathers on the way what the tables need."""

    recording: RecordedSeed
    ops: list[str] = field(default_factory=list)
    tramps: dict[str, int] = field(default_factory=dict)
    programs: list[ProgramRow] = field(default_factory=list)
    links: dict[str, None] = field(default_factory=dict)
    graph: bool = False
    charge_fails: bool = False
    _slots: dict[str, int] = field(default_factory=dict)
    _rows: dict[str, int] = field(default_factory=dict)
    _nested: dict[str, int] = field(default_factory=dict)

    @property
    def tasks(self) -> bool:
        """Whether there are tasks."""
        return any(isinstance(recorded.step.operation, op.Task) for recorded in self.recording.steps)

    @property
    def _stopping(self) -> set[str]:
        """The programs in which tasks stop."""
        steps = (recorded.step.operation for recorded in self.recording.steps)
        return {stopping_in(step) for step in steps if isinstance(step, op.Step)}

    @property
    def _setting(self) -> SeedSetting:
        return self.recording.setting

    def rows(self) -> list[FunctionRow]:
        """Functions of our modules, in the world's order; those of the kernel's own, and strangers, that are named."""
        world, own = self._setting.world, self._setting.own
        named = {
            name.text for r in self.recording.steps for name in names_of(r.step.operation) if name.space == "function"
        }
        shown = {name for recorded in self.recording.steps for name in recorded.sites}
        inside = [f for f in world.functions if f.name not in own or f.name in named | shown]
        strangers = sorted(name for name in named if name not in world.by_name and not is_glob(name))
        return [*map(self._row, inside), *map(_stranger, strangers)]

    def _row(self, function: Function) -> FunctionRow:
        prototype = function.prototype or UNKNOWN
        return FunctionRow(
            function.name,
            function.symbol,
            self._home(function.name),
            self._nth(function),
            tuple(slot.size for slot in prototype.slots),
            min(prototype.returns.size, 8),
            prototype.returns.signed,
            _constant(function.name),
        )

    def _nth(self, function: Function) -> int:
        """Which of the functions of its symbol, in the same home, it is, from 1 on."""
        home, world = self._home(function.name), self._setting.world
        names = (one.name for one in world.namesakes(function.symbol) if one.name in world.by_name)
        return [name for name in names if self._home(name) == home].index(function.name) + 1

    def _home(self, function: str) -> str:
        (home,) = homes_of(self._setting, (function,))
        return _home_constant(home)

    def act(self, recorded: Recorded) -> Action:
        """The calls of one step."""
        text = print_operation(recorded.step.operation)
        if recorded.harness:
            statements: tuple[Invocation | Raw, ...] = (_invoke("not_carried_out", recorded.harness),)
            if not recorded.agrees:
                statements = (_invoke("compare", "the outcome", recorded.expected, recorded.predicted),)
        else:
            statements = tuple(self._take(recorded))
        return Action(recorded.step.line, text, statements)

    def _take(self, recorded: Recorded) -> Iterator[Invocation | Raw]:
        operation = recorded.step.operation
        match operation:
            case op.Task() | op.Step() | op.Finish() | op.GracePeriod():
                yield self._interleave(operation, recorded.expected)
                return
            case op.Call():
                yield self._call(operation, recorded)
                return
            case op.ObserveSite():
                yield _invoke("site", Raw(_constant(operation.function)), recorded.expected)
                return
            case op.Fail():
                self.charge_fails = operation.count == 1
                yield _invoke("outcome", 0, recorded.expected)
                return
        refused = self.charge_fails and isinstance(operation, (*CHARGING, *_ATTACHING))
        if refused:
            yield Raw("charge_fails = true")
        yield _invoke("outcome", self._carry_out(recorded), recorded.expected)
        if refused:
            yield Raw("charge_fails = false")
        self.charge_fails = self.charge_fails and not is_charged(recorded)
        yield _invoke("sites", "".join(f"{line}\n" for line in self._lines(recorded.sites)))

    def _interleave(self, operation: op.Task | op.Step | op.Finish | op.GracePeriod, expected: str) -> Invocation:
        match operation:
            case op.Task(_, function):
                begun = _invoke("begin_task", Raw(_constant(function)), self._call_words(operation))
                return _invoke("outcome", begun, expected)
            case op.Step():
                program = self._program(stopping_in(operation))
                return _invoke("compare", "the task", expected, _invoke("step_task", program, operation.to or ""))
            case op.Finish():
                return _invoke("finish_task", expected)
        flavour = _words((op.FLAVOURS.index(operation.flavour),))
        return _invoke("outcome", _invoke("command", Raw("COMMAND_GRACE_PERIOD"), "", flavour), expected)

    def _lines(self, sites: Mapping[str, Site]) -> Iterator[str]:
        """The sites in the order of the table."""
        for function in self._setting.world.functions:
            if function.name in sites:
                yield f"{function.name} {sites[function.name]}"

    def _carry_out(self, recorded: Recorded) -> Value:
        operation = recorded.step.operation
        match operation:
            case op.BpfProgLoad():
                return self._load(operation)
            case op.BpfRawTracepointOpen():
                return self._open(operation, recorded)
            case op.BpfLinkCreate():
                return self._create(operation, recorded)
            case op.BpfLinkDetach():
                return _invoke("bpf_link_detach", self._link(operation.link))
            case op.RegisterFtraceGraph():
                self.graph = True
                limits = operation.filter, operation.function, operation.notrace, operation.depth or 0
                return _invoke("register_ftrace_graph", operation.user, *limits)
            case op.FtraceEnabled():
                return _invoke("ftrace_enabled", operation.switch)
            case op.UnregisterFtraceGraph():
                return _invoke("unregister_ftrace_graph", operation.user)
            case op.InitModule():
                return self._change_module("add_module", operation.module)
            case op.DeleteModule():
                return self._change_module("remove_module", operation.module)
        return self._command(operation)

    def _change_module(self, function: str, module: str) -> Value:
        """One that the world does not have is no file that could be loaded (MODULE-1)."""
        if module not in self._setting.world.modules:
            return Raw("-ENOENT")
        return _invoke(function, Raw(_home_constant(module)))

    def _command(self, operation: op.Operation) -> Value:
        """A command of the module."""
        if isinstance(operation, op.FtraceOps):
            self._slots[operation.ops] = len(self.ops)
            self.ops.append(operation.ops)
        for name in names_of(operation, "names"):
            if name.space == "tramp":
                self._stub(name.text)
        command, words = ENCODINGS[type(operation)]
        given = words(operation, Numbers(self._slots, self.tramps, AddressOf))
        text = operation.glob if isinstance(operation, op.FtraceSetFilter | op.FtraceSetNotrace) else ""
        return _invoke("command", Raw(f"COMMAND_{command.name}"), text, _words(map(_word, given)))

    def _stub(self, tramp: str) -> None:
        self.tramps.setdefault(tramp, len(self.tramps))
        if len(self.tramps) > control.STUBS:
            raise BadInputError(f"its module has {control.STUBS} direct trampolines", str(self._setting.path))

    def _call_words(self, operation: op.Call | op.Task) -> Raw:
        """The words of the module's command for a call."""
        function = self._setting.world.by_name[operation.function]
        packed = control.call(0, function.prototype, operation.arguments)[COMMAND_HEADER.size :]
        _, *passed = struct.unpack(f"<{len(packed) // 8}Q", packed)
        return _words((_invoke("at", Raw(_constant(operation.function))), *passed))

    def _call(self, operation: op.Call, recorded: Recorded) -> Invocation:
        assert recorded.trace is not None, "only a call has this step"
        full = spell_trace(recorded.trace) if recorded.agrees else None
        words = self._call_words(operation)
        return _invoke("call", Raw(_constant(operation.function)), words, recorded.expected, full)

    def _load(self, declared: op.BpfProgLoad) -> Value:
        """BPF_PROG_LOAD; what the kernel has no such program for is answered by the host as by the harness."""
        if (declared.kind, declared.multi) not in ATTACH_TYPES or (declared.multi and declared.target is not None):
            return Raw("-EINVAL")
        self._rows[declared.prog] = len(self.programs)
        nested = self._nested.setdefault(declared.prog, len(self._nested)) if declared.calls else 0
        self.programs.append(
            ProgramRow(
                declared.prog,
                declared.kind,
                ATTACH_TYPES[declared.kind, declared.multi],
                declared.sleepable,
                declared.func_ip,
                declared.returns or 0,
                _constant(declared.calls) if declared.calls else "-1",
                nested,
                self._name_program(declared.prog),
                declared.prog in self._stopping,
            )
        )
        program = self._program(declared.prog)
        if declared.multi:
            return _invoke("bpf_prog_load", program, _home_place(self._first_home()))
        if declared.target is not None:
            return _invoke("bpf_prog_load", program, Raw(_constant(declared.target)))
        return _invoke("bpf_prog_try", program, TRIALS.get(declared.kind, OTHER_TRIAL))

    def _first_home(self) -> str | None:
        """Where programs of several functions are loaded first: the home of the first function of our own."""
        functions = self._setting.world.functions
        first = next((f for f in functions if f.name not in self._setting.own), functions[0])
        (home,) = homes_of(self._setting, (first.name,))
        return home

    def _link(self, link: str) -> Raw:
        self.links.setdefault(link)
        return Raw(f"LINK_{identifier(link)}")

    def _name_program(self, prog: str) -> str:
        """A constant that no other program has: a name may be used again after a load that was refused."""
        constant = f"PROG_{identifier(prog)}"
        return (
            constant if constant not in {row.constant for row in self.programs} else f"{constant}_{len(self.programs)}"
        )

    def _program(self, prog: str) -> Raw:
        return Raw(self.programs[self._rows[prog]].constant)

    def _open(self, wanted: op.BpfRawTracepointOpen, recorded: Recorded) -> Value:
        declared = recorded.before.programs[wanted.prog]
        place = self._place(declared, wanted.function)
        if place is None:
            return Raw("-EINVAL")
        link = self._link(wanted.link)
        if wanted.cookie is None:
            return _invoke("bpf_raw_tracepoint_open", link, self._program(wanted.prog), place)
        return _invoke("bpf_link_create", link, self._program(wanted.prog), place, wanted.cookie)

    def _place(self, declared: op.BpfProgLoad, function: str | None) -> Raw | None:
        """The function that a program is attached to, or its home; None where they do not fit (LINK-1)."""
        if declared.multi:
            return _home_place(self._first_home())
        place = declared.target or function
        if not place or (function and declared.target and function != declared.target):
            return None
        return Raw(_constant(place))

    def _create(self, wanted: op.BpfLinkCreate, recorded: Recorded) -> Value:
        declared = recorded.before.programs[wanted.prog]
        if declared.multi:
            return self._create_multi(wanted, recorded)
        (function, cookie), *more = wanted.targets
        place = self._place(declared, function)
        if more or is_glob(function) or place is None:
            return Raw("-EINVAL")
        return _invoke("bpf_link_create", self._link(wanted.link), self._program(wanted.prog), place, cookie or 0)

    def _create_multi(self, wanted: op.BpfLinkCreate, recorded: Recorded) -> Value:
        """A glob stands for the functions that a tool would name (LINK-6)."""
        before, targets = recorded.before, list[tuple[str, int | None]]()
        for name, cookie in wanted.targets:
            chosen = before.expand(wanted.prog, name) if is_glob(name) else (name,)
            if not chosen:
                return Raw("-EINVAL")
            targets += [(each, cookie) for each in chosen]
        homes = homes_of(self._setting, tuple(name for name, _ in targets)) or (None,)
        rows = ", ".join(f"{{ {_constant(name)}, {spell(cookie or 0)} }}" for name, cookie in targets)
        return _invoke(
            "bpf_link_create_multi",
            self._link(wanted.link),
            self._program(wanted.prog),
            _home_place(homes[0]),
            any(cookie is not None for _, cookie in targets),
            Raw(f"(const struct target[]){{ {rows} }}"),
            len(targets),
        )


_ATTACHING = (op.BpfRawTracepointOpen, op.BpfLinkCreate, op.BpfLinkDetach)


def _invoke(function: str, *arguments: Value) -> Invocation:
    return Invocation(function, arguments)


def _constant(function: str) -> str:
    return f"FN_{identifier(function)}"


def _home_constant(home: str | None) -> str:
    return "VMLINUX" if home is None else "CORE" if home == CORE else f"HOME_{home}"


def _home_place(home: str | None) -> Raw:
    return Raw(f"-1 - {_home_constant(home)}")


def _stranger(name: str) -> FunctionRow:
    """A function that is nowhere."""
    return FunctionRow(name, name, "VMLINUX", 1, (), 8, returns_signed=True, constant=_constant(name))


def _word(word: int) -> Value:
    if not isinstance(word, AddressOf):
        return word
    plain = word.function.removesuffix(PATCHED)
    return _invoke("at" if plain == word.function else "patched", Raw(_constant(plain)))


def _words(words: Iterable[Value]) -> Raw:
    return Raw(f"WORDS({', '.join(map(spell, words))})")


def spell_trace(trace: Trace) -> str:
    """A trace in full, as the runtime spells it: what each event saw stands in parentheses."""
    value = "absent" if trace.value is None else f"={trace.value}"
    return " ".join([*map(_spell_event, trace.events), value])


def _spell_event(event: Event) -> str:
    match event:
        case Body():
            return f"{event}({','.join(map(str, event.arguments))})"
        case GraphEntry() | GraphReturn():
            return f"{event}({event.function},{event.depth})"
        case NestedCall():
            return f"{event.function}[ {spell_trace(event.trace)} ]"
        case ProgramRun():
            return f"{event}({_spell_run(event)})"
    return str(event)


def _spell_run(run: ProgramRun) -> str:
    parts = [",".join(map(str, run.args)), f"count={run.arg_cnt}", f"ret={run.ret}", f"cookie={run.cookie}"]
    if run.func_ip is not None:
        parts.append(f"ip={run.func_ip}")
    if run.session is not None:
        parts += [f"second={int(run.is_return)}", f"session={run.session}"]
    return ";".join(parts)
