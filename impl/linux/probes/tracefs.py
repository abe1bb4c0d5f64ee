"""ftrace's own tracers through tracefs: users of the graph tracer, and the function tracer.

Where the kernel lets the graph tracer run in instances (since Linux kernel commit c132be2c4fcc ("function_graph: Have
the instances use their own ftrace_ops for filtering") (in v6.11)), each instance is a user of its own; before, the
top-level tracer is the only one. Filters are per instance; set_graph_function, set_graph_notrace and max_graph_depth
are one for all users, on every kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from impl.linux.guest.batch import AT_FDCWD, Batch, Ref, Reply
from impl.linux.probes.ringbuffer import ROOT, Formats, Page, add_reads
from spec.errors import BadInputError

__all__ = [
    "ALONE",
    "AVAILABLE",
    "ENABLED",
    "ROOT",
    "GraphTracer",
    "Limits",
    "add_instance",
    "parse_hash",
    "set_buffer",
    "set_patterns",
    "set_tracer",
]


AVAILABLE, ENABLED = f"{ROOT}/available_filter_functions", f"{ROOT}/enabled_functions"

ALONE = "a user without a filter is alone, as its notrace hash holds all that is not of the world"

OWN_FILES = frozenset({"set_ftrace_filter", "set_ftrace_notrace"})
"""Of these each user has its own."""

SHOWN = re.compile(r"(?P<symbol>[^\s:]+)(?: \[(?P<module>[^\]]+)\])?|(?P<line>\S*:mod:\S*)")

# makes of a reply what became of the entries that were added to a batch: 0, or the first -errno
Answer = Callable[[Sequence[Reply]], int]
Submit = Callable[[Batch], tuple[Reply, ...]]

Act = Callable[[Callable[[Batch], Answer]], tuple[Answer, Sequence[Reply]]]
"""Carries out what is added to a batch, perhaps while an allocation fails in it."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Settings for all users of the graph tracer: set_graph_function, set_graph_notrace (globs), max_graph_depth."""

    function: tuple[str, ...] = ()
    notrace: tuple[str, ...] = ()
    depth: int = 0

    def changed(self, file: str, pattern: str | None) -> Limits:
        """With a pattern more in set_graph_function or set_graph_notrace; with None none in it."""
        present = self.function if file == "set_graph_function" else self.notrace
        patterns = () if pattern is None else (*present, pattern)
        if file == "set_graph_function":
            return replace(self, function=patterns)
        return replace(self, notrace=patterns)


def add_instance(batch: Batch, name: str) -> Answer:
    """Make an instance of the tracer, in the directory ROOT/instances/NAME."""
    return _first_error([batch.syscall("mkdirat", AT_FDCWD, _terminate(f"{ROOT}/instances/{name}"), 0o755)])


def set_buffer(batch: Batch, directory: str, kibibytes: int = 64) -> Answer:
    """Give the tracer in a directory the clock that programs and modules use, and a small buffer for each CPU."""
    return _first_error(
        [
            batch.write_file(f"{directory}/trace_clock", b"mono"),
            batch.write_file(f"{directory}/buffer_size_kb", str(kibibytes).encode()),
        ]
    )


def set_tracer(batch: Batch, directory: str, tracer: str) -> Answer:
    """Switch the tracer in a directory: function_graph, function or nop. Set its filter before."""
    return _first_error([batch.write_file(f"{directory}/current_tracer", tracer.encode())])


def set_patterns(batch: Batch, path: str, patterns: Sequence[str]) -> Answer:
    """Set a filter file to these patterns, and to nothing else; -EINVAL if one matches nothing.

    A pattern is a glob, in set_ftrace_filter also GLOB:mod:MODULE, or the number of a record, for which the kernel need
    not look at every record (microseconds instead of 50 ms). No pattern means no restriction.
    """
    # one write takes one pattern only; those that were taken have their effect when the file is closed
    descriptor = batch.syscall("openat", AT_FDCWD, _terminate(path), os.O_WRONLY | os.O_TRUNC, 0)
    words = [f"{pattern} ".encode() for pattern in patterns]
    writes = [batch.syscall("write", Ref(descriptor), word, len(word)) for word in words]
    return _first_error([descriptor, *writes, batch.syscall("close", Ref(descriptor))])


