"""Links: attaching programs to one function, or to many in one call, and detaching them (LINK-*)."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from impl.batched import kprobes
from impl.batched.btf import NO_SITE
from impl.batched.cost import Bill
from impl.batched.direct import bill_growth
from impl.batched.direct_functions import BPF, NO_ENTRY
from impl.batched.faults import Refused
from impl.batched.functions import Indices
from impl.batched.parts import cut_parts, end_parts, parts_met
from impl.batched.programs import CALLING, EXTENSION, REFUSALS, refuse_target, verdicts
from impl.batched.sets import lists_of
from impl.batched.sites import DIRECT
from impl.batched.state import Link, Program, State
from impl.batched.targets import Targets, find_btf, resolve, words
from spec import operations as op
from spec.globs import link_pattern
from spec.outcomes import Ok

__all__ = ["create", "detach", "info", "open_raw_tracepoint"]

UNNAMED: Final = -1
ERRNOS: Final = ("", "EBUSY", "E2BIG")
BUSY: Final = 1
TOO_BIG: Final = 2


def open_raw_tracepoint(state: State, operation: op.BpfRawTracepointOpen) -> None:
    """BPF_RAW_TRACEPOINT_OPEN (LINK-1)."""
    program = state.programs[operation.prog]
    if program.multi or program.kind in op.KPROBES:
        raise Refused("EINVAL")
    _attach_one(state, operation.link, program, operation.function, operation.cookie)


def create(state: State, operation: op.BpfLinkCreate) -> None:
    """BPF_LINK_CREATE with link_create.tracing_multi (LINK-2, LINK-6)."""
    program = state.programs[operation.prog]
    if program.kind in op.KPROBES:
        kprobes.create(state, operation.link, program, operation.targets)
        return
    if program.multi:
        btf = find_btf(state, program, operation.targets[0][0])
        _attach_many(state, operation.link, program, btf, resolve(state, program, btf, operation.targets))
        return
    function, cookie = operation.targets[0]
    if len(operation.targets) > 1 or link_pattern(function):
        raise Refused("EINVAL")
    _attach_one(state, operation.link, program, function, cookie)


def _attach_one(state: State, link: str, program: Program, function: str | None, cookie: int | None) -> None:
    named = state.functions.named
    index = state.functions.name_index(function) if function is not None else program.target
    if program.target >= 0 and index != program.target:
        raise Refused("EINVAL")
    if cookie is not None and not state.facts.cookies:
        raise Refused("EINVAL")
    if program.target < 0 or not state.present[named.module[index]]:
        refuse_target(state, program, index)
    state.faults.stop_at("alloc")
    if named.lookup[index] and program.kind != EXTENSION:
        _build_one(state, index)
        # bpf_arch_text_poke() wants a nop, in the kernel's own text (LINK-16).
        raise Refused("EBUSY" if named.lookup[index] == NO_SITE else "EINVAL")
    where = np.array([index])
    lists = lists_of(program.kind, void=bool(named.void[index]))
    node = state.trampolines.nodes(program.number, lists, words([cookie]))
    errno = _check_linking(state, program, where)[0]
    if errno:
        raise Refused(ERRNOS[errno])
    if program.kind == EXTENSION:
        state.trampolines.extended[index] = True
        state.trampolines.extension[index] = int(node[0])
        _enter(state, link, program, where)
        return
    _build_one(state, index)
    if not state.sites.loaded[index]:
        # The module came after ftrace's death (DEAD-2), and its text is not the kernel's own.
        raise Refused("EINVAL")
    shared = _place_one(state, program, index)
    first = where[~state.trampolines.has_image(where)]
    kept = where[len(first) :]
    state.settle(_bill_attaching(state, first, kept))
    state.trampolines.share[index] = shared
    _put_images(state, where, first, node)
    _enter(state, link, program, where)


def _check_linking(state: State, program: Program, where: Indices) -> NDArray[np.uint8]:
    """Decides for each function what linking answers, as an index into ERRNOS (LINK-3)."""
    trampolines, sets = state.trampolines, state.trampolines.sets
    classes = sets.of[where]
    errnos = np.zeros(len(where), np.uint8)
    if program.kind == EXTENSION:
        errnos[trampolines.extended[where] | (classes > 0)] = BUSY
        return errnos
    if program.links:
        errnos[sets.holding(program.number, classes)] = BUSY
    errnos[sets.weight[classes] > state.facts.max_links - len(lists_of(program.kind))] = TOO_BIG
    if trampolines.extension:
        errnos[trampolines.extended[where]] = BUSY
    return errnos


def _place_one(state: State, program: Program, index: int) -> bool:
    """Put the image in place, at the second try if it must be ORIG_STACK (LINK-4, IPMODIFY-5): whether it shares."""
    facts, where = state.facts, np.array([index])
    first = not state.trampolines.has_image(where)[0]
    user = state.sites.ipmodify[index]
    if first:
        if not facts.single_direct_ops:
            if state.dead:
                raise Refused("EINVAL" if facts.filter_unchecked else "ENODEV")
            state.faults.stop_at("filter")
        if state.direct.entry[index] not in {NO_ENTRY, BPF}:
            raise Refused(facts.foreign_direct)
    state.refuse_if_dead()
    if first and user and not facts.share_ipmodify:
        raise Refused("EBUSY")
    state.faults.stop_at("register")
    return bool(state.trampolines.share[index] or (user and _calls_original(state, program, where)[0]))


def _build_one(state: State, index: int) -> None:
    if state.facts.charge_before_slots:
        state.faults.stop_at("jit_charge")
    if state.functions.named.slots[index] > state.facts.max_slots:
        raise Refused("ENOTSUPP")
    if not state.facts.charge_before_slots:
        state.faults.stop_at("jit_charge")


def _calls_original(state: State, program: Program, where: Indices) -> NDArray[np.bool_]:
    """Whether the function's image, with this program added, calls the original (IMAGE-3)."""
    if program.kind in CALLING:
        return np.ones(len(where), np.bool_)
    return state.trampolines.calls_original(state.trampolines.sets.of[where])


