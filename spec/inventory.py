"""The inventory tells what exists after a sequence of operations, as `spec.following` folds them.

It predicts nothing, so it is no second model. The strategies draw from it, undoing reads it, the border asks it what a
system must not be asked, and the real kernel, which has no names for ops and links, remembers them by it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from spec import operations as op
from spec.abi import SLOT_BYTES
from spec.existing import (
    AWAITS,
    DirectEntry,
    GraphRecord,
    Lines,
    LinkRecord,
    OpsRecord,
    Targets,
    is_address,
)
from spec.globs import filter_line, link_pattern, without_bang
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["Inventory", "edit_hash"]


READS_RETURN = frozenset({"fexit", "fmod_ret", "fsession"})
PROPOSAL_SLOTS = 6


@dataclass(frozen=True)
class Inventory:
    """What exists.

    links: those of trampolines; kprobes: those of fprobes. direct_functions: raw entries alone, those at addresses of
    functions that have gone among them. stale: functions whose image may have stayed after a failed detach (IMAGE-2).
    armed: points given to `fail`. declared, unloads: how many ops were declared, and modules unloaded. btfs: of each
    multi program that was linked, the module whose BTF it is for, None for vmlinux's (LINK-17). lost: programs whose
    target went with its module (NAME-10). orphaned: functions whose last program may have left its image behind for
    want of memory (NAME-12). off: kernel.ftrace_enabled is 0; was_off: it was, so that ftrace may die when its last ops
    leaves (SYSCTL-5). unsure: functions whose trampolines may share their sites with an IPMODIFY user that is not there
    (IPMODIFY-2, IPMODIFY-4). dead: ftrace has died, or may have; doubtful: it is not known which. untraced: modules
    that came after its death (DEAD-2). unclean: a detach failed, so that undoing need not give back everything. tasks:
    those that were not finished. pending: the operation that waits for one of them, or a Poke, which is in the middle
    of patching text.
    """

    world: World
    semantics: Semantics
    modules: frozenset[str]
    ops: Mapping[str, OpsRecord] = field(default_factory=dict)
    direct_functions: Mapping[str, DirectEntry] = field(default_factory=dict)
    programs: Mapping[str, op.BpfProgLoad] = field(default_factory=dict)
    links: Mapping[str, LinkRecord] = field(default_factory=dict)
    kprobes: Mapping[str, LinkRecord] = field(default_factory=dict)
    btfs: Mapping[str, str | None] = field(default_factory=dict)
    graph_users: Mapping[str, GraphRecord] = field(default_factory=dict)
    livepatches: tuple[str, ...] = ()
    armed: frozenset[str] = frozenset()
    stale: frozenset[str] = frozenset()
    declared: int = 0
    unloads: int = 0
    lost: frozenset[str] = frozenset()
    orphaned: frozenset[str] = frozenset()
    off: bool = False
    was_off: bool = False
    unsure: frozenset[str] = frozenset()
    dead: bool = False
    doubtful: bool = False
    untraced: frozenset[str] = frozenset()
    unclean: bool = False
    tasks: Mapping[str, op.Task] = field(default_factory=dict)
    pending: op.Operation | None = None

    @classmethod
    def at_start(cls, world: World, semantics: Semantics) -> Inventory:
        """Nothing attached, every module loaded."""
        return cls(world, semantics, frozenset(world.modules))

    def changed(self, **changes: Any) -> Inventory:
        """The same with these fields changed; a step makes several inventories, and dataclasses.replace() is slow."""
        other = object.__new__(Inventory)
        other.__dict__.update(self.__dict__, **changes)
        return other

    def loaded(self, function: str) -> bool:
        """Whether the function has a site: the world has it, and its module is loaded, while ftrace lived (DEAD-2)."""
        found = self.world.by_name.get(function)
        return found is not None and found.has_site and self._is_there(found) and found.module not in self.untraced

    def matching(self, pattern: str, within: str | None = None) -> tuple[str, ...]:
        """The loaded functions that a glob or number without ! selects; within: MODULE of GLOB:mod:MODULE."""
        lenient = self.semantics.lenient_index
        return tuple(f.name for f in self.world.matching(pattern, self.modules, lenient_index=lenient, within=within))

    def named(self, function: str) -> bool:
        """Whether BTF names the function, and its module is loaded; it may have no site."""
        found = self.world.find(function)
        return found is not None and found.btf_id is not None and self._is_there(found)

    def _is_there(self, function: Function) -> bool:
        return function.module is None or function.module in self.modules

    def btf_of(self, prog: str, first: str) -> str | None:
        """LINK-17: the module, or None, whose BTF a multi program is for, if it is to be linked to this FUNC first."""
        if prog in self.btfs:
            return self.btfs[prog]
        if pattern := link_pattern(first):
            return pattern.module
        found = self.world.find(first)
        return found.module if found and self.named(first) else None

    def expand(self, prog: str, text: str) -> tuple[str, ...]:
        """GLOB-6: what a pattern among a link's targets stands for."""
        pattern, program = link_pattern(text), self.programs[prog]
        found = [f for f in self.world.expand(pattern) if self._is_there(f)] if pattern else []
        if pattern and pattern.how:
            found = [f for f in found if f.module not in self.untraced]
        only = pattern is not None and pattern.how == "attachable"
        return tuple(f.name for f in found if not only or _accepts(self.semantics, program, f))

    def by_address(self, targets: Targets) -> bool:
        """KPROBE-2: whether a tool passes addresses for these targets of a kprobe program, and not symbols."""
        return any(link_pattern(text) for text, _ in targets)

    def kprobe_targets(self, targets: Targets) -> Targets:
        """KPROBE-2: what these targets stand for, in order; patterns select by symbols, of all that ftrace knows."""
        return tuple((name, cookie) for text, cookie in targets for name in self._kprobe_names(text))

    def _kprobe_names(self, text: str) -> Iterable[str]:
        pattern = link_pattern(text)
        if pattern is None:
            return (text,)
        return (f.name for f in self.world.probed(pattern, self.modules - self.untraced))

    def filter_after(self, operation: op.Operation) -> tuple[str, ...]:
        """The filter hash that an ops has if this call, which sets it, succeeds."""
        match operation:
            case op.FtraceSetFilter():
                pattern, removes = without_bang(operation.glob)
                return edit_hash(self.ops[operation.ops].filter_hash, self.matching(pattern), removes, operation.reset)
            case op.FtraceSetFilterIp():
                chosen: tuple[str, ...] = (operation.function,)
            case op.FtraceSetFilterIps():
                chosen = operation.functions
            case _:
                raise TypeError(operation)
        return edit_hash(self.ops[operation.ops].filter_hash, chosen, operation.remove, operation.reset)

    def user_after(self, operation: op.SetFtraceFilter | op.SetFtraceNotrace) -> GraphRecord:
        """A user of the graph tracer with the hashes that it has if this call succeeds."""
        record = self.graph_users[operation.user]
        if isinstance(operation, op.SetFtraceFilter):
            return self._with_filter_line(record, operation.glob)
        hash_, lines = self._take_line(record.notrace_hash, record.mod_notrace, operation.glob)
        return replace(record, notrace_hash=hash_, mod_notrace=lines)

    def user_at_start(self, operation: op.RegisterFtraceGraph) -> GraphRecord:
        """A user of the graph tracer as it begins."""
        return self._with_filter_line(GraphRecord(depth=bool(operation.depth)), operation.filter)

    def users_after(self, module: str) -> Mapping[str, GraphRecord]:
        """The users of the graph tracer once a module has come: lines that waited for it have their effect."""
        s = self.changed(modules=self.modules | {module})
        return {name: _end_waiting(s, record, module) for name, record in self.graph_users.items()}

    def _with_filter_line(self, record: GraphRecord, text: str | None) -> GraphRecord:
        hash_, lines = self._take_line(record.filter_hash, record.mod_trace, text)
        return replace(record, filter_hash=_flag(hash_, lines), mod_trace=lines)

    def _take_line(self, hash_: tuple[str, ...], lines: Lines, text: str | None) -> tuple[tuple[str, ...], Lines]:
        """A hash, and the lines that wait, once a line was taken (GRAPH-10, FILTER-12); None empties both."""
        if text is None:
            return (), ()
        line = filter_line(text)
        matched = self.matching(line.glob, line.module)
        if matched or line.module is None:
            return edit_hash(hash_, matched, line.removes, reset=False), lines
        if not line.removes:
            return hash_, (*lines, (line.glob, line.awaits))
        gone = (line.glob, line.awaits)
        return hash_, tuple(one for one in lines if one != gone and (line.glob, one[1]) != ("*", line.awaits))

    def entries(self, owner: str) -> dict[str, str]:
        """The direct calls that an ops, or the single API, has registered on functions that are still there."""
        own = ((name, entry.tramp) for name, entry in self.direct_functions.items() if entry.owner == owner)
        return {name: tramp for name, tramp in own if not is_address(name)}

    def has_image(self, function: str) -> bool:
        """Whether programs are attached to the function, or may have left an image behind."""
        return function in self.stale or any(
            function in link.functions and self.programs[link.prog].kind != "freplace" for link in self.links.values()
        )

    def has_entry(self, function: str) -> bool:
        """Whether direct_functions has the site: with a raw direct call, or a trampoline of BPF's."""
        return function in self.direct_functions or self.has_image(function)

    def ipmodify_users(self) -> frozenset[str]:
        """The functions that have an IPMODIFY user."""
        users = (record.filter_hash for record in self.ops.values() if record.ipmodify and record.enabled)
        return frozenset(self.livepatches).union(*users)

    def may_call(self, function: str) -> bool:
        """Whether a call of it reaches no image whose programs have been freed (IMAGE-2)."""
        return not self.stale or self.semantics.skips_detached or function not in self._unsafe()

    @property
    def undone(self) -> bool:
        """Whether nothing is attached or registered any more, and nothing fell that may have left something."""
        enabled = any(record.enabled for record in self.ops.values())
        attached = (
            self.links or self.kprobes or self.graph_users or self.livepatches or self.direct_functions or enabled
        )
        return not (attached or self.stale or self.off or self.dead or self.unclean)

    def with_images(self) -> tuple[str, ...]:
        """The functions that are there and have an image, in the order of their links."""
        linked = (name for link in self.links.values() for name in sorted(link.functions))
        return tuple(name for name in dict.fromkeys((*linked, *sorted(self.stale))) if self._may_show(name))

    def _may_show(self, function: str) -> bool:
        return self.loaded(function) and self.has_image(function)

    def _unsafe(self) -> frozenset[str]:
        unsafe = set(self.stale)
        grown = True
        while grown:
            callers = {f.name for f in self.world.functions if any(callee.function in unsafe for callee in f.callees)}
            for link in self.links.values():
                if self.programs[link.prog].calls in unsafe:
                    callers |= link.functions
            grown = not callers <= unsafe
            unsafe |= callers
        return frozenset(unsafe)


