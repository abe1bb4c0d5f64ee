"""The per-site decision table: which ops cover a site, and what its instruction calls (SITE-*)."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from model.rules import cite
from model.state import Image, Ops, State
from spec.sites import Site

__all__ = [
    "BPF_OPS",
    "covering",
    "has_direct_ops",
    "has_entry",
    "has_ipmodify_user",
    "selected",
    "shows_regs",
    "sites",
    "t_show",
    "traced",
]

BPF_OPS = Ops("bpf", save_regs=True, direct=True)


def covering(state: State, function: str) -> list[Ops]:
    """S(f), in the order of ftrace_ops_list; the ops of BPF's trampolines, which records nothing, last."""
    if not state.site(function):
        return []
    enabled = [ops for key in state.ops_list if (ops := state.ops[key]).covers(function)]
    return [*enabled, BPF_OPS] if function in state.images else enabled


def traced(state: State, ops: Ops) -> Iterable[str]:
    """The loaded functions that an ops covers when it is enabled."""
    cite("FILTER-1")
    if not ops.filter_hash:
        cite("FILTER-2")
    return (name for name in _select(state, ops) if name not in ops.notrace_hash and state.site(name))


def _select(state: State, ops: Ops) -> Collection[str]:
    """FILTER-2: what the filter of an ops holds, and if it is empty every function."""
    return ops.filter_hash or state.world.by_name


def has_ipmodify_user(state: State, function: str) -> bool:
    """Whether the site has an IPMODIFY user (IPMODIFY-1)."""
    return any(ops.ipmodify for ops in covering(state, function))


def has_entry(state: State, function: str) -> bool:
    """Whether direct_functions has an address for the site, a raw one or a BPF image."""
    return function in state.direct_functions or function in state.images


def has_direct_ops(state: State, function: str) -> bool:
    """Whether an enabled direct ops covers the site.

    None does where the site has an entry but its ops a notrace hash, or where the entry was left behind (DIRECT-8).
    """
    return any(ops.direct for ops in covering(state, function))


def selected(state: State) -> set[str]:
    """The functions that have an image, or that the filter of an enabled ops selects."""
    return set(state.images).union(*(_select(state, state.ops[key]) for key in state.ops_list))


def sites(state: State) -> dict[str, Site]:
    """Every site that is not a plain nop."""
    found = ((name, t_show(state, name)) for name in selected(state))
    return {name: site for name, site in found if site}


def t_show(state: State, function: str) -> Site | None:
    """SITE-1: the line of enabled_functions; None for a plain nop."""
    if state.off:
        cite("SYSCTL-2")
        return None
    ops = covering(state, function)
    if not ops:
        cite("SITE-1")
        return None
    regs = _is_regs(state, function, ops)
    direct = any(one.direct for one in ops)
    entry = _show_entry(state, function) if direct else None
    target = ftrace_get_addr_new(ops, entry, regs=regs)
    return Site(len(ops), regs, any(one.ipmodify for one in ops), direct, target, entry)


def shows_regs(state: State, function: str) -> bool:
    """Whether the record is flagged REGS (SITE-1, SITE-6, SYSCTL-4)."""
    return _is_regs(state, function, covering(state, function))


def _is_regs(state: State, function: str, covered_by: list[Ops]) -> bool:
    return function in state.regs_left or any(ops.save_regs for ops in covered_by)


def ftrace_get_addr_new(ops: list[Ops], entry: str | None, *, regs: bool) -> str:
    """SITE-2 to SITE-4: what the instruction of a site calls that these ops cover."""
    if len(ops) > 1:
        cite("SITE-4")
        return "ftrace_regs_caller" if regs else "ftrace_caller"
    if entry is not None:
        cite("SITE-2")
        return entry
    cite("SITE-3")
    return f"ops:{ops[0].label}"


def _show_entry(state: State, function: str) -> str:
    """SITE-5: the direct entry as text."""
    cite("SITE-5")
    image = state.images.get(function)
    return _show_image(image) if image else f"direct:{state.direct_functions[function].tramp}"


def _show_image(image: Image) -> str:
    return "trampoline:" + ",".join(f"{node.program.kind}:{node.program.prog}" for node in image.nodes)
