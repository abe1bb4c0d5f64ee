"""A real kernel is not asked for some users of the graph tracer, and lines of their files: the reasons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from impl.linux.declining.patterns import EVERYTHING, Patterns
from impl.linux.directory import Directory
from impl.linux.probes.tracefs import Limits
from impl.linux.run import RunState
from spec import operations as op
from spec.existing import AWAITS, GraphRecord
from spec.globs import without_bang
from spec.inventory import Inventory
from spec.operations import Operation

__all__ = ["GraphDecliner", "limits_of"]

MOST_LINES = 40
"""The kernel looks at every record for each line, which takes the emulator 50 ms."""

UNTAKEN = "warns where a frame of the graph tracer returns that fprobes did not take (DEFECT-32)"


@dataclass(frozen=True, slots=True)
class GraphDecliner:
    """Reasons to decline operations of the graph tracer, and modules that come where lines wait for them."""

    directory: Directory
    run: RunState
    patterns: Patterns

    @property
    def handlers(self) -> dict[type[Operation], Callable[[Any], str]]:
        """Each finds why an operation of its kind is declined, or an empty text."""
        return {
            op.RegisterFtraceGraph: self._graph,
            op.UnregisterFtraceGraph: self._ungraph,
            op.SetFtraceFilter: self._user_filter,
            op.SetFtraceNotrace: self._user_notrace,
            op.SetGraphFunction: self._graph_list,
            op.SetGraphNotrace: self._graph_list,
            op.InitModule: self._init_module,
        }

    @property
    def _inventory(self) -> Inventory:
        return self.run.inventory

    def _graph(self, operation: op.RegisterFtraceGraph) -> str:
        patterns = [p for p in (operation.filter, operation.function, operation.notrace) if p]
        if any(pattern.startswith("!") for pattern in patterns):
            return "removes what a pattern with ! selects, when tracefs is given it"
        if operation.filter and (reason := self.patterns.line(operation.filter, self.patterns.beyond)):
            return reason
        if reason := next(filter(None, map(self.patterns.alone, patterns[bool(operation.filter) :])), ""):
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

    def _meets_returns(self) -> str:
        """The user of fprobes at returns, if it is there first, is that of slot 0."""
        programs, kprobes = self._inventory.programs, self._inventory.kprobes.values()
        first = any(programs[link.prog].kind == "kretprobe" for link in kprobes)
        return UNTAKEN if first and self._inventory.semantics.fprobes_shared else ""

    def _ungraph(self, operation: op.UnregisterFtraceGraph) -> str:
        if self._inventory.dead:
            return "does not tell by tracefs whether a tracer could be stopped after ftrace has died"
        left = {name: user for name, user in self._inventory.graph_users.items() if name != operation.user}
        return self._forgets_waiting(left) or self._leaves_nothing(left.values())

    def _user_filter(self, operation: op.SetFtraceFilter) -> str:
        _, removes = without_bang(operation.glob or "")
        reason = self._hides(operation) or self.patterns.line(
            operation.glob, self.patterns.alone if removes else self.patterns.beyond
        )
        return reason or self._covers_everything(operation) or self._forgets_by(operation)

    def _user_notrace(self, operation: op.SetFtraceNotrace) -> str:
        reason = self._hides(operation) or self.patterns.line(operation.glob, self.patterns.alone)
        return reason or self._covers_everything(operation)

    def _hides(self, operation: op.SetFtraceFilter | op.SetFtraceNotrace) -> str:
        unfiltered = self.directory.station.graph.is_unfiltered(operation.user)
        return "hides what is not of the world from a user without a filter, by its notrace hash" if unfiltered else ""

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
        return self.patterns.alone(pattern) if pattern else ""


def limits_of(operation: op.RegisterFtraceGraph) -> Limits:
    """The limits that a user of the graph tracer asks for, beside its filter."""
    function = (operation.function,) if operation.function else ()
    notrace = (operation.notrace,) if operation.notrace else ()
    return Limits(function, notrace, operation.depth or 0)


def _covers_nothing(users: Iterable[GraphRecord]) -> str:
    """Whether a user's notrace hash holds all of its filter, so that graph_ops may cover everything (DEFECT-20)."""
    empty = any(frozenset(user.filter_hash) <= frozenset(user.notrace_hash) for user in users)
    return EVERYTHING if empty else ""
