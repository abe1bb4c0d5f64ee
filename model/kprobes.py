"""Links of kprobe programs: a fprobe over many functions (KPROBE-*)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from model.endings import Refused, check_alive
from model.graph import add_subops, change_subops, remove_subops
from model.poke import replaced
from model.registration import add_ftrace_ops, remove_ftrace_ops
from model.rules import cite
from model.sites import traced
from model.state import FPROBE_OPS, FPROBE_USER, Kprobe, Ops, Program, State, fprobe_ops
from spec.abi import SYSTEM_V
from spec.globs import link_pattern
from spec.prototypes import MODULUS
from spec.traces import ProgramRun
from spec.worlds import Function

__all__ = [
    "bpf_kprobe_multi_link_attach",
    "bpf_kprobe_multi_link_release",
    "fprobe_entry",
    "fprobe_return",
    "handler",
    "kprobe_link_info",
    "link_of",
]

Targets = tuple[tuple[str, int | None], ...]


def bpf_kprobe_multi_link_attach(state: State, link: str, program: Program, targets: Targets) -> State:
    """KPROBE-2, KPROBE-3: a fprobe over many functions."""
    cite("KPROBE-2")
    if not state.semantics.fprobes:
        raise Refused(state, "EOPNOTSUPP", "KPROBE-2")
    if program.sleepable:
        raise Refused(state, "EINVAL", "KPROBE-2")
    if any(link_pattern(text) for text, _ in targets):
        named = _list_addresses(state, targets)
    else:
        named = ftrace_lookup_symbols(state, targets)
    return register_fprobe_ips(state, link, Kprobe(program, tuple(named)))


def ftrace_lookup_symbols(state: State, targets: Targets) -> list[tuple[str, int]]:
    """KPROBE-3: each symbol's first site. One that has none, or stands twice, is missing."""
    found = [(_find_symbol(state, text), cookie or 0) for text, cookie in targets]
    if any(name is None for name, _ in found) or len(dict(found)) < len(found):
        raise Refused(state, "ESRCH", "KPROBE-3")
    return [(name, cookie) for name, cookie in found if name is not None]


def _find_symbol(state: State, text: str) -> str | None:
    named = state.world.find(text)
    symbol = named.symbol if named else text
    sites = (f for f in state.world.functions if f.symbol == symbol and state.site(f.name))
    first = min(sites, key=lambda f: f.module is not None, default=None)
    return first.name if first else None


def _list_addresses(state: State, targets: Targets) -> list[tuple[str, int]]:
    """KPROBE-2, KPROBE-3: what patterns select, and the addresses of the other names."""
    found: list[tuple[str, int]] = []
    traced = state.modules - state.untraced
    for text, cookie in targets:
        pattern = link_pattern(text)
        names = [f.name for f in state.world.probed(pattern, traced)] if pattern else [text]
        if not names:
            raise Refused(state, "EINVAL", "KPROBE-2")
        found += [(name, cookie or 0) for name in names]
    if not all(state.site(name) for name, _ in found):
        if state.semantics.fprobes_shared:
            raise Refused(state, "ENOENT", "KPROBE-3")
        check_alive(state, "KPROBE-3")
        raise Refused(state, "EINVAL", "KPROBE-3")
    return found


def register_fprobe_ips(state: State, link: str, kprobe: Kprobe) -> State:
    """KPROBE-3 to KPROBE-5: the fprobe gets an ops, or a share in one, or in a user of the graph tracer."""
    check_alive(state, "KPROBE-3")
    after = replace(state, kprobes={**state.kprobes, link: kprobe})
    if not state.semantics.fprobes_shared:
        cite("KPROBE-4")
        ops = Ops("fprobe", save_regs=True, dynamic=True, filter_hash=kprobe.functions, func=True)
        return add_ftrace_ops(after.with_ops(fprobe_ops(link), ops), fprobe_ops(link))
    if kprobe.program.kind == "kretprobe":
        cite("KPROBE-5")
        return _update_user(state, after)
    cite("KPROBE-4")
    return _update_ops(state, after)


def bpf_kprobe_multi_link_release(state: State, link: str) -> State:
    """KPROBE-6: the fprobe goes, and nothing can fail."""
    cite("KPROBE-6")
    program = state.kprobes[link].program
    after = replace(state, kprobes={name: kprobe for name, kprobe in state.kprobes.items() if name != link})
    if not state.semantics.fprobes_shared:
        return remove_ftrace_ops(after, fprobe_ops(link)).without_ops(fprobe_ops(link))
    return _update_user(state, after) if program.kind == "kretprobe" else _update_ops(state, after)


