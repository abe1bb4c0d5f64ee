"""The alphabet: one frozen dataclass for each verb of a seed line (design contract 3.1).

A field's metadata says how it stands in the text; `spec.seeds` reads and prints from it, and the exec plug-in protocol
turns the same fields into JSON. It also says what the operation does with a name: it *makes* the name, *uses* what was
made under it, or *names* something of the world; `spec.names` reads that. Verbs are the kernel's API names.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = [
    "FLAVOURS",
    "HOW",
    "KINDS",
    "KPROBES",
    "LSM",
    "OPERATIONS",
    "POINTS",
    "STOPS",
    "STOPS_AT_PROGRAMS",
    "SWITCH",
    "UNSEEN",
    "Operation",
]

KINDS = ("fentry", "fexit", "fmod_ret", "lsm", "fsession", "freplace")
KPROBES = ("kprobe", "kretprobe")
"""Kinds of programs that a fprobe runs, at the entry and at the return of functions (KPROBE-1)."""

LSM = "lsm"
"""The kind of programs that are attached to LSM's hooks (LSM-1)."""

POINTS = ("alloc", "jit_charge", "patch", "register", "filter", "nth", "hash")
UNSEEN = ("nth", "hash")
"""Points of the next operation alone, of which nothing is seen but where the kernel is wrong (FAIL-4)."""
SWITCH = ("0", "1")
FLAVOURS = ("rcu", "rcu_tasks", "rcu_tasks_rude", "rcu_tasks_trace")
STOPS = ("site", "image", "enter", "body", "after-body", "exit", "return")
"""Where a task may stand (TASK-2), without the points of single programs."""

STOPS_AT_PROGRAMS = ("skip", "before", "program")
"""Where a task may stand at a program, which follows behind a colon."""

HOW = ("spin", "sleep")


def word(default: Any = ..., **named: Any) -> Any:
    """One word in its place; with a default of None it may be left out."""
    metadata = {"form": "word", **named}
    return field(metadata=metadata) if default is ... else field(default=default, metadata=metadata)


def makes(space: str) -> Any:
    """The name of something that the operation makes."""
    return word(space=space, role="makes")


def uses(space: str) -> Any:
    """The name of something that was made before."""
    return word(space=space, role="uses")


def names(space: str, default: Any = ..., *, covers: bool = False) -> Any:
    """The name of something that need not have been made: a function, a module, a raw trampoline's address."""
    return word(default, space=space, role="names", covers=covers)


def number(default: int) -> Any:
    """One integer in its place, left out when it is the default."""
    return field(default=default, metadata={"form": "number"})


def functions() -> Any:
    """All remaining words, at least one: functions that the operation covers."""
    return field(metadata={"form": "words", "space": "function", "role": "names", "covers": True})


def integers() -> Any:
    """All remaining integers, perhaps none: 64-bit words, signed or unsigned."""
    return field(default=(), metadata={"form": "integers"})


def pairs(*, covers: bool = False) -> Any:
    """All remaining FUNC=TRAMP pairs, at least one."""
    return field(metadata={"form": "pairs", "space": "function", "role": "names", "covers": covers})


def targets() -> Any:
    """All remaining FUNC[:COOKIE], at least one; a FUNC may be a glob, a cookie of None was not given."""
    return field(metadata={"form": "targets", "space": "function", "role": "names", "covers": True})


def flag() -> Any:
    """A trailing keyword, present or absent."""
    return field(default=False, metadata={"form": "flag"})


def option(kind: type, space: str = "") -> Any:
    """A trailing key=value, absent when None."""
    named = {"space": space, "role": "names"} if space else {}
    return field(default=None, metadata={"form": "option", "kind": kind, **named})


def stop() -> Any:
    """A trailing key=POINT, which may name a program; absent when None."""
    return field(default=None, metadata={"form": "option", "kind": str, "space": "point", "role": "names"})


