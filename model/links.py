"""Links: attaching programs to one function or to many, and detaching them (LINK-*)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import groupby

from model.cost import built, patched_between, repointed, waited_dynamic
from model.direct import grown
from model.faults import Faults
from model.programs import acceptable, check_multi_target, check_target
from model.regs import narrowed, uncovered
from model.rules import Refused, cite
from model.sites import BPF_OPS, ipmodify_user
from model.state import Link, Node, Program, State, Trampoline
from model.trampolines import charge, linked, make_image, unlinked
from spec import operations as op
from spec.globs import is_glob

__all__ = ["Warned", "detach", "link_create", "raw_tracepoint_open"]


@dataclass(frozen=True, slots=True)
class Warned:
    """The operation succeeded, and the kernel warned all the same."""

    state: State


def raw_tracepoint_open(state: State, operation: op.BpfRawTracepointOpen, faults: Faults) -> State:
    """bpf_raw_tracepoint_open."""
    program = _named(state, operation.link, operation.prog)
    return _attach_one(state, operation.link, program, (operation.function, operation.cookie), faults)


def link_create(state: State, operation: op.BpfLinkCreate, faults: Faults) -> State:
    """bpf_link_create."""
    program = _named(state, operation.link, operation.prog)
    if program.multi:
        return _attach_many(state, operation.link, program, operation.targets, faults)
    (function, cookie), *more = operation.targets
    if more or is_glob(function):
        raise Refused("EINVAL", "LINK-2")
    cite("LINK-2")
    return _attach_one(state, operation.link, program, (function, cookie), faults)


def _named(state: State, link: str, prog: str) -> Program:
    if link in state.links:
        raise Refused("EEXIST", "NAME-1")
    if prog not in state.programs:
        raise Refused("EBADF", "NAME-2")
    if prog in state.lost:
        raise Refused("EOPNOTSUPP", "NAME-10")
    return state.programs[prog]


def _attach_one(
    state: State, link: str, program: Program, wanted: tuple[str | None, int | None], faults: Faults
) -> State:
    """LINK-1: attach to one function, by name or the program's own target, with or without a cookie."""
    function, cookie = wanted
    target = program.target or function
    if program.multi or target is None or function not in {None, target}:
        raise Refused("EINVAL", "LINK-1")
    if cookie is not None and not state.semantics.cookies:
        raise Refused("EINVAL", "LINK-1")
    if program.target is None:
        check_target(state, program, target)
    if not state.loaded(target):
        raise Refused("EINVAL", "LINK-1")
    faults.reach("alloc")
    cite("LINK-1")
    node = Node(program, cookie or 0)
    trampolines = {target: linked(state, state.trampolines.get(target, Trampoline()), node)}
    if program.kind == "freplace":
        cite("LINK-5")
        after = replace(state, trampolines={**state.trampolines, **trampolines})
    else:
        charge(state, target, faults)
        after = _put_one(state, target, trampolines, faults)
    return replace(after, links={**after.links, link: Link(program, {target: node.cookie})})


def _put_one(state: State, function: str, trampolines: dict[str, Trampoline], faults: Faults) -> State:
    """LINK-4: the image is put in place; IPMODIFY-5 for a site with an IPMODIFY user."""
    if function not in state.images:
        if not state.semantics.single_direct_ops:
            faults.reach("filter")
        _check_first(state, [function])
    _check_alive(state)
    trampoline = trampolines[function]
    if _bypasses(state, function, trampoline):
        cite("IPMODIFY-5")
        trampolines = {function: replace(trampoline, share=True)}
    faults.reach("register")
    return _with_images(state, trampolines)


def _check_first(state: State, functions: list[str]) -> None:
    """What a first image on a site may run into."""
    if any(function in state.direct_functions for function in functions):
        raise Refused(state.semantics.foreign_direct, "LINK-4")
    _check_alive(state)
    if not state.semantics.share_ipmodify and any(ipmodify_user(state, function) for function in functions):
        raise Refused("EBUSY", "IPMODIFY-3")


def _check_alive(state: State) -> None:
    if state.dead:
        raise Refused("ENODEV", "LINK-4")


def _bypasses(state: State, function: str, trampoline: Trampoline) -> bool:
    """Whether an image would call the original by address past an IPMODIFY user."""
    return trampoline.calls_orig and not trampoline.share and ipmodify_user(state, function)


def _with_images(state: State, trampolines: Mapping[str, Trampoline]) -> State:
    """New images for these trampolines, put in place and paid for (COST-4, COST-6)."""
    cite("COST-4")
    first = [function for function in trampolines if function not in state.images]
    if first:
        cite("COST-6")
    images = {function: make_image(trampoline) for function, trampoline in trampolines.items()}
    after = replace(
        grown(state, len(first)) if first else state,
        trampolines={**state.trampolines, **trampolines},
        images={**state.images, **images},
        parts=_cut(state, frozenset(trampolines)),
    )
    after = patched_between(state, after, first)
    return built(repointed(after, trampolines.keys() - set(first)), len(images))


def _attach_many(
    state: State, link: str, program: Program, targets: tuple[tuple[str, int | None], ...], faults: Faults
) -> State:
    """LINK-6 to LINK-10: attach to many functions in one call."""
    if not state.semantics.cookies and any(cookie is not None for _, cookie in targets):
        raise Refused("EINVAL", "LINK-6")
    named = [pair for target in targets for pair in _expanded(state, program, *target)]
    faults.reach("alloc")
    if state.semantics.parts_limit is not None and any(other.program == program for other in state.links.values()):
        raise Refused("EBUSY", "LINK-11")
    cookies = dict(sorted(named, key=lambda pair: _btf_id(state, pair[0])))
    if len(cookies) < len(named):
        raise Refused("EINVAL", "LINK-6")
    for function in cookies:
        check_multi_target(state, program, function)
    _check_parts(state, frozenset(cookies))
    cite("LINK-6", "LINK-15")
    after = _put_many(state, program, cookies, faults)
    return replace(after, links={**after.links, link: Link(program, cookies)})


