"""One call of a function: made by our module, and put together from the records of all that ran in it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from impl.linux.attachments import Attachments
from impl.linux.bpf.programs import Record
from impl.linux.directory import Directory
from impl.linux.guest.frames import Batch
from impl.linux.laboratory import control
from impl.linux.laboratory.control import CONTROL
from impl.linux.probes.ringbuffer import Event as TracerEvent
from impl.linux.timeline import Begin, End, Mark, folded
from spec.prototypes import Prototype, Type
from spec.traces import Body, DirectCall, Event, GraphEntry, GraphReturn, OpsCall, Trace

__all__ = ["Caller", "LostRecordsError"]

UNKNOWN = Prototype((Type("unsigned long", "INT", 8),) * 6, Type("long", "INT", 8))
TIMEOUT = 30.0


class LostRecordsError(Exception):
    """More happened in one call than the recorders have room for."""


@dataclass(slots=True)
class Caller:
    """Calls functions. tramp: a direct trampoline's name by its stub; ops: by its slot."""

    directory: Directory
    attachments: Attachments
    tramp: Callable[[int], str]
    ops: Callable[[int], str]

    def call(self, name: str, arguments: tuple[int, ...]) -> Trace:
        """Run a function of the world to its return; an empty trace if it is not there."""
        address = self.directory.address(name)
        if address <= 1:
            return Trace((), None)
        station = self.directory.station
        batch = Batch()
        batch.write_file(CONTROL, control.clear())
        station.recorder.clear(batch)
        for entry, callee in self.attachments.callees():
            station.recorder.set_nested(batch, entry, callee)
        batch.write_file(CONTROL, control.call(address, self.directory.prototype(name), arguments))
        log, runs = batch.read_file(CONTROL), station.recorder.read(batch)
        pages = station.graph.add_reads(batch, station.formats)
        replies = station.guest.submit(batch, TIMEOUT)
        records = control.decode(replies[log].data[0])
        recording = station.recorder.recording(station.guest, replies[runs])
        events = {user: [e for page in many for e in page.events] for user, many in pages(replies).items()}
        if records.lost or recording.runs > len(recording.records):
            raise LostRecordsError(f"a call of {name}: {records.lost} records of the module, {recording.runs} runs")
        marks = [*self._module(records.records), *self._programs(recording.records), *self._graph(events)]
        return folded(marks, name)

    def _module(self, records: Iterable[control.Record]) -> Iterator[Mark]:
        for place, record in enumerate(records):
            yield Mark(record.time, place, self._made(record))

    def _made(self, record: control.Record) -> Event | Begin | End | Callable[[str], Event]:
        match record:
            case control.OpsRecord():
                return OpsCall(self.ops(record.slot))
            case control.DirectRecord():
                return DirectCall(self.tramp(record.stub))
            case control.BodyRecord():
                return Body(record.words, record.patched)
            case control.BeginRecord():
                return Begin(self._function(record))
            case control.ValueRecord():
                return End(lambda function: self._value(function, record.value))

    def _function(self, record: control.BeginRecord) -> str:
        return self.directory.function_at(record.address)

    def _value(self, function: str, register: int) -> int:
        """What the caller makes of rax (ARG-5)."""
        return (self.directory.prototype(function) or UNKNOWN).returns.extend(register)

    def _programs(self, records: Iterable[Record]) -> Iterator[Mark]:
        for place, record in enumerate(records):
            yield Mark(record.time, place, self._run(record))

    def _run(self, record: Record) -> Callable[[str], Event]:
        """What a program saw can be read only by the prototype of the function that it ran for."""
        loaded = self.attachments.numbered[record.number]
        assert loaded is not None, "only a program that was loaded has a number"
        numbers = enumerate(self.attachments.numbered)
        names = {number: one.prog for number, one in numbers if one}

        def event(function: str) -> Event:
            prototype = self.directory.prototype(function) or UNKNOWN
            return record.run(loaded.code, loaded.prog, prototype, self.directory.function_at, names)

        return event

    def _graph(self, events: dict[str, list[TracerEvent]]) -> Iterator[Mark]:
        for user, many in events.items():
            for place, event in enumerate(many):
                function, depth = self.directory.function_at(event.address), event.depth or 0
                kind = GraphEntry if event.kind == "entry" else GraphReturn
                yield Mark(event.time, place, kind(user, function, depth))
