"""The whole state as one persistent value.

Functions are named by their unique names; `ADDRESS_ZERO` is the site of no function, and neither is `address_of`.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Self

from model.rules import cite
from spec.costs import Cost
from spec.operations import BpfProgLoad as Program
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = [
    "ADDRESS_ZERO",
    "DIRECT_OPS",
    "FL_MOD",
    "FPROBE_OPS",
    "FPROBE_USER",
    "GRAPH_OPS",
    "Entry",
    "GraphUser",
    "Image",
    "Kprobe",
    "Lines",
    "Link",
    "Lists",
    "Node",
    "Ops",
    "Pass",
    "Program",
    "State",
    "Trampoline",
    "address_of",
    "fprobe_ops",
    "ftrace_ops_test",
    "initial",
    "klp_ops",
]

ADDRESS_ZERO = "0 "
FL_MOD = "mod "
"""Stands in a filter hash that is not empty, whatever else it holds (FILTER-13); it is the site of no function."""


def address_of(function: str, unloads: int) -> str:
    """The address that a function had until its module went, when so many had been unloaded: nothing is there now."""
    return f"{function} {unloads}"


GRAPH_OPS = "graph ops"
DIRECT_OPS = "direct ops"
FPROBE_OPS = "fprobe ops"
FPROBE_USER = "fprobe user"


def fprobe_ops(link: str) -> str:
    """The key of the ops of a link's own fprobe."""
    return f"fprobe {link}"


def klp_ops(function: str) -> str:
    """The key of a livepatch's ops; like the other keys of the kernel's own ops it is no name that a seed can write."""
    return f"klp {function}"


Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Ops:
    """A struct ftrace_ops.

    label: how a site shows it. func: func or trampoline is set. direct: it ever was a direct ops. permanent: ftrace is
    not turned off while it is enabled, which a direct ops of the multi and hash APIs never is.
    """

    label: str
    save_regs: bool = False
    ipmodify: bool = False
    dynamic: bool = False
    filter_hash: frozenset[str] = frozenset()
    notrace_hash: frozenset[str] = frozenset()
    func: bool = False
    direct: bool = False
    permanent: bool = False

    def covers(self, function: str) -> bool:
        """FILTER-1: whether enabled it traces the function."""
        return ftrace_ops_test(self, function)


@dataclass(frozen=True, slots=True)
class Entry:
    """What direct_functions has for one site: a raw direct trampoline, and the key of the ops that registered it.

    The ops may have left since (DIRECT-8), so that the entry says who made it, not that anybody uses it.
    """

    tramp: str
    owner: str


@dataclass(frozen=True, slots=True)
class GraphUser:
    """A graph tracer user.

    filter_hash, notrace_hash: those of its ops. function, notrace: set_graph_function and set_graph_notrace. A set that
    is empty restricts nothing, and so does a depth of None. mod_trace, mod_notrace: GLOB and MODULE of each line for
    the former two that waits for its module (FILTER-12).
    """

    slot: int
    filter_hash: frozenset[str]
    function: frozenset[str]
    notrace: frozenset[str]
    depth: int | None
    notrace_hash: frozenset[str] = frozenset()
    mod_trace: Lines = ()
    mod_notrace: Lines = ()


@dataclass(frozen=True, slots=True)
class Node:
    """A program's place in a trampoline's list, with the cookie of its link on this function."""

    program: Program
    cookie: int


@dataclass(frozen=True, slots=True)
class Lists:
    """The programs of a trampoline, or of an image: each list newest first, a session in two of them (TRAMP-1)."""

    fentry: tuple[Node, ...] = ()
    fmod_ret: tuple[Node, ...] = ()
    fexit: tuple[Node, ...] = ()

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Programs of all kinds in running order, a session twice."""
        return (*self.fentry, *self.fmod_ret, *self.fexit)

    @property
    def calls_orig(self) -> bool:
        """IMAGE-3: whether an image of these lists calls the original itself."""
        return bool(self.fmod_ret or self.fexit)

    def where(self, keeps: Callable[[Node], bool]) -> Self:
        """The same with some of the programs."""
        fentry, fmod_ret, fexit = (tuple(filter(keeps, nodes)) for nodes in (self.fentry, self.fmod_ret, self.fexit))
        return replace(self, fentry=fentry, fmod_ret=fmod_ret, fexit=fexit)


@dataclass(frozen=True, slots=True)
class Trampoline(Lists):
    """A function's trampoline: its programs, the extension in its body's place, and SHARE_IPMODIFY."""

    extension: Node | None = None
    share: bool = False


@dataclass(frozen=True, slots=True)
class Image(Lists):
    """IMAGE-1: what a site calls: the lists it was made of, and whether it reaches the original through the stack."""

    orig_stack: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A link: its program and the cookie on each function, in the order of BTF ids."""

    program: Program
    cookies: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class Kprobe:
    """A link with a fprobe: its program, and each address with its cookie."""

    program: Program
    cookies: tuple[tuple[str, int], ...]

    @property
    def functions(self) -> frozenset[str]:
        """The functions that it is on."""
        return frozenset(name for name, _ in self.cookies)


