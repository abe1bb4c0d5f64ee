"""Faults planted in the model, as if the kernel had been misread there: a real kernel must tell them.

Each replaces one function of the model while a reference with the fault is at work, and only then.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from inspect import cleandoc
from pkgutil import resolve_name
from typing import Any
from unittest.mock import patch

from model import Model, links
from model.calls import Running, Stops
from model.endings import Refused
from model.graph import OpsHash
from model.state import GraphUser, Image, Node, Program, State, Trampoline
from spec import operations as op
from spec.border import bordered
from spec.costs import Cost
from spec.globs import is_glob, without_bang
from spec.operations import Operation
from spec.outcomes import Outcome
from spec.prototypes import MODULUS
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import ProgramRun, Trace
from spec.worlds import World

__all__ = ["FAULTS", "Fault"]

Original = Callable[..., Any]

MOST_ERRNO = 4095


@dataclass(frozen=True, slots=True)
class Fault:
    """A factory of models with one fault.

    rule: what is misread. kernel: whose behaviour it belies. minimal: the shortest lines of a seed that show it.
    target: the function of the package `model` that `flaw` replaces, which gets it as its first argument.
    """

    name: str
    rule: str
    kernel: str
    minimal: tuple[str, ...]
    target: str = field(repr=False)
    flaw: Original = field(repr=False)

    def __call__(self, world: World, semantics: Semantics) -> Model:
        """A reference with the fault, behind the border."""
        return bordered(_Faulty(self, world, semantics), world, semantics)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """The fault is in the model for so long."""
        original, flaw = self.present(), self.flaw

        def flawed(*arguments: Any, **options: Any) -> Any:
            return flaw(original, *arguments, **options)

        with patch(f"model.{self.target}", flawed):
            yield

    def present(self) -> Original:
        """What stands at the target now."""
        found: Original = resolve_name(f"model.{self.target}")
        return found


class _Faulty(Model):
    """The model, with the fault in place during each of its methods that runs rules."""

    def __init__(self, fault: Fault, world: World, semantics: Semantics) -> None:
        super().__init__(world, semantics)
        self.name = fault.name
        self._fault = fault

    def apply(self, operation: Operation) -> Outcome:
        with self._fault.in_place():
            return super().apply(operation)

    def sites(self) -> Mapping[str, Site]:
        with self._fault.in_place():
            return super().sites()

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        with self._fault.in_place():
            return super().call(function, arguments)

    def cost(self) -> Cost:
        with self._fault.in_place():
            return super().cost()


FAULTS: list[Fault] = []


def fault(target: str, *, rule: str, kernel: str, minimal: str) -> Callable[[Original], Original]:
    """Enter a function, which takes the original and then its arguments, as a fault; minimal: an operation a line."""

    def enter(flaw: Original) -> Original:
        name = flaw.__name__.replace("_", "-")
        FAULTS.append(Fault(name, rule, kernel, tuple(cleandoc(minimal).split("\n")), target, flaw))
        return flaw

    return enter


@fault(
    "trampolines._add_node",
    rule="TRAMP-1",
    kernel="linux-6.1",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_prog_load p2 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p2 foo1
    """,
)
def fexit_oldest_first(original: Original, trampoline: Trampoline, kind: str, node: Node) -> Trampoline:
    """The fexit list runs in the opposite order of the fentry list, as destructors do."""
    made: Trampoline = original(trampoline, kind, node)
    return replace(made, fexit=(*trampoline.fexit, node)) if kind == "fexit" else made


@fault(
    "direct._begin_direct",
    rule="DIRECT-7",
    kernel="linux-6.1",
    minimal="""
    livepatch foo1
    ftrace_ops o1
    ftrace_set_filter_ip o1 foo1
    register_ftrace_direct_multi o1 T1
    register_ftrace_direct_multi o1 T1
    """,
)
def failure_resets_func(original: Original, state: State, name: str) -> State:
    """An ops whose direct registration failed can be registered again, as on later kernels."""
    later = replace(state.semantics, failed_direct_reusable=True)
    begun: State = original(replace(state, semantics=later), name)
    return replace(begun, semantics=state.semantics)