def _expanded(state: State, program: Program, target: str, cookie: int | None) -> list[tuple[str, int]]:
    """LINK-6: what one FUNC[:COOKIE] stands for."""
    if not is_glob(target):
        return [(target, cookie or 0)]
    matched = (function.name for function in state.world.matching(target, state.modules))
    found = [(name, cookie or 0) for name in matched if acceptable(state, program, name)]
    if not found:
        raise Refused("EINVAL", "LINK-6")
    return found


def _btf_id(state: State, name: str) -> int:
    function = state.loaded(name)
    return (function.btf_id or 0) if function else 0


def _put_many(state: State, program: Program, cookies: Mapping[str, int], faults: Faults) -> State:
    """LINK-8 and LINK-9: every function is linked, then all images are put in place together."""
    trampolines: dict[str, Trampoline] = {}
    for function, cookie in cookies.items():
        old = state.trampolines.get(function, Trampoline())
        trampolines[function] = linked(state, old, Node(program, cookie))
        charge(state, function, faults)
    cite("LINK-8", "LINK-9", "LINK-10")
    first = [function for function in cookies if function not in state.images]
    kept = [function for function in cookies if function in state.images]
    if first:
        _check_first(state, first)
        _check_second_try(state, first, trampolines)
        faults.reach("register")
    if kept:
        _check_alive(state)
        _check_second_try(state, kept, trampolines)
        faults.reach("register")
    return _with_images(state, trampolines)


def _check_second_try(state: State, functions: Iterable[str], trampolines: Mapping[str, Trampoline]) -> None:
    if any(_bypasses(state, function, trampolines[function]) for function in functions):
        raise Refused("EAGAIN", "IPMODIFY-6")


def _check_parts(state: State, functions: frozenset[str]) -> None:
    limit = state.semantics.parts_limit
    if limit is not None and sum(not part.isdisjoint(functions) for part in state.parts) > limit:
        raise Refused("EBUSY", "LINK-11")


def _cut(state: State, functions: frozenset[str]) -> frozenset[frozenset[str]]:
    """LINK-11: the proposal's parts, after an attach to these functions."""
    if state.semantics.parts_limit is None:
        return state.parts
    cite("LINK-11")
    pieces = [piece for part in state.parts for piece in (part & functions, part - functions)]
    rest = sorted(functions.difference(*state.parts), key=lambda name: _arity(state, name))
    groups = [frozenset(group) for _, group in groupby(rest, key=lambda name: _arity(state, name))]
    return frozenset(piece for piece in (*pieces, *groups) if piece)


def _arity(state: State, name: str) -> int:
    prototype = state.world.by_name[name].prototype
    return len(prototype.arguments) if prototype else 0


def detach(state: State, operation: op.BpfLinkDetach, faults: Faults) -> State | Warned:
    """LINK-12: the program leaves every function of its link; it never fails, but may leave old images behind."""
    if operation.link not in state.links:
        raise Refused("EBADF", "NAME-2")
    cite("LINK-12")
    link = state.links[operation.link]
    trampolines = {function: unlinked(state.trampolines[function], link.program) for function in link.cookies}
    state = replace(state, links={name: other for name, other in state.links.items() if name != operation.link})
    if link.program.kind == "freplace":
        left = replace(state, trampolines={**state.trampolines, **trampolines})
        return _forget(left, trampolines.keys() - state.images.keys())
    kept = {function: trampoline for function, trampoline in trampolines.items() if trampoline.count}
    last = [function for function in trampolines if function not in kept]
    old = replace(state, trampolines={**state.trampolines, **trampolines})
    after, kept_fell = _keep(old, kept, faults)
    after, last_fell = _leave(after, last)
    return Warned(after) if kept_fell or last_fell else after


def _keep(state: State, kept: Mapping[str, Trampoline], faults: Faults) -> tuple[State, bool]:
    """LINK-13: new images where programs remain; whether some could not be had."""
    charged = {function: tr for function, tr in kept.items() if not faults.fails("jit_charge")}
    fell = len(charged) < len(kept)
    if kept:
        cite("LINK-13")
    if charged and (state.dead or faults.fails("register")):
        charged, fell = {}, True
    if fell:
        cite("IMAGE-2")
    images = {function: make_image(trampoline) for function, trampoline in charged.items()}
    after = replace(state, images={**state.images, **images})
    return built(repointed(after, charged), len(charged)), fell


def _leave(state: State, last: list[str]) -> tuple[State, bool]:
    """LINK-14: functions without programs lose image and direct entry; whether they could not."""
    if not last:
        return state, False
    cite("LINK-14")
    if state.dead:
        return state, True
    cite("COST-5")
    after = _forget(state, last)
    stays = state.semantics.single_direct_ops and bool(after.images)
    after = narrowed(after, BPF_OPS, last) if stays else uncovered(after, BPF_OPS, last)
    after = patched_between(state, after, last)
    if state.semantics.single_direct_ops:
        return after, False
    if state.semantics.parts_limit is None:
        return waited_dynamic(after, len(last), direct=True), False
    remaining = frozenset(part for part in state.parts if part.isdisjoint(last))
    return waited_dynamic(replace(after, parts=remaining), len(state.parts) - len(remaining), direct=True), False


def _forget(state: State, functions: Iterable[str]) -> State:
    gone = frozenset(functions)
    return replace(
        state,
        trampolines={name: trampoline for name, trampoline in state.trampolines.items() if name not in gone},
        images={name: image for name, image in state.images.items() if name not in gone},
    )
