"""What each operation may answer by the rules, so that a run can tell which answers it never saw."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from spec.abi import SLOT_BYTES
from spec.alphabet import STOPPING, alphabet
from spec.operations import OPERATIONS
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["answers"]

PATCHING = "-ENODEV,-ENODEV WARN"

ALWAYS = {
    "ftrace_ops": "0,-EEXIST",
    "ftrace_set_filter_ip": f"0,-EBADF,-EOPNOTSUPP,-ENOMEM,-EINVAL,-ENOENT,-EBUSY,{PATCHING}",
    "ftrace_set_filter_ips": f"0,-EBADF,-EOPNOTSUPP,-ENOMEM,-EINVAL,-ENOENT,-EBUSY,{PATCHING}",
    "ftrace_set_filter": f"0,-EBADF,-EOPNOTSUPP,-ENOMEM,-EINVAL,-EBUSY,{PATCHING}",
    "ftrace_set_notrace": f"0,-EBADF,-EOPNOTSUPP,-ENOMEM,-EINVAL,{PATCHING}",
    "ftrace_free_filter": "0,-EBADF",
    "register_ftrace_function": f"0,-EBADF,-EOPNOTSUPP,-EBUSY,-EBUSY WARN,-EINVAL,{PATCHING}",
    "unregister_ftrace_function": f"0,-EBADF,-EOPNOTSUPP,-EBUSY WARN,{PATCHING}",
    "register_ftrace_direct": f"0,-EBUSY,-ENOMEM,-EINVAL,{PATCHING}",
    "unregister_ftrace_direct": f"0,-EOPNOTSUPP,{PATCHING}",
    "modify_ftrace_direct": f"0,-EOPNOTSUPP,-EINVAL,-ENOMEM,{PATCHING}",
    "register_ftrace_direct_multi": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-EBUSY,-ENOMEM,{PATCHING}",
    "unregister_ftrace_direct_multi": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,{PATCHING}",
    "modify_ftrace_direct_multi": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-EBUSY,{PATCHING}",
    "update_ftrace_direct_add": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-EBUSY,-ENOMEM,{PATCHING}",
    "update_ftrace_direct_del": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-ENOMEM,{PATCHING}",
    "update_ftrace_direct_mod": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-EBUSY,{PATCHING}",
    "register_ftrace_graph": f"0,-EEXIST,-EOPNOTSUPP,-EINVAL,-EBUSY,{PATCHING}",
    "unregister_ftrace_graph": f"0,-EBADF,{PATCHING}",
    "set_ftrace_filter": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-ENOMEM,{PATCHING}",
    "set_ftrace_notrace": f"0,-EBADF,-EOPNOTSUPP,-EINVAL,-ENOMEM,{PATCHING}",
    "set_graph_function": "0,-EBADF,-EINVAL,-ENOMEM,-ENODEV",
    "set_graph_notrace": "0,-EBADF,-EINVAL,-ENOMEM,-ENODEV",
    "ftrace_enabled": "0,-ENODEV",
    "livepatch": f"0,-EOPNOTSUPP,-EINVAL,-EBUSY,-ENOMEM,{PATCHING}",
    "unlivepatch": f"0,-EOPNOTSUPP,-EINVAL,{PATCHING}",
    "bpf_prog_load": "0,-EEXIST,-EINVAL,-EOPNOTSUPP",
    "bpf_raw_tracepoint_open": f"0,-EEXIST,-EBADF,-EOPNOTSUPP,-EINVAL,-ENOMEM,-EBUSY,-E2BIG,-EPERM,{PATCHING}",
    "bpf_link_create": f"0,-EEXIST,-EBADF,-EOPNOTSUPP,-EINVAL,-ENOMEM,-EBUSY,-E2BIG,-EPERM,{PATCHING}",
    "bpf_link_detach": "0,0 WARN,-EBADF",
    "init_module": "0,-EEXIST,-ENOENT,-EOPNOTSUPP",
    "delete_module": "0,-ENOENT,-EAGAIN,-EOPNOTSUPP",
    "fail": "0",
    "settle": "0",
    "task": "0,-EEXIST,-ENOENT,-EAGAIN,-EOPNOTSUPP",
    "await": "0,pending,-EBADF",
    "grace_period": "0,-EBUSY",
    "poke": "0,pending,-EBADF,-EEXIST,-EOPNOTSUPP,-EBUSY WARN",
    "poke_step": "0,pending,-EBADF",
}
ATTACHING = ("bpf_raw_tracepoint_open", "bpf_link_create")


def answers(semantics: Semantics, world: World) -> Mapping[str, frozenset[str]]:
    """The answers that these semantics can give in this world, as seeds spell them, by verb, without observations.

    Beside tasks, operations may also be pending or not carried out (TASK-7, NAME-14, NAME-15), of which only what is
    usual stands here.
    """
    known = alphabet(semantics) | STOPPING
    found = {verb: set(texts.split(",")) for verb, texts in ALWAYS.items() if OPERATIONS[verb] in known}
    found["unregister_ftrace_function"].add("pending")
    if not semantics.single_direct_ops:
        found["bpf_link_detach"].add("pending")
    if semantics.fprobes:
        found["bpf_link_create"].add("-ESRCH")
        found["bpf_link_detach"].add("-EOPNOTSUPP")
        if semantics.fprobes_shared:
            found["bpf_link_create"].add("-ENOENT")
    if semantics.growth_waits:
        found["bpf_raw_tracepoint_open"].add("pending")
    if semantics.share_ipmodify:
        found["livepatch"].add("-EPERM")
        found["register_ftrace_function"].add("-EPERM")
        if semantics.tracing_multi:
            found["bpf_link_create"].add("-EAGAIN")
    found["ftrace_free_filter"].add("0 WARN" if semantics.free_filter_warns else "-EOPNOTSUPP")
    found["ftrace_enabled"] |= {"0 WARN", "-EBUSY"} if semantics.sysctl_stops else {"-EOPNOTSUPP"}
    if semantics.graph_users > 1:
        found["register_ftrace_graph"].add("-ENOSPC")
        if not semantics.graph_rebuilds:
            # No notrace hash ever reaches graph_ops (DEFECT-19), so that no site changes.
            found["set_ftrace_notrace"].discard("-ENODEV WARN")
    for verb, answer in _refusals(semantics, world):
        found[verb].add(answer)
    return {verb: frozenset(texts) for verb, texts in found.items()}


def _refusals(semantics: Semantics, world: World) -> Iterator[tuple[str, str]]:
    """What loading and attaching answer for functions of this world that they refuse, by verb."""
    if semantics.wide_return_refused and _returns_wide(world):
        yield from ((verb, "-EOPNOTSUPP") for verb in ("bpf_prog_load", *ATTACHING))
    yield from ((verb, "-ENOENT") for verb in _finds_nothing(world, semantics))
    if semantics.lsm:
        yield "bpf_prog_load", "-ENOTSUPP"
    if _has_more_slots(world, semantics):
        yield from ((verb, "-ENOTSUPP") for verb in ATTACHING)


def _finds_nothing(world: World, semantics: Semantics) -> tuple[str, ...]:
    """The verbs that find no symbol of a function, or in a batch no site (PROG-7, LINK-7, LINK-17)."""
    named = [f for f in (*world.functions, *world.others) if f.btf_id is not None]
    if any(f.lookup == "no_symbol" for f in named):
        return ("bpf_prog_load", *ATTACHING)
    in_batch = any(f.lookup for f in named) or len({f.module for f in named}) > 1
    return ("bpf_link_create",) if in_batch and semantics.tracing_multi else ()


def _returns_wide(world: World) -> bool:
    """Whether a function that BTF can describe returns more than 8 bytes."""
    return any(
        f.btf_id is not None and f.prototype and f.prototype.describable and f.prototype.returns.size > SLOT_BYTES
        for f in (*world.functions, *world.others)
    )


def _has_more_slots(world: World, semantics: Semantics) -> bool:
    """Whether a function can be a target, and has more slots than a trampoline takes."""
    return not semantics.has_parts and any(
        f.btf_id is not None
        and f.prototype
        and f.prototype.describable
        and len(f.prototype.slots) > semantics.max_slots
        for f in (*world.functions, *world.others)
    )
