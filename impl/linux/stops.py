"""An operation that stops behind each synchronisation of text patching (POKE-1): its thread sleeps in the kernel there.

It holds the locks that patching takes, so that what needs one of them cannot be read meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Final

from impl.linux.architectures import SiteCode
from impl.linux.directory import NOWHERE, Directory
from impl.linux.guest.batch import Batch
from impl.linux.guest.errnos import errno_name
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, Command
from impl.linux.probes.patching import PHASES, PatchReader, TextPatch, find_stops
from impl.linux.threads import STOPPER, AgentThread, Threads
from spec.errors import BadInputError

__all__ = ["Stops", "TornTextError"]

ASLEEP: Final = 45_000
"""Milliseconds in which a thread that has come to a stop falls asleep."""


class TornTextError(Exception):
    """A site is not as it must be behind a synchronisation."""


@dataclass
class Stops:
    """The stops of a run. threads: where operations are carried out.

    State: where functions of the world begin; the phase that the last stop was behind, whether it counts, and what was
    being patched of the world's sites there.
    """

    directory: Directory
    threads: Threads
    _starts: frozenset[int] = frozenset()
    _phase: int = 0
    _counts: bool = False
    _patches: tuple[TextPatch, ...] = field(default=())

    @cached_property
    def points(self) -> tuple[int, ...]:
        """The addresses at which the kernel stands behind each synchronisation; none if that is not known."""
        return find_stops(self.directory.station.guest, self.directory.station.symbols)

    def begin(self, batch: Batch) -> None:
        """Add what has the next thread stop that patches text."""
        functions = self.directory.station.world.functions
        self._starts = frozenset(self.directory.address(function.name) for function in functions) - {NOWHERE}
        self._phase, self._patches = 0, ()
        batch.write_file(CONTROL, control.pack(Command.PARK_THREAD, STOPPER, *self.points))

    def start(self, batch: Batch, index: int) -> AgentThread:
        """As Threads.start; the thread stops."""
        thread = self.threads.start(batch, index)
        thread.stops = True
        return thread

    def wait(self, thread: AgentThread) -> int | None:
        """Wait for the thread's answer; None if it has come to a stop, or a task holds it up."""
        while True:
            value = self.threads.wait(thread)
            if value is not None:
                self._lead()
            if not thread.stopped:
                return value
            self._command(Command.PARK_WAIT, STOPPER, ASLEEP)
            if self._look():
                return None
            self._lead(*self.points)

    def go_on(self, thread: AgentThread) -> int | None:
        """To the next stop; as wait()."""
        self._lead(*self.points)
        return self.wait(thread)

    def end(self, thread: AgentThread) -> int | None:
        """Past all stops; as wait()."""
        self._lead()
        thread.stops = False
        value = self.threads.wait(thread)
        if value is not None:
            self._lead()
        return value

    def site(self, function: str) -> SiteCode:
        """The instruction by which a processor goes on now that comes to the site of a function."""
        architecture, address = self.directory.station.kernel.architecture, self.directory.address(function)
        (text,) = self.directory.station.guest.read_memory([(address, architecture.site_bytes)])
        code = bytearray(text)
        for patch in self._patches:
            at = patch.address - address
            if 0 <= at <= architecture.site_offset:
                code[at : at + len(patch.new)] = patch.new
        return architecture.decode_site(address, bytes(code))

    def _look(self) -> bool:
        """Whether this stop counts: a site of the world comes to have another instruction. All are as they must be."""
        self._phase = self._phase % PHASES + 1
        if self._phase > 1 and not self._counts:
            return False
        station, first = self.directory.station, self._phase == 1
        read = PatchReader(station.guest, station.symbols, station.vmlinux).read()
        before = {} if first else {patch.address: patch.old for patch in self._patches}
        self._patches = tuple(replace(one, old=before.get(one.address, one.old)) for one in self._of_world(read))
        self._counts = any(patch.old != patch.new for patch in self._patches)
        for patch in self._patches if self._counts else ():
            self._check(patch)
        return self._counts

    def _of_world(self, patches: tuple[TextPatch, ...]) -> Iterator[TextPatch]:
        """Those at sites of the world's functions."""
        offset = self.directory.station.kernel.architecture.site_offset
        for patch in patches:
            if not self._starts.isdisjoint(range(patch.address - offset, patch.address + 1)):
                yield patch

    def _check(self, patch: TextPatch) -> None:
        """TornTextError if a site is neither the trap before what was there, nor that before the new, nor the new."""
        architecture = self.directory.station.kernel.architecture
        trap = architecture.trap
        tail, behind = patch.old[len(trap) :], patch.new[len(trap) :]
        if patch.now != (trap + tail, trap + behind, patch.new)[self._phase - 1]:
            raise TornTextError(
                f"behind synchronisation {self._phase} {patch.address:#x} is {patch.now.hex()}, "
                f"on the way from {patch.old.hex()} to {patch.new.hex()}"
            )
        try:
            architecture.decode_site(patch.address, patch.old)
        except BadInputError as error:
            raise TornTextError(str(error)) from error

    def _lead(self, *points: int) -> None:
        """Let the thread go on, to one of these points or to its end; one that has ended is forgotten."""
        self._command(Command.PARK_THREAD, STOPPER, *points)

    def _command(self, command: Command, *words: int) -> None:
        batch = Batch()
        written = batch.write_file(CONTROL, control.pack(command, *words))
        value = self.directory.station.guest.submit(batch)[written].value
        if value < 0:
            raise BadInputError(f"an operation cannot be led to where it stops: {errno_name(value)}")