def nested() -> Any:
    """The rest of the line is another operation."""
    return field(metadata={"form": "nested"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a seed. `verb` is the first word of the line: the class's name as the kernel writes names."""

    verb: ClassVar[str] = ""

    def __init_subclass__(cls, verb: str = "") -> None:
        # With slots the class is made twice, the second time without its keywords.
        cls.verb = cls.__dict__.get("verb") or verb or re.sub(r"(?<!^)(?=[A-Z])", "_", cls.__name__).lower()


@dataclass(frozen=True, slots=True)
class FtraceOps(Operation):
    """Declares an ops. Registering it as a plain ops sets its func, which records its calls."""

    ops: str = makes("ops")
    save_regs: bool = flag()
    ipmodify: bool = flag()
    recursion: bool = flag()
    rcu: bool = flag()
    permanent: bool = flag()
    dynamic: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilterIp(Operation):
    """ftrace_set_filter_ip(ops, ip, remove, reset)."""

    ops: str = uses("ops")
    function: str = names("function", covers=True)
    remove: bool = flag()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilterIps(Operation):
    """ftrace_set_filter_ips(ops, ips, cnt, remove, reset): all or nothing."""

    ops: str = uses("ops")
    functions: tuple[str, ...] = functions()
    remove: bool = flag()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilter(Operation):
    """ftrace_set_filter(ops, buf, len, reset); a glob that starts with ! removes."""

    ops: str = uses("ops")
    glob: str = names("glob")
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetNotrace(Operation):
    """ftrace_set_notrace(ops, buf, len, reset)."""

    ops: str = uses("ops")
    glob: str = names("glob")
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceFreeFilter(Operation):
    """ftrace_free_filter(ops): ends the life of an ops."""

    ops: str = uses("ops")


@dataclass(frozen=True, slots=True)
class RegisterFtraceFunction(Operation):
    """register_ftrace_function(ops)."""

    ops: str = uses("ops")


@dataclass(frozen=True, slots=True)
class UnregisterFtraceFunction(Operation):
    """unregister_ftrace_function(ops)."""

    ops: str = uses("ops")


@dataclass(frozen=True, slots=True)
class RegisterFtraceDirect(Operation):
    """register_ftrace_direct(ip, addr): the single API, through the kernel's own direct_ops."""

    function: str = names("function", covers=True)
    tramp: str = names("tramp")


@dataclass(frozen=True, slots=True)
class UnregisterFtraceDirect(Operation):
    """unregister_ftrace_direct(ip, addr)."""

    function: str = names("function")
    tramp: str = names("tramp")


@dataclass(frozen=True, slots=True)
class ModifyFtraceDirect(Operation):
    """modify_ftrace_direct(ip, old_addr, new_addr)."""

    function: str = names("function")
    old: str = names("tramp")
    new: str = names("tramp")


@dataclass(frozen=True, slots=True)
class RegisterFtraceDirectMulti(Operation):
    """register_ftrace_direct_multi(ops, addr); from 6.4 on register_ftrace_direct(ops, addr)."""

    ops: str = uses("ops")
    tramp: str = names("tramp")


@dataclass(frozen=True, slots=True)
class UnregisterFtraceDirectMulti(Operation):
    """unregister_ftrace_direct_multi(ops, addr[, free_filters])."""

    ops: str = uses("ops")
    tramp: str = names("tramp")
    free: bool = flag()


@dataclass(frozen=True, slots=True)
class ModifyFtraceDirectMulti(Operation):
    """modify_ftrace_direct_multi(ops, addr)."""

    ops: str = uses("ops")
    tramp: str = names("tramp")


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectAdd(Operation):
    """update_ftrace_direct_add(ops, hash)."""

    ops: str = uses("ops")
    entries: tuple[tuple[str, str], ...] = pairs(covers=True)


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectDel(Operation):
    """update_ftrace_direct_del(ops, hash)."""

    ops: str = uses("ops")
    entries: tuple[tuple[str, str], ...] = pairs()


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectMod(Operation):
    """update_ftrace_direct_mod(ops, hash, do_direct_lock=true)."""

    ops: str = uses("ops")
    entries: tuple[tuple[str, str], ...] = pairs()


@dataclass(frozen=True, slots=True)
class RegisterFtraceGraph(Operation):
    """A user of the graph tracer.

    Filter covers sites; function, notrace and depth are set_graph_function and its kin.
    """

    user: str = makes("user")
    filter: str | None = option(str, "glob")
    function: str | None = option(str, "glob")
    notrace: str | None = option(str, "glob")
    depth: int | None = option(int)


@dataclass(frozen=True, slots=True)
class UnregisterFtraceGraph(Operation):
    """unregister_ftrace_graph(gops)."""

    user: str = uses("user")


@dataclass(frozen=True, slots=True)
class SetFtraceFilter(Operation):
    """A line is appended to the set_ftrace_filter of a user of the graph tracer; without a glob it is emptied."""

    user: str = uses("user")
    glob: str | None = names("glob", None)


@dataclass(frozen=True, slots=True)
class SetFtraceNotrace(Operation):
    """The same of set_ftrace_notrace: the sites that the user's ops does not cover."""

    user: str = uses("user")
    glob: str | None = names("glob", None)


@dataclass(frozen=True, slots=True)
class SetGraphFunction(Operation):
    """The same of set_graph_function: the subtrees that are recorded."""

    user: str = uses("user")
    glob: str | None = names("glob", None)


@dataclass(frozen=True, slots=True)
class SetGraphNotrace(Operation):
    """The same of set_graph_notrace: the subtrees that are not."""

    user: str = uses("user")
    glob: str | None = names("glob", None)


@dataclass(frozen=True, slots=True)
class FtraceEnabled(Operation):
    """A write to the sysctl kernel.ftrace_enabled: with 0 every site becomes a nop, with 1 a call again."""

    switch: str = word()

    @property
    def on(self) -> bool:
        """Whether it turns ftrace on."""
        return self.switch == "1"


@dataclass(frozen=True, slots=True)
class Livepatch(Operation):
    """An IPMODIFY user that redirects the function to a patched body, which returns 1000 more."""

    function: str = names("function", covers=True)


@dataclass(frozen=True, slots=True)
class Unlivepatch(Operation):
    """Takes the IPMODIFY user of a function away."""

    function: str = names("function")


@dataclass(frozen=True, slots=True)
class BpfProgLoad(Operation):
    """BPF_PROG_LOAD.

    Without a target (and not multi) the program is verified against each function it is attached to.
    """

    prog: str = makes("prog")
    kind: str = word()
    target: str | None = option(str, "function")
    multi: bool = flag()
    sleepable: bool = flag()
    func_ip: bool = flag()
    returns: int | None = option(int)
    calls: str | None = option(str, "function")


@dataclass(frozen=True, slots=True)
class BpfRawTracepointOpen(Operation):
    """BPF_RAW_TRACEPOINT_OPEN (BPF_LINK_CREATE where a cookie is given): attaches to one function."""

    link: str = makes("link")
    prog: str = uses("prog")
    function: str | None = names("function", None, covers=True)
    cookie: int | None = option(int)


@dataclass(frozen=True, slots=True)
class BpfLinkCreate(Operation):
    """BPF_LINK_CREATE with link_create.tracing_multi, or kprobe_multi: attaches to many functions in one call."""

    link: str = makes("link")
    prog: str = uses("prog")
    targets: tuple[tuple[str, int | None], ...] = targets()


@dataclass(frozen=True, slots=True)
class BpfLinkDetach(Operation):
    """Closes the last reference of a link."""

    link: str = uses("link")


@dataclass(frozen=True, slots=True)
class InitModule(Operation):
    """Loads a module of the world."""

    module: str = names("module")


@dataclass(frozen=True, slots=True)
class DeleteModule(Operation):
    """Unloads a module."""

    module: str = names("module")


@dataclass(frozen=True, slots=True)
class Call(Operation):
    """Runs a function to its return; its trace is compared. One ARG for each 8-byte slot of its arguments."""

    function: str = names("function")
    arguments: tuple[int, ...] = integers()


@dataclass(frozen=True, slots=True)
class ObserveSite(Operation, verb="site"):
    """Observes one site."""

    function: str = names("function")


@dataclass(frozen=True, slots=True)
class Fail(Operation):
    """The count-th time the point is reached from here, it fails. An UNSEEN one is of the next operation alone."""

    point: str = word()
    count: int = number(1)


@dataclass(frozen=True, slots=True)
class Settle(Operation):
    """Waits until grace periods are over, and all that was put off until then is done."""


@dataclass(frozen=True, slots=True)
class Task(Operation):
    """A task inside a traced function."""

    task: str = makes("task")
    function: str = names("function")
    arguments: tuple[int, ...] = integers()


@dataclass(frozen=True, slots=True)
class Step(Operation):
    """Lets a task run some steps, or to a point, where it spins, or sleeps if it may."""

    task: str = uses("task")
    count: int = number(1)
    to: str | None = stop()
    how: str | None = option(str)


@dataclass(frozen=True, slots=True)
class Finish(Operation):
    """Lets a task run to its end."""

    task: str = uses("task")


@dataclass(frozen=True, slots=True)
class Poke(Operation):
    """Begins an operation, which stops behind each synchronisation of text patching (POKE-1)."""

    operation: Operation = nested()  # noqa: RUF009 - a field, as the others


@dataclass(frozen=True, slots=True)
class PokeStep(Operation):
    """Lets an operation that was begun so go on to where it stops next, or to its end."""


@dataclass(frozen=True, slots=True)
class Await(Operation):
    """Goes on with an operation that answered `pending`, until it has its outcome."""

    operation: Operation = nested()  # noqa: RUF009 - a field, as the others


@dataclass(frozen=True, slots=True)
class GracePeriod(Operation):
    """A grace period of one flavour elapses, where it lawfully can."""

    flavour: str = word()


OPERATIONS: dict[str, type[Operation]] = {kind.verb: kind for kind in Operation.__subclasses__()}