def change_patterns(batch: Batch, path: str, pattern: str | None) -> Answer:
    """Append a pattern to a filter file, as `echo PATTERN >>` does; None empties it, as `: >` does."""
    flags = os.O_WRONLY | (os.O_TRUNC if pattern is None else os.O_APPEND)
    descriptor = batch.syscall("openat", AT_FDCWD, _terminate(path), flags, 0)
    entries = [descriptor]
    if pattern is not None:
        word = f"{pattern} ".encode()
        entries.append(batch.syscall("write", Ref(descriptor), word, len(word)))
    return _first_error([*entries, batch.syscall("close", Ref(descriptor))])


def parse_hash(text: str) -> tuple[tuple[tuple[str, str | None], ...], tuple[str, ...]]:
    """Symbols with their modules, and lines that wait, as a filter file shows them. One without functions says so."""
    symbols, lines = [], []
    for shown in text.splitlines():
        match = SHOWN.fullmatch(shown)
        if match and match["line"]:
            lines.append(match["line"])
        elif match:
            symbols.append((match["symbol"], match["module"]))
        elif not shown.startswith("####"):
            raise BadInputError(f"a filter file: cannot read the line {shown!r}")
    return tuple(symbols), tuple(lines)


def _terminate(path: str) -> bytes:
    return path.encode() + b"\0"


def _first_error(entries: Sequence[int]) -> Answer:
    def result(replies: Sequence[Reply]) -> int:
        return next((replies[entry].value for entry in entries if replies[entry].value < 0), 0)

    return result


