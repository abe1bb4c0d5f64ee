"""What one call does, event by event (TRACE-*, TRAMP-2 to TRAMP-6, PROG-5, PROG-6, PROG-8)."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from model.frames import Frame, ShadowStack, fgraph_return, function_graph_enter
from model.rules import cite
from model.sites import has_direct_ops
from model.state import GRAPH_OPS, Image, Node, Program, State, klp_ops
from spec.prototypes import MODULUS, Prototype, Type
from spec.traces import Body, DirectCall, Event, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = ["Running", "call"]

LONG = Type("long", "INT", 8)
PATCHED_RETURNS_MORE = 1000


@dataclass
class TaskState:
    """A task that makes a call: the frames on its shadow stack, and how often each program was missed."""

    stack: ShadowStack = field(default_factory=ShadowStack)
    missed: Counter[str] = field(default_factory=Counter)


class CallingRun(NamedTuple):
    """A run of a program, in which it makes a call, and the function that it is for."""

    prog: str
    function: str


@dataclass
class Running:
    """One function being called.

    caller: the program that made the call, or a call around it; None where none did. words: the argument words. events:
    those so far. sessions: what session programs wrote into their cookies.
    """

    state: State
    task: TaskState
    caller: CallingRun | None
    function: Function
    words: tuple[int, ...]
    events: list[Event] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)

    @property
    def returns(self) -> Type:
        """The return type."""
        prototype = self.function.prototype
        return prototype.returns if prototype else LONG

    def width(self, word: int) -> int:
        """ARG-5: a return word at the return type's width."""
        return Prototype((), self.returns).returned(word)


def call(state: State, function: str, arguments: tuple[int, ...]) -> tuple[Trace, Counter[str]]:
    """The trace of one call by a fresh task, and how often each program was missed in it."""
    task = TaskState()
    return _call(state, task, None, function, arguments), task.missed


def _call(state: State, task: TaskState, caller: CallingRun | None, name: str, arguments: tuple[int, ...]) -> Trace:
    function = state.loaded(name)
    if function is None:
        cite("NAME-8")
        return Trace((), None)
    cite("TRACE-1", "ARG-1", "ARG-2", "ARG-3", "ARG-5")
    prototype = function.prototype
    words = prototype.words(arguments) if prototype else tuple(word % MODULUS for word in arguments)
    running = Running(state, task, caller, function, words)
    frame = _ftrace_ops_list_func(running)
    word = _run_direct(running)
    if frame:
        fgraph_return(state, task.stack, frame, running.events)
    return Trace(tuple(running.events), running.returns.extend(word))


def _ftrace_ops_list_func(running: Running) -> Frame | None:
    """TRACE-1: every ops that covers the site, newest first; the frame that the graph tracer pushed."""
    frame = None
    if running.state.off or running.function.module in running.state.untraced:
        return None
    for key in running.state.ops_list:
        ops = running.state.ops[key]
        if not ops.covers(running.function.name):
            continue
        if key == GRAPH_OPS:
            frame = function_graph_enter(running.state, running.task.stack, running.function.name, running.events)
        elif not ops.direct and ops.label == key:
            running.events.append(OpsCall(key))
    return frame


def _run_direct(running: Running) -> int:
    """TRACE-3: the direct trampoline, or the body at once; the return register."""
    # Since Linux kernel commit 0c0593b45c9b ("x86/ftrace: Make function graph use ftrace directly") (in v5.16) the
    # order of the list does not matter: call_direct_funcs() only stores where ftrace_regs_caller goes at its end.
    state, name = running.state, running.function.name
    if state.off:
        cite("SYSCTL-2")
        return _run_body(running)
    image = state.images.get(name)
    if image:
        cite("TRACE-3")
        return _run_image(running, _bpf_trampoline_skip_prog(state, name, image))
    entry = state.direct_functions.get(name)
    if entry and has_direct_ops(state, name):
        cite("TRACE-3", "DIRECT-14")
        running.events.append(DirectCall(entry.tramp))
    return _run_body(running)


def _bpf_trampoline_skip_prog(state: State, name: str, image: Image) -> Image:
    """IMAGE-2: an image without the programs that have left the function."""
    linked = {node.program for node in state.trampolines[name].nodes}
    return image.where(lambda node: node.program in linked)


def _run_image(running: Running, image: Image) -> int:
    """TRAMP-2: fentry, fmod_ret, body, fexit; the return register."""
    cite("TRAMP-2", "TRAMP-4", "TRAMP-5")
    for node in image.fentry:
        _invoke_bpf_prog(running, node, 0)
    slot = _invoke_bpf_mod_ret(running, image)
    word = slot or _run_body(running)
    for node in image.fexit:
        _invoke_bpf_prog(running, node, word, is_return=node.program.kind == "fsession")
    return word


