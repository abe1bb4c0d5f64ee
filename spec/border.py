"""The Harness rules: what no system is asked to do, and what is answered in its place.

Unknown names have no meaning to a kernel, and some misuses of its interfaces crash or corrupt it; neither belongs to
what is compared. So every system stands behind a border, which answers such operations itself, by the rules of
spec/README.md that say *Harness*, and says by which. The author of a system need not know them.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar, cast

from spec import operations as op
from spec.costs import Cost
from spec.existing import SINGLE_API, DirectEntry, GraphRecord, OpsRecord, Targets
from spec.following import follow
from spec.globs import link_pattern, names_command
from spec.inventory import Inventory
from spec.names import names_of, renamed
from spec.operations import Operation
from spec.outcomes import Errno, Ok, Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.system import System, SystemFactory
from spec.traces import Trace
from spec.worlds import World

__all__ = ["MOST_TASKS", "BorderedSystem", "behind_border", "bordered", "refusal", "resolved"]

Inner = TypeVar("Inner", bound=System)

ATTACHING = (op.BpfRawTracepointOpen, op.BpfLinkCreate)
CHANGING_MODULES = (op.InitModule, op.DeleteModule)
NOT_BESIDE_TASKS = (
    *CHANGING_MODULES,
    op.FtraceEnabled,
    op.FtraceFreeFilter,
    op.RegisterFtraceGraph,
    op.UnregisterFtraceGraph,
    op.SetFtraceFilter,
    op.SetFtraceNotrace,
    op.SetGraphFunction,
    op.SetGraphNotrace,
    op.Livepatch,
    op.Unlivepatch,
    op.Fail,
)
BESIDE_PENDING = (op.Task, op.GracePeriod)
POKED = (
    op.FtraceSetFilterIp,
    op.FtraceSetFilterIps,
    op.FtraceSetFilter,
    op.FtraceSetNotrace,
    op.RegisterFtraceFunction,
    op.UnregisterFtraceFunction,
    op.RegisterFtraceDirect,
    op.UnregisterFtraceDirect,
    op.ModifyFtraceDirect,
    op.RegisterFtraceDirectMulti,
    op.UnregisterFtraceDirectMulti,
    op.ModifyFtraceDirectMulti,
    op.UpdateFtraceDirectAdd,
    op.UpdateFtraceDirectDel,
    op.UpdateFtraceDirectMod,
    op.BpfRawTracepointOpen,
    op.BpfLinkCreate,
    op.BpfLinkDetach,
)
"""These may stop while they patch (NAME-17)."""

MOST_TASKS = 2


def bordered(system: Inner, world: World, semantics: Semantics) -> Inner:
    """The system behind the border; whatever else it has besides System's members is reached through it."""
    return cast("Inner", BorderedSystem(system, world, semantics))


def behind_border(factory: SystemFactory) -> SystemFactory:
    """A factory of systems behind the border."""

    def make(world: World, semantics: Semantics) -> System:
        return bordered(factory(world, semantics), world, semantics)

    return make


class BorderedSystem:
    """A System around a System. State: what exists by the answers so far."""

    def __init__(self, inner: System, world: World, semantics: Semantics) -> None:
        self.inner = inner
        self.inventory = Inventory.at_start(world, semantics)

    def apply(self, operation: Operation) -> Outcome:
        """Answer the operation by a Harness rule, or let the system carry it out."""
        outcome = refusal(operation, self.inventory) or self.inner.apply(operation)
        self.inventory = follow(self.inventory, operation, outcome)
        return outcome

    @property
    def name(self) -> str:
        """As the system has it."""
        return self.inner.name

    @property
    def supports(self) -> frozenset[type[Operation]]:
        """As the system has it."""
        return self.inner.supports

    def sites(self) -> Mapping[str, Site]:
        """As the system shows them."""
        return self.inner.sites()

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """As the system runs it."""
        return self.inner.call(function, arguments)

    def step(self, operation: op.Step) -> str:
        """As the system lets the task run (NAME-14)."""
        return self.inner.step(operation) if operation.task in self.inventory.tasks else "absent"  # type: ignore[attr-defined]

    def finish(self, operation: op.Finish) -> Trace:
        """As the system lets the task run (NAME-14)."""
        if operation.task not in self.inventory.tasks:
            return Trace((), None)
        self.inventory = follow(self.inventory, operation, Ok())
        trace: Trace = self.inner.finish(operation)  # type: ignore[attr-defined]
        return trace

    def cost(self) -> Cost:
        """As the system counts it."""
        return self.inner.cost()

    def close(self) -> None:
        """Close the system."""
        self.inner.close()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def __dir__(self) -> list[str]:
        return sorted({*super().__dir__(), *dir(self.inner)})


