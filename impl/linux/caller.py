"""Calls a function, through our module, and puts its trace together from the records of all that ran in it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from impl.linux.attachments import Attachments
from impl.linux.bpf.recorders import RunRecord
from impl.linux.directory import Directory
from impl.linux.guest.batch import Batch, Reply
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL, Command
from impl.linux.laboratory.sources import UNKNOWN
from impl.linux.observation import legible
from impl.linux.probes.ringbuffer import TracerEvent
from impl.linux.timeline import Begin, End, Mark, Thing, fold
from spec.traces import Body, DirectCall, Event, GraphEntry, GraphReturn, OpsCall, Trace

__all__ = ["Caller", "LostRecordsError"]

TIMEOUT = 30.0


class LostRecordsError(Exception):
    """More happened in one call than the recorders have room for."""


@dataclass(slots=True)
class Caller:
    """Calls functions. tramp: a direct trampoline's name by its stub; ops: by its slot.

    State: how often each program was missed (PROG-8).
    """

    directory: Directory
    attachments: Attachments
    tramp: Callable[[int], str]
    ops: Callable[[int], str]
    missed: Counter[str] = field(default_factory=Counter)

    def call(self, name: str, arguments: tuple[int, ...]) -> Trace:
        """Run a function of the world to its return; an empty trace if it is not there."""
        address = self.directory.address(name)
        if address <= 1:
            return Trace((), None)
        batch = Batch()
        self.add_start(batch)
        batch.write_file(CONTROL, control.call(address, self.directory.prototype(name), arguments))
        read = self.add_reads(batch, name)
        replies = self.directory.station.guest.submit(batch, TIMEOUT)
        return fold(read(replies), name)

    def add_start(self, batch: Batch) -> None:
        """Forget what was recorded, and say what programs call."""
        recorder = self.directory.station.recorder
        batch.write_file(CONTROL, control.pack(Command.CLEAR))
        recorder.clear(batch)
        for entry, callee in self.attachments.callees():
            recorder.set_nested(batch, entry, callee)

    def add_reads(self, batch: Batch, name: str) -> Callable[[Sequence[Reply]], list[Mark]]:
        """Read what was recorded since add_start() of a call of a function, or of a part of it."""
        station = self.directory.station
        log, runs = batch.read_file(CONTROL), station.recorder.read(batch)
        pages = station.graph.add_reads(batch, station.formats)
        misses = self.attachments.add_misses(batch)

        def read(replies: Sequence[Reply]) -> list[Mark]:
            with legible():
                records = control.decode(replies[log].data[0])
                recording = station.recorder.recording(station.guest, replies[runs])
                if records.lost or recording.runs > len(recording.records):
                    many = f"{records.lost} records of the module, {recording.runs} runs"
                    raise LostRecordsError(f"a call of {name}: {many}")
                self.missed += misses(replies)
                ran = [record for record in records.records if not isinstance(record, control.ParkRecord)]
                marks = [
                    *_mark((record.time, self._read_record(record)) for record in ran),
                    *_mark((record.time, self._read_run(record)) for record in recording.records),
                ]
                for user, traced in pages(replies).items():
                    events = (event for page in traced for event in page.events)
                    marks += _mark((event.time, self._read_event(user, event)) for event in events)
                return marks

        return read

    def _read_record(self, record: control.Run) -> Thing:
        match record:
            case control.OpsCallRecord():
                return OpsCall(self.ops(record.slot))
            case control.DirectRecord():
                return DirectCall(self.tramp(record.stub))
            case control.BodyRecord():
                return Body(record.words, record.patched)
            case control.BeginRecord():
                return Begin(self.directory.function_at(record.address))
            case control.ValueRecord():
                return End(lambda function: self._extend(function, record.value))

    def _extend(self, function: str, register: int) -> int:
        """The value that the caller reads from the return register (ARG-5)."""
        return (self.directory.prototype(function) or UNKNOWN).returns.extend(register)

    def _read_run(self, record: RunRecord) -> Callable[[str], Event]:
        """What a program saw can be read only by the prototype of the function that it ran for."""
        loaded = self.attachments.numbered[record.number]
        assert loaded is not None, "only a program that was loaded has a number"
        numbers = enumerate(self.attachments.numbered)
        names = {number: one.prog for number, one in numbers if one}

        def event(function: str) -> Event:
            prototype = self.directory.prototype(function) or UNKNOWN
            return record.run(loaded.code, loaded.prog, prototype, self.directory.function_at, names)

        return event

    def _read_event(self, user: str, event: TracerEvent) -> Event:
        kind = GraphEntry if event.kind == "entry" else GraphReturn
        return kind(user, self.directory.function_at(event.address), event.depth or 0)


def _mark(things: Iterable[tuple[int, Thing]]) -> Iterator[Mark]:
    """The records of one recorder, in its order, with their times."""
    return (Mark(time, place, thing) for place, (time, thing) in enumerate(things))