def _attach_many(state: State, link: str, program: Program, btf: int, targets: Targets) -> None:
    """bpf_trampoline_multi_attach() (LINK-6..9)."""
    where = targets.where
    state.faults.stop_at("alloc")
    if state.facts.has_parts and program.links:
        raise Refused("EBUSY")
    _refuse_targets(state, program, btf, where)
    if state.facts.parts_limit is not None and parts_met(state.trampolines, where) > state.facts.parts_limit:
        raise Refused("EBUSY")
    _link_and_charge(state, program, where)
    has = state.trampolines.has_image(where)
    first, kept = where[~has], where[has]
    _place_many(state, program, first, kept)
    state.settle(_bill_attaching(state, first, kept))
    nodes = state.trampolines.nodes(program.number, lists_of(program.kind), targets.cookies)
    _put_images(state, where, first, nodes)
    program.btf = btf
    _enter(state, link, program, where)


def _refuse_targets(state: State, program: Program, btf: int, where: Indices) -> None:
    """No function may stand twice; PROG-3 judges each, the least BTF id first (LINK-6, LINK-7)."""
    if np.bincount(where + 1).max() > 1:
        raise Refused("EINVAL")
    named = state.functions.named
    judged = verdicts(state, program, btf)[where]
    absent = (where < 0) | ~state.present[named.module[where]]
    wrong = (judged > 0) | absent
    if wrong.any():
        ranks = np.where(absent, UNNAMED, named.rank[where])
        at = np.flatnonzero(wrong)
        first = at[ranks[at].argmin()]
        raise Refused("EINVAL" if absent[first] else REFUSALS[judged[first]])