def resolved(operation: Operation, world: World) -> Operation:
    """The operation with each MODULE:FUNC as the world's unique name of it (NAME-11); mostly it is the operation."""
    if not any(":" in name.text for name in names_of(operation)):
        return operation
    return renamed(operation, lambda space, name: world.resolve(name) if space == "function" else name)


def refusal(operation: Operation, inventory: Inventory) -> Errno | None:
    """What the harness answers in a system's place, with its rule; None if the system is to answer."""
    return next(_refusals(operation, inventory), None)


def _refusals(operation: Operation, s: Inventory) -> Iterator[Errno]:
    """The Harness rules that refuse the operation, in the order in which they are checked."""
    if isinstance(operation, op.Await | op.PokeStep):
        yield from _goes_on_with_nothing(operation, s)
        return
    if s.pending is not None and not isinstance(operation, BESIDE_PENDING):
        yield _not_carried_out("NAME-15")
    if s.dead and isinstance(operation, CHANGING_MODULES) and _outlives_module(operation, s):
        yield _not_carried_out("NAME-7")
    yield from _unfit_names(operation, s)
    if isinstance(operation, ATTACHING) and operation.prog in s.lost:
        yield _not_carried_out("NAME-10")
    if s.orphaned and _meets_orphan(operation, s):
        yield _not_carried_out("NAME-12")
    if s.off and isinstance(operation, op.InitModule) and _joins_an_ops(operation, s):
        yield _not_carried_out("NAME-13")
    if s.dead and isinstance(operation, op.InitModule) and any(map(_waits, s.graph_users.values())):
        yield _not_carried_out("NAME-19")
    if s.tasks and _disturbs_tasks(operation, s):
        yield _not_carried_out("NAME-14")
    check = _MISUSES.get(type(operation))
    if check is not None:
        yield from check(operation, s)


def _goes_on_with_nothing(operation: op.Await | op.PokeStep, s: Inventory) -> Iterator[Errno]:
    if isinstance(operation, op.PokeStep):
        if not isinstance(s.pending, op.Poke):
            yield Errno("EBADF", harness="NAME-17")
    elif operation.operation != s.pending:
        yield Errno("EBADF", harness="NAME-15")


def _outlives_module(operation: op.InitModule | op.DeleteModule, s: Inventory) -> bool:
    """Whether ftrace may have died or not, or something that it can no longer undo stands on the module's functions."""
    if s.doubtful or isinstance(operation, op.InitModule):
        return s.doubtful
    return any(s.world.is_in(name, operation.module) for name in (*s.livepatches, *s.stale))


def _meets_orphan(operation: Operation, s: Inventory) -> bool:
    """Whether the operation asks for a trampoline that went without its image, or unloads the function's module."""
    match operation:
        case op.BpfRawTracepointOpen(_, prog, function):
            return (s.programs[prog].target or function) in s.orphaned
        case op.BpfLinkCreate(_, prog, targets):
            return not s.orphaned.isdisjoint(
                name for text, _ in targets for name in (s.expand(prog, text) if link_pattern(text) else (text,))
            )
        case op.Livepatch(function) | op.Unlivepatch(function):
            return function in s.orphaned
        case op.RegisterFtraceFunction(name) | op.UnregisterFtraceFunction(name):
            return s.ops[name].ipmodify and not s.orphaned.isdisjoint(s.ops[name].filter_hash)
        case op.DeleteModule(module):
            return any(s.world.is_in(name, module) for name in s.orphaned)
    return False


