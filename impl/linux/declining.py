"""What a real kernel in an emulator is not asked to do, and why: in words that follow the system's name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from impl.linux import injection
from impl.linux.attachments import TRIALS
from impl.linux.directory import PATCHED, Directory
from impl.linux.laboratory.build import CORE
from impl.linux.laboratory.control import OPS_SLOTS, STUBS
from impl.linux.probes.tracefs import ALONE, Limits
from impl.linux.run import RunState
from spec import operations as op
from spec.existing import AWAITS, GraphRecord, OpsRecord
from spec.globs import FilterLine, filter_line, matcher, module_matcher, record_index, without_bang
from spec.inventory import Inventory
from spec.names import names_of
from spec.operations import Operation
from spec.worlds import Function

__all__ = ["Decliner", "limits_of"]

LOCKDEP = "lock_is_held_type"
"""A kernel with CONFIG_LOCKDEP has this function, which lockdep_assert_held() calls."""

NEVER = 1000
"""From so many on a `fail` takes an earlier one back."""

MOST_LINES = 40
"""The kernel looks at every record for each line, which takes the emulator 50 ms."""

EVERYTHING = "does not trace every function of the kernel: that takes the emulator too long"

NO_FAIL_NTH = "has no /proc/self/fail-nth: it is built without CONFIG_FAULT_INJECTION or CONFIG_FAILSLAB"

HALF_STARTED = "leaves an ops half started at which ftrace died, so that further direct calls of it are misuse"

UNSEEN_DEATH = "says that images come and go after ftrace has died, where its direct_ops is live (DEFECT-18)"

UNLOCKED = "asks livepatched neighbours' trampolines without their locks, so that its lockdep warns (DEFECT-27)"

UNTAKEN = "warns where a frame of the graph tracer returns that fprobes did not take (DEFECT-32)"

UNFOUND = "has our module ask ftrace for the site of what it livepatches, which a dead ftrace answers before it looks"

GIVEN_BACK = "gives the filter of a direct ops back also where it answers -ENODEV, and our module then forgets the ops"

TAKEN_OUT = "warns, and takes the entry of a site out of its table that ftrace, once dead, keeps (DEFECT-37)"

DIES_REFUSING = "answers -ENODEV, not 0, where ftrace dies as the last direct call of the single API leaves (SYSCTL-5)"

COUNTED = "goes on counting the ops at whose start ftrace died, and then exchanges an entry that it no longer shows"

REGS_GIVEN = "gives R, by a change of this notrace hash, to functions beyond the world, and warns later (SITE-6)"

MEETS_GONE = "makes the handshake of IPMODIFY users also for addresses of functions that have gone (DEFECT-11)"

NO_HASH = (
    "looks for direct calls in the hash of an IPMODIFY ops, which it may lack after ftrace has died: a NULL pointer"
)


@dataclass(slots=True)
class Decliner:
    """retries: a second try to attach works (DEFECT-2). asked: defects that the kernel is to show all the same."""

    directory: Directory
    run: RunState
    retries: bool
    asked: frozenset[str] = frozenset()

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    @property
    def _dead(self) -> bool:
        return self._inventory.dead

    def reason(self, operation: Operation) -> str:
        """Why the operation is declined in the present state; empty if it is not."""
        decline = self._handlers.get(type(operation))
        return (decline(operation) if decline else "") or self._stubs(operation) or self._fault(operation)

    @property
    def _handlers(self) -> dict[type[Operation], Callable[[Any], str]]:
        return {
            op.Call: self._call,
            op.Fail: self._fail,
            op.FtraceOps: self._declare,
            op.FtraceSetFilter: self._filter,
            op.FtraceSetFilterIp: self._becomes_empty,
            op.FtraceSetFilterIps: self._becomes_empty,
            op.FtraceSetNotrace: self._notrace,
            op.RegisterFtraceDirectMulti: self._start_direct,
            op.UnregisterFtraceDirectMulti: self._end_direct,
            op.UnregisterFtraceDirect: self._end_single,
            op.ModifyFtraceDirect: self._modify_single,
            op.UpdateFtraceDirectAdd: self._update,
            op.UpdateFtraceDirectDel: self._update,
            op.RegisterFtraceFunction: self._register,
            op.UnregisterFtraceFunction: self._unregister,
            op.RegisterFtraceGraph: self._graph,
            op.UnregisterFtraceGraph: self._ungraph,
            op.SetFtraceFilter: self._user_filter,
            op.SetFtraceNotrace: self._user_notrace,
            op.SetGraphFunction: self._graph_list,
            op.SetGraphNotrace: self._graph_list,
            op.InitModule: self._init_module,
            op.Livepatch: self._livepatch,
            op.Unlivepatch: self._unlivepatch,
            op.BpfProgLoad: self._load,
            op.BpfRawTracepointOpen: self._open,
            op.BpfLinkCreate: self._link,
            op.BpfLinkDetach: self._detach,
        }

    def _call(self, operation: op.Call) -> str:
        if self._keeps_no_records(operation.function):
            return "does not call the kernel's own functions: their bodies keep no records"
        # ftrace_kill() makes a site that several ops cover call ftrace_stub().
        return "calls nothing after ftrace has died" if self._dead else ""

    def _keeps_no_records(self, function: str) -> bool:
        """Whether a body does something that nobody notes: one of the kernel's own that is not empty (TRACE-7)."""
        found = self.directory.station.world.find(function)
        return found is not None and found.name in self.directory.station.own and "empty" not in found.attributes

    def _fail(self, operation: op.Fail) -> str:
        if operation.point == "nth":
            return "" if self.directory.station.fail_nth is not None else NO_FAIL_NTH
        if operation.point == "hash" and self.run.failing & {"alloc"}:
            return "makes alloc_ftrace_hash() fail for one reason at a time"
        if 1 < operation.count < NEVER:
            return "can only make a point fail when it is reached next"
        lacks = operation.point in injection.POINTS and not self.directory.station.injects
        return f"cannot make '{operation.point}' fail" if lacks else ""

    def _fault(self, operation: Operation) -> str:
        """A point that is armed, and which the operation may reach where no function of the kernel stands for it."""
        points = (point for point in sorted(self.run.failing) if self._cannot_fail(point, operation))
        return next((f"cannot make '{point}' fail in this operation" for point in points), "")

    def _cannot_fail(self, point: str, operation: Operation) -> bool:
        if injection.place_of(point, operation) is None:
            return injection.reaches(point, operation)
        match point, operation:
            case "alloc", op.BpfLinkDetach(name):
                return not self._leaves_alone(name)
            case "filter" | "register", _:
                record = self._inventory.ops.get(getattr(operation, "ops", ""))
                starts = isinstance(operation, op.RegisterFtraceFunction)
                direct = isinstance(operation, op.RegisterFtraceDirectMulti) or (record and record.direct)
                meets = direct and self._inventory.ipmodify_users()
                # Some checks come behind the function, and the rules have them before the point (FILTER-8, OPS-4, -5,
                # and those of direct calls that meet an IPMODIFY user).
                return record is not None and bool(record.ipmodify or (starts and record.enabled) or meets)
            case "patch", _:
                return self._is_live(operation)
        return False

    def _leaves_alone(self, name: str) -> bool:
        """Whether the link's function keeps its ops, so that its image may stay (NAME-12)."""
        link = self._inventory.links.get(name)
        single = link is None or not self._inventory.programs[link.prog].multi
        return single and (self._inventory.semantics.single_direct_ops or self._keeps_a_program(name))

    def _keeps_a_program(self, name: str) -> bool:
        """Whether the link's one function keeps another program, so that its trampoline stays (NAME-12)."""
        link = self._inventory.links.get(name)
        if link is None or len(link.functions) > 1 or self._inventory.programs[link.prog].multi:
            return link is None
        others = (other for key, other in self._inventory.links.items() if key != name)
        return any(link.functions <= other.functions for other in others)

    def _is_live(self, operation: Operation) -> bool:
        """Whether an ops that is live may change: then the kernel says nothing of a pass that fails."""
        record = self._inventory.ops.get(getattr(operation, "ops", ""))
        users = isinstance(operation, op.RegisterFtraceGraph) and self._inventory.graph_users
        shares = isinstance(operation, op.BpfRawTracepointOpen | op.Livepatch) or (record and record.ipmodify)
        return bool(users or (shares and self._inventory.links) or (record and record.enabled))

    def _unregister(self, operation: op.UnregisterFtraceFunction) -> str:
        record = self._inventory.ops.get(operation.ops)
        if self._dead and record and record.ipmodify and not record.enabled:
            return NO_HASH
        return self._shake_hands(record)

    def _end_direct(self, operation: op.UnregisterFtraceDirectMulti) -> str:
        return GIVEN_BACK if self._dead and operation.free else ""

    def _end_single(self, _operation: op.UnregisterFtraceDirect) -> str:
        if self._dead:
            return TAKEN_OUT
        return DIES_REFUSING if self._inventory.was_off else ""

    def _modify_single(self, _operation: op.ModifyFtraceDirect) -> str:
        return COUNTED if self._dead else ""

    def _declare(self, operation: op.FtraceOps) -> str:
        _ = operation
        return f"has {OPS_SLOTS} ops" if self._inventory.declared >= OPS_SLOTS else ""

    def _filter(self, operation: op.FtraceSetFilter) -> str:
        pattern, removes = without_bang(operation.glob)
        return (self._alone(pattern) if removes else self._beyond(pattern)) or self._becomes_empty(operation)

    def _beyond(self, pattern: str) -> str:
        """A pattern that also selects functions of the kernel that the world does not have."""
        match = matcher(pattern)
        if any(map(match, self.directory.station.foreign)):
            return f"has functions outside of the world that '{pattern}' selects"
        return self._refuse_number(pattern)

    def _alone(self, pattern: str) -> str:
        """A pattern that does no harm to others, but which selects nothing else."""
        return self._refuse_number(pattern) if self._inventory.matching(pattern) else self._beyond(pattern)

    def _refuse_number(self, pattern: str) -> str:
        return "numbers its records in another way" if record_index(pattern) is not None else ""

    def _notrace(self, operation: op.FtraceSetNotrace) -> str:
        pattern, removes = without_bang(operation.glob)
        return self._alone(pattern) or self._grows_loud(operation, pattern, removes=removes)

    def _grows_loud(self, operation: op.FtraceSetNotrace, pattern: str, *, removes: bool) -> str:
        """An enabled ops without a filter covers what its notrace hash no longer holds."""
        record = self._inventory.ops.get(operation.ops)
        if record is None or not record.enabled or record.filter_hash or record.direct:
            return ""
        if record.save_regs and not self._inventory.semantics.notrace_leaves_regs:
            return REGS_GIVEN
        match, foreign = matcher(pattern), self.directory.station.foreign
        loud = any(map(match, foreign)) if removes else operation.reset and not all(map(match, foreign))
        return EVERYTHING if loud else ""

    def _becomes_empty(self, operation: op.FtraceSetFilter | op.FtraceSetFilterIp | op.FtraceSetFilterIps) -> str:
        """An enabled ops whose filter becomes empty covers everything (FILTER-10)."""
        record = self._inventory.ops.get(operation.ops)
        if record is None or not record.enabled or record.ipmodify or record.direct or operation.ops in self.run.quiet:
            return ""
        return EVERYTHING if not self._inventory.filter_after(operation) else ""

    def _update(self, operation: op.UpdateFtraceDirectAdd | op.UpdateFtraceDirectDel) -> str:
        """update_ftrace_direct_add() and _del() give the ops an empty notrace hash, if it stays enabled."""
        if self._dead:
            return HALF_STARTED
        record = self._inventory.ops.get(operation.ops)
        forgets = record and record.enabled and record.notrace_hash
        return "forgets the notrace hash of an ops whose direct calls change" if forgets else ""

    def _start_direct(self, _operation: op.RegisterFtraceDirectMulti) -> str:
        return HALF_STARTED if self._dead else ""

    def _register(self, operation: op.RegisterFtraceFunction) -> str:
        record = self._inventory.ops.get(operation.ops)
        quiet = operation.ops in self.run.quiet
        covers_all = record and not (quiet or record.filter_hash or record.ipmodify or record.direct)
        return EVERYTHING if covers_all else self._shake_hands(record) or self._meets_gone(record)

    def _meets_gone(self, record: OpsRecord | None) -> str:
        """An IPMODIFY user and a raw direct ops that both hold an address of a function that has gone."""
        gone = set(record.filter_hash).difference(record.filter) if record and record.ipmodify else set[str]()
        others = (each for each in self._inventory.ops.values() if each.direct and each.enabled)
        return MEETS_GONE if any(not gone.isdisjoint(each.filter_hash) for each in others) else ""

    def _shake_hands(self, record: OpsRecord | None) -> str:
        """The images of an IPMODIFY user's functions are made anew, one after the other."""
        functions = record.filter if record and record.ipmodify else ()
        return next(filter(None, (self._ask_neighbours({name}, {name}) for name in functions)), "")

    def _graph(self, operation: op.RegisterFtraceGraph) -> str:
        patterns = [p for p in (operation.filter, operation.function, operation.notrace) if p]
        if any(pattern.startswith("!") for pattern in patterns):
            return "removes what a pattern with ! selects, when tracefs is given it"
        if operation.filter and (reason := self._line(operation.filter, self._beyond)):
            return reason
        if reason := next(filter(None, map(self._alone, patterns[bool(operation.filter) :])), ""):
            return reason
        if operation.user in self._inventory.graph_users:
            return ""
        if reason := self._meets_returns():
            return reason
        if operation.function and operation.depth:
            return "makes all calls in one task, in which the graph tracer's flag may stay set (GRAPH-6)"
        filters = [operation.filter] if operation.filter else []
        if not filters and (self._inventory.armed or self._is_large()):
            return EVERYTHING
        obstacle = self.directory.station.graph.obstacle(filters, limits_of(operation))
        if obstacle:
            return f"cannot register this user: {obstacle}"
        return self._leaves_nothing(self._inventory.graph_users.values())

    def _is_large(self) -> bool:
        """Whether too much of the kernel is of the world to hide all else, or a symbol has several functions."""
        station = self.directory.station
        return bool(station.sited) or len(self.directory.beside_the_world(())) > MOST_LINES

    def _ungraph(self, operation: op.UnregisterFtraceGraph) -> str:
        if self._dead:
            return "does not tell by tracefs whether a tracer could be stopped after ftrace has died"
        left = {name: user for name, user in self._inventory.graph_users.items() if name != operation.user}
        return self._forgets_waiting(left) or self._leaves_nothing(left.values())

    def _user_filter(self, operation: op.SetFtraceFilter) -> str:
        _, removes = without_bang(operation.glob or "")
        reason = self._hides(operation) or self._line(operation.glob, self._alone if removes else self._beyond)
        return reason or self._covers_everything(operation) or self._forgets_by(operation)

    def _user_notrace(self, operation: op.SetFtraceNotrace) -> str:
        reason = self._hides(operation) or self._line(operation.glob, self._alone)
        return reason or self._covers_everything(operation)

    def _hides(self, operation: op.SetFtraceFilter | op.SetFtraceNotrace) -> str:
        unfiltered = self.directory.station.graph.is_unfiltered(operation.user)
        return "hides what is not of the world from a user without a filter, by its notrace hash" if unfiltered else ""

    def _line(self, text: str | None, selects: Callable[[str], str]) -> str:
        """A line of a filter file that the kernel understands in another way; selects: what is asked of a glob."""
        if text is None:
            return ""
        line = filter_line(text)
        if line.module is None:
            return selects(line.glob)
        return self._refuse_number(line.glob) or self._name_modules(line, line.module)

    def _name_modules(self, line: FilterLine, module: str) -> str:
        """What the world has of the kernel proper is mostly in a module of ours there, and other modules are loaded."""
        station, wanted, match = self.directory.station, module_matcher(module), matcher(line.glob or "*")
        if not {module, line.awaits}.isdisjoint({CORE, *station.foreign_modules}):
            return f"has a module {module} that the world has not"
        if any(map(wanted, (None, *station.foreign_modules))) and any(map(match, station.foreign)):
            return f"has functions outside of the world that '{line.glob}:mod:{module}' selects"
        ours = (f.symbol for f in station.world.functions if self.directory.home(f) == CORE)
        differs = wanted(None) != wanted(CORE) and any(map(match, ours))
        return f"has the module {CORE} where the world has functions of the kernel" if differs else ""

    def _forgets_by(self, operation: op.SetFtraceFilter) -> str:
        """A line that is refused has the file closed all the same, which makes the hashes anew."""
        users = self._inventory.graph_users
        if operation.user not in users:
            return ""
        after = {**users, operation.user: self._inventory.user_after(operation)}
        return self._forgets_waiting(users) or self._forgets_waiting(after)

    def _forgets_waiting(self, users: Mapping[str, GraphRecord]) -> str:
        """Whether graph_ops is made anew of users of whom the newest waits for a module, and has nothing else."""
        facts = self._inventory.semantics
        if facts.graph_users == 1 or facts.graph_rebuilds or not users:
            return ""
        newest = list(users.values())[-1]
        return EVERYTHING if newest.filter_hash == (AWAITS,) else ""

    def _init_module(self, operation: op.InitModule) -> str:
        """Lines that wait for the module may select nothing in it, and then the filter is empty."""
        users = self._inventory.graph_users
        if operation.module in self._inventory.modules or not any(u.mod_trace or u.mod_notrace for u in users.values()):
            return ""
        after = self._inventory.users_after(operation.module)
        return _covers_nothing(after.values()) or self._forgets_waiting(after)

    def _covers_everything(self, operation: op.SetFtraceFilter | op.SetFtraceNotrace) -> str:
        """Without a filter a user covers everything; if all of it is in the notrace hash graph_ops may (GRAPH-12)."""
        if operation.user not in self._inventory.graph_users:
            return ""
        after = {**self._inventory.graph_users, operation.user: self._inventory.user_after(operation)}
        return _covers_nothing([after[operation.user]]) or self._leaves_nothing(after.values())

    def _leaves_nothing(self, users: Iterable[GraphRecord]) -> str:
        """Both hashes of a user may hold functions alone that have gone, when graph_ops is made anew of all users."""
        return _covers_nothing(users) if self._inventory.semantics.graph_rebuilds else ""

    def _graph_list(self, operation: op.SetGraphFunction | op.SetGraphNotrace) -> str:
        users = self._inventory.graph_users
        if len(users) > 1:
            return "has one set_graph_function and one set_graph_notrace for all users"
        if any(user.depth for user in users.values()):
            return "makes all calls in one task, in which the graph tracer's flag may stay set (GRAPH-6)"
        pattern, _ = without_bang(operation.glob or "")
        return self._alone(pattern) if pattern else ""

    def _livepatch(self, operation: op.Livepatch) -> str:
        if operation.function in self.directory.station.own:
            return f"has no patched body ({PATCHED}) for a function of the kernel's own"
        if self._dead and not self._inventory.loaded(operation.function):
            return UNFOUND
        return self._ask_neighbours({operation.function}, {operation.function})

    def _unlivepatch(self, operation: op.Unlivepatch) -> str:
        return self._ask_neighbours({operation.function}, {operation.function})

    def _load(self, operation: op.BpfProgLoad) -> str:
        if operation.kind == "freplace":
            return "has no functions that an extension may replace"
        if operation.kind == op.LSM and TRIALS[op.LSM] not in self.directory.station.vmlinux.functions:
            return "has no hooks of LSM that programs attach to: it is built without CONFIG_BPF_LSM"
        own = operation.calls is not None and self._keeps_no_records(operation.calls)
        return "calls none of the kernel's own functions: their bodies keep no records" if own else ""

    def _direct_ops_lives(self, beside: int) -> bool:
        """Whether ftrace has died with a direct_ops that stays live, with more links than these."""
        shared = self._inventory.semantics.single_direct_ops
        return self._dead and shared and len(self._inventory.links) > beside

    def _attaches_dead(self) -> str:
        """Attaching where all of BPF's functions have one ops, which is live, or was enabled when ftrace died."""
        if self.run.half_started and self._inventory.semantics.single_direct_ops:
            return HALF_STARTED
        return UNSEEN_DEATH if self._direct_ops_lives(0) else ""

    def _meets_returns(self) -> str:
        """The user of fprobes at returns, if it is there first, is that of slot 0."""
        programs, kprobes = self._inventory.programs, self._inventory.kprobes.values()
        first = any(programs[link.prog].kind == "kretprobe" for link in kprobes)
        return UNTAKEN if first and self._inventory.semantics.fprobes_shared else ""

    def _open(self, operation: op.BpfRawTracepointOpen) -> str:
        if reason := self._attaches_dead():
            return reason
        program = self._inventory.programs.get(operation.prog)
        target = (program.target if program else None) or operation.function or ""
        found = self.directory.station.world.find(target)
        if found and found.lookup == "no_site" and self.directory.home(found):
            return "has this function in a module, where BPF patches no text but sites of ftrace (LINK-16)"
        return (self._second_try(program.kind, target) if program else "") or self._ask_neighbours({target}, {target})

    def _second_try(self, kind: str, function: str) -> str:
        """An image that did not call the original must now share it with an IPMODIFY user (IPMODIFY-5)."""
        links = self._inventory.links.values()
        present = [self._inventory.programs[link.prog] for link in links if function in link.functions]
        changes = present and kind != "fentry" and all(one.kind == "fentry" for one in present)
        if self.retries or not changes or function not in self._inventory.ipmodify_users():
            return ""
        return "lets the second try of an attach reset an ops that is live, and ends ftrace at the next call (DEFECT-2)"

    def _link(self, operation: op.BpfLinkCreate) -> str:
        program = self._inventory.programs.get(operation.prog)
        if program is None or program.kind in op.KPROBES:
            return self._joins_unfiltered(program)
        if reason := self._attaches_dead():
            return reason
        targets = {function.name for function in self.directory.functions_of_link(self._inventory, operation)}
        if not program.multi:
            return self._second_try(program.kind, operation.targets[0][0]) or self._ask_neighbours(targets, targets)
        home = self.directory.home_of_link(self._inventory, operation)
        if home not in {None, CORE} and home not in self._inventory.modules:
            return "has no BTF of a module that is not loaded"
        if program.calls is not None and self._is_elsewhere(operation.prog, home):
            return "has this program once for each BTF, so that one does not meet itself in the function that it calls"
        functions = self.directory.functions_of_link(self._inventory, operation)
        if any(self._means_something(function, home) for function in functions):
            return "makes links over these two BTFs only where ids of one mean nothing in the other"
        return self._ask_neighbours(targets, targets)

    def _joins_unfiltered(self, program: op.BpfProgLoad | None) -> str:
        """The user of fprobes at returns, beside one that hides the rest of the kernel by its notrace hash."""
        returns = program is not None and program.kind == "kretprobe" and self._inventory.semantics.fprobes_shared
        alone = any(map(self.directory.station.graph.is_unfiltered, self._inventory.graph_users))
        return f"cannot register the user of fprobes at returns: {ALONE}" if returns and alone else ""

    def _is_elsewhere(self, prog: str, home: str | None) -> bool:
        """Whether a program is linked over another BTF than this one."""
        linked = (name for link in self._inventory.links.values() if link.prog == prog for name in link.functions)
        found = map(self.directory.station.world.find, linked)
        return any(self.directory.home(function) != home for function in found if function is not None)

    def _means_something(self, function: Function, home: str | None) -> bool:
        """Whether the kernel finds in the BTF of `home` what the world has not, by the id of a function (LINK-17).

        CORE's functions are vmlinux's in the world, and their BTF is a module's in truth.
        """
        own = self.directory.home(function)
        if own == home or (None in {own, home} and CORE not in {own, home}):
            return False
        known = self.directory.station.btfs[home].functions
        return own in {None, CORE} or self.directory.btf_id(function) in known.values()

    def _detach(self, operation: op.BpfLinkDetach) -> str:
        if operation.link in self._inventory.kprobes:
            return ""
        if self._direct_ops_lives(1):
            return UNSEEN_DEATH
        if self._dead and not self._inventory.semantics.single_direct_ops and not self._keeps_a_program(operation.link):
            return "frees the ops of a trampoline that ftrace, once dead, keeps in its list (DEFECT-21)"
        link = self._inventory.links.get(operation.link)
        if self.run.charge_fails and link and len(link.functions) > 1:
            return "would refuse the charge of each of the link's functions"
        others = [other for name, other in self._inventory.links.items() if name != operation.link]
        functions = link.functions if link else frozenset[str]()
        kept = {name for name in functions if any(name in other.functions for other in others)}
        return self._ask_neighbours(kept, functions)

    def _ask_neighbours(self, changed: Collection[str], locked: Collection[str]) -> str:
        """All of BPF's IPMODIFY sites are asked, locked or not, when an image takes another's place at a site."""
        inventory = self._inventory
        watched = bool(self.directory.symbols.addresses(LOCKDEP)) and inventory.semantics.single_direct_ops
        if not watched or "DEFECT-27" in self.asked or not any(map(inventory.has_image, changed)):
            return ""
        asked = filter(inventory.has_image, inventory.ipmodify_users().difference(locked))
        return UNLOCKED if any(asked) else ""

    def _stubs(self, operation: Operation) -> str:
        tramps = {name.text for name in names_of(operation, "names") if name.space == "tramp"}
        return f"has {STUBS} direct trampolines" if len(tramps.union(self.run.stubs)) > STUBS else ""


def limits_of(operation: op.RegisterFtraceGraph) -> Limits:
    """What a user of the graph tracer asks for beside its filter."""
    function = (operation.function,) if operation.function else ()
    notrace = (operation.notrace,) if operation.notrace else ()
    return Limits(function, notrace, operation.depth or 0)


def _covers_nothing(users: Iterable[GraphRecord]) -> str:
    """Whether a user's notrace hash holds all of its filter, so that graph_ops may cover everything (DEFECT-20)."""
    empty = any(frozenset(user.filter_hash) <= frozenset(user.notrace_hash) for user in users)
    return EVERYTHING if empty else ""
