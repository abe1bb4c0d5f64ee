"""Links: attaching programs to one function or to many, and detaching them (LINK-*)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

from model import parts
from model.cost import built, waited_dynamic
from model.direct import grown
from model.endings import Refused, Warned, check_alive
from model.faults import fails, reach
from model.kprobes import bpf_kprobe_multi_link_attach, bpf_kprobe_multi_link_release, kprobe_link_info
from model.poke import modified, poke, replaced
from model.programs import check_attach_target, check_multi_target, refuse_multi_target
from model.regs import drop_regs, keep_regs
from model.rules import cite
from model.sites import BPF_OPS, has_ipmodify_user
from model.state import Link, Node, Program, State, Trampoline
from model.trampolines import bpf_trampoline_link_prog, bpf_trampoline_unlink_prog, charge_image, make_image
from spec import operations as op
from spec.globs import link_pattern

__all__ = ["bpf_raw_tracepoint_open", "bpf_tracing_link_release", "link_create", "link_info"]

Target = tuple[str, int | None]
Targets = tuple[Target, ...]


def bpf_raw_tracepoint_open(state: State, operation: op.BpfRawTracepointOpen) -> State:
    """LINK-1: attach to one function, by its name or as the program's own target."""
    program = state.programs[operation.prog]
    return _bpf_tracing_prog_attach(state, operation.link, program, operation.function, operation.cookie)


def link_create(state: State, operation: op.BpfLinkCreate) -> State:
    """LINK-2, LINK-6: attach to many functions, if the program is a multi program."""
    program = state.programs[operation.prog]
    if program.kind in op.KPROBES:
        return bpf_kprobe_multi_link_attach(state, operation.link, program, operation.targets)
    if program.multi:
        return _bpf_tracing_multi_attach(state, operation.link, program, operation.targets)
    (function, cookie), *more = operation.targets
    if more or link_pattern(function):
        raise Refused(state, "EINVAL", "LINK-2")
    cite("LINK-2")
    return _bpf_tracing_prog_attach(state, operation.link, program, function, cookie)


def link_info(state: State, name: str) -> str:
    """LINK-18: BPF_OBJ_GET_INFO_BY_FD of a link, its functions by their names."""
    if name in state.kprobes:
        return kprobe_link_info(state, name)
    cite("LINK-18")
    program, cookies = state.links[name].program, state.links[name].cookies
    told = program.multi or state.semantics.single_cookie_told
    words = {function: cookie % (1 << 64) if told else 0 for function, cookie in cookies.items()}
    return " ".join([program.kind, *sorted(f"{name}:{word}" if word else name for name, word in words.items())])


def _bpf_tracing_prog_attach(
    state: State, link: str, program: Program, function: str | None, cookie: int | None
) -> State:
    """LINK-1: the checks, then the program joins the function's trampoline."""
    target = _find_target(state, program, function)
    if cookie is not None and not state.semantics.cookies:
        raise Refused(state, "EINVAL", "LINK-1")
    if program.target is None:
        check_attach_target(state, program, target)
    if not state.named(target):
        raise Refused(state, "EINVAL", "LINK-1")
    state = reach(state, "alloc")
    cite("LINK-1")
    node = Node(program, cookie or 0)
    trampoline = bpf_trampoline_link_prog(state, target, node)
    put = _put_extension if program.kind == "freplace" else _bpf_trampoline_update
    return _with_link(put(state, target, trampoline), link, Link(program, {target: node.cookie}))


def _find_target(state: State, program: Program, function: str | None) -> str:
    """LINK-1: the function that is named or, without a name, the one that the program was loaded for."""
    target = program.target or function
    if program.multi or program.kind in op.KPROBES or target is None:
        raise Refused(state, "EINVAL", "LINK-1")
    if function is not None and function != target:
        raise Refused(state, "EINVAL", "LINK-1")
    return target


def _with_link(state: State, name: str, link: Link) -> State:
    return replace(state, links={**state.links, name: link})


def _with_trampolines(state: State, trampolines: Mapping[str, Trampoline]) -> State:
    return replace(state, trampolines={**state.trampolines, **trampolines})


def _put_extension(state: State, function: str, trampoline: Trampoline) -> State:
    """LINK-5: the extension takes the body's place, and ftrace does not know of it."""
    cite("LINK-5")
    return _with_trampolines(state, {function: trampoline})


