"""The alphabet: one frozen dataclass for each verb of a seed line (design contract 3.1).

A field's metadata says how it stands in the text; `spec.seeds` reads and prints from it, and the exec plug-in protocol
turns the same fields into JSON. Verbs are the kernel's API names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

__all__ = ["KINDS", "OPERATIONS", "POINTS", "Operation"]

KINDS = ("fentry", "fexit", "fmod_ret", "fsession", "freplace")
POINTS = ("alloc", "jit_charge", "patch", "register", "filter")
FLAVOURS = ("rcu", "rcu_tasks", "rcu_tasks_rude", "rcu_tasks_trace")


def word(default: Any = ...) -> Any:
    """One word in its place; with a default of None it may be left out."""
    return field(metadata={"form": "word"}) if default is ... else field(default=default, metadata={"form": "word"})


def number(default: int) -> Any:
    """One integer in its place, left out when it is the default."""
    return field(default=default, metadata={"form": "number"})


def words() -> Any:
    """All remaining words, at least one."""
    return field(metadata={"form": "words"})


def integers() -> Any:
    """All remaining integers, perhaps none: 64-bit words, signed or unsigned."""
    return field(default=(), metadata={"form": "integers"})


def pairs() -> Any:
    """All remaining FUNC=TRAMP pairs, at least one."""
    return field(metadata={"form": "pairs"})


def targets() -> Any:
    """All remaining FUNC[:COOKIE], at least one; a FUNC may be a glob, a cookie of None was not given."""
    return field(metadata={"form": "targets"})


def flag() -> Any:
    """A trailing keyword, present or absent."""
    return field(default=False, metadata={"form": "flag"})


def option(kind: type) -> Any:
    """A trailing key=value, absent when None."""
    return field(default=None, metadata={"form": "option", "kind": kind})


def nested() -> Any:
    """The rest of the line is another operation."""
    return field(metadata={"form": "nested"})


@dataclass(frozen=True, slots=True)
class Operation:
    """One line of a seed. `verb` is the first word of the line."""

    verb: ClassVar[str] = ""


@dataclass(frozen=True, slots=True)
class FtraceOps(Operation):
    """Declares an ops. Registering it as a plain ops sets its func, which records its calls."""

    verb: ClassVar[str] = "ftrace_ops"
    ops: str = word()
    save_regs: bool = flag()
    ipmodify: bool = flag()
    recursion: bool = flag()
    rcu: bool = flag()
    permanent: bool = flag()
    dynamic: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilterIp(Operation):
    """ftrace_set_filter_ip(ops, ip, remove, reset)."""

    verb: ClassVar[str] = "ftrace_set_filter_ip"
    ops: str = word()
    function: str = word()
    remove: bool = flag()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilterIps(Operation):
    """ftrace_set_filter_ips(ops, ips, cnt, remove, reset): all or nothing."""

    verb: ClassVar[str] = "ftrace_set_filter_ips"
    ops: str = word()
    functions: tuple[str, ...] = words()
    remove: bool = flag()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetFilter(Operation):
    """ftrace_set_filter(ops, buf, len, reset); a glob that starts with ! removes."""

    verb: ClassVar[str] = "ftrace_set_filter"
    ops: str = word()
    glob: str = word()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceSetNotrace(Operation):
    """ftrace_set_notrace(ops, buf, len, reset)."""

    verb: ClassVar[str] = "ftrace_set_notrace"
    ops: str = word()
    glob: str = word()
    reset: bool = flag()


@dataclass(frozen=True, slots=True)
class FtraceFreeFilter(Operation):
    """ftrace_free_filter(ops): ends the life of an ops."""

    verb: ClassVar[str] = "ftrace_free_filter"
    ops: str = word()


@dataclass(frozen=True, slots=True)
class RegisterFtraceFunction(Operation):
    """register_ftrace_function(ops)."""

    verb: ClassVar[str] = "register_ftrace_function"
    ops: str = word()


@dataclass(frozen=True, slots=True)
class UnregisterFtraceFunction(Operation):
    """unregister_ftrace_function(ops)."""

    verb: ClassVar[str] = "unregister_ftrace_function"
    ops: str = word()


@dataclass(frozen=True, slots=True)
class RegisterFtraceDirect(Operation):
    """register_ftrace_direct(ip, addr): the single API, through the kernel's own direct_ops."""

    verb: ClassVar[str] = "register_ftrace_direct"
    function: str = word()
    tramp: str = word()


