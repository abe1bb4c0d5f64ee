"""A System that is another process, speaking `properties.systems.wire`, so that it can be written in C.

Its death, silence or nonsense is a SystemCrashError; none of them leaves a process or a file descriptor behind.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import IO, Any, TypeVar

from properties.systems import wire
from properties.systems.guard import SystemCrashError
from spec.capabilities import VALUES
from spec.costs import Cost
from spec.errors import BadInputError
from spec.operations import OPERATIONS, Operation
from spec.outcomes import Outcome
from spec.semantics import Semantics
from spec.sites import Site
from spec.system import SystemFactory
from spec.traces import Trace
from spec.worlds import World

__all__ = ["ExecSystem", "exec_factory"]

Answer = TypeVar("Answer")

CHUNK = 1 << 16
MOST_BYTES = 64 << 20
KEPT_OF_STDERR = 4096
SHOWN_OF_STDERR = 3
DYING_SECONDS = 0.5


def exec_factory(command: str, time_limit: float) -> SystemFactory:
    """A factory of processes; BadInputError if the command line names no program."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise BadInputError(f"the command line '{command}' cannot be read: {error}") from error
    if not words:
        raise BadInputError("'exec:' lacks its command line: write exec:COMMAND, for example exec:./mysystem")
    if shutil.which(words[0]) is None:
        raise BadInputError(f"there is no program '{words[0]}': write exec:COMMAND, for example exec:./mysystem")

    def make(world: World, semantics: Semantics) -> ExecSystem:
        return ExecSystem(words, world, semantics, time_limit)

    return make


