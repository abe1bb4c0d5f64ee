"""Makers of ftrace operations: ops and filters, the direct-call API, the graph tracer, IPMODIFY users."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import strategies as st
from hypothesis.strategies import DrawFn

from properties.hunt.strategies.drawing import (
    GRAPH_USERS,
    MOST_FUNCTIONS,
    NOTRACE_GLOBS,
    OPS,
    UNKNOWN,
    Setting,
    a_function,
    a_glob,
    a_line,
    a_trampoline,
    all_used,
    existing,
    fresh,
    one_of,
    pick,
    pick_any,
    rarely,
    some_functions,
)
from spec import operations as op
from spec.existing import SINGLE_API, OpsRecord

__all__ = [
    "GRAPH_FILES",
    "change_graph",
    "cover_all",
    "declare_more",
    "expect_module",
    "free",
    "ipmodify_ops",
    "livepatch",
    "modify_direct",
    "modify_single",
    "register",
    "register_direct",
    "register_graph",
    "register_single",
    "set_filter",
    "set_filter_of",
    "set_notrace",
    "switch",
    "take_out",
    "unlivepatch",
    "unregister",
    "unregister_direct",
    "unregister_graph",
    "unregister_single",
    "update_add",
    "update_del",
    "update_mod",
]


def _ops(draw: DrawFn, at: Setting, wanted: Callable[[OpsRecord], bool]) -> str | None:
    """Draw a declared ops that is as wanted, None if there is none; rarely any ops, or any name."""
    fitting = tuple(name for name, record in at.inventory.ops.items() if wanted(record))
    if rarely(draw):
        return pick(draw, (*at.inventory.ops, *OPS))
    return pick(draw, fitting) if fitting else None


OPS_FLAGS = (
    (),
    (),
    ("save_regs",),
    ("ipmodify",),
    ("dynamic",),
    ("save_regs", "ipmodify", "dynamic"),
    ("recursion", "rcu", "permanent"),
)
FILTER_FLAGS = ((), (), (), (), ("reset",), ("reset",), ("remove",), ("remove",), ("remove", "reset"))


def _flags(draw: DrawFn, choices: tuple[tuple[str, ...], ...]) -> dict[str, bool]:
    return dict.fromkeys(pick(draw, choices), True)


def declare_more(draw: DrawFn, at: Setting) -> op.Operation:
    """Declare an ops while there are few, and rarely later."""
    if all_used(OPS, at.inventory.ops) and not rarely(draw, 8):
        return set_filter(draw, at)
    return _declare(draw, at)


def _declare(draw: DrawFn, at: Setting) -> op.Operation:
    return op.FtraceOps(fresh(draw, OPS, at.inventory.ops), **_flags(draw, OPS_FLAGS))


def _make_room(draw: DrawFn, at: Setting) -> op.Operation:
    """Declare one more ops, or end the use of one, because none can become direct."""
    if not all_used(OPS, at.inventory.ops):
        return op.FtraceOps(fresh(draw, OPS, at.inventory.ops), dynamic=draw(st.booleans()))
    name = pick(draw, tuple(at.inventory.ops))
    record = at.inventory.ops[name]
    if _is_direct(record):
        return op.UnregisterFtraceDirectMulti(name, next(iter(at.inventory.entries(name).values()), "T1"))
    return op.UnregisterFtraceFunction(name) if record.enabled else op.FtraceFreeFilter(name)


def _may_filter(record: OpsRecord) -> bool:
    return not _is_direct(record)


def set_filter(draw: DrawFn, at: Setting) -> op.Operation:
    """ftrace_set_filter, or by address."""
    name = _ops(draw, at, _may_filter if not rarely(draw, 12) else _is_direct)
    return _declare(draw, at) if name is None else _filter_of(draw, at, name)


def _filter_of(draw: DrawFn, at: Setting, name: str) -> op.Operation:
    if rarely(draw, 2 if at.wide else 4):
        return op.FtraceSetFilter(name, a_glob(draw, at), reset=draw(st.booleans()))
    flags = _flags(draw, FILTER_FLAGS)
    record = at.inventory.ops.get(name)
    if "remove" in flags and record and record.filter and not rarely(draw, 4):
        return op.FtraceSetFilterIp(name, pick_any(draw, record.filter), **flags)
    if draw(st.booleans()):
        return op.FtraceSetFilterIp(name, a_function(draw, at), **flags)
    return op.FtraceSetFilterIps(name, some_functions(draw, at), **flags)


def set_filter_of(draw: DrawFn, at: Setting, functions: tuple[str, ...]) -> op.Operation:
    """ftrace_set_filter_ip of one of these functions."""
    name = _ops(draw, at, _may_filter)
    return _declare(draw, at) if name is None else op.FtraceSetFilterIp(name, pick_any(draw, functions))


def set_notrace(draw: DrawFn, at: Setting) -> op.Operation:
    """ftrace_set_notrace."""
    name = _ops(draw, at, _may_filter)
    if name is None:
        return _declare(draw, at)
    return op.FtraceSetNotrace(name, a_glob(draw, at, NOTRACE_GLOBS), reset=rarely(draw, 4))


def free(draw: DrawFn, at: Setting) -> op.Operation:
    """ftrace_free_filter of an ops that is not enabled."""
    name = _ops(draw, at, lambda record: not record.enabled)
    return _declare(draw, at) if name is None else op.FtraceFreeFilter(name)


def register(draw: DrawFn, at: Setting) -> op.Operation:
    """register_ftrace_function."""
    name = _ops(draw, at, lambda record: not record.enabled and not record.direct)
    if name is None:
        return declare_more(draw, at)
    record = at.inventory.ops.get(name)
    if record and not record.filter and not rarely(draw, 4):
        return _filter_of(draw, at, name)
    return op.RegisterFtraceFunction(name)


def cover_all(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Register an ops that has no filter: a new one while there are few.

    The notrace hash of some holds what there is, so that they cover what comes; a kernel's ops can cover no more here.
    """
    name = _ops(draw, at, lambda record: not record.enabled and not record.direct and not record.filter_hash)
    begun: list[op.Operation] = []
    if name is None or not all_used(OPS, at.inventory.ops):
        name = fresh(draw, OPS, at.inventory.ops)
        begun.append(op.FtraceOps(name, save_regs=draw(st.booleans())))
    if draw(st.booleans()):
        begun.append(op.FtraceSetNotrace(name, "*"))
    return (*begun, op.RegisterFtraceFunction(name))


