"""What one call does, event by event (TRACE-*, TRAMP-2 to TRAMP-6, PROG-5, PROG-6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from model.frames import Frame, ShadowStack, enter, leave
from model.rules import cite
from model.state import GRAPH_OPS, Image, Node, Program, State, klp_ops
from spec.prototypes import MODULUS, Prototype, Type
from spec.traces import Body, DirectCall, Event, NestedCall, OpsCall, ProgramRun, Trace
from spec.worlds import Function

__all__ = ["call"]

LONG = Type("long", "INT", 8)


@dataclass
class Task:
    """What a task carries through nested calls: the graph tracer's shadow stack, and the program whose call this is."""

    stack: ShadowStack = field(default_factory=ShadowStack)
    caller: str | None = None


@dataclass
class Running:
    """One function being called: its events so far, its argument words, and what its session programs wrote."""

    state: State
    task: Task
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


def call(state: State, function: str, arguments: tuple[int, ...]) -> Trace:
    """The trace of one call by a fresh task."""
    return _call(state, Task(), function, arguments)


def _call(state: State, task: Task, name: str, arguments: tuple[int, ...]) -> Trace:
    function = state.loaded(name)
    if function is None:
        cite("NAME-8")
        return Trace((), None)
    cite("TRACE-1", "ARG-1", "ARG-2", "ARG-3", "ARG-5")
    prototype = function.prototype
    words = prototype.words(arguments) if prototype else tuple(word % MODULUS for word in arguments)
    running = Running(state, task, function, words)
    frame = _callbacks(running)
    word = _direct(running)
    if frame:
        leave(state, task.stack, frame, running.events)
    return Trace(tuple(running.events), running.returns.extend(word))


def _callbacks(running: Running) -> Frame | None:
    """TRACE-1: every ops that covers the site, newest first; the frame that the graph tracer pushed."""
    frame = None
    for key in running.state.ops_list:
        ops = running.state.ops[key]
        if not ops.covers(running.function.name):
            continue
        if key == GRAPH_OPS:
            frame = enter(running.state, running.task.stack, running.function.name, running.events)
        elif not ops.direct and ops.label == key:
            running.events.append(OpsCall(key))
    return frame


def _direct(running: Running) -> int:
    """TRACE-3: the direct trampoline, or the body at once; the return register."""
    state, name = running.state, running.function.name
    image = state.images.get(name)
    if image:
        cite("TRACE-3")
        return _image(running, _still_linked(state, name, image))
    entry = state.direct_functions.get(name)
    if entry and state.ops[entry.owner].covers(name):
        cite("TRACE-3", "DIRECT-14")
        running.events.append(DirectCall(entry.tramp))
    return _body(running)


def _still_linked(state: State, name: str, image: Image) -> Image:
    """IMAGE-2: an image without the programs that have left the function."""
    trampoline = state.trampolines[name]
    linked = {node.program for node in (*trampoline.fentry, *trampoline.fmod_ret, *trampoline.fexit)}

    def still(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
        return tuple(node for node in nodes if node.program in linked)

    return Image(still(image.fentry), still(image.fmod_ret), still(image.fexit), image.orig_stack)


def _image(running: Running, image: Image) -> int:
    """TRAMP-2: fentry, fmod_ret, body, fexit; the return register."""
    cite("TRAMP-2", "TRAMP-4", "TRAMP-5")
    for node in image.fentry:
        _run(running, node, 0)
    slot = _fmod_ret(running, image)
    word = slot or _body(running)
    for node in image.fexit:
        _run(running, node, word, is_return=node.program.kind == "fsession")
    return word


def _fmod_ret(running: Running, image: Image) -> int:
    """TRAMP-3: the return slot; when it is not 0 the body does not run."""
    for node in image.fmod_ret:
        cite("TRAMP-3")
        if _run(running, node, 0):
            slot = (node.program.returns or 0) % MODULUS
            if slot:
                if GRAPH_OPS in running.state.ops_list:
                    cite("GRAPH-9")
                return slot
    return 0


def _run(running: Running, node: Node, word: int, *, is_return: bool = False) -> bool:
    """One run of a program; False if it was skipped because it is running already (PROG-6)."""
    if node.program.prog == running.task.caller:
        cite("PROG-6")
        return False
    running.events.append(_program_run(running, node, word, is_return=is_return))
    _program_calls(running, node.program)
    return True


def _program_calls(running: Running, program: Program) -> None:
    """PROG-5: the call that a program makes, unless it runs inside such a call."""
    callee = running.state.loaded(program.calls) if program.calls and not running.task.caller else None
    if callee is None:
        return
    cite("PROG-5")
    running.task.caller = program.prog
    zeros = (0,) * (len(callee.prototype.slots) if callee.prototype else 0)
    running.events.append(NestedCall(callee.name, _call(running.state, running.task, callee.name, zeros)))
    running.task.caller = None


def _program_run(running: Running, node: Node, word: int, *, is_return: bool) -> ProgramRun:
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
        session=_session(running, program, is_return=is_return) if program.kind == "fsession" else None,
    )


def _session(running: Running, program: Program, *, is_return: bool) -> str:
    """TRAMP-6: what the session cookie held; an entry run leaves the program's name in it."""
    cite("TRAMP-6")
    if is_return:
        return running.sessions.get(program.prog, "")
    running.sessions[program.prog] = program.prog
    return ""


def _body(running: Running) -> int:
    """TRACE-2: the body, the patched one, or the extension in its place; the return register."""
    state, function = running.state, running.function
    patched = state.enabled(klp_ops(function.name))
    trampoline = state.trampolines.get(function.name)
    if trampoline and trampoline.extension and not patched:
        cite("TRACE-6")
        return trampoline.extension.program.returns or 0 if _run(running, trampoline.extension, 0) else 0
    if patched:
        cite("IPMODIFY-9", "TRACE-5")
    running.events.append(Body(running.words, patched))
    cite("TRACE-2")
    return running.width(running.returns.read(_value(running) + 1000 * patched))


def _value(running: Running) -> int:
    if not running.function.callees:
        return _sum_of_members(running)
    cite("TRACE-4")
    total = 0
    for callee in filter(lambda callee: running.state.loaded(callee.function), running.function.callees):
        arguments = tuple(running.words[number] if source == "slot" else number for source, number in callee.arguments)
        trace = _call(running.state, running.task, callee.function, arguments)
        running.events.append(NestedCall(callee.function, trace))
        total += trace.value or 0
    return total


def _sum_of_members(running: Running) -> int:
    prototype = running.function.prototype
    if prototype is None:
        return sum(running.words)
    total = 0
    for slot, word in zip(prototype.slots, running.words, strict=True):
        kind = prototype.arguments[slot.argument]
        if kind.by_value or slot.offset == 0:
            total += word if kind.by_value else kind.read(word)
    return total