def _bpf_trampoline_update(state: State, function: str, trampoline: Trampoline) -> State:
    """LINK-4: an image is made and put in place, at the second try where there is an IPMODIFY user."""
    state = charge_image(state, function)
    found = state.named(function)
    if found and (lookup := state.lookup(found)):
        # bpf_arch_text_poke() wants a nop, in the kernel's own text.
        also = () if found.lookup else ("DEAD-2",)
        raise Refused(state, "EBUSY" if lookup == "no_site" else "EINVAL", "LINK-16", *also)
    if function not in state.images:
        # The filter of the trampoline's own ops; where one direct_ops serves all, the hash API sets it.
        if not state.semantics.single_direct_ops:
            if state.dead:
                raise Refused(state, "EINVAL" if state.semantics.filter_unchecked else "ENODEV", "LINK-4")
            state = reach(state, "filter")
        _check_first(state, [function])
    check_alive(state, "LINK-4")
    if _bypasses(state, function, trampoline):
        cite("IPMODIFY-5")
        trampoline = replace(trampoline, share=True)
    state = reach(state, "register")
    return _put_images(state, {function: trampoline})


def _check_first(state: State, functions: Collection[str]) -> None:
    """What a first image on a site may run into: somebody else's direct call, or an IPMODIFY user that cannot share."""
    if any(function in state.direct_functions for function in functions):
        raise Refused(state, state.semantics.foreign_direct, "LINK-4")
    check_alive(state, "LINK-4")
    if not state.semantics.share_ipmodify and any(has_ipmodify_user(state, function) for function in functions):
        raise Refused(state, "EBUSY", "IPMODIFY-3")


def _bypasses(state: State, function: str, trampoline: Trampoline) -> bool:
    """Whether an image would call the original by address past an IPMODIFY user."""
    return trampoline.calls_orig and not trampoline.share and has_ipmodify_user(state, function)


def _put_images(state: State, trampolines: Mapping[str, Trampoline]) -> State:
    """COST-4, COST-6: new images for these trampolines are put in place, first ones before others."""
    cite("COST-4")
    first = [function for function in trampolines if function not in state.images]
    if first:
        cite("COST-6")
    images = {function: make_image(trampoline) for function, trampoline in trampolines.items()}
    after = _with_trampolines(grown(state, len(first)) if first else state, trampolines)
    after = replace(after, images={**state.images, **images})
    if state.semantics.has_parts:
        after = parts.cut(after, frozenset(trampolines))
    after = replaced(state, after, first)
    return built(modified(after, trampolines.keys() - set(first)), len(images))


def _bpf_tracing_multi_attach(state: State, link: str, program: Program, targets: Targets) -> State:
    """LINK-6 to LINK-10: attach to many functions in one call."""
    if not state.semantics.cookies and any(cookie is not None for _, cookie in targets):
        raise Refused(state, "EINVAL", "LINK-6")
    btf = _find_btf(state, program, targets[0][0])
    named = [pair for target in targets for pair in _expand_target(state, program, btf, target)]
    state = reach(state, "alloc")
    if state.semantics.has_parts:
        parts.check_unlinked(state, program)
    cookies = dict(sorted(named, key=lambda pair: _find_btf_id(state, pair[0])))
    if len(cookies) < len(named):
        raise Refused(state, "EINVAL", "LINK-6")
    for function in cookies:
        check_multi_target(state, program, function, btf)
    parts.check_parts(state, frozenset(cookies))
    cite("LINK-6", "LINK-15")
    after = _bpf_trampoline_multi_attach(state, program, cookies)
    return _with_link(replace(after, btfs={**after.btfs, program.prog: btf}), link, Link(program, cookies))


def _find_btf(state: State, program: Program, first: str) -> str | None:
    """LINK-17: the module, or None, whose BTF a multi program is for: that of the first function it was linked to."""
    cite("LINK-17")
    if program.prog in state.btfs:
        return state.btfs[program.prog]
    if pattern := link_pattern(first):
        return pattern.module
    return found.module if (found := state.named(first)) else None


def _expand_target(state: State, program: Program, btf: str | None, target: Target) -> list[tuple[str, int]]:
    """LINK-6, GLOB-6: what one FUNC[:COOKIE] stands for."""
    pattern, cookie = link_pattern(target[0]), target[1] or 0
    if pattern is None:
        return [(target[0], cookie)]
    cite("GLOB-6")
    is_there = state.site if pattern.how else state.named
    found = [function.name for function in state.world.expand(pattern) if is_there(function.name)]
    if pattern.how == "attachable":
        found = [name for name in found if not refuse_multi_target(state, program, name, btf)]
    if not found:
        raise Refused(state, "EINVAL", "LINK-6")
    return [(name, cookie) for name in found]


def _find_btf_id(state: State, name: str) -> int:
    function = state.named(name)
    return (function.btf_id or 0) if function else 0