def _union(state: State, kind: str) -> frozenset[str]:
    """The functions of all fprobes of a kind."""
    kprobes = (kprobe for kprobe in state.kprobes.values() if kprobe.program.kind == kind)
    return frozenset[str]().union(*(kprobe.functions for kprobe in kprobes))


def _update_ops(before: State, state: State) -> State:
    """KPROBE-4: fprobe_ftrace_ops has all that fprobes are on; it comes with the first and goes with the last."""
    filter_hash = _union(state, "kprobe")
    if not filter_hash:
        return remove_ftrace_ops(state, FPROBE_OPS).without_ops(FPROBE_OPS)
    ops = Ops("fprobe", filter_hash=filter_hash, func=True)
    if FPROBE_OPS not in before.ops:
        return add_ftrace_ops(state.with_ops(FPROBE_OPS, ops), FPROBE_OPS)
    concerned = {*traced(before, before.ops[FPROBE_OPS]), *traced(state, ops)}
    return replaced(before, state.with_ops(FPROBE_OPS, ops), concerned)


def _update_user(before: State, state: State) -> State:
    """KPROBE-5: the same of fprobe_graph_ops, a user of the graph tracer."""
    filter_hash = _union(state, "kretprobe")
    if not filter_hash:
        return remove_subops(state, FPROBE_USER)
    if FPROBE_USER not in before.graph_users:
        if not state.graph_slots:
            raise Refused(before, "ENOSPC", "KPROBE-5", warn=True)
        return add_subops(state, FPROBE_USER, filter_hash)
    if before.graph_users[FPROBE_USER].filter_hash == filter_hash:
        return state
    return change_subops(state, FPROBE_USER, filter_hash)


def link_of(state: State, key: str) -> str | None:
    """The link whose fprobe has the ops of this key."""
    return next((link for link in state.kprobes if fprobe_ops(link) == key), None)


def fprobe_entry(state: State, function: Function, words: tuple[int, ...]) -> Iterable[ProgramRun]:
    """KPROBE-7: the programs at a function's entry, those of the newest link first."""
    return _run_all(state, "kprobe", function, words)


def fprobe_return(state: State, function: Function, seen: tuple[int, ...]) -> Iterable[ProgramRun]:
    """KPROBE-7: the programs at its return."""
    return _run_all(state, "kretprobe", function, seen) if state.semantics.fprobes_shared else []


def _run_all(state: State, kind: str, function: Function, words: tuple[int, ...]) -> list[ProgramRun]:
    links = [link for link, kprobe in state.kprobes.items() if kprobe.program.kind == kind]
    return [run for link in reversed(links) for run in handler(state, link, function, words)]


def handler(state: State, link: str, function: Function, words: tuple[int, ...]) -> list[ProgramRun]:
    """KPROBE-7 to KPROBE-9: the runs of a link's program for a function, where it is on it: one, or one an address."""
    kprobe = state.kprobes[link]
    cookies = [cookie for name, cookie in kprobe.cookies if name == function.name]
    if not cookies:
        return []
    cite("KPROBE-7", "KPROBE-8")
    if len(cookies) > 1:
        cite("KPROBE-9")
    times = len(cookies) if state.semantics.fprobes_shared else 1
    return [_observe(kprobe.program, function, words, cookies[0])] * times


def _in_registers(function: Function, words: tuple[int, ...]) -> tuple[int, ...]:
    """KPROBE-8: a function without a prototype shows all registers, and those without a word are 0."""
    if function.prototype:
        return tuple(word for word, slot in zip(words, function.prototype.slots, strict=True) if slot.register)
    return words + (0,) * (len(SYSTEM_V.arguments) - len(words))


def _observe(program: Program, function: Function, words: tuple[int, ...], cookie: int) -> ProgramRun:
    """KPROBE-8: registers, the function's address, and the cookie."""
    if program.kind == "kprobe":
        words = _in_registers(function, words)
    return ProgramRun(
        kind=program.kind,
        prog=program.prog,
        context=words,
        func_ip=function.name if program.func_ip else None,
        arg_cnt=0,
        args=(),
        ret=0,
        cookie=cookie % MODULUS,
    )


def kprobe_link_info(state: State, link: str) -> str:
    """KPROBE-10: BPF_OBJ_GET_INFO_BY_FD of a link, its functions by their names."""
    cite("KPROBE-10")
    kprobe = state.kprobes[link]
    words = ((name, cookie % MODULUS) for name, cookie in kprobe.cookies)
    return " ".join([kprobe.program.kind, *sorted(f"{name}:{word}" if word else name for name, word in words)])
