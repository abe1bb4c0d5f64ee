"""A seed as a test in the manner of tools/testing/selftests/bpf: its programs, and the test that attaches them.

The functions of the synthetic world stand for those that the kernel has for BPF's own tests: fooN for bpf_fentry_testN,
and a function under fmod_ret programs for bpf_modify_return_test. BPF_PROG_TEST_RUN calls them all with arguments of
its own, so that a test sees which programs ran on a function, and in which order, and not what they saw.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from properties.export.language import Action, Invocation, Raw, Value, identifier, templates
from properties.export.recorded import Recorded, RecordedSeed
from spec import operations as op
from spec.alphabet import INTERLEAVED
from spec.errors import BadInputError
from spec.seeds import print_operation
from spec.traces import ProgramRun, Trace

__all__ = ["selftest_files"]

MODIFIED = "bpf_modify_return_test"
STAND_INS = {f"foo{count}": f"bpf_fentry_test{count}" for count in range(1, 7)}
ATTACH_ERRORS = {"-EBUSY", "-E2BIG"}
"""What the kernel answers to an attach and not to a load, which is over when the test begins."""

MODES = {
    ("fentry", False): "BPF_TRACE_FENTRY",
    ("fexit", False): "BPF_TRACE_FEXIT",
    ("fmod_ret", False): "BPF_MODIFY_RETURN",
}


@dataclass(frozen=True, slots=True)
class ObjectProgram:
    """A program of the object: its name and section, and what it does."""

    name: str
    section: str
    number: int
    func_ip: bool
    returns: int


class _NoCounterpartError(Exception):
    """Why a step has no counterpart in a selftest."""


def selftest_files(recording: RecordedSeed, about: Iterable[str]) -> dict[str, str]:
    """The two files of a test. about: lines that say what it is about. BadInputError: a step has no counterpart."""
    setting = recording.setting
    writer = _Writer(recording, _choose_targets(recording))
    actions = [_act(writer, recorded) for recorded in recording.steps]
    if not any(writer.programs):
        text = "there is no program to attach, and a selftest of BPF has nothing else"
        raise BadInputError(text, str(setting.path))
    name = identifier(setting.name if setting.name[:1].isalpha() else f"seed_{setting.name}")
    values = {
        "name": name,
        "seed": setting.name,
        "about": list(about),
        "semantics": setting.semantics.name,
        "programs": list(writer.programs.values()),
        "links": list(writer.links),
        "actions": [action for action in actions if action.statements],
    }
    return {
        f"prog_tests/{name}.c": templates().get_template("prog_test.c").render(values),
        f"progs/{name}.c": templates().get_template("progs.c").render(values),
    }


def _act(writer: _Writer, recorded: Recorded) -> Action:
    text = print_operation(recorded.step.operation)
    try:
        return Action(recorded.step.line, f"{text} -> {recorded.expected}", tuple(writer.take(recorded)))
    except _NoCounterpartError as error:
        path, line = str(writer.recording.setting.path), recorded.step.line
        raise BadInputError(f"'{text}' has no counterpart in a selftest: {error}", path, line) from error


def _choose_targets(recording: RecordedSeed) -> dict[str, str]:
    """The function of the kernel for each function of the seed; one under fmod_ret programs has only one choice."""
    kinds = {o.prog: o.kind for r in recording.steps if isinstance(o := r.step.operation, op.BpfProgLoad)}
    modified = {
        function
        for recorded in recording.steps
        if isinstance(o := recorded.step.operation, op.BpfRawTracepointOpen) and kinds.get(o.prog) == "fmod_ret"
        for function in (o.function or recorded.before.programs[o.prog].target,)
        if function
    }
    return {**STAND_INS, **dict.fromkeys(modified, MODIFIED)} if len(modified) < 2 else STAND_INS


@dataclass(slots=True)
class _Writer:
    """Makes the actions, and gathers the programs: one for each function that a program is attached to."""

    recording: RecordedSeed
    targets: dict[str, str]
    programs: dict[tuple[str, str], ObjectProgram] = field(default_factory=dict)
    links: dict[str, None] = field(default_factory=dict)

    def take(self, recorded: Recorded) -> Iterator[Invocation | Raw]:
        """The calls of a step; none for a load, which is over when the test begins."""
        if recorded.harness:
            raise _NoCounterpartError(f"the harness answers it ({recorded.harness})")
        if not recorded.agrees:
            raise _NoCounterpartError("the seed expects other than the rules say")
        operation = recorded.step.operation
        if type(operation) in INTERLEAVED:
            raise _NoCounterpartError("a test cannot stop a task in the middle of a call")
        match operation:
            case op.BpfProgLoad():
                self._check_load(operation, recorded)
            case op.BpfRawTracepointOpen():
                yield from self._open(operation, recorded)
            case op.BpfLinkDetach():
                self.links.setdefault(operation.link)
                yield _invoke("detach", _link(operation.link))
                yield _invoke("ASSERT_OK", Raw(_link_text(operation.link)), f"{operation.link} detached")
            case op.Call():
                yield from self._call(operation, recorded)
            case op.ObserveSite():
                yield self._site(operation, recorded)
            case _:
                raise _NoCounterpartError("libbpf has no such call")

    def _check_load(self, declared: op.BpfProgLoad, recorded: Recorded) -> None:
        if declared.kind in op.KPROBES:
            raise _NoCounterpartError("links of kprobe programs are not written yet")
        if declared.kind == op.LSM:
            raise _NoCounterpartError("programs of LSM's hooks are not written yet")
        if declared.multi:
            raise _NoCounterpartError("a link of several functions is not yet in every libbpf")
        if declared.kind == "freplace":
            raise _NoCounterpartError("extensions replace functions of programs, and none of the kernel")
        if (declared.kind, False) not in MODES:
            raise _NoCounterpartError(f"{declared.kind} programs are not yet in every libbpf")
        if declared.calls:
            raise _NoCounterpartError("no kfunc calls a function that is traced")
        if recorded.expected != "0":
            raise _NoCounterpartError("a skeleton loads all programs, or none")

    def _target(self, function: str) -> str:
        if function not in self.targets:
            raise _NoCounterpartError(f"the kernel has no function for tests in the place of {function}")
        return self.targets[function]

    def _open(self, wanted: op.BpfRawTracepointOpen, recorded: Recorded) -> Iterator[Invocation]:
        declared = recorded.before.programs[wanted.prog]
        function = declared.target or wanted.function
        if function is None or (declared.target and wanted.function not in {None, declared.target}):
            raise _NoCounterpartError("the program has no target, and libbpf would not load it")
        if recorded.expected not in {"0", *ATTACH_ERRORS}:
            raise _NoCounterpartError(f"{recorded.expected} may be an answer to loading, which comes first")
        target = self._target(function)
        row = self._program(declared, function, target)
        self.links.setdefault(wanted.link)
        program = Raw(f"skel->progs.{row.name}")
        mode = Raw(MODES[declared.kind, False])
        if recorded.expected == "0":
            yield _invoke("attach", _link(wanted.link), program, mode, wanted.cookie or 0)
            yield _invoke("ASSERT_GE", Raw(_link_text(wanted.link)), 0, f"{wanted.link} attached")
        else:
            failed = Invocation("try_attach", (program, mode, wanted.cookie or 0))
            yield _invoke("ASSERT_EQ", failed, Raw(recorded.expected), f"{wanted.link} refused")

    def _program(self, declared: op.BpfProgLoad, function: str, target: str) -> ObjectProgram:
        key = declared.prog, function
        if key not in self.programs:
            name = identifier(f"{declared.prog}_{function}")
            section = f"{declared.kind}{'.s' if declared.sleepable else ''}/{target}"
            row = ObjectProgram(name, section, len(self.programs) + 1, declared.func_ip, declared.returns or 0)
            self.programs[key] = row
        return self.programs[key]

    def _call(self, operation: op.Call, recorded: Recorded) -> Iterator[Invocation]:
        """All of the kernel's functions for tests are called; the programs of one of them are looked at."""
        target = self._target(operation.function)
        assert recorded.trace is not None, "only a call has this step"
        ran = tuple(self._ran(recorded.trace, operation.function))
        runner = next((row for row in self.programs.values() if self._runs(row, target)), None)
        if runner is None:
            raise _NoCounterpartError(f"no program of this seed was loaded for {target}, and so nothing calls it")
        on_target = [row.number for (_, function), row in self.programs.items() if function == operation.function]
        yield _invoke("run", Raw("skel"), Raw(f"skel->progs.{runner.name}"))
        yield _invoke("check_runs", Raw("skel"), _numbers(on_target), _numbers(ran), print_operation(operation))

    def _runs(self, row: ObjectProgram, target: str) -> bool:
        return (target == MODIFIED) == row.section.startswith("fmod_ret")

    def _ran(self, trace: Trace, function: str) -> Iterator[int]:
        for event in trace.events:
            if isinstance(event, ProgramRun):
                yield self.programs[event.prog, function].number
            elif not str(event).startswith("body"):
                raise _NoCounterpartError(f"its call shows {event}, which no program of BPF sees")

    def _site(self, operation: op.ObserveSite, recorded: Recorded) -> Invocation:
        if recorded.expected != "nop" and not recorded.expected.startswith("trampoline:"):
            raise _NoCounterpartError(f"{recorded.expected} is nothing that BPF's tests look at")
        traced = Invocation("is_traced", (self._target(operation.function),))
        return _invoke("ASSERT_EQ", traced, recorded.expected != "nop", print_operation(operation))


def _invoke(function: str, *arguments: Value) -> Invocation:
    return Invocation(function, arguments)


def _link_text(link: str) -> str:
    return f"links[LINK_{identifier(link)}]"


def _link(link: str) -> Raw:
    return Raw(f"LINK_{identifier(link)}")


def _numbers(numbers: Iterable[int]) -> Raw:
    return Raw(f"NUMBERS({', '.join(map(str, numbers))})")