@fault(
    "modules._is_in_use",
    rule="MODULE-3",
    kernel="linux-6.1",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 bar1
    delete_module mod1
    """,
)
def links_pin_nothing(original: Original, state: State, module: str, functions: frozenset[str]) -> bool:
    """A trampoline does not hold the module of its function."""
    _ = original, state, module, functions
    return False


@fault(
    "filters._match_records",
    rule="FILTER-6",
    kernel="linux-6.1",
    minimal="""
    ftrace_ops o1
    ftrace_set_filter o1 !foo1
    """,
)
def removing_nothing_fails(
    original: Original, state: State, old: frozenset[str], operation: op.FtraceSetFilter | op.FtraceSetNotrace
) -> frozenset[str]:
    """A glob that removes nothing fails as ftrace_set_filter_ip does, which removes a site that is not there."""
    edited: frozenset[str] = original(state, old, operation)
    if without_bang(operation.glob)[1] and edited == old:
        raise Refused(state, "ENOENT", "FILTER-5")
    return edited


@fault(
    "calls._invoke_bpf_mod_ret",
    rule="TRAMP-3",
    kernel="linux-6.12",
    minimal="""
    bpf_prog_load p1 fmod_ret returns=1
    bpf_raw_tracepoint_open l1 p1 security_lab1
    call security_lab1 1
    """,
)
def only_an_errno_stops_the_body(original: Original, running: Running, image: Image) -> Stops[int]:
    """What a fmod_ret program returns counts if it is an errno, as a security hook's answer."""
    slot: int = yield from original(running, image)
    return slot if slot >= MODULUS - MOST_ERRNO else 0


@fault(
    "graph._ftrace_startup_subops",
    rule="GRAPH-2",
    kernel="linux-6.12",
    minimal="""
    register_ftrace_graph g1 filter=foo1
    register_ftrace_graph g2 filter=foo2
    """,
)
def the_newest_user_filters(original: Original, state: State, user: GraphUser) -> OpsHash:
    """The filter of graph_ops is that of the user that came last, not the union of all."""
    hashes: OpsHash = original(state, user)
    return hashes._replace(filter_hash=user.filter_hash)


@fault(
    "calls._observe_run",
    rule="TRAMP-5",
    kernel="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_raw_tracepoint_open l1 p1 split
    call split 1 2 3 4
    """,
)
def arg_cnt_counts_arguments(
    original: Original, running: Running, node: Node, word: int, *, is_return: bool
) -> ProgramRun:
    """bpf_get_func_arg_cnt answers with the arguments of the prototype, each struct being one."""
    run: ProgramRun = original(running, node, word, is_return=is_return)
    prototype = running.function.prototype
    return replace(run, arg_cnt=len(prototype.arguments)) if prototype else run


@fault(
    "calls._is_running",
    rule="PROG-6",
    kernel="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def programs_run_again(_original: Original, _running: Running, _prog: str) -> bool:
    """A program runs although it is running already."""
    return False


@fault(
    "calls._bpf_prog_inc_misses_counter",
    rule="PROG-8",
    kernel="linux-6.1",
    minimal="""
    bpf_prog_load p1 fexit calls=foo1
    bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def misses_are_not_counted(_original: Original, _running: Running, _program: Program) -> None:
    """recursion_misses stays 0."""


@fault(
    "calls._use_session_cookie",
    rule="TRAMP-6",
    kernel="linux-7.3",
    minimal="""
    bpf_prog_load p1 fsession
    bpf_prog_load p2 fsession
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p2 foo1
    call foo1 1
    """,
)
def sessions_share_a_cookie(original: Original, running: Running, program: Program, *, is_return: bool) -> str:
    """The sessions of a function write into one and the same cookie."""
    _ = original
    if is_return:
        return running.sessions.get("", "")
    running.sessions[""] = program.prog
    return ""


@fault(
    "links._check_second_try",
    rule="IPMODIFY-6",
    kernel="linux-7.3",
    minimal="""
    livepatch foo1
    bpf_prog_load p1 fexit multi
    bpf_link_create l1 p1 foo1
    """,
)
def a_batch_tries_twice(original: Original, state: State, trampolines: Mapping[str, Trampoline]) -> None:
    """A batch meets an IPMODIFY user as a single link does: at its second try it succeeds."""
    _ = original, state, trampolines


@fault(
    "links._bpf_tracing_multi_attach",
    rule="LINK-15",
    kernel="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry multi
    bpf_link_create l1 p1 foo2:1 foo1
    """,
)
def cookies_stay_in_place(
    original: Original, state: State, link: str, program: Program, targets: links.Targets
) -> State:
    """The functions of a batch are sorted by their BTF ids, and their cookies are not."""
    functions = sorted((function for function, _ in targets), key=lambda name: links._find_btf_id(state, name))
    if not any(map(is_glob, functions)):
        targets = tuple(zip(functions, (cookie for _, cookie in targets), strict=True))
    after: State = original(state, link, program, targets)
    return after


@fault(
    "system.settle_regs",
    rule="SITE-6",
    kernel="linux-7.3",
    minimal="""
    ftrace_ops o1
    update_ftrace_direct_add o1 foo1=T1 foo2=T1
    register_ftrace_graph g1 filter=foo1
    update_ftrace_direct_del o1 foo1=T1
    """,
)
def regs_go_with_their_ops(original: Original, before: State, state: State) -> State:
    """A site shows R exactly as long as an ops that saves regs covers it."""
    settled: State = original(before, state)
    return replace(settled, regs_left=frozenset())


@fault(
    "poking._list_stops",
    rule="POKE-2",
    kernel="linux-6.12",
    minimal="""
    bpf_prog_load p1 fentry
    poke bpf_raw_tracepoint_open l1 p1 foo1
    call foo1 1
    """,
)
def traps_go_by_the_old(original: Original, before: State, after: State) -> Iterator[frozenset[str]]:
    """Until an operation is over a site does what it did before, as if its trap were stepped over."""
    everywhere = frozenset(function.name for function in before.world.functions)
    return (everywhere for _ in original(before, after))