def _joins_an_ops(operation: op.InitModule, s: Inventory) -> bool:
    """Whether an enabled ops that is neither direct nor IPMODIFY covers a function of the module (MODULE-1)."""
    plain = [record for record in s.ops.values() if record.enabled and not (record.direct or record.ipmodify)]
    functions = [f.name for f in s.world.functions if f.module == operation.module and f.has_site]
    users = s.graph_users.values()
    return any(record.covers(name) for record in plain for name in functions) or any(
        not user.filter_hash for user in users
    )


def _waits(user: GraphRecord) -> bool:
    """Whether a line of the user waits for its module."""
    return bool(user.mod_trace or user.mod_notrace)


def _set_line(operation: op.SetFtraceFilter | op.SetFtraceNotrace, s: Inventory) -> Iterator[Errno]:
    """Commands other than `mod`, and `mod` without a module, are no lines of a filter."""
    _ = s
    if names_command(operation.glob or ""):
        yield _not_carried_out("NAME-19")


def _register_user(operation: op.RegisterFtraceGraph, s: Inventory) -> Iterator[Errno]:
    _ = s
    if names_command(operation.filter or ""):
        yield _not_carried_out("NAME-19")


def _unfit_names(operation: Operation, s: Inventory) -> Iterator[Errno]:
    spaces = _names_in_use(s)
    for name in names_of(operation, "makes"):
        if name.text in spaces[name.space]:
            yield Errno("EEXIST", harness="NAME-1")
    for name in names_of(operation, "uses"):
        if name.text not in spaces[name.space]:
            yield Errno("EBADF", harness="NAME-2")


def _names_in_use(s: Inventory) -> Mapping[str, Collection[str]]:
    """The names that exist, by the space of each."""
    return {"ops": s.ops, "prog": s.programs, "link": {**s.links, **s.kprobes}, "user": s.graph_users, "task": s.tasks}


def _load_kprobe(operation: op.BpfProgLoad, s: Inventory) -> Iterator[Errno]:
    """A kprobe program that calls is not described."""
    _ = s
    if operation.kind in op.KPROBES and operation.calls is not None:
        yield _not_carried_out("NAME-18")


def _link_kprobe(operation: op.BpfLinkCreate, s: Inventory) -> Iterator[Errno]:
    """Nor is a fprobe that comes while points are to fail."""
    kprobe = s.programs[operation.prog].kind in op.KPROBES
    if kprobe and (s.armed or _doubts_cookie(s, operation.targets)):
        yield _not_carried_out("NAME-18")


def _detach_kprobe(operation: op.BpfLinkDetach, s: Inventory) -> Iterator[Errno]:
    """Nor one that goes then, or after ftrace has died."""
    if operation.link in s.kprobes and (s.armed or s.dead):
        yield _not_carried_out("NAME-18")


def _doubts_cookie(s: Inventory, targets: Targets) -> bool:
    """Whether an address stands twice in a link, with two cookies: a search decides which of them programs see."""
    pairs = [(name, cookie or 0) for name, cookie in s.kprobe_targets(targets)]
    return s.by_address(targets) and len(dict(pairs)) < len(set(pairs))


def _disturbs_tasks(operation: Operation, s: Inventory) -> bool:
    """Whether the operation belongs to no comparison while a task is in the middle of a call."""
    refused = isinstance(operation, op.RegisterFtraceFunction) and _takes_trampoline_back(s.ops[operation.ops], s)
    return refused or _moves_other_links(operation, s) or isinstance(operation, NOT_BESIDE_TASKS)


def _takes_trampoline_back(record: OpsRecord, s: Inventory) -> bool:
    """Whether registering an IPMODIFY user would fail by OPS-5, when it has a trampoline already."""
    free = bool(record.filter_hash) and s.ipmodify_users().isdisjoint(record.filter_hash)
    return record.ipmodify and not record.enabled and not free


