"""What one call does, event by event (TRACE-*, TRAMP-2 to TRAMP-6, PROG-5, PROG-6, PROG-8, TASK-1 to TASK-6).

A call of a task that stops does so at each point of TASK-2, and goes on in the state of then. One that runs to its end
does so in one state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from model import kprobes
from model.frames import Frame, ShadowStack, fgraph_return, function_graph_enter
from model.rules import cite
from model.sites import has_direct_ops
from model.state import FPROBE_OPS, GRAPH_OPS, Image, Node, Program, State, klp_ops
from spec.operations import LSM
from spec.prototypes import MODULUS, Prototype, Type
from spec.traces import Body, DirectCall, Event, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = ["Running", "Stops", "TaskStruct", "begin", "call", "run"]

LONG = Type("long", "INT", 8)
PATCHED_RETURNS_MORE = 1000


Value = TypeVar("Value")
Stops = Generator[str, None, Value]
"""What stops at points before it has its value."""


@dataclass
class TaskStruct:
    """A task that calls.

    stack: its graph frames. missed: how often each program was. busy: the programs that other tasks are in. kept:
    images that an operation under way has yet to put.
    """

    stack: ShadowStack = field(default_factory=ShadowStack)
    missed: Counter[str] = field(default_factory=Counter)
    busy: frozenset[str] = frozenset()
    kept: Mapping[str, Image] = field(default_factory=dict)


class CallingRun(NamedTuple):
    """A run of a program, in which it makes a call, and the function that it is for."""

    prog: str
    function: str


@dataclass
class Running:
    """One function being called.

    state: the present one of this function, present: that of others; began: that at the site. caller: the program that
    made the call, or a call around it; None where none did. words: the argument words. stops: whether it does so at
    points. events: those so far. sessions: what session programs wrote into their cookies. image: the one that runs.
    """

    task: TaskStruct
    state: State
    present: State
    began: State
    caller: CallingRun | None
    function: Function
    words: tuple[int, ...]
    stops: bool = False
    events: list[Event] = field(default_factory=list)
    sessions: dict[str, str] = field(default_factory=dict)
    image: Image | None = None

    @property
    def returns(self) -> Type:
        """The return type."""
        prototype = self.function.prototype
        return prototype.returns if prototype else LONG

    def width(self, word: int) -> int:
        """ARG-5: a return word at the return type's width."""
        return Prototype((), self.returns).returned(word)


def call(
    state: State, function: str, arguments: tuple[int, ...], busy: frozenset[str] = frozenset()
) -> tuple[Trace, Counter[str]]:
    """The trace of a call by a fresh task, while others are in the busy programs; how often each program was missed."""
    task = TaskStruct(busy=busy)
    return _call(task, state, None, function, arguments), task.missed


def _call(task: TaskStruct, state: State, caller: CallingRun | None, name: str, arguments: tuple[int, ...]) -> Trace:
    """A call that runs to its end."""
    function = state.loaded(name)
    if function is None:
        cite("NAME-8")
        return Trace((), None)
    try:
        point = next(run(begin(task, state, caller, function, arguments)))
    except StopIteration as end:
        trace: Trace = end.value
        return trace
    raise AssertionError(f"stopped at {point}")


def begin(
    task: TaskStruct,
    state: State,
    caller: CallingRun | None,
    function: Function,
    arguments: tuple[int, ...],
    *,
    stops: bool = False,
) -> Running:
    """A call of a function that is there, before its first point."""
    cite("TRACE-1", "ARG-1", "ARG-2", "ARG-3", "ARG-5")
    prototype = function.prototype
    words = prototype.words(arguments) if prototype else tuple(word % MODULUS for word in arguments)
    shown = state.former.get(function.name, state)
    return Running(task, shown, state, shown, caller, function, words, stops)


def run(running: Running) -> Stops[Trace]:
    """TASK-1, TASK-3: the points of a call; what is called at the site does not change behind it."""
    if running.stops:
        yield "site"
        running.began = running.state
    hooks = _ftrace_ops_list_func(running)
    word = yield from _run_direct(running)
    for hook in reversed(hooks):
        _run_hook(running, hook, word)
    if running.stops:
        yield "return"
    return Trace(tuple(running.events), running.returns.extend(word))


Hook = Frame | str
"""What stands in the place of a return address: a frame of the graph tracer, or the fprobe of a link (KPROBE-7)."""


def _ftrace_ops_list_func(running: Running) -> list[Hook]:
    """TRACE-1: every ops that covers the site, newest first; what has hooked the return, the innermost one last."""
    hooks: list[Hook] = []
    if running.state.off or not running.state.site(running.function.name):
        return hooks
    for key in running.state.ops_list:
        ops = running.state.ops[key]
        if not ops.covers(running.function.name):
            continue
        if key == GRAPH_OPS:
            frame = function_graph_enter(running.state, running.task.stack, running.function.name, running.events)
            hooks += [frame] if frame else []
        elif key == FPROBE_OPS:
            running.events += kprobes.fprobe_entry(running.state, running.function, running.words)
        elif link := kprobes.link_of(running.state, key):
            if running.state.kprobes[link].program.kind == "kretprobe":
                hooks.append(link)
            else:
                running.events += kprobes.handler(running.state, link, running.function, running.words)
        elif not ops.direct and ops.label == key:
            running.events.append(OpsCall(key))
    return hooks


def _run_hook(running: Running, hook: Hook, word: int) -> None:
    """KPROBE-7: a return that was hooked."""
    function, seen = running.function, (running.width(word),)
    if isinstance(hook, str):
        running.events += kprobes.handler(running.state, hook, function, seen)
        return
    told = kprobes.fprobe_return(running.state, function, seen)
    fgraph_return(running.state, running.task.stack, hook, running.events, told)


