"""Links of kprobe programs: fprobes over many functions (KPROBE-*). Their handlers are in machine.fprobe."""

from __future__ import annotations

import numpy as np

from impl.batched import graph
from impl.batched.cost import Bill
from impl.batched.faults import Refused
from impl.batched.filters import empty_hash
from impl.batched.functions import Indices, Mask
from impl.batched.state import GraphUser, Kprobe, Ops, Program, State
from spec.globs import libbpf_matcher, link_pattern
from spec.outcomes import Ok

__all__ = ["FPROBE", "create", "detach", "info"]

FPROBE = "fprobe"
AT_RETURN = "kretprobe"
WORD = 1 << 64


def create(state: State, link: str, program: Program, targets: tuple[tuple[str, int | None], ...]) -> None:
    """bpf_kprobe_multi_link_attach()."""
    if not state.facts.fprobes:
        raise Refused("EOPNOTSUPP")
    if program.sleepable:
        raise Refused("EINVAL")
    by_address = any(link_pattern(text) for text, _ in targets)
    where, cookies = _list_addresses(state, targets) if by_address else _look_up(state, targets)
    state.refuse_if_dead()
    kprobe = Kprobe(program, where, np.array([(cookie or 0) % WORD for cookie in cookies], np.uint64))
    if not state.facts.fprobes_shared:
        kprobe.ops = _start(state, _make_ops(state, _mask(state, [kprobe]), program.kind))
    elif program.kind == AT_RETURN:
        _follow_returns(state, [*state.kprobes_of(AT_RETURN), kprobe])
    else:
        _follow_entries(state, [*state.kprobes_of("kprobe"), kprobe])
    state.kprobes[link] = kprobe


def detach(state: State, link: str) -> Ok:
    """bpf_kprobe_multi_link_release()."""
    kprobe = state.kprobes.pop(link)
    if kprobe.ops is not None:
        _stop(state, kprobe.ops)
    elif kprobe.program.kind == AT_RETURN:
        _follow_returns(state, state.kprobes_of(AT_RETURN))
    else:
        _follow_entries(state, state.kprobes_of("kprobe"))
    return Ok()


def info(state: State, link: str) -> str:
    """A link describes itself by its kind, and by each address with its cookie."""
    kprobe = state.kprobes[link]
    names = [state.functions.all[index].name for index in kprobe.where.tolist()]
    pairs = zip(names, kprobe.cookies.tolist(), strict=True)
    return " ".join([kprobe.program.kind, *sorted(f"{name}:{word}" if word else name for name, word in pairs)])


def _look_up(state: State, targets: tuple[tuple[str, int | None], ...]) -> tuple[Indices, list[int | None]]:
    """ftrace_lookup_symbols(): all symbols have a site, and none stands twice."""
    where = [_first_site(state, text) for text, _ in targets]
    if min(where) < 0 or len(set(where)) < len(where):
        raise Refused("ESRCH")
    return np.array(where, np.intp), [cookie for _, cookie in targets]


def _first_site(state: State, text: str) -> int:
    """The first site of a symbol, vmlinux before modules; -1 without one."""
    index = state.functions.name_index(text)
    named = state.functions.index(text)
    symbol = state.functions.all[named].symbol if named >= 0 else text.partition("@")[0] if index >= 0 else text
    found = state.functions.matching(symbol, state.sites.loaded)
    kernel = found[state.functions.module[found] < 0]
    return int((kernel if len(kernel) else found)[0]) if len(found) else -1


def _list_addresses(state: State, targets: tuple[tuple[str, int | None], ...]) -> tuple[Indices, list[int | None]]:
    where: list[int] = []
    cookies: list[int | None] = []
    for text, cookie in targets:
        found = _select(state, text) if link_pattern(text) else [state.site(text)]
        if not found:
            raise Refused("EINVAL")
        where += found
        cookies += [cookie] * len(found)
    if min(where) < 0:
        if not state.facts.fprobes_shared:
            state.refuse_if_dead()
        raise Refused("ENOENT" if state.facts.fprobes_shared else "EINVAL")
    return np.array(where, np.intp), cookies


def _select(state: State, text: str) -> list[int]:
    """A pattern selects sites by their symbols; with a module, sites of that one."""
    pattern, functions = link_pattern(text), state.functions
    assert pattern is not None
    match = libbpf_matcher(pattern.glob)
    there = state.sites.loaded.copy()
    if pattern.module is not None:
        there &= functions.module == functions.modules.get(pattern.module, len(functions.modules))
    return [index for index in np.flatnonzero(there).tolist() if match(functions.all[index].symbol)]


def _mask(state: State, kprobes: list[Kprobe]) -> Mask:
    mask = empty_hash(state.functions)
    for kprobe in kprobes:
        mask[kprobe.where] = True
    return mask


def _make_ops(state: State, filter_hash: Mask, kind: str) -> Ops:
    own = not state.facts.fprobes_shared
    state.next_code += 1
    return Ops(
        FPROBE,
        state.next_code - 1,
        filter_hash,
        empty_hash(state.functions),
        save_regs=own,
        dynamic=own,
        routine="rethook_hook" if kind == AT_RETURN else "fprobe_handler",
    )


def _start(state: State, ops: Ops) -> Ops:
    covered = state.sites.covered(ops.filter_hash, ops.notrace_hash)
    bill = Bill()
    bill.patch(state.sites.joining(covered, regs=ops.regs))
    state.settle(bill)
    state.ops_list.insert(0, ops)
    state.sites.join(covered, ops.code, regs=ops.regs)
    return ops


def _stop(state: State, ops: Ops) -> None:
    covered = state.sites.covered(ops.filter_hash, ops.notrace_hash)
    bill = Bill()
    bill.patch(state.sites.leaving(covered, regs=ops.regs))
    if ops.dynamic:
        bill.wait_dynamic(state.facts)
    state.settle(bill)
    state.ops_list.remove(ops)
    state.sites.leave(covered, ops.code, regs=ops.regs)


def _follow_entries(state: State, kprobes: list[Kprobe]) -> None:
    """The ops that all fprobes at entries share has the functions of these (KPROBE-4)."""
    mask = _mask(state, kprobes)
    ops = next((each for each in state.ops_list if isinstance(each, Ops) and each.name == FPROBE), None)
    if ops is None:
        _start(state, _make_ops(state, mask, "kprobe"))
    elif not mask.any():
        _stop(state, ops)
    else:
        joins, leaves = np.flatnonzero(mask & ~ops.filter_hash), np.flatnonzero(ops.filter_hash & ~mask)
        bill = Bill()
        bill.patch(state.sites.joining(joins, regs=False) + state.sites.leaving(leaves, regs=False))
        state.settle(bill)
        state.sites.join(joins, ops.code)
        state.sites.leave(leaves, ops.code)
        ops.filter_hash = mask


def _follow_returns(state: State, kprobes: list[Kprobe]) -> None:
    """The user of the graph tracer that all fprobes at returns share has the functions of these (KPROBE-5)."""
    mask = _mask(state, kprobes)
    user = next((each for each in state.graph.users if each.fprobes), None)
    nothing = empty_hash(state.functions)
    if user is None:
        if not state.graph.free:
            raise Refused("ENOSPC", warn=True)
        slot = state.graph.free[0]
        graph.add_user(state, GraphUser(FPROBE, slot, mask, nothing, nothing, nothing, None, fprobes=True))
    elif not mask.any():
        graph.remove_user(state, user)
    elif (mask != user.filter_hash).any():
        graph.change_filter(state, user, mask)
    else:
        state.version += 1