def take_out(draw: DrawFn, at: Setting) -> tuple[op.Operation, ...]:
    """Of several functions that an ops traces one leaves its filter; without such an ops one is made."""
    name = _ops(draw, at, lambda record: record.enabled and not record.direct and len(record.filter) > 1)
    record = at.inventory.ops.get(name) if name else None
    if name and record and len(record.filter) > 1:
        return (op.FtraceSetFilterIp(name, pick_any(draw, record.filter), remove=True),)
    made = op.FtraceOps(fresh(draw, OPS, at.inventory.ops))
    functions = tuple(dict.fromkeys((*some_functions(draw, at), a_function(draw, at))))
    filled = op.FtraceSetFilterIps(made.ops, functions)
    leaves = op.FtraceSetFilterIp(made.ops, pick_any(draw, functions), remove=True)
    return made, filled, op.RegisterFtraceFunction(made.ops), leaves


def unregister(draw: DrawFn, at: Setting) -> op.Operation:
    """unregister_ftrace_function."""
    name = _ops(draw, at, lambda record: record.enabled and not record.direct)
    return register(draw, at) if name is None else op.UnregisterFtraceFunction(name)


# The direct-call API.


def _is_direct(record: OpsRecord) -> bool:
    return record.enabled and record.direct


def _may_be_direct(record: OpsRecord) -> bool:
    return not record.enabled and not record.ipmodify and (record.direct or not record.func)


def register_direct(draw: DrawFn, at: Setting) -> op.Operation:
    """register_ftrace_direct_multi."""
    name = _ops(draw, at, _may_be_direct)
    if name is None:
        return _make_room(draw, at)
    record = at.inventory.ops.get(name)
    if record and not record.filter and not rarely(draw, 8):
        return _filter_of(draw, at, name)
    return op.RegisterFtraceDirectMulti(name, a_trampoline(draw))


def unregister_direct(draw: DrawFn, at: Setting) -> op.Operation:
    """unregister_ftrace_direct_multi."""
    name = _ops(draw, at, _is_direct)
    if name is None:
        return register_direct(draw, at)
    entries = tuple(dict.fromkeys(at.inventory.entries(name).values()))
    tramp = pick(draw, entries) if entries and not rarely(draw, 8) else a_trampoline(draw)
    return op.UnregisterFtraceDirectMulti(name, tramp, free=rarely(draw, 4))


def modify_direct(draw: DrawFn, at: Setting) -> op.Operation:
    """modify_ftrace_direct_multi."""
    name = _ops(draw, at, _is_direct)
    return register_direct(draw, at) if name is None else op.ModifyFtraceDirectMulti(name, a_trampoline(draw))


