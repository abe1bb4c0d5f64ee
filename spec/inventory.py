"""What exists after a sequence of operations: a fold over (operation, outcome) that believes the outcomes.

It predicts nothing, so it is no second model. The strategies draw from it, undoing reads it, the border asks it what a
system must not be asked, and the real kernel, which has no names for ops and links, remembers them by it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from spec import operations as op
from spec.abi import SLOT_BYTES
from spec.existing import (
    ADDRESS_ZERO,
    AWAITS,
    SINGLE_API,
    DirectEntry,
    GraphRecord,
    Lines,
    LinkRecord,
    OpsRecord,
    Targets,
    is_address,
)
from spec.globs import filter_line, link_pattern, without_bang
from spec.outcomes import Errno, Outcome, Pending
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["NEVER", "Inventory"]


NEVER = 1_000_000_000
READS_RETURN = frozenset({"fexit", "fmod_ret", "fsession"})
PROPOSAL_SLOTS = 6


Hashed = TypeVar("Hashed", "OpsRecord", "GraphRecord")


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

    def after(self, operation: op.Operation, outcome: Outcome) -> Inventory:
        """The inventory after an operation that gave this outcome."""
        if isinstance(outcome, Errno):
            begun = operation.operation if isinstance(operation, op.Poke) else operation
            return _follow_failure(self, begun, outcome)
        pends = isinstance(outcome, Pending)
        if pends and isinstance(operation, op.Await | op.PokeStep):
            return self
        after = _HANDLERS[type(operation)](self, operation, outcome)
        dies = outcome.warn and (self.was_off or isinstance(operation, op.FtraceEnabled))
        after = after.changed(dead=True) if dies else after
        return after.changed(pending=operation) if pends else after

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
                return _edit(self.ops[operation.ops].filter_hash, self.matching(pattern), removes, operation.reset)
            case op.FtraceSetFilterIp():
                chosen: tuple[str, ...] = (operation.function,)
            case op.FtraceSetFilterIps():
                chosen = operation.functions
            case _:
                raise TypeError(operation)
        return _edit(self.ops[operation.ops].filter_hash, chosen, operation.remove, operation.reset)

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
            return _edit(hash_, matched, line.removes, reset=False), lines
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


def _edit(present: tuple[str, ...], chosen: Iterable[str], removes: bool, reset: bool) -> tuple[str, ...]:
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


_REGISTERS_DIRECT = op.RegisterFtraceDirectMulti, op.UpdateFtraceDirectAdd
_BEFORE_ALLOC = frozenset({"EBADF", "EOPNOTSUPP", "EINVAL", "ENOMEM"})


def _follow_failure(s: Inventory, o: op.Operation, outcome: Errno) -> Inventory:
    if outcome.warn and outcome.name == "ENODEV":
        s = s.changed(dead=True)
    if isinstance(o, op.Livepatch):
        return s.changed(unsure=s.unsure | {o.function})
    if isinstance(o, op.RegisterFtraceFunction) and o.ops in s.ops and s.ops[o.ops].ipmodify:
        return s.changed(unsure=s.unsure.union(s.ops[o.ops].filter))
    if isinstance(o, _REGISTERS_DIRECT) and outcome.name not in _BEFORE_ALLOC:
        return _spoil(s, o)
    return s


def _spoil(s: Inventory, o: op.RegisterFtraceDirectMulti | op.UpdateFtraceDirectAdd) -> Inventory:
    """DIRECT-7: what a direct registration that failed behind `alloc` leaves of the ops."""
    record = s.ops[o.ops]
    if record.enabled or (isinstance(o, op.RegisterFtraceDirectMulti) and any(map(s.has_entry, record.filter_hash))):
        return s
    return _with_ops(s, o.ops, direct=True, func=not s.semantics.failed_direct_reusable)


def _with_ops(s: Inventory, name: str, **changes: Any) -> Inventory:
    return s.changed(ops={**s.ops, name: replace(s.ops[name], **changes)})


def _with_entries(s: Inventory, owner: str, entries: Iterable[tuple[str, str]]) -> Inventory:
    added = {function: DirectEntry(tramp, owner) for function, tramp in entries}
    return s.changed(direct_functions={**s.direct_functions, **added})


def _without(mapping: Mapping[str, Any], names: Collection[str]) -> dict[str, Any]:
    return {name: value for name, value in mapping.items() if name not in names}


def _shake_hands(s: Inventory, record: OpsRecord) -> Inventory:
    """IPMODIFY-2, IPMODIFY-4: every trampoline of an IPMODIFY user's filter is told."""
    return s.changed(unsure=s.unsure.difference(record.filter)) if record.ipmodify else s