@dataclass(frozen=True, slots=True)
class Pass:
    """A patching pass: the sites, at least one, whose instruction is written, and how many times."""

    sites: frozenset[str]
    times: int = 1


UNCOUNTED = frozenset({"world", "semantics", "cost", "patched", "former"})
"""These fields are no part of the state's value, or are told elsewhere."""


@dataclass(frozen=True, slots=True)
class State:
    """Everything.

    ops_list: keys of enabled ops, newest first. buckets: of direct_functions' table. regs_left: sites whose R stayed
    (SITE-6, SYSCTL-4). off: kernel.ftrace_enabled is 0. btfs: of each multi program that was linked, the module whose
    BTF it is for, None for vmlinux's (LINK-17). untraced: modules that were loaded after ftrace's death (DEAD-2).
    kprobes: links with a fprobe, in the order in which they were made.
    unloads: how many were unloaded. parts: the proposal's (LINK-11). armed: how often each point that is to fail must
    still be reached (FAIL-1). passes: what the operation under way has to patch, and nothing between operations.
    patched: the passes that the last operation made which made any.
    former: functions of which calls still do as in another state, while text is patched (POKE-2).
    """

    world: World
    semantics: Semantics
    modules: frozenset[str]
    ops: Mapping[str, Ops] = field(default_factory=dict)
    ops_list: tuple[str, ...] = ()
    direct_functions: Mapping[str, Entry] = field(default_factory=dict)
    buckets: int = 1
    graph_users: Mapping[str, GraphUser] = field(default_factory=dict)
    graph_slots: tuple[int, ...] = ()
    programs: Mapping[str, Program] = field(default_factory=dict)
    links: Mapping[str, Link] = field(default_factory=dict)
    kprobes: Mapping[str, Kprobe] = field(default_factory=dict)
    btfs: Mapping[str, str | None] = field(default_factory=dict)
    trampolines: Mapping[str, Trampoline] = field(default_factory=dict)
    images: Mapping[str, Image] = field(default_factory=dict)
    parts: frozenset[frozenset[str]] = frozenset()
    regs_left: frozenset[str] = frozenset()
    untraced: frozenset[str] = frozenset()
    unloads: int = 0
    armed: Mapping[str, int] = field(default_factory=dict)
    passes: tuple[Pass, ...] = ()
    patched: tuple[Pass, ...] = ()
    former: Mapping[str, State] = field(default_factory=dict)
    off: bool = False
    dead: bool = False
    cost: Cost = field(default_factory=Cost)

    def site(self, function: str) -> Function | None:
        """The function, if ftrace has a site for it, which it has of no module that was loaded when it had died."""
        found = self.loaded(function)
        return None if found and found.module in self.untraced else found

    def lookup(self, function: Function) -> str:
        """PROG-7: what BPF finds in the place of a site; DEAD-2: without its records a module lies outside."""
        return function.lookup or ("outside" if function.module in self.untraced else "")

    def loaded(self, function: str) -> Function | None:
        """The function, if it can be called: it exists and its module, if any, is loaded."""
        found = self.world.by_name.get(function)
        if found is None or (found.module is not None and found.module not in self.modules):
            return None
        if not found.has_site:
            cite("FILTER-11")
            return None
        return found

    def named(self, function: str) -> Function | None:
        """The function, if BTF names it and its module, if any, is loaded; whether or not it has a site (PROG-7)."""
        found = self.world.find(function)
        if found is None or found.btf_id is None or (found.module is not None and found.module not in self.modules):
            return None
        return found

    def enabled(self, key: str) -> bool:
        """Whether an ops is on ftrace_ops_list."""
        return key in self.ops_list

    def value(self) -> Hashable:
        """All that what comes depends on, costs aside; with the order in which things came to be (GRAPH-12)."""
        parts = (getattr(self, each.name) for each in fields(self) if each.name not in UNCOUNTED)
        return tuple(map(_freeze, parts))

    def with_ops(self, key: str, ops: Ops) -> State:
        """The same with one ops changed."""
        return replace(self, ops={**self.ops, key: ops})

    def without_ops(self, key: str) -> State:
        """The same without an ops, which is not enabled."""
        return replace(self, ops={other: ops for other, ops in self.ops.items() if other != key})


def ftrace_ops_test(hashes: Ops | GraphUser, function: str) -> bool:
    """FILTER-1: whether these hashes cover a function."""
    return (not hashes.filter_hash or function in hashes.filter_hash) and function not in hashes.notrace_hash


def _freeze(part: object) -> Hashable:
    """A part of the state as a value that has a hash."""
    if isinstance(part, Mapping):
        return tuple((name, _freeze(each)) for name, each in part.items())
    if isinstance(part, Link):
        return part.program, _freeze(part.cookies)
    return part


def initial(world: World, semantics: Semantics) -> State:
    """Nothing is attached, every module is loaded."""
    return State(world, semantics, frozenset(world.modules), graph_slots=tuple(range(semantics.graph_users)))