def _link_and_charge(state: State, program: Program, where: Indices) -> None:
    """LINK-3, slots and jit_charge for each function, the least BTF id first (LINK-8)."""
    errnos = _check_linking(state, program, where)
    many = state.functions.slots[where] > state.facts.max_slots
    wrong = np.flatnonzero((errnos > 0) | many)
    if not len(wrong):
        state.faults.stop_at("jit_charge", len(where))
        return
    ranks = state.functions.named.rank[where]
    first = wrong[ranks[wrong].argmin()]
    unlinked = bool(errnos[first])
    before = int(np.count_nonzero(ranks < ranks[first]))
    state.faults.stop_at("jit_charge", before + (state.facts.charge_before_slots and not unlinked))
    raise Refused(ERRNOS[errnos[first]] or "ENOTSUPP")


def _place_many(state: State, program: Program, first: Indices, kept: Indices) -> None:
    """Register the functions with their first program in one go, then modify the others in one go (LINK-9)."""
    sites = state.sites
    if len(first):
        entries = state.direct.entry[first]
        if ((entries != NO_ENTRY) & (entries != BPF)).any():
            raise Refused(state.facts.foreign_direct)
        state.refuse_if_dead()
        if not state.facts.share_ipmodify and sites.ipmodify[first].any():
            raise Refused("EBUSY")
        _refuse_second_try(state, program, first)
        state.faults.stop_at("register")
    if len(kept):
        state.refuse_if_dead()
        _refuse_second_try(state, program, kept)
        state.faults.stop_at("register")


def _refuse_second_try(state: State, program: Program, where: Indices) -> None:
    """A batch that would need ORIG_STACK at a second try fails (IPMODIFY-6)."""
    where = where[state.sites.ipmodify[where]]
    where = where[~state.trampolines.share[where]]
    if _calls_original(state, program, where).any():
        raise Refused("EAGAIN")


def _bill_attaching(state: State, first: Indices, kept: Indices) -> Bill:
    """COST-4: entries are added in one pass, then others are changed."""
    bill = Bill()
    bill.patch(state.sites.joining(first, regs=True))
    bill_growth(state, len(first), bill)
    bill.change_entries(len(state.sites.alone(kept)))
    return bill


def _put_images(state: State, where: Indices, first: Indices, nodes: NDArray[np.int32]) -> None:
    """The program joins the lists, and new images take their places."""
    trampolines = state.trampolines
    if len(first):
        state.sites.join(first, DIRECT, regs=True)
        state.direct.add(first, BPF)
    if len(nodes) == 1:
        trampolines.sets.attach(where, int(nodes[0]))
    else:
        trampolines.sets.attach_each(where, nodes)
    if len(trampolines.part):
        cut_parts(trampolines, state.functions, where)
    state.ledger.built += trampolines.put(where)


def _enter(state: State, link: str, program: Program, where: Indices) -> None:
    program.links += 1
    state.links[link] = Link(program, where.astype(np.int32))


def info(state: State, name: str) -> str:
    """A link describes itself by its kind, and by its functions with the cookies of its program's nodes."""
    if name in state.kprobes:
        return kprobes.info(state, name)
    link = state.links[name]
    told = link.program.multi or state.facts.single_cookie_told
    where = link.functions.tolist()
    cookies = _find_cookies(state, link) if told else [0] * len(where)
    named = [state.functions.all[index].name for index in where]
    targets = [f"{name}:{cookie}" if cookie else name for name, cookie in zip(named, cookies, strict=True)]
    return f"{link.program.kind} {' '.join(sorted(targets))}"


def _find_cookies(state: State, link: Link) -> list[int]:
    """The cookie of a link's program on each of its functions."""
    sets, cookies = state.trampolines.sets, state.trampolines.cookies
    if link.program.kind == EXTENSION:
        return [int(cookies[state.trampolines.extension[index]]) for index in link.functions.tolist()]
    classes, places = np.unique(sets.of[link.functions], return_inverse=True)
    nodes = [next(n for n in sets.row(c) if sets.node_program[n] == link.program.number) for c in classes.tolist()]
    found: list[int] = cookies[nodes][places].tolist()
    return found