def _run_direct(running: Running) -> Stops[int]:
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
        return (yield from _run_image(running, image))
    entry = state.direct_functions.get(name)
    if entry and has_direct_ops(state, name):
        cite("TRACE-3", "DIRECT-14")
        running.events.append(DirectCall(entry.tramp))
    if running.stops:
        yield "body"
    return _run_body(running)


def _run_image(running: Running, image: Image) -> Stops[int]:
    """TRAMP-2, TASK-2: fentry, fmod_ret, body, fexit, and the points between them; the return register."""
    cite("TRAMP-2", "TRAMP-4", "TRAMP-5")
    running.image = image
    counted = running.stops and image.calls_orig
    if running.stops:
        yield "image"
    if counted:
        yield "enter"
    linked = _bpf_trampoline_skip_prog(running, image)
    for node in linked.fentry:
        yield from _invoke_bpf_prog(running, node, 0)
    word = yield from _invoke_bpf_mod_ret(running, linked)
    fexit = linked.fexit
    if not word:
        if running.stops:
            yield "body"
        word = _run_body(running)
        if counted:
            yield "after-body"
            fexit = () if _is_put(running, image) else fexit
    for node in fexit:
        yield from _invoke_bpf_prog(running, node, word, is_return=node.program.kind == "fsession")
    if counted:
        yield "exit"
    return word


def _bpf_trampoline_skip_prog(running: Running, image: Image) -> Image:
    """IMAGE-2: an image without the programs that had left the function at the site."""
    linked = {node.program for node in running.began.trampolines[running.function.name].nodes}
    return image.where(lambda node: node.program in linked)


def _is_put(running: Running, image: Image) -> bool:
    """TASK-5: whether ip_after_call jumps to the epilogue. An image that a pending operation uses is not put yet."""
    name = running.function.name
    used = (running.state.images.get(name), running.task.kept.get(name))
    if not running.state.semantics.image_put_skips_fexit or any(each is image for each in used):
        return False
    cite("TASK-5")
    return True


def _is_skipped(running: Running, node: Node) -> bool:
    """TASK-4: whether a program was detached since the call began, or by what patches its site now (POKE-2)."""
    if running.present is running.began or not running.state.semantics.skips_detached:
        return False
    trampoline = running.present.trampolines.get(running.function.name)
    if trampoline and any(linked is node for linked in trampoline.nodes):
        return False
    cite("TASK-4")
    return True


def _invoke_bpf_mod_ret(running: Running, image: Image) -> Stops[int]:
    """TRAMP-3: the return slot; when it is not 0 the body does not run."""
    for node in image.fmod_ret:
        cite("TRAMP-3")
        ran = yield from _invoke_bpf_prog(running, node, 0)
        slot = (node.program.returns or 0) % MODULUS
        if ran and slot:
            if GRAPH_OPS in running.state.ops_list:
                cite("GRAPH-9")
            return slot
    return 0


def _invoke_bpf_prog(running: Running, node: Node, word: int, *, is_return: bool = False) -> Stops[bool]:
    """One run of a program in an image; False if it was skipped."""
    prog = node.program.prog
    if running.stops and running.state.semantics.skips_detached:
        yield f"skip:{prog}"
    if _is_skipped(running, node):
        return False
    if running.stops:
        yield f"before:{prog}"
    if _is_running(running, node.program):
        return False
    if running.stops:
        yield f"program:{prog}"
    return _run_prog(running, node, word, is_return=is_return)


def _is_running(running: Running, program: Program) -> bool:
    """PROG-6, TASK-6: whether a program is running already, around this call or in another task, and so is missed."""
    inside = running.caller is not None and program.prog == running.caller.prog
    if not inside and program.prog not in running.task.busy:
        return False
    if program.kind == LSM:
        cite("LSM-5")
        return False
    cite("PROG-6" if inside else "TASK-6")
    _bpf_prog_inc_misses_counter(running, program)
    return True


def _run_prog(running: Running, node: Node, word: int, *, is_return: bool = False) -> bool:
    """One run of a program."""
    running.events.append(_observe_run(running, node, word, is_return=is_return))
    _call_from_program(running, node.program)
    return True


def _bpf_prog_inc_misses_counter(running: Running, program: Program) -> None:
    """PROG-8: a program without a target is another one for each function."""
    if program.multi or program.target or running.caller == CallingRun(program.prog, running.function.name):
        cite("PROG-8")
        running.task.missed[program.prog] += 1


def _call_from_program(running: Running, program: Program) -> None:
    """PROG-5: the call that a program makes, unless it runs inside such a call."""
    callee = running.present.loaded(program.calls) if program.calls and not running.caller else None
    if callee is None:
        return
    cite("PROG-5")
    zeros = (0,) * (len(callee.prototype.slots) if callee.prototype else 0)
    caller = CallingRun(program.prog, running.function.name)
    trace = _call(running.task, running.present, caller, callee.name, zeros)
    running.events.append(NestedCall(callee.name, trace))


def _observe_run(running: Running, node: Node, word: int, *, is_return: bool) -> ProgramRun:
    """TRAMP-4, TRAMP-5: the context and every helper's answer."""
    program, words = node.program, running.words
    if program.kind == LSM:
        cite("LSM-6")
    sees_return = program.kind in {"fexit", "fmod_ret", "lsm", "fsession"}
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
        if _is_running(running, trampoline.extension.program):
            return 0
        _run_prog(running, trampoline.extension, 0)
        return trampoline.extension.program.returns or 0
    return _run_function(running, patched=False)


def _run_function(running: Running, *, patched: bool) -> int:
    if "empty" in running.function.attributes and not patched:
        cite("TRACE-7")
        return 0
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
        trace = _call(running.task, running.present, running.caller, callee.function, arguments)
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