def edit_hash(present: tuple[str, ...], chosen: Iterable[str], removes: bool, reset: bool) -> tuple[str, ...]:
    """FILTER-4 to FILTER-6: a copy of a hash, or an empty one, with functions added or taken out."""
    copy = () if reset else present
    if removes:
        gone = frozenset(chosen)
        return tuple(name for name in copy if name not in gone)
    return tuple(dict.fromkeys((*copy, *chosen)))


def _flag(hash_: tuple[str, ...], lines: Lines) -> tuple[str, ...]:
    """FILTER-13: a filter hash is not empty while a line for it waits."""
    held = tuple(name for name in hash_ if name != AWAITS)
    return (*held, AWAITS) if lines else held


def _end_waiting(s: Inventory, record: GraphRecord, module: str) -> GraphRecord:
    """MODULE-7: the lines of one user that wait for a module which has come."""

    def end(hash_: tuple[str, ...], lines: Lines) -> tuple[tuple[str, ...], Lines]:
        found = (name for glob, named in lines if named == module for name in s.matching(glob, module))
        return tuple(dict.fromkeys((*hash_, *found))), tuple(line for line in lines if line[1] != module)

    filter_hash, mod_trace = end(record.filter_hash, record.mod_trace)
    notrace_hash, mod_notrace = end(record.notrace_hash, record.mod_notrace)
    filter_hash = _flag(filter_hash, mod_trace)
    return replace(
        record, filter_hash=filter_hash, notrace_hash=notrace_hash, mod_trace=mod_trace, mod_notrace=mod_notrace
    )


def _accepts(semantics: Semantics, program: op.BpfProgLoad, function: Function) -> bool:
    """Whether a tool names this function for the program where a glob selects it (PROG-3, PROG-4)."""
    prototype = function.prototype
    if function.btf_id is None or prototype is None or not prototype.describable or "deny" in function.attributes:
        return False
    if function.lookup:
        return False
    if prototype.has_union and not semantics.union_arguments:
        return False
    if semantics.has_parts and len(prototype.slots) > PROPOSAL_SLOTS:
        return False
    if program.sleepable and "sleepable" not in function.attributes:
        return False
    if program.kind not in READS_RETURN:
        return True
    wide = semantics.wide_return_refused and prototype.returns.size > SLOT_BYTES
    return not wide and not (semantics.noreturn_refused and "noreturn" in function.attributes)