def _part(s: Inventory, record: OpsRecord) -> Inventory:
    """IPMODIFY-4: of several images one that is to fail may be any; where the kernel is short of memory, it is all."""
    shared = [function for function in record.filter if s.has_image(function)] if record.ipmodify else []
    if len(shared) > 1 and not s.armed.isdisjoint({"jit_charge", "register"}):
        return s.changed(unsure=s.unsure.union(shared))
    return _shake_hands(s, record)


def _set_notrace(s: Inventory, o: op.FtraceSetNotrace, _: Outcome) -> Inventory:
    pattern, removes = without_bang(o.glob)
    present = s.ops[o.ops].notrace_hash
    return _with_ops(s, o.ops, notrace_hash=_edit(present, s.matching(pattern), removes, o.reset))


def _register_multi(s: Inventory, o: op.RegisterFtraceDirectMulti, _: Outcome) -> Inventory:
    s = _with_ops(s, o.ops, enabled=True, func=True, direct=True)
    return _with_entries(s, o.ops, ((function, o.tramp) for function in s.ops[o.ops].filter_hash))


def _unregister_multi(s: Inventory, o: op.UnregisterFtraceDirectMulti, _: Outcome) -> Inventory:
    """DIRECT-8: entries with another address stay behind."""
    sites = s.ops[o.ops].filter_hash
    gone = {name for name in sites if name in s.direct_functions and s.direct_functions[name].tramp == o.tramp}
    s = s.changed(direct_functions=_without(s.direct_functions, gone))
    if o.free and s.semantics.free_filters:
        return s.changed(ops=_without(s.ops, {o.ops}))
    return _with_ops(s, o.ops, enabled=False, func=False)


def _modify_multi(s: Inventory, o: op.ModifyFtraceDirectMulti, _: Outcome) -> Inventory:
    sites = (name for name in s.ops[o.ops].filter_hash if name in s.direct_functions)
    return _with_entries(s, o.ops, ((name, o.tramp) for name in sites))


def _update_add(s: Inventory, o: op.UpdateFtraceDirectAdd, _: Outcome) -> Inventory:
    joined = tuple(dict.fromkeys((*s.ops[o.ops].filter_hash, *(function for function, _ in o.entries))))
    s = _with_ops(s, o.ops, enabled=True, func=True, direct=True, filter_hash=joined)
    return _with_entries(s, o.ops, o.entries)


def _update_del(s: Inventory, o: op.UpdateFtraceDirectDel, _: Outcome) -> Inventory:
    gone = {function for function, _ in o.entries}
    left = tuple(name for name in s.ops[o.ops].filter_hash if name not in gone)
    s = s.changed(direct_functions=_without(s.direct_functions, gone))
    if left:
        return _with_ops(s, o.ops, filter_hash=left)
    return _with_ops(s, o.ops, filter_hash=(), notrace_hash=(), enabled=False, func=False)


def _open(s: Inventory, o: op.BpfRawTracepointOpen, _: Outcome) -> Inventory:
    function = s.programs[o.prog].target or o.function or ""
    return _add_link(s, o.link, LinkRecord(o.prog, frozenset({function})))