def _moves_other_links(operation: Operation, s: Inventory) -> bool:
    """Whether a freplace or a kprobe program is attached or detached."""
    if isinstance(operation, ATTACHING):
        return s.programs[operation.prog].kind in {"freplace", *op.KPROBES}
    if isinstance(operation, op.BpfLinkDetach):
        return operation.link in s.kprobes or s.programs[s.links[operation.link].prog].kind == "freplace"
    return False


def _begin_task(operation: op.Task, s: Inventory) -> Iterator[Errno]:
    if not s.loaded(operation.function):
        yield Errno("ENOENT", harness="NAME-16")
    if len(s.tasks) >= MOST_TASKS:
        yield Errno("EAGAIN", harness="NAME-16")
    if _is_disturbed(s):
        yield _not_carried_out("NAME-16")
    if isinstance(s.pending, op.Poke):
        yield _not_carried_out("NAME-17")


def _poke(operation: op.Poke, s: Inventory) -> Iterator[Errno]:
    inner = operation.operation
    yield from _refusals(inner, s)
    ipmodify = any(s.ops[name.text].ipmodify for name in names_of(inner, "uses") if name.space == "ops")
    if not isinstance(inner, POKED) or ipmodify or _moves_other_links(inner, s) or _is_disturbed(s):
        yield _not_carried_out("NAME-17")


def _is_disturbed(s: Inventory) -> bool:
    """Whether something may fail or has failed, or was turned off, so that nothing is to stop in the middle."""
    return bool(s.armed or s.off or s.was_off or s.dead or s.unclean or s.kprobes)


def _not_carried_out(rule: str) -> Errno:
    return Errno("EOPNOTSUPP", harness=rule)


def _set_filter(operation: Any, s: Inventory) -> Iterator[Errno]:
    record = s.ops[operation.ops]
    if _is_live(record):
        yield _not_carried_out("NAME-4")
    if record.enabled and record.ipmodify and not s.dead and _meets_entry(operation, s, record):
        yield _not_carried_out("NAME-9")


def _meets_entry(operation: Any, s: Inventory, record: OpsRecord) -> bool:
    """Whether the filter of an IPMODIFY user would be widened over a direct entry; other errors are the system's."""
    after = s.filter_after(operation)
    joining = [name for name in after if name not in record.filter_hash]
    if not (record.filter_hash and after and all(map(s.loaded, joining))):
        return False
    if not s.semantics.share_ipmodify and any(_has_direct_ops(s, name) for name in joining):
        return False
    return any(map(s.has_entry, joining))


def _has_direct_ops(s: Inventory, function: str) -> bool:
    """Whether an enabled direct ops covers the site (IPMODIFY-3)."""
    entry = s.direct_functions.get(function)
    if entry is None or entry.owner == SINGLE_API:
        return entry is not None or s.has_image(function)
    owner = s.ops.get(entry.owner)
    return owner is not None and owner.enabled and owner.covers(function)


def _set_notrace(operation: op.FtraceSetNotrace, s: Inventory) -> Iterator[Errno]:
    if _is_live(s.ops[operation.ops]):
        yield _not_carried_out("NAME-4")


def _free_filter(operation: op.FtraceFreeFilter, s: Inventory) -> Iterator[Errno]:
    if s.ops[operation.ops].enabled and not s.semantics.free_filter_warns:
        yield _not_carried_out("NAME-5")


def _register(operation: op.RegisterFtraceFunction, s: Inventory) -> Iterator[Errno]:
    if s.ops[operation.ops].direct:
        yield _not_carried_out("NAME-3")


def _unregister(operation: op.UnregisterFtraceFunction, s: Inventory) -> Iterator[Errno]:
    record = s.ops[operation.ops]
    if record.ipmodify and not record.enabled and s.semantics.share_ipmodify:
        shared = s.ipmodify_users().intersection(record.filter_hash)
        if any(map(s.has_image, shared)):
            yield _not_carried_out("NAME-6")