class _Channel:
    """The pipes of a process, and the process group behind them; a line's time limit is in seconds."""

    def __init__(self, words: list[str], time_limit: float) -> None:
        self._time_limit = time_limit
        self._received = bytearray()
        self._stderr = b""
        # A session of its own: one signal reaches all that it starts, and the terminal's Ctrl-C does not.
        self._process = subprocess.Popen(  # noqa: S603  # running the user's command is the point
            words,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        for pipe in self._pipes():
            os.set_blocking(pipe.fileno(), False)

    def exchange(self, line: bytes) -> bytes:
        """Sends a line and waits for the next one; SystemCrashError if none comes, and then the process is gone."""
        if self._selector.get_map() is None:
            raise SystemCrashError("the process has ended")
        if self._received:
            raise self.crash(f"it answered without being asked: {bytes(self._received[:80])!r}")
        return self._pump(memoryview(line), time.monotonic() + self._time_limit)

    def close(self, farewell: bytes = b"") -> None:
        """Sends a last line, waits for the end, and kills the rest of the group. A second call has no effect."""
        if self._selector.get_map() is None:
            return
        self._selector.close()
        stdin, stdout, stderr = self._pipes()
        try:
            stdin.write(farewell)
        except OSError:
            farewell = b""
        stdin.close()
        stdout.close()
        self._reap(self._time_limit if farewell else 0)
        stderr.close()

    def _pipes(self) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
        process = self._process
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        return process.stdin, process.stdout, process.stderr

    def _pump(self, pending: memoryview, deadline: float) -> bytes:
        """Writes and reads as the process lets us: it may answer, or fill stderr, before it has read everything."""
        stdin, stdout, stderr = self._pipes()
        for pipe in (stdin, stdout, stderr):
            if pipe not in self._selector.get_map():
                self._selector.register(pipe, selectors.EVENT_WRITE if pipe is stdin else selectors.EVENT_READ)
        # The last chunk is enough: what came before it had no end of line.
        while b"\n" not in self._received[-CHUNK:]:
            if time.monotonic() >= deadline:
                raise self.crash(f"no answer within {self._time_limit:g} s")
            ready = {key.fileobj for key, _ in self._selector.select(max(0, deadline - time.monotonic()))}
            if stderr in ready:
                self._read_stderr()
            if stdin in ready:
                pending = self._write(stdin, pending)
            if stdout in ready:
                self._read_stdout()
        answer, _, rest = self._received.partition(b"\n")
        self._received = rest
        return bytes(answer)

    def _write(self, stdin: IO[bytes], pending: memoryview) -> memoryview:
        try:
            pending = pending[os.write(stdin.fileno(), pending[:CHUNK]) :]
        except BlockingIOError:
            return pending
        except BrokenPipeError:
            # Its last words and its exit status, which stdout's end brings, tell more.
            pending = pending[:0]
        if not pending:
            self._selector.unregister(stdin)
        return pending

    def _read_stdout(self) -> None:
        _, stdout, _ = self._pipes()
        data = os.read(stdout.fileno(), CHUNK)
        if not data:
            raise self.crash(None)
        self._received += data
        if len(self._received) > MOST_BYTES:
            raise self.crash(f"its answer is longer than {MOST_BYTES >> 20} MiB")

    def _read_stderr(self) -> None:
        _, _, stderr = self._pipes()
        data = os.read(stderr.fileno(), CHUNK)
        self._stderr = (self._stderr + data)[-KEPT_OF_STDERR:]
        if not data:
            self._selector.unregister(stderr)

    def crash(self, reason: str | None) -> SystemCrashError:
        """Ends the process; the error tells the reason and its last lines. None: it ended by itself."""
        self._selector.close()
        ending = self._reap(DYING_SECONDS if reason is None else 0)
        _, _, stderr = self._pipes()
        self._stderr += _read_rest(stderr.fileno())
        for pipe in self._pipes():
            pipe.close()
        words = self._stderr.decode(errors="replace").strip()
        last = " | ".join(line.strip() for line in words.splitlines()[-SHOWN_OF_STDERR:])
        return SystemCrashError((reason or ending) + (f"; its last words: {last}" if last else ""), words)

    def _reap(self, patience: float) -> str:
        """Waits for the end, kills the whole group, and tells how the process ended."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(patience)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        status = self._process.wait()
        return f"it exited with {status}" if status >= 0 else f"it was killed by {signal.Signals(-status).name}"


class ExecSystem:
    """The System that a process provides. After a SystemCrashError only close() is left."""

    def __init__(self, words: list[str], world: World, semantics: Semantics, time_limit: float) -> None:
        self._program = Path(words[0]).name
        try:
            self._channel = _Channel(words, time_limit)
        except OSError as error:
            raise BadInputError(f"the program '{words[0]}' cannot be started: {error.strerror}") from error
        hello = self._ask("hello", wire.write_hello(world, semantics), wire.read_hello_answer)
        self._name, self._supports = hello.name, frozenset(OPERATIONS[verb] for verb in hello.supports)
        for value in VALUES:
            if getattr(hello, value) is not None:
                setattr(self, value, getattr(hello, value))
        for method in hello.answers:
            setattr(self, method, partial(self._ask_method, method))

    @property
    def name(self) -> str:
        """The name that the process gave itself."""
        return self._name

    @property
    def supports(self) -> frozenset[type[Operation]]:
        """What the process said that it supports."""
        return self._supports

    def apply(self, operation: Operation) -> Outcome:
        """Have the process carry the operation out; SystemCrashError if it fails to."""
        request = wire.write_line({"apply": wire.encode(operation)})
        return self._ask(f"apply {operation.verb}", request, wire.read_outcome)

    def sites(self) -> Mapping[str, Site]:
        """The sites that the process shows; SystemCrashError if it fails to."""
        return self._ask("sites", wire.write_line({"sites": True}), wire.read_sites)

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        """Have the process run the function; SystemCrashError if it fails to."""
        request = wire.write_line({"call": {"function": function, "arguments": list(arguments)}})
        return self._ask(f"call {function}", request, wire.read_trace)

    def cost(self) -> Cost:
        """The costs that the process has counted; SystemCrashError if it fails to tell."""
        return self._ask("cost", wire.write_line({"cost": True}), wire.read_cost)

    def close(self) -> None:
        """Asks the process to end, and ends it."""
        self._channel.close(wire.write_line({"close": True}))

    def _ask_method(self, method: str, *arguments: Operation) -> Any:
        """Ask for a capability that the process has announced."""
        request = wire.write_line({method: wire.encode(arguments[0]) if arguments else True})
        return self._ask(method, request, lambda answer: wire.read_method(answer, method))

    def _ask(self, what: str, request: bytes, read: Callable[[dict[str, Any]], Answer]) -> Answer:
        try:
            return read(wire.read_answer(self._channel.exchange(request)))
        except SystemCrashError as error:
            raise SystemCrashError(f"{self._program}, asked for {what}: {error}", error.details) from error
        except wire.WireError as error:
            crash = self._channel.crash(str(error))
            raise SystemCrashError(f"{self._program}, asked for {what}: {crash}", crash.details) from error


def _read_rest(descriptor: int) -> bytes:
    try:
        return os.read(descriptor, CHUNK)
    except BlockingIOError:
        return b""