def detach(state: State, operation: op.BpfLinkDetach) -> Ok:
    """The last reference of a link is dropped; it answers 0, with WARN if an image stays that should have gone."""
    if operation.link in state.kprobes:
        return kprobes.detach(state, operation.link)
    link = state.links.pop(operation.link)
    link.program.links -= 1
    where = link.functions.astype(np.intp)
    if link.program.kind == EXTENSION:
        state.trampolines.extended[where] = False
        del state.trampolines.extension[int(where[0])]
        return Ok()
    weight = state.trampolines.sets.weight[state.trampolines.sets.of[where]]
    last = weight == len(lists_of(link.program.kind))
    stays = _unlink(state, link.program, where[last], where[~last])
    return Ok(warn=stays)


def _unlink(state: State, program: Program, lost: Indices, kept: Indices) -> bool:
    """Some functions lose their last program, others keep some; returns whether an old image stays anywhere."""
    starved = _starve(state, np.concatenate([lost, kept]))
    gone = lost[lost != starved]
    changed = _charge(state, kept[kept != starved])
    narrowed = _leaves_others(state, gone)
    bill = Bill()
    if state.dead:
        gone = lost[:0]
    else:
        bill.patch(state.sites.leaving(gone, regs=True, narrowed=narrowed))
        bill.change_entries(len(state.sites.alone(changed)))
        bill.wait_dynamic(state.facts, _count_waits(state, gone), direct=True)
    try:
        state.settle(bill)
    except Refused:
        gone, changed = lost[:0], kept[:0]
        state.version += 1
    _take_off(state, program, (lost, kept), gone, changed)
    state.sites.leave(gone, DIRECT, regs=True, narrowed=narrowed)
    return len(gone) + len(changed) < len(lost) + len(kept)


def _starve(state: State, where: Indices) -> int:
    """The function for which no list of programs can be allocated, the least BTF id being first; or -1 (LINK-12)."""
    failed = state.faults.reach("alloc", len(where))
    return int(where[np.argsort(state.functions.named.rank[where], kind="stable")[failed - 1]]) if failed else -1


def _charge(state: State, kept: Indices) -> Indices:
    """Of the functions that keep programs, returns those whose new images take their places (LINK-13)."""
    failed = state.faults.reach("jit_charge", len(kept))
    if failed:
        order = np.argsort(state.functions.named.rank[kept], kind="stable")
        kept = np.delete(kept, order[failed - 1])
    if len(kept) and (state.dead or state.faults.reach("register")):
        return kept[:0]
    return kept


def _leaves_others(state: State, lost: Indices) -> bool:
    """Whether the ops of these images keeps other sites; one for each function, or part, keeps none (SITE-6)."""
    return state.facts.single_direct_ops and bool(np.count_nonzero(state.direct.entry == BPF) > len(lost))


def _count_waits(state: State, lost: Indices) -> int:
    """Counts the dynamic ops that are unregistered with these functions (COST-5)."""
    if state.facts.has_parts:
        return parts_met(state.trampolines, lost)
    return 0 if state.facts.single_direct_ops else len(lost)


def _take_off(
    state: State,
    program: Program,
    linked: tuple[Indices, Indices],
    gone: Indices,
    changed: Indices,
) -> None:
    """The program leaves the lists; `gone` lose their images, `changed` get new ones, all others keep the old ones."""
    trampolines = state.trampolines
    lost, kept = linked
    if len(gone) + len(changed) < len(lost) + len(kept):
        stale = np.setdiff1d(np.concatenate(linked), np.concatenate([gone, changed]))
        trampolines.keep_stale(stale, trampolines.images(stale))
    trampolines.sets.detach(np.concatenate(linked), program.number)
    trampolines.share[lost] = False
    if len(gone):
        state.direct.remove(gone)
        trampolines.forget(gone)
    if len(trampolines.part):
        end_parts(trampolines, lost)
    state.ledger.built += trampolines.put(changed)