def _create(s: Inventory, o: op.BpfLinkCreate, _: Outcome) -> Inventory:
    if s.programs[o.prog].kind in op.KPROBES:
        record = LinkRecord(o.prog, frozenset(name for name, _ in s.kprobe_targets(o.targets)))
        return s.changed(kprobes={**s.kprobes, o.link: record})
    exact = frozenset(function for function, _ in o.targets if not link_pattern(function))
    globs = tuple(function for function, _ in o.targets if link_pattern(function))
    if s.programs[o.prog].multi:
        s = s.changed(btfs={**s.btfs, o.prog: s.btf_of(o.prog, o.targets[0][0])})
    return _add_link(s, o.link, LinkRecord(o.prog, exact, globs, lambda glob: s.expand(o.prog, glob)))


def _add_link(s: Inventory, name: str, link: LinkRecord) -> Inventory:
    """IMAGE-2: the new image ends a stale one."""
    renewed = link.exact if s.programs[link.prog].kind != "freplace" else frozenset()
    unsure = frozenset(function for function in s.unsure if function not in renewed or s.has_image(function))
    return s.changed(links={**s.links, name: link}, stale=s.stale - renewed, unsure=unsure)


def _detach(s: Inventory, o: op.BpfLinkDetach, outcome: Outcome) -> Inventory:
    if o.link in s.kprobes:
        return s.changed(kprobes=_without(s.kprobes, {o.link}))
    left = s.changed(links=_without(s.links, {o.link}))
    if not outcome.warn or (s.was_off and not s.dead and not s.armed):
        return left
    functions = s.links[o.link].functions
    alone = functions.difference(*(link.functions for link in left.links.values())) if "alloc" in s.armed else ()
    return left.changed(
        stale=s.stale | functions,
        orphaned=s.orphaned.union(alone),
        unclean=True,
        dead=s.dead or "patch" in s.armed,
        doubtful=s.doubtful or (not s.dead and (s.was_off or "patch" in s.armed)),
    )


def _register_graph(s: Inventory, o: op.RegisterFtraceGraph, _: Outcome) -> Inventory:
    return s.changed(graph_users={**s.graph_users, o.user: s.user_at_start(o)})


def _init_module(s: Inventory, o: op.InitModule, _: Outcome) -> Inventory:
    untraced = s.untraced | {o.module} if s.dead else s.untraced
    return s.changed(modules=s.modules | {o.module}, untraced=untraced, graph_users=s.users_after(o.module))


def _delete_module(s: Inventory, o: op.DeleteModule, _: Outcome) -> Inventory:
    """MODULE-5: the addresses of functions that have gone stay in hashes and in direct_functions."""
    unloads = s.unloads + 1
    gone = {f.name: f"{f.name} {unloads}" for f in s.world.functions if f.module == o.module}
    return s.changed(
        modules=s.modules - {o.module},
        untraced=s.untraced - {o.module},
        unloads=unloads,
        livepatches=tuple(name for name in s.livepatches if name not in gone),
        lost=s.lost | {name for name, program in s.programs.items() if s.world.is_in(program.target, o.module)},
        direct_functions={gone.get(name, name): entry for name, entry in s.direct_functions.items()},
        ops={name: _without_sites(record, gone) for name, record in s.ops.items()},
        graph_users={
            name: _without_sites(record, dict.fromkeys(gone, ADDRESS_ZERO)) for name, record in s.graph_users.items()
        },
    )


def _arm(s: Inventory, o: op.Fail, _: Outcome) -> Inventory:
    """A point that is to fail; or, if that never comes about, one that is not to fail any more."""
    if o.point in op.UNSEEN:
        return s
    return s.changed(armed=s.armed - {o.point} if o.count >= NEVER else s.armed | {o.point})


def _without_sites(record: Hashed, gone: Mapping[str, str]) -> Hashed:
    filter_hash, notrace_hash = (
        tuple(dict.fromkeys(gone.get(name, name) for name in hash_))
        for hash_ in (record.filter_hash, record.notrace_hash)
    )
    return replace(record, filter_hash=filter_hash, notrace_hash=notrace_hash)


