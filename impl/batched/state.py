"""The state of one Batched system, in one place, and the one way in which an operation takes effect."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace

import numpy as np

from impl.batched.cost import Bill, Ledger
from impl.batched.direct_functions import NOWHERE, Addresses, DirectFunctions
from impl.batched.faults import Faults, Refused
from impl.batched.functions import Functions, Indices, Mask
from impl.batched.sites import FIRST_OPS, Sites
from impl.batched.trampolines import Trampolines
from spec.operations import LSM
from spec.semantics import Semantics

__all__ = ["PLAIN", "Graph", "GraphUser", "Kprobe", "Lines", "Link", "Ops", "Program", "State"]

Lines = tuple[tuple[str, str], ...]
"""GLOB and MODULE of lines that wait for their modules (FILTER-12)."""

PLAIN = "call_ops_func"
"""The routine of an ops that a seed declares."""


@dataclass(slots=True, eq=False)
class Ops:
    """A struct ftrace_ops.

    code: what Sites knows it by. gone: the addresses that the last element of filter_hash stands for, if it is set, as
    `State.unload` makes them. direct: it was once on its way to be registered directly. routine: what it
    calls in the emulated kernel.
    """

    name: str
    code: int
    filter_hash: Mask
    notrace_hash: Mask
    gone: Addresses = field(default_factory=lambda: NOWHERE)
    save_regs: bool = False
    ipmodify: bool = False
    dynamic: bool = False
    permanent: bool = False
    enabled: bool = False
    func_set: bool = False
    direct: bool = False
    routine: str = PLAIN

    @property
    def regs(self) -> bool:
        """Whether it counts for R (SITE-1)."""
        return self.save_regs or self.direct

    def sites(self) -> Indices:
        """The functions in its filter that are loaded."""
        return np.flatnonzero(self.filter_hash[:-1])

    def addresses(self) -> Addresses:
        """The addresses in its filter of functions that have gone."""
        return self.gone if self.filter_hash[-1] else NOWHERE

    def keep_addresses(self, where: Indices, addresses: Addresses) -> None:
        """These functions go; the filter keeps their addresses, and in the other hash they mean nothing (MODULE-5)."""
        self.notrace_hash[where] = False
        held = self.filter_hash[where]
        if held.any():
            self.gone = np.concatenate([self.addresses(), addresses[held]])
            self.filter_hash[where] = False
            self.filter_hash[-1] = True


@dataclass(slots=True, eq=False)
class GraphUser:
    """A user of the graph tracer; a hash that is empty restricts nothing.

    filter_hash, notrace_hash: those of its ops; the former has its last element, too, while a line for it waits
    (FILTER-13). function, notrace: set_graph_function and set_graph_notrace. fprobes: it is that of fprobes at returns.
    mod_trace, mod_notrace: the lines that wait. zero: address 0 is in the filter.
    """

    name: str
    slot: int
    filter_hash: Mask
    notrace_hash: Mask
    function: Mask
    notrace: Mask
    depth: int | None
    fprobes: bool = False
    mod_trace: Lines = ()
    mod_notrace: Lines = ()
    zero: bool = False

    def own_filter(self) -> Mask:
        """A copy of its filter hash that does not tell whether a line waits."""
        mask = self.filter_hash.copy()
        mask[-1] = self.zero
        return mask

    def traced(self) -> Mask:
        """A copy of its filter hash without what its notrace hash holds; that a line waits is kept."""
        mask: Mask = self.filter_hash & ~self.notrace_hash
        if self.mod_trace or not self.zero:
            # Its last element is not address 0 alone, which is all that the notrace hash has there.
            mask[-1] = self.filter_hash[-1]
        return mask

    def with_filter(self, own: Mask, lines: Lines) -> GraphUser:
        """The user with another filter, and lines that wait."""
        mask = own.copy()
        mask[-1] |= bool(lines)
        return replace(self, filter_hash=mask, mod_trace=lines, zero=bool(own[-1]))

    def hashes(self) -> tuple[Mask, Mask, Mask, Mask]:
        """All of them."""
        return self.filter_hash, self.notrace_hash, self.function, self.notrace

    def takes(self) -> Mask:
        """The functions that its own ops covers, loaded or not (FILTER-1)."""
        taken: Mask = ~self.notrace_hash
        return taken & self.filter_hash if self.filter_hash.any() else taken


@dataclass(slots=True, eq=False)
class Graph:
    """graph_ops: its users in the order in which they came, and the free slots, the one free longest first (GRAPH-3).

    filter_hash, notrace_hash: its own, which follow from those of its users by what was done so far (GRAPH-12).
    """

    free: deque[int]
    filter_hash: Mask
    notrace_hash: Mask
    users: list[GraphUser] = field(default_factory=list)

    def by_slot(self) -> list[GraphUser]:
        """Its users in the order in which they run (GRAPH-3)."""
        return sorted(self.users, key=lambda user: user.slot)

    def covered(self, sites: Sites) -> Indices:
        """The loaded sites that it covers."""
        return sites.covered(self.filter_hash, self.notrace_hash) if self.users else np.empty(0, np.intp)


@dataclass(slots=True, eq=False)
class Program:
    """A loaded program.

    number: from 1. target: a function's index among what BTF names, or -1. links: how many it is in. btf: the number of
    the module whose BTF a multi program is for, or VMLINUX; None until it is linked (LINK-17).
    """

    name: str
    number: int
    kind: str
    target: int
    multi: bool
    sleepable: bool
    func_ip: bool
    returns: int
    calls: str | None
    links: int = 0
    btf: int | None = None

    def is_guarded(self) -> bool:
        """Whether its helpers keep it from running while it runs, which those of lsm programs do not (LSM-5)."""
        return self.kind != LSM


@dataclass(slots=True, eq=False)
class Link:
    """A program on some functions; int32, for there may be many."""

    program: Program
    functions: np.ndarray[tuple[int], np.dtype[np.int32]]


@dataclass(slots=True, eq=False)
class Kprobe:
    """A link with a fprobe: the addresses of functions with a cookie each; and its own ops, if it has one."""

    program: Program
    where: Indices
    cookies: np.ndarray[tuple[int], np.dtype[np.uint64]]
    ops: Ops | None = None


class State:
    """Everything that operations change. version: moves whenever sites or costs may have changed."""

    def __init__(self, functions: Functions, facts: Semantics, level: str) -> None:
        self.functions = functions
        self.facts = facts
        self.faults = Faults()
        self.ledger = Ledger()
        self.sites = Sites(functions)
        self.direct = DirectFunctions(functions.count + 1)
        self.trampolines = Trampolines(functions, level, parts=facts.has_parts)
        self.graph = Graph(
            deque(range(facts.graph_users)),
            np.zeros(functions.count + 1, np.bool_),
            np.zeros(functions.count + 1, np.bool_),
        )
        self.ops: dict[str, Ops] = {}
        self.ops_list: list[Ops | Graph] = []
        self.programs: dict[str, Program] = {}
        self.program_numbered: dict[int, Program] = {}
        self.links: dict[str, Link] = {}
        self.kprobes: dict[str, Kprobe] = {}
        self.livepatched = np.zeros(functions.count + 1, np.bool_)
        self.modules = set(functions.modules)
        # Whether each module is loaded; the last element, which VMLINUX selects, is the kernel.
        self.present = np.ones(len(functions.modules) + 1, np.bool_)
        # Whether ftrace knows the sites of each, which it does not of one that was loaded after its death (DEAD-2).
        self.traced = self.present.copy()
        self.unloads = 0
        self.dead = False
        self.version = 0
        self.next_code = FIRST_OPS

    def kprobes_of(self, kind: str) -> list[Kprobe]:
        """The links of programs of a kind, in the order in which they were made."""
        return [kprobe for kprobe in self.kprobes.values() if kprobe.program.kind == kind]

    def refuse_if_dead(self) -> None:
        """After ftrace has died: -ENODEV."""
        if self.dead:
            raise Refused("ENODEV")

    def refuse_permanent(self) -> None:
        """While ftrace is off a permanent ops is -EBUSY (SYSCTL-3)."""
        if self.sites.off:
            raise Refused("EBUSY")

    def settle(self, bill: Bill) -> None:
        """All checks are passed: patch, and enter the bill; the caller's changes follow, and cannot fail (DEAD-1)."""
        if self.sites.off:
            bill.spare_text()
        if bill.sites and self.faults.reach("patch"):
            self.dead = True
            raise Refused("ENODEV", warn=True)
        self.enter(bill)

    def enter(self, bill: Bill) -> None:
        """Enter a bill of what does not come by `patch`, as modules do not (DEAD-1)."""
        if self.sites.off:
            bill.spare_text()
        self.ledger.add(bill)
        self.version += 1

    def unload(self, module: str, where: Indices) -> Addresses:
        """A module goes; returns its functions' addresses, which no other function ever gets (MODULE-6)."""
        self.modules.remove(module)
        self.present[self.functions.modules[module]] = False
        self.unloads += 1
        return where + self.unloads * self.functions.count

    def site(self, name: str) -> int:
        """The index of a function that has a site, or -1 (NAME-8)."""
        index = self.functions.index(name)
        return index if index >= 0 and self.sites.loaded[index] else -1

    def site_indices(self, names: tuple[str, ...]) -> Indices:
        """The indices of functions that have a site, -1 for each of the others."""
        indices = self.functions.indices(names)
        indices[~self.sites.loaded[indices]] = -1
        return indices