def _unregister_single(operation: op.UnregisterFtraceDirect, s: Inventory) -> Iterator[Errno]:
    entry = DirectEntry(operation.tramp, SINGLE_API)
    if s.has_entry(operation.function) and s.direct_functions.get(operation.function) != entry:
        yield _not_carried_out("DIRECT-3")


def _modify_single(operation: op.ModifyFtraceDirect, s: Inventory) -> Iterator[Errno]:
    entry = s.direct_functions.get(operation.function)
    if entry is not None and entry.tramp == operation.old and entry.owner != SINGLE_API:
        yield _not_carried_out("DIRECT-5")


def _direct(operation: Any, s: Inventory) -> Iterator[Errno]:
    if s.ops[operation.ops].ipmodify:
        yield _not_carried_out("NAME-3")


def _update(operation: Any, s: Inventory, rule: str) -> Iterator[Errno]:
    """What all calls of the hash API have in common: the hash that is given must be one."""
    yield from _direct(operation, s)
    functions = [function for function, _ in operation.entries]
    if len(set(functions)) < len(functions) or not all(map(s.loaded, functions)):
        yield Errno("EINVAL", harness=rule)


def _update_add(operation: op.UpdateFtraceDirectAdd, s: Inventory) -> Iterator[Errno]:
    yield from _update(operation, s, "DIRECT-10")
    record = s.ops[operation.ops]
    taken = any(s.has_entry(function) and function not in s.stale for function, _ in operation.entries)
    if record.filter_hash and not _is_live(record) and not taken:
        yield _not_carried_out("DIRECT-10")


def _update_del(operation: op.UpdateFtraceDirectDel, s: Inventory) -> Iterator[Errno]:
    yield from _update(operation, s, "DIRECT-11")
    record = s.ops[operation.ops]
    known = {function: entry.tramp for function, entry in s.direct_functions.items()}
    fitting = all(known.get(function) == tramp for function, tramp in operation.entries)
    if _is_live(record) and fitting and any(function not in record.filter_hash for function, _ in operation.entries):
        yield _not_carried_out("DIRECT-11")


def _update_mod(operation: op.UpdateFtraceDirectMod, s: Inventory) -> Iterator[Errno]:
    yield from _update(operation, s, "DIRECT-12")
    record = s.ops[operation.ops]
    foreign = (function for function, _ in operation.entries if function not in record.filter_hash)
    if _is_live(record) and any(map(s.has_entry, foreign)):
        yield _not_carried_out("DIRECT-12")


def _is_live(record: OpsRecord) -> bool:
    return record.direct and record.enabled


_MISUSES: dict[type[Operation], Callable[[Any, Inventory], Iterator[Errno]]] = {
    op.FtraceSetFilterIp: _set_filter,
    op.FtraceSetFilterIps: _set_filter,
    op.FtraceSetFilter: _set_filter,
    op.FtraceSetNotrace: _set_notrace,
    op.FtraceFreeFilter: _free_filter,
    op.RegisterFtraceFunction: _register,
    op.UnregisterFtraceFunction: _unregister,
    op.UnregisterFtraceDirect: _unregister_single,
    op.ModifyFtraceDirect: _modify_single,
    op.RegisterFtraceDirectMulti: _direct,
    op.UnregisterFtraceDirectMulti: _direct,
    op.ModifyFtraceDirectMulti: _direct,
    op.UpdateFtraceDirectAdd: _update_add,
    op.UpdateFtraceDirectDel: _update_del,
    op.UpdateFtraceDirectMod: _update_mod,
    op.RegisterFtraceGraph: _register_user,
    op.SetFtraceFilter: _set_line,
    op.SetFtraceNotrace: _set_line,
    op.BpfProgLoad: _load_kprobe,
    op.BpfLinkCreate: _link_kprobe,
    op.BpfLinkDetach: _detach_kprobe,
    op.Task: _begin_task,
    op.Poke: _poke,
}