@dataclass(frozen=True, slots=True)
class UnregisterFtraceDirect(Operation):
    """unregister_ftrace_direct(ip, addr)."""

    verb: ClassVar[str] = "unregister_ftrace_direct"
    function: str = word()
    tramp: str = word()


@dataclass(frozen=True, slots=True)
class ModifyFtraceDirect(Operation):
    """modify_ftrace_direct(ip, old_addr, new_addr)."""

    verb: ClassVar[str] = "modify_ftrace_direct"
    function: str = word()
    old: str = word()
    new: str = word()


@dataclass(frozen=True, slots=True)
class RegisterFtraceDirectMulti(Operation):
    """register_ftrace_direct_multi(ops, addr); from 6.4 on register_ftrace_direct(ops, addr)."""

    verb: ClassVar[str] = "register_ftrace_direct_multi"
    ops: str = word()
    tramp: str = word()


@dataclass(frozen=True, slots=True)
class UnregisterFtraceDirectMulti(Operation):
    """unregister_ftrace_direct_multi(ops, addr[, free_filters])."""

    verb: ClassVar[str] = "unregister_ftrace_direct_multi"
    ops: str = word()
    tramp: str = word()
    free: bool = flag()


@dataclass(frozen=True, slots=True)
class ModifyFtraceDirectMulti(Operation):
    """modify_ftrace_direct_multi(ops, addr)."""

    verb: ClassVar[str] = "modify_ftrace_direct_multi"
    ops: str = word()
    tramp: str = word()


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectAdd(Operation):
    """update_ftrace_direct_add(ops, hash)."""

    verb: ClassVar[str] = "update_ftrace_direct_add"
    ops: str = word()
    entries: tuple[tuple[str, str], ...] = pairs()


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectDel(Operation):
    """update_ftrace_direct_del(ops, hash)."""

    verb: ClassVar[str] = "update_ftrace_direct_del"
    ops: str = word()
    entries: tuple[tuple[str, str], ...] = pairs()


@dataclass(frozen=True, slots=True)
class UpdateFtraceDirectMod(Operation):
    """update_ftrace_direct_mod(ops, hash, do_direct_lock=true)."""

    verb: ClassVar[str] = "update_ftrace_direct_mod"
    ops: str = word()
    entries: tuple[tuple[str, str], ...] = pairs()


@dataclass(frozen=True, slots=True)
class RegisterFtraceGraph(Operation):
    """A user of the graph tracer.

    Filter covers sites; function, notrace and depth are set_graph_function and its kin.
    """

    verb: ClassVar[str] = "register_ftrace_graph"
    user: str = word()
    filter: str | None = option(str)
    function: str | None = option(str)
    notrace: str | None = option(str)
    depth: int | None = option(int)


@dataclass(frozen=True, slots=True)
class UnregisterFtraceGraph(Operation):
    """unregister_ftrace_graph(gops)."""

    verb: ClassVar[str] = "unregister_ftrace_graph"
    user: str = word()


@dataclass(frozen=True, slots=True)
class Livepatch(Operation):
    """An IPMODIFY user that redirects the function to a patched body, which returns 1000 more."""

    verb: ClassVar[str] = "livepatch"
    function: str = word()


@dataclass(frozen=True, slots=True)
class Unlivepatch(Operation):
    """Takes the IPMODIFY user of a function away."""

    verb: ClassVar[str] = "unlivepatch"
    function: str = word()