_HANDLERS: dict[type[op.Operation], Callable[[Inventory, Any, Outcome], Inventory]] = {
    op.FtraceOps: lambda s, o, _: s.changed(
        ops={**s.ops, o.ops: OpsRecord(s.declared, o.ipmodify, save_regs=o.save_regs)}, declared=s.declared + 1
    ),
    op.FtraceSetFilterIp: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetFilterIps: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetFilter: lambda s, o, _: _with_ops(s, o.ops, filter_hash=s.filter_after(o)),
    op.FtraceSetNotrace: _set_notrace,
    op.FtraceFreeFilter: lambda s, o, outcome: s if outcome.warn else s.changed(ops=_without(s.ops, {o.ops})),
    op.RegisterFtraceFunction: lambda s, o, _: _shake_hands(_with_ops(s, o.ops, enabled=True, func=True), s.ops[o.ops]),
    op.UnregisterFtraceFunction: lambda s, o, _: _part(_with_ops(s, o.ops, enabled=False), s.ops[o.ops]),
    op.RegisterFtraceDirect: lambda s, o, _: _with_entries(s, SINGLE_API, [(o.function, o.tramp)]),
    op.UnregisterFtraceDirect: lambda s, o, _: s.changed(direct_functions=_without(s.direct_functions, {o.function})),
    op.ModifyFtraceDirect: lambda s, o, _: _with_entries(s, SINGLE_API, [(o.function, o.new)]),
    op.RegisterFtraceDirectMulti: _register_multi,
    op.UnregisterFtraceDirectMulti: _unregister_multi,
    op.ModifyFtraceDirectMulti: _modify_multi,
    op.UpdateFtraceDirectAdd: _update_add,
    op.UpdateFtraceDirectDel: _update_del,
    op.UpdateFtraceDirectMod: lambda s, o, _: _with_entries(
        s, o.ops, ((f, tramp) for f, tramp in o.entries if f in s.direct_functions)
    ),
    op.RegisterFtraceGraph: _register_graph,
    op.UnregisterFtraceGraph: lambda s, o, _: s.changed(graph_users=_without(s.graph_users, {o.user})),
    op.SetFtraceFilter: lambda s, o, _: s.changed(graph_users={**s.graph_users, o.user: s.user_after(o)}),
    op.SetFtraceNotrace: lambda s, o, _: s.changed(graph_users={**s.graph_users, o.user: s.user_after(o)}),
    op.SetGraphFunction: lambda s, _, __: s,
    op.SetGraphNotrace: lambda s, _, __: s,
    op.FtraceEnabled: lambda s, o, outcome: (
        s if outcome.warn else s.changed(off=not o.on, was_off=s.was_off or not o.on)
    ),
    op.Livepatch: lambda s, o, _: s.changed(livepatches=(*s.livepatches, o.function), unsure=s.unsure - {o.function}),
    op.Unlivepatch: lambda s, o, _: s.changed(
        livepatches=tuple(name for name in s.livepatches if name != o.function), unsure=s.unsure - {o.function}
    ),
    op.BpfProgLoad: lambda s, o, _: s.changed(programs={**s.programs, o.prog: o}),
    op.BpfRawTracepointOpen: _open,
    op.BpfLinkCreate: _create,
    op.BpfLinkDetach: _detach,
    op.InitModule: _init_module,
    op.DeleteModule: _delete_module,
    op.Fail: _arm,
    op.Settle: lambda s, _, __: s,
    op.Task: lambda s, o, _: s.changed(tasks={**s.tasks, o.task: o}),
    op.Finish: lambda s, o, _: s.changed(tasks=_without(s.tasks, {o.task})),
    op.Await: lambda s, _, __: s.changed(pending=None),
    op.Poke: lambda s, o, outcome: _HANDLERS[type(o.operation)](s, o.operation, outcome),
    op.PokeStep: lambda s, _, __: s.changed(pending=None),
    op.GracePeriod: lambda s, _, __: s,
}