def _invoke_bpf_mod_ret(running: Running, image: Image) -> int:
    """TRAMP-3: the return slot; when it is not 0 the body does not run."""
    for node in image.fmod_ret:
        cite("TRAMP-3")
        ran = _invoke_bpf_prog(running, node, 0)
        slot = (node.program.returns or 0) % MODULUS
        if ran and slot:
            if GRAPH_OPS in running.state.ops_list:
                cite("GRAPH-9")
            return slot
    return 0


def _invoke_bpf_prog(running: Running, node: Node, word: int, *, is_return: bool = False) -> bool:
    """One run of a program; False if it was skipped because it is running already (PROG-6)."""
    if running.caller and running.caller.prog == node.program.prog:
        cite("PROG-6")
        _bpf_prog_inc_misses_counter(running, running.caller, node.program)
        return False
    running.events.append(_observe_run(running, node, word, is_return=is_return))
    _call_from_program(running, node.program)
    return True


def _bpf_prog_inc_misses_counter(running: Running, caller: CallingRun, program: Program) -> None:
    """PROG-8: a program without a target is another one for each function."""
    if program.multi or program.target or caller.function == running.function.name:
        cite("PROG-8")
        running.task.missed[program.prog] += 1


def _call_from_program(running: Running, program: Program) -> None:
    """PROG-5: the call that a program makes, unless it runs inside such a call."""
    callee = running.state.loaded(program.calls) if program.calls and not running.caller else None
    if callee is None:
        return
    cite("PROG-5")
    zeros = (0,) * (len(callee.prototype.slots) if callee.prototype else 0)
    caller = CallingRun(program.prog, running.function.name)
    trace = _call(running.state, running.task, caller, callee.name, zeros)
    running.events.append(NestedCall(callee.name, trace))


def _observe_run(running: Running, node: Node, word: int, *, is_return: bool) -> ProgramRun:
    """TRAMP-4, TRAMP-5: the context and every helper's answer."""
    program, words = node.program, running.words
    sees_return = program.kind in {"fexit", "fmod_ret", "fsession"}
    seen = running.width(word)
    return ProgramRun(
        kind=program.kind,
        prog=program.prog,
        context=(*words, seen) if sees_return else words,
        func_ip=running.function.name if program.func_ip else None,
        arg_cnt=len(words),
        args=(*words, "EINVAL"),
        ret=seen if sees_return else "EOPNOTSUPP",
        cookie=node.cookie % MODULUS,
        is_return=is_return,
        session=_use_session_cookie(running, program, is_return=is_return) if program.kind == "fsession" else None,
    )


def _use_session_cookie(running: Running, program: Program, *, is_return: bool) -> str:
    """TRAMP-6: what the session cookie held; an entry run leaves the program's name in it."""
    cite("TRAMP-6")
    if is_return:
        return running.sessions.get(program.prog, "")
    running.sessions[program.prog] = program.prog
    return ""


def _run_body(running: Running) -> int:
    """TRACE-2: the body, the patched one, or the extension in its place; the return register."""
    state, name = running.state, running.function.name
    trampoline = state.trampolines.get(name)
    if state.enabled(klp_ops(name)):
        cite("IPMODIFY-9", "TRACE-5")
        return _run_function(running, patched=True)
    if trampoline and trampoline.extension:
        cite("TRACE-6")
        return trampoline.extension.program.returns or 0 if _invoke_bpf_prog(running, trampoline.extension, 0) else 0
    return _run_function(running, patched=False)


def _run_function(running: Running, *, patched: bool) -> int:
    cite("TRACE-2")
    running.events.append(Body(running.words, patched))
    value = _call_callees(running) if running.function.callees else _sum_members(running)
    if patched:
        value += PATCHED_RETURNS_MORE
    return running.width(running.returns.read(value))


def _call_callees(running: Running) -> int:
    """TRACE-4: the calls that a body makes; their sum."""
    cite("TRACE-4")
    total = 0
    for callee in running.function.callees:
        if not running.state.loaded(callee.function):
            continue
        arguments = tuple(running.words[number] if source == "slot" else number for source, number in callee.arguments)
        trace = _call(running.state, running.task, running.caller, callee.function, arguments)
        running.events.append(NestedCall(callee.function, trace))
        total += trace.value or 0
    return total


def _sum_members(running: Running) -> int:
    prototype = running.function.prototype
    if prototype is None:
        return sum(running.words)
    total = 0
    for slot, word in zip(prototype.slots, running.words, strict=True):
        kind = prototype.arguments[slot.argument]
        if kind.by_value:
            total += word
        elif slot.offset == 0:
            total += kind.read(word)
    return total