@dataclass(frozen=True, slots=True)
class BpfProgLoad(Operation):
    """BPF_PROG_LOAD.

    Without a target (and not multi) the program is verified against each function it is attached to.
    """

    verb: ClassVar[str] = "bpf_prog_load"
    prog: str = word()
    kind: str = word()
    target: str | None = option(str)
    multi: bool = flag()
    sleepable: bool = flag()
    func_ip: bool = flag()
    returns: int | None = option(int)
    calls: str | None = option(str)


@dataclass(frozen=True, slots=True)
class BpfRawTracepointOpen(Operation):
    """BPF_RAW_TRACEPOINT_OPEN (BPF_LINK_CREATE where a cookie is given): attaches to one function."""

    verb: ClassVar[str] = "bpf_raw_tracepoint_open"
    link: str = word()
    prog: str = word()
    function: str | None = word(None)
    cookie: int | None = option(int)


@dataclass(frozen=True, slots=True)
class BpfLinkCreate(Operation):
    """BPF_LINK_CREATE with link_create.tracing_multi: attaches to many functions in one call."""

    verb: ClassVar[str] = "bpf_link_create"
    link: str = word()
    prog: str = word()
    targets: tuple[tuple[str, int | None], ...] = targets()


@dataclass(frozen=True, slots=True)
class BpfLinkDetach(Operation):
    """Closes the last reference of a link."""

    verb: ClassVar[str] = "bpf_link_detach"
    link: str = word()


@dataclass(frozen=True, slots=True)
class InitModule(Operation):
    """Loads a module of the world."""

    verb: ClassVar[str] = "init_module"
    module: str = word()


@dataclass(frozen=True, slots=True)
class DeleteModule(Operation):
    """Unloads a module."""

    verb: ClassVar[str] = "delete_module"
    module: str = word()


@dataclass(frozen=True, slots=True)
class Call(Operation):
    """Runs a function to its return; its trace is compared. One ARG for each 8-byte slot of its arguments."""

    verb: ClassVar[str] = "call"
    function: str = word()
    arguments: tuple[int, ...] = integers()


@dataclass(frozen=True, slots=True)
class ObserveSite(Operation):
    """Observes one site."""

    verb: ClassVar[str] = "site"
    function: str = word()


@dataclass(frozen=True, slots=True)
class Fail(Operation):
    """The count-th time the point is reached from here, it fails."""

    verb: ClassVar[str] = "fail"
    point: str = word()
    count: int = number(1)


@dataclass(frozen=True, slots=True)
class Task(Operation):
    """A task inside a traced function."""

    verb: ClassVar[str] = "task"
    task: str = word()
    function: str = word()
    arguments: tuple[int, ...] = integers()


@dataclass(frozen=True, slots=True)
class Step(Operation):
    """Lets a task run some steps, or to a point."""

    verb: ClassVar[str] = "step"
    task: str = word()
    count: int = number(1)
    to: str | None = option(str)


@dataclass(frozen=True, slots=True)
class Finish(Operation):
    """Lets a task run to its end."""

    verb: ClassVar[str] = "finish"
    task: str = word()


@dataclass(frozen=True, slots=True)
class Poke(Operation):
    """Begins an operation but stops at every text-patching step."""

    verb: ClassVar[str] = "poke"
    operation: Operation = nested()  # noqa: RUF009 - a field, as the others


@dataclass(frozen=True, slots=True)
class PokeStep(Operation):
    """One more text-patching step."""

    verb: ClassVar[str] = "poke_step"


@dataclass(frozen=True, slots=True)
class GracePeriod(Operation):
    """A grace period of one flavour elapses, where it lawfully can."""

    verb: ClassVar[str] = "grace_period"
    flavour: str = word()


OPERATIONS: dict[str, type[Operation]] = {kind.verb: kind for kind in Operation.__subclasses__()}