def register_single(draw: DrawFn, at: Setting) -> op.Operation:
    """register_ftrace_direct."""
    return op.RegisterFtraceDirect(a_function(draw, at), a_trampoline(draw))


def _single_entry(draw: DrawFn, at: Setting) -> tuple[str, str]:
    """Draw a function and the address of its entry; rarely any others."""
    entries = tuple(at.inventory.entries(SINGLE_API).items())
    if not entries or rarely(draw, 6):
        return a_function(draw, at), a_trampoline(draw)
    return pick(draw, entries)


def unregister_single(draw: DrawFn, at: Setting) -> op.Operation:
    """unregister_ftrace_direct."""
    if not at.inventory.entries(SINGLE_API) and not rarely(draw, 6):
        return register_single(draw, at)
    return op.UnregisterFtraceDirect(*_single_entry(draw, at))


def modify_single(draw: DrawFn, at: Setting) -> op.Operation:
    """modify_ftrace_direct."""
    if not at.inventory.entries(SINGLE_API) and not rarely(draw, 6):
        return register_single(draw, at)
    return op.ModifyFtraceDirect(*_single_entry(draw, at), a_trampoline(draw))


def update_add(draw: DrawFn, at: Setting) -> op.Operation:
    """update_ftrace_direct_add."""
    name = _ops(draw, at, lambda record: _is_direct(record) or (_may_be_direct(record) and not record.filter))
    if name is None:
        return _make_room(draw, at)
    return op.UpdateFtraceDirectAdd(name, _new_entries(draw, at))


def _new_entries(draw: DrawFn, at: Setting) -> tuple[tuple[str, str], ...]:
    """Draw entries of some functions, mostly of those that have none yet: one that has refuses them all."""
    functions = some_functions(draw, at)
    if not rarely(draw, 6):
        functions = tuple(name for name in functions if not at.inventory.has_entry(name)) or functions
    return tuple((function, a_trampoline(draw)) for function in functions)


def update_del(draw: DrawFn, at: Setting) -> op.Operation:
    """update_ftrace_direct_del."""
    name = _ops(draw, at, _is_direct)
    if name is None:
        return update_add(draw, at)
    return op.UpdateFtraceDirectDel(name, _known_entries(draw, at, name))


def _known_entries(draw: DrawFn, at: Setting, name: str) -> tuple[tuple[str, str], ...]:
    """Draw some entries of an ops as they are; rarely any others."""
    entries = tuple(at.inventory.entries(name).items())
    if len(entries) > MOST_FUNCTIONS:
        start = draw(st.integers(0, len(entries) - MOST_FUNCTIONS))
        entries = entries[start : start + MOST_FUNCTIONS]
    if not entries or rarely(draw, 8):
        return _new_entries(draw, at)
    return tuple(draw(st.lists(one_of(entries), min_size=1, max_size=len(entries), unique=True)))


def update_mod(draw: DrawFn, at: Setting) -> op.Operation:
    """update_ftrace_direct_mod."""
    name = _ops(draw, at, _is_direct)
    if name is None:
        return update_add(draw, at)
    tramp = a_trampoline(draw)
    return op.UpdateFtraceDirectMod(name, tuple((function, tramp) for function, _ in _known_entries(draw, at, name)))


# The graph tracer.


def register_graph(draw: DrawFn, at: Setting) -> op.Operation:
    """register_ftrace_graph."""
    user = fresh(draw, GRAPH_USERS, tuple(at.inventory.graph_users))
    options = pick(draw, GRAPH_OPTIONS)
    globs = {option: a_glob(draw, at) for option in options if option != "depth"}
    if "filter" in globs and rarely(draw, 6):
        globs["filter"] = a_line(draw, at)
    depth = pick(draw, WIDE_DEPTHS if at.wide else DEPTHS) if "depth" in options else None
    return op.RegisterFtraceGraph(user, depth=depth, **globs)


DEPTHS = (1, 2, 1, 0, 1, 4)
WIDE_DEPTHS = (*DEPTHS, 3, 50, (1 << 31) - 1)
GRAPH_OPTIONS: tuple[tuple[str, ...], ...] = (
    (),
    ("filter",),
    ("filter",),
    ("filter", "function"),
    ("function",),
    ("notrace",),
    ("filter", "notrace"),
    ("depth",),
    ("depth",),
    ("function", "depth"),
    ("filter", "depth"),
    ("function", "notrace", "depth"),
)