def _bpf_trampoline_multi_attach(state: State, program: Program, cookies: Mapping[str, int]) -> State:
    """LINK-8 and LINK-9: the program is linked everywhere, and then all images are put in place together."""
    trampolines: dict[str, Trampoline] = {}
    for function, cookie in cookies.items():
        trampolines[function] = bpf_trampoline_link_prog(state, function, Node(program, cookie))
        state = charge_image(state, function)
    cite("LINK-8", "LINK-9", "LINK-10")
    first = {function: trampolines[function] for function in cookies if function not in state.images}
    kept = {function: trampolines[function] for function in cookies if function in state.images}
    if first:
        _check_first(state, first)
        _check_second_try(state, first)
        state = reach(state, "register")
    if kept:
        check_alive(state, "LINK-4")
        _check_second_try(state, kept)
        state = reach(state, "register")
    return _put_images(state, trampolines)


def _check_second_try(state: State, trampolines: Mapping[str, Trampoline]) -> None:
    """IPMODIFY-6: images are only collected for a batch, and nobody makes one again that must share."""
    if any(_bypasses(state, function, trampoline) for function, trampoline in trampolines.items()):
        raise Refused(state, "EAGAIN", "IPMODIFY-6")


def bpf_tracing_link_release(state: State, operation: op.BpfLinkDetach) -> State | Warned:
    """LINK-12: the program leaves every function of its link; it never fails, but may leave old images behind."""
    if operation.link in state.kprobes:
        return bpf_kprobe_multi_link_release(state, operation.link)
    cite("LINK-12")
    program, functions = state.links[operation.link].program, state.links[operation.link].cookies
    trampolines = {name: bpf_trampoline_unlink_prog(state.trampolines[name], program) for name in functions}
    left = replace(state, links={name: link for name, link in state.links.items() if name != operation.link})
    left = _with_trampolines(left, trampolines)
    if program.kind == "freplace":
        return _forget(left, trampolines.keys() - state.images.keys())
    left, served = _allocate(left, trampolines)
    kept = {function: trampoline for function, trampoline in served.items() if trampoline.nodes}
    after, kept_fell = _modify_kept(left, kept)
    after, last_fell = _unregister_last(after, [function for function in served if function not in kept])
    after, died = poke(after)
    if died:
        cite("DEAD-1", "IMAGE-2")
        return Warned(replace(left, dead=True, armed=after.armed))
    return Warned(after) if kept_fell or last_fell or len(served) < len(trampolines) else after


def _allocate(state: State, trampolines: Mapping[str, Trampoline]) -> tuple[State, Mapping[str, Trampoline]]:
    """LINK-12: bpf_trampoline_update() first allocates a list of the programs; those functions for which it can."""
    served: dict[str, Trampoline] = {}
    for function, trampoline in trampolines.items():
        state, failed = fails(state, "alloc")
        if not failed:
            served[function] = trampoline
    if len(served) < len(trampolines):
        cite("IMAGE-2")
    return state, served


def _modify_kept(state: State, kept: Mapping[str, Trampoline]) -> tuple[State, bool]:
    """LINK-13: new images where programs remain; whether some could not be had."""
    if kept:
        cite("LINK-13")
    charged: dict[str, Trampoline] = {}
    for function, trampoline in kept.items():
        state, failed = fails(state, "jit_charge")
        if not failed:
            charged[function] = trampoline
    state, fell = _reach_register(state) if charged else (state, False)
    if fell:
        charged = {}
    if len(charged) < len(kept):
        cite("IMAGE-2")
    images = {function: make_image(trampoline) for function, trampoline in charged.items()}
    after = replace(state, images={**state.images, **images})
    return built(modified(after, charged), len(charged)), len(charged) < len(kept)


def _reach_register(state: State) -> tuple[State, bool]:
    """Whether images that were charged cannot be put in place."""
    return (state, True) if state.dead else fails(state, "register")


def _unregister_last(state: State, last: list[str]) -> tuple[State, bool]:
    """LINK-14: functions without programs lose image and direct entry; whether they could not."""
    if not last:
        return state, False
    cite("LINK-14")
    if state.dead:
        return state, True
    cite("COST-5")
    after = _forget(state, last)
    # Where one direct_ops serves all images, it stays enabled while there are any, and only its filter changes.
    stays = state.semantics.single_direct_ops and bool(after.images)
    after = keep_regs(after, BPF_OPS, last) if stays else drop_regs(after, BPF_OPS, last)
    after, ended = parts.end(after, last) if state.semantics.has_parts else (after, len(last))
    after = replaced(state, after, last)
    # That direct_ops is core data, and so not dynamic.
    return (after if state.semantics.single_direct_ops else waited_dynamic(after, ended, direct=True)), False


def _forget(state: State, functions: Iterable[str]) -> State:
    gone = frozenset(functions)
    return replace(
        state,
        trampolines={name: trampoline for name, trampoline in state.trampolines.items() if name not in gone},
        images={name: image for name, image in state.images.items() if name not in gone},
    )