class GraphTracer:
    """The users of the graph tracer of one guest, and the limits that are set for all of them.

    submit: carries a batch out. users: how many instances to make; 0 where the top-level tracer is the only user. With
    one more than the kernel takes (16) the kernel refuses the last itself.
    """

    def __init__(self, submit: Submit, users: int) -> None:
        self._submit = submit
        self._directories = [f"{ROOT}/instances/graph{number}" for number in range(users)] or [ROOT]
        self._users: dict[str, str] = {}
        # those that may have a notrace hash
        self._silenced: set[str] = set()
        self._unfiltered: set[str] = set()
        self._limits = Limits()

    def prepare(self) -> None:
        """Make the instances, once, before the snapshot that every run starts from."""
        batch = Batch()
        answers = [
            add_instance(batch, directory.rpartition("/")[2]) for directory in self._directories if directory != ROOT
        ]
        answers += [set_buffer(batch, directory) for directory in self._directories]
        replies = self._submit(batch)
        failed = min(answer(replies) for answer in answers)
        if failed:
            raise BadInputError(f"tracefs refuses the graph tracer's instances: {os.strerror(-failed)}")

    def forget(self) -> None:
        """The guest went back to the snapshot: nobody is registered."""
        self._users.clear()
        self._silenced.clear()
        self._unfiltered.clear()
        self._limits = Limits()

    @property
    def users(self) -> Mapping[str, str]:
        """The directories of the users, in the order of registering."""
        return self._users

    def obstacle(self, patterns: Sequence[str], limits: Limits) -> str | None:
        """Why tracefs cannot register such a user beside those that are there; None if it can."""
        if self._users and (self._unfiltered or not patterns):
            return ALONE
        if len(self._users) == len(self._directories):
            return "every tracer that tracefs has is in use"
        if self._users and limits != self._limits:
            return "set_graph_function, set_graph_notrace and max_graph_depth are the same for all users"
        return None

    def register(
        self,
        user: str,
        patterns: Sequence[str],
        limits: Limits,
        act: Act | None = None,
        *,
        beside: Sequence[str] = (),
    ) -> int:
        """register_ftrace_graph() for a user whose sites the patterns name (see set_patterns): 0 or -errno.

        Only where there is no obstacle. What fails leaves no user, and no limit that was not there. act: switches the
        tracer on. beside: what a user without patterns is not to trace, as patterns.
        """
        directory = next(one for one in self._directories if one not in self._users.values())
        hidden = () if patterns else tuple(beside)
        # a tracer whose filter was refused must not start: its filter is empty, so that it would trace everything
        error = (
            self._set(f"{directory}/set_ftrace_filter", patterns)
            or (self._set(f"{directory}/set_ftrace_notrace", hidden) if hidden else 0)
            or self._limit(limits)
            or self._apply(lambda batch: set_tracer(batch, directory, "function_graph"), act)
        )
        if error:
            if hidden:
                self._set(f"{directory}/set_ftrace_notrace", ())
            return error
        self._users[user] = directory
        if hidden:
            self._silenced.add(user)
            self._unfiltered.add(user)
        return 0

    def unregister(self, user: str, act: Act | None = None) -> int:
        """unregister_ftrace_graph(): 0 or -errno. act: switches the tracer off."""
        error = self._apply(lambda batch: set_tracer(batch, self._users[user], "nop"), act)
        if not error:
            directory = self._users.pop(user)
            self._unfiltered.discard(user)
            if user in self._silenced:
                self._silenced.discard(user)
                self._set(f"{directory}/set_ftrace_notrace", ())
        return error

    def is_unfiltered(self, user: str) -> bool:
        """Whether a user came without a filter, and so has a notrace hash for what it is not to trace."""
        return user in self._unfiltered

    def give_back(self) -> None:
        """Empty every filter and limit, once nobody is registered: what they were set to stays otherwise."""
        for directory in self._directories:
            self._set(f"{directory}/set_ftrace_filter", ())
            self._set(f"{directory}/set_ftrace_notrace", ())
        self._limit(Limits())

    def set_hash(self, user: str, file: str, pattern: str | None, act: Act | None = None) -> int:
        """Add a pattern to one of a live user's files, or take it out with !; None empties it: 0 or -errno.

        file: set_ftrace_filter or set_ftrace_notrace, of which each user has one, or set_graph_function or
        set_graph_notrace, of which there is one for all. act: opens, writes and closes it.
        """
        if file == "set_ftrace_notrace":
            self._silenced.add(user)
        error = self._change(self._path(user, file), pattern, act)
        if not error and file not in OWN_FILES:
            self._limits = self._limits.changed(file, pattern)
        return error

    def _path(self, user: str, file: str) -> str:
        return f"{self._users[user] if file in OWN_FILES else ROOT}/{file}"

    def read_hash(self, user: str, file: str) -> tuple[tuple[tuple[str, str | None], ...], tuple[str, ...]]:
        """Read one of the files of set_hash(): symbols with their modules, and lines that wait for a module."""
        batch = Batch()
        entry = batch.read_file(self._path(user, file))
        reply = self._submit(batch)[entry]
        if reply.value < 0:
            raise BadInputError(f"tracefs: {file} cannot be read: {os.strerror(-reply.value)}")
        return parse_hash(reply.data[0].decode())

    def add_reads(self, batch: Batch, formats: Formats) -> Callable[[Sequence[Reply]], Mapping[str, tuple[Page, ...]]]:
        """Add reads of every user's buffer, as ringbuffer.add_reads does for one."""
        readers = {user: add_reads(batch, directory, formats) for user, directory in self._users.items()}
        return lambda replies: {user: read(replies) for user, read in readers.items()}

    def _limit(self, limits: Limits) -> int:
        """Set the limits that differ, in the order in which registering checks them; undo all if one is refused."""
        before = self._limits
        for name in ("function", "notrace"):
            wanted, present = getattr(limits, name), getattr(self._limits, name)
            error = self._set(f"{ROOT}/set_graph_{name}", wanted) if wanted != present else 0
            if error:
                self._set(f"{ROOT}/set_graph_function", before.function)
                self._set(f"{ROOT}/set_graph_notrace", before.notrace)
                return error
        if limits.depth != before.depth:
            depth = str(limits.depth).encode()
            self._apply(lambda batch: _first_error([batch.write_file(f"{ROOT}/max_graph_depth", depth)]))
        self._limits = limits
        return 0

    def _set(self, path: str, patterns: Sequence[str]) -> int:
        return self._apply(lambda batch: set_patterns(batch, path, patterns))

    def _change(self, path: str, pattern: str | None, act: Act | None) -> int:
        return self._apply(lambda batch: change_patterns(batch, path, pattern), act)

    def _apply(self, add: Callable[[Batch], Answer], act: Act | None = None) -> int:
        """Carry out what is added to a batch of its own."""
        answer, replies = (act or self._act)(add)
        return answer(replies)

    def _act(self, add: Callable[[Batch], Answer]) -> tuple[Answer, Sequence[Reply]]:
        batch = Batch()
        answer = add(batch)
        return answer, self._submit(batch)