def unregister_graph(draw: DrawFn, at: Setting) -> op.Operation:
    """unregister_ftrace_graph."""
    if not at.inventory.graph_users:
        return register_graph(draw, at)
    return op.UnregisterFtraceGraph(existing(draw, GRAPH_USERS, tuple(at.inventory.graph_users)))


def change_graph(draw: DrawFn, at: Setting) -> op.Operation:
    """A hash of a user that is live changes: set_ftrace_filter and so on."""
    if not at.inventory.graph_users:
        return register_graph(draw, at)
    kind = pick(draw, GRAPH_FILES)
    user = existing(draw, GRAPH_USERS, tuple(at.inventory.graph_users))
    if kind in FILTER_FILES and rarely(draw, 3):
        return kind(user, _module_line(draw, at, user, kind))
    bang = "!" if rarely(draw, 3) else ""
    return kind(user, None if rarely(draw, 8) else f"{bang}{a_glob(draw, at)}")


def _module_line(draw: DrawFn, at: Setting, user: str, kind: type[op.Operation]) -> str:
    """A line GLOB:mod:MODULE; where others of this file wait, every second one takes one of them back, or all."""
    record = at.inventory.graph_users.get(user)
    waiting = (record.mod_trace if kind is op.SetFtraceFilter else record.mod_notrace) if record else ()
    takes: bool = bool(waiting) and draw(st.booleans())
    if takes:
        glob, module = pick(draw, waiting)
        return f"!{pick(draw, (glob, '*', f'{glob[:-1]}*'))}:mod:{module}"
    return f"{'!' if rarely(draw, 4) else ''}{a_line(draw, at)}"


def expect_module(draw: DrawFn, at: Setting, module: str) -> tuple[op.Operation, ...]:
    """A line waits for a module, which comes, for a user of the graph tracer that is there or comes first.

    Some lines are taken back, or a glob that matches theirs is, by which they stay; some wait for another module, and
    go on waiting. Once the module is there, a line that selects nothing is refused.
    """
    users, kind = tuple(at.inventory.graph_users), pick(draw, FILTER_FILES)
    line = a_line(draw, at, module if not rarely(draw, 5) else UNKNOWN)
    if users and not rarely(draw, 3):
        user = existing(draw, GRAPH_USERS, users)
        first: op.Operation = kind(user, line)
    else:
        user, kind = fresh(draw, GRAPH_USERS, users), op.SetFtraceFilter
        first = op.RegisterFtraceGraph(user, filter=line)
    glob, _, rest = line.partition(":")
    taken_back = (kind(user, f"!{pick(draw, (glob, f'{glob[:-1]}*'))}:{rest}"),) if rarely(draw, 2) else ()
    refused = (kind(user, a_line(draw, at, module)),) if rarely(draw, 3) else ()
    return (first, *taken_back, op.InitModule(module), *refused)


FILTER_FILES = (op.SetFtraceFilter, op.SetFtraceNotrace)
GRAPH_FILES = (*FILTER_FILES, op.SetGraphFunction, op.SetGraphNotrace)


# The sysctl.


def switch(draw: DrawFn, at: Setting) -> op.Operation:
    """A write to kernel.ftrace_enabled, which mostly changes it, where the kernel lets itself be turned off."""
    return op.FtraceEnabled(str(int(at.inventory.off != rarely(draw, 6 if at.semantics.sysctl_stops else 2))))


# IPMODIFY.


def livepatch(draw: DrawFn, at: Setting) -> op.Operation:
    """Livepatch a function: an IPMODIFY user comes."""
    return op.Livepatch(a_function(draw, at))


def unlivepatch(draw: DrawFn, at: Setting) -> op.Operation:
    """Undo a livepatch: an IPMODIFY user goes."""
    present = at.inventory.livepatches
    return op.Unlivepatch(pick(draw, present) if present and not rarely(draw, 8) else a_function(draw, at))


def ipmodify_ops(draw: DrawFn, at: Setting) -> op.Operation:
    """The next step of a plain IPMODIFY user: it is declared, gets a filter, is registered, and its filter changes."""
    name = _ops(draw, at, lambda record: record.ipmodify)
    if name is None:
        return op.FtraceOps(fresh(draw, OPS, at.inventory.ops), ipmodify=True, save_regs=draw(st.booleans()))
    record = at.inventory.ops.get(name)
    if record and record.filter and not record.enabled:
        return op.RegisterFtraceFunction(name)
    return op.UnregisterFtraceFunction(name) if rarely(draw, 4) else _filter_of(draw, at, name)
