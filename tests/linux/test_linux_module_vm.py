"""Our kernel modules in real kernels: functions are called as C calls them, and commands do what the model says."""

from __future__ import annotations

import random
import re
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from impl.linux.bpf import commands
from impl.linux.bpf.recorders import RecorderProgram, load
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest, GuestDiedError
from impl.linux.laboratory import control
from impl.linux.laboratory.build import CORE
from impl.linux.laboratory.control import (
    CONTROL,
    BeginRecord,
    BodyRecord,
    Command,
    DirectRecord,
    Numbers,
    OpsCallRecord,
    Record,
    ValueRecord,
)
from impl.linux.probes.tracefs import ROOT, set_patterns, set_tracer
from impl.linux.station import Station
from model.system import Model, system
from spec import operations as op
from spec.semantics import PRESETS
from spec.traces import Body, DirectCall, Event, NestedCall, OpsCall, Trace
from tests.support.stations import draw_words, world

pytestmark = pytest.mark.vm

OOPSED, WARNED = 1 << 7, 1 << 9


@dataclass(slots=True)
class Laboratory:
    """A station, and a model of it. ops: slots by name."""

    station: Station
    model: Model
    ops: dict[str, int]

    @property
    def guest(self) -> Guest:
        """The station's."""
        return self.station.guest

    def submit(self, batch: Batch) -> tuple[Reply, ...]:
        """Carry a batch out."""
        return self.guest.submit(batch)

    def read(self, path: str) -> bytes:
        """A file of the guest."""
        (content,) = self.guest.read(path)
        return content

    def taint(self) -> int:
        """The taint mask."""
        return int(self.read("/proc/sys/kernel/tainted"))

    def address(self, name: str) -> int:
        """The address of a function of the world, or of its patched twin."""
        return self.station.symbols.address(name, world().by_name[name.removesuffix("__patched")].module or CORE)

    def command(self, command: bytes) -> int:
        """What a command's write returned."""
        batch = Batch()
        batch.write_file(CONTROL, command)
        return self.submit(batch)[0].value

    def apply(self, operation: op.Operation) -> str:
        """What the kernel answers to an operation."""
        if isinstance(operation, op.FtraceOps):
            self.ops[operation.ops] = len(self.ops)
        value = self.command(control.encode(operation, Numbers(self.ops, {"T": 0, "U": 1}, self.address)))
        return "0" if value > 0 else f"-{errno_name(value)}"

    def call(self, name: str, arguments: tuple[int, ...], at: int = 0) -> list[tuple[object, ...]]:
        """The events of a call of a function, or of another address with its prototype."""
        batch = Batch()
        batch.write_file(CONTROL, control.pack(Command.CLEAR))
        batch.write_file(CONTROL, control.call(at or self.address(name), world().by_name[name].prototype, arguments))
        batch.read_file(CONTROL)
        log = control.decode(self.submit(batch)[2].data[0])

        assert 0 == log.lost
        assert list(log.records) == sorted(log.records, key=lambda record: record.time)
        return list(self.told(log.records, name))

    def told(self, records: tuple[Record, ...], name: str) -> Iterator[tuple[object, ...]]:
        """Records as events; a value is read as the type that the function it ends returns."""
        ops = {slot: name for name, slot in self.ops.items()}
        running = [name]
        for record in records:
            match record:
                case OpsCallRecord():
                    yield "ops", ops[record.slot], self.site(record.ip)
                case DirectRecord():
                    yield "direct", "TU"[record.stub], self.site(record.ip)
                case BodyRecord():
                    yield "body", world().functions[record.number].name, record.patched, record.words
                case BeginRecord():
                    running.append(self.site(record.address))
                case ValueRecord():
                    yield "value", extended(running.pop(), record.value)

    def site(self, address: int) -> str:
        """The function whose site or start is at an address."""
        place = self.station.symbols.at(address)

        assert place is not None
        assert place.offset in {0, 4}
        return place.symbol


def extended(name: str, register: int) -> int:
    prototype = world().by_name[name].prototype
    assert prototype is not None
    return prototype.returns.extend(register)


def foretold(trace: Trace, name: str) -> Iterator[tuple[object, ...]]:
    """A trace of the model as such events."""
    for event in trace.events:
        yield from event_of(event, name)
    yield "value", trace.value


def event_of(event: Event, name: str) -> Iterator[tuple[object, ...]]:
    match event:
        case OpsCall():
            yield "ops", event.ops, name
        case DirectCall():
            yield "direct", event.tramp, name
        case Body():
            yield "body", name, event.patched, event.arguments
        case NestedCall():
            yield from foretold(event.trace, event.function)


@pytest.fixture
def lab(station: Station) -> Laboratory:
    """The station and a new model."""
    return Laboratory(station, system(world(), PRESETS[station.kernel.name]), {})


def test_traceable_functions_are_the_worlds_in_its_order(lab: Laboratory) -> None:
    """Neither patched twins nor anything else of ours has a site, and addresses ascend within a module."""
    lines = [line.split(" ") for line in lab.read(f"{ROOT}/available_filter_functions").decode().splitlines()]

    for module in (None, *world().modules):
        names = [function.name for function in world().functions if function.module == module]
        addresses = [lab.address(name) for name in names]
        assert names == [line[0] for line in lines if line[1:] == [f"[{module or CORE}]"]]
        assert sorted(addresses) == addresses


def test_btf_describes_the_functions(lab: Laboratory) -> None:
    """The kernel takes a module's BTF; it has each function's shape, and ids in the world's order."""
    for module in (None, *world().modules):
        btf = lab.station.btfs[module or CORE]
        functions = [function for function in world().functions if function.module == module]
        ids = [btf.functions[function.name] for function in functions]
        assert sorted(ids) == ids
        assert [f.prototype and f.prototype.shape for f in functions] == [btf.prototype(i).shape for i in ids]


def test_every_function_receives_what_a_c_caller_passes(lab: Laboratory) -> None:
    """Bodies, nested ones too, record the words and return the sum that the model says, for all prototypes."""
    draw = random.Random(1)

    for function in world().functions:
        for _ in range(3):
            arguments = draw_words(draw, function)
            expected = list(foretold(lab.model.call(function.name, arguments), function.name))
            assert expected == lab.call(function.name, arguments), (function, arguments)


def test_every_patched_twin_does_the_same_and_returns_1000_more(lab: Laboratory) -> None:
    """As the model's livepatched functions do."""
    draw = random.Random(2)

    for function in world().functions:
        arguments = draw_words(draw, function)
        model = system(world(), PRESETS[lab.station.kernel.name])
        model.apply(op.Livepatch(function.name))
        expected = list(foretold(model.call(function.name, arguments), function.name))
        at = lab.address(f"{function.name}__patched")
        assert expected == lab.call(function.name, arguments, at), (function, arguments)


PLAIN = (
    op.FtraceOps("a"),
    op.FtraceOps("b", save_regs=True, recursion=True, dynamic=True),
    op.FtraceOps("c", rcu=True, permanent=True, dynamic=True),
    op.FtraceSetFilter("a", "foo1*"),
    op.FtraceSetFilterIps("b", ("foo1", "split", "bar3")),
    op.FtraceSetFilterIp("c", "bar3"),
    op.FtraceSetNotrace("a", "foo12"),
    op.RegisterFtraceFunction("a"),
    op.RegisterFtraceFunction("b"),
    op.RegisterFtraceFunction("c"),
    op.FtraceSetFilterIp("b", "foo2", remove=True),
    op.FtraceSetFilterIp("b", "spill", reset=True),
    op.FtraceSetFilter("a", "!foo1"),
    op.FtraceSetFilter("a", "nowhere"),
    op.UnregisterFtraceFunction("b"),
    op.RegisterFtraceFunction("b"),
    op.UnregisterFtraceFunction("a"),
    op.RegisterFtraceFunction("a"),
    op.UnregisterFtraceFunction("a"),
    op.FtraceFreeFilter("a"),
    op.FtraceOps("a"),
    op.FtraceSetFilterIp("a", "foo3"),
    op.RegisterFtraceFunction("a"),
)
SINGLE = (
    op.RegisterFtraceDirect("foo1", "T"),
    op.RegisterFtraceDirect("foo1", "T"),
    op.RegisterFtraceDirect("spill", "U"),
    op.ModifyFtraceDirect("foo1", "U", "T"),
    op.ModifyFtraceDirect("foo1", "T", "U"),
    op.UnregisterFtraceDirect("foo1", "U"),
    op.UnregisterFtraceDirect("foo1", "U"),
    op.UnregisterFtraceDirect("spill", "U"),
)
MULTI = (
    op.FtraceOps("a"),
    op.FtraceOps("b", save_regs=True),
    op.FtraceOps("m"),
    op.FtraceSetFilterIps("a", ("foo1", "split")),
    op.FtraceSetFilterIps("b", ("foo1", "foo12")),
    op.RegisterFtraceFunction("a"),
    op.RegisterFtraceDirectMulti("m", "T"),
    op.FtraceSetFilterIps("m", ("foo1", "foo12", "spill", "split", "bar3")),
    op.RegisterFtraceDirectMulti("m", "T"),
    op.RegisterFtraceFunction("b"),
    op.ModifyFtraceDirectMulti("m", "U"),
    op.Livepatch("foo1"),
    op.UnregisterFtraceDirectMulti("m", "U"),
    op.UnregisterFtraceDirectMulti("m", "U"),
    op.RegisterFtraceDirectMulti("m", "T"),
    op.UnregisterFtraceDirectMulti("m", "T", free=True),
)
HASH = (
    op.FtraceOps("h"),
    op.UpdateFtraceDirectAdd("h", (("foo1", "T"), ("foo12", "U"))),
    op.UpdateFtraceDirectAdd("h", (("spill", "T"), ("spill", "T"))),
    op.UpdateFtraceDirectAdd("h", (("foo1", "T"),)),
    op.UpdateFtraceDirectAdd("h", (("bar3", "T"), ("split", "T"))),
    op.UpdateFtraceDirectMod("h", (("foo1", "U"), ("split", "U"))),
    op.UpdateFtraceDirectDel("h", (("foo1", "T"),)),
    op.UpdateFtraceDirectDel("h", (("foo1", "U"), ("bar3", "T"))),
    op.UpdateFtraceDirectDel("h", (("foo12", "U"), ("split", "U"))),
    op.UpdateFtraceDirectAdd("h", (("foo1", "T"),)),
)
LIVEPATCH = (
    op.Unlivepatch("foo1"),
    op.Livepatch("foo1"),
    op.Livepatch("foo1"),
    op.Livepatch("spill"),
    op.Livepatch("outer"),
    op.Livepatch("bar3"),
    op.FtraceOps("i", ipmodify=True, dynamic=True),
    op.FtraceSetFilterIp("i", "foo1"),
    op.RegisterFtraceFunction("i"),
    op.FtraceSetFilterIp("i", "foo12", reset=True),
    op.RegisterFtraceFunction("i"),
    op.Livepatch("foo12"),
    op.FtraceOps("z"),
    op.FtraceSetFilter("z", "*foo*"),
    op.RegisterFtraceFunction("z"),
    op.Unlivepatch("spill"),
    op.Unlivepatch("outer"),
)
CALLED = ("foo1", "foo2", "foo3", "foo12", "outer", "narrow", "split", "spill", "bar3")


def compare(lab: Laboratory, operations: tuple[op.Operation, ...]) -> None:
    """After each operation the errno, and the calls of some functions, are the model's."""
    draw = random.Random(3)
    for operation in operations:
        if type(operation) not in lab.model.supports:
            assert "-EOPNOTSUPP" == lab.apply(operation)
            continue
        assert str(lab.model.apply(operation)) == lab.apply(operation), operation
        for name in CALLED:
            arguments = draw_words(draw, world().by_name[name])
            expected = list(foretold(lab.model.call(name, arguments), name))
            assert expected == lab.call(name, arguments), (operation, name)

    assert 0 == lab.taint() & (OOPSED | WARNED), lab.guest.console()


SEQUENCES = {"plain": PLAIN, "single": SINGLE, "multi": MULTI, "hash": HASH, "livepatch": LIVEPATCH}


@pytest.mark.parametrize("sequence", SEQUENCES)
def test_operations_do_what_the_model_says(lab: Laboratory, sequence: str) -> None:
    """Ops callbacks, direct stubs and bodies run in the model's order; what the kernel lacks is -EOPNOTSUPP."""
    compare(lab, SEQUENCES[sequence])


def test_the_graph_tracer_may_run_at_the_same_time(lab: Laboratory) -> None:
    """Values, words and order stay what they are when returns go through return_to_handler."""
    batch = Batch()
    set_patterns(batch, f"{ROOT}/set_ftrace_filter", CALLED)
    tracing = set_tracer(batch, ROOT, "function_graph")
    assert 0 == tracing(lab.submit(batch))

    compare(lab, (*MULTI, *LIVEPATCH))
    traced = lab.read(f"{ROOT}/trace").decode()
    assert sorted(CALLED) == sorted(set(re.findall(r" (\w+) \[\w+\]\(\)", traced)))


def load_for(lab: Laboratory, program: RecorderProgram, name: str) -> int:
    """The descriptor of a program for a function of massattach.ko, or -errno."""
    station, fd = lab.station, lab.station.btf_fds[CORE]
    batch = Batch()
    load(batch, program, station.bindings, btf_id=station.btfs[CORE].functions[name], btf_fd=fd, nested_btf=fd)
    return lab.submit(batch)[0].value


@pytest.mark.parametrize(("kind", "sleepable"), [("fmod_ret", False), ("fmod_ret", True), ("fexit", True)])
def test_programs_attach_as_attributes_say(lab: Laboratory, kind: str, sleepable: bool) -> None:
    """Where the kernel takes an fmodret set, functions that are `fmod_ret` and `sleepable` take such programs."""
    fd = load_for(lab, RecorderProgram(0, kind, slots=2, sleepable=sleepable), "foo2")

    if b"\0.massattach_fmodret_ids\0" in lab.station.modules.massattach:
        assert fd > 0
    else:
        assert -22 == fd


def test_a_program_calls_a_function_through_the_kfunc(lab: Laboratory) -> None:
    """It passes zeros; a program that runs inside such a call makes none itself (PROG-5)."""
    recorder = lab.station.recorder
    for name, slots in (("foo3", 3), ("foo2", 2)):
        program = load_for(lab, RecorderProgram(0, "fentry", slots=slots, nested=0), name)
        batch = Batch()
        recorder.set_nested(batch, 0, lab.address("foo2"))
        attached = commands.open_link(batch, program)
        assert lab.submit(batch)[attached].value > 0
        inner = [("body", "foo2", False, (0, 0)), ("value", 0)]
        assert [*inner, ("body", "foo3", False, (1, 2, 3)), ("value", 6)] == lab.call("foo3", (1, 2, 3))


def test_a_module_that_goes_takes_its_livepatches_along(lab: Laboratory) -> None:
    """Before it goes its functions are unpatched (MODULE-4), and it can be loaded again."""
    assert "0" == lab.apply(op.Livepatch("bar3"))
    batch = Batch()
    gone = control.delete_module(batch, "mod1")
    sites = batch.read_file(f"{ROOT}/enabled_functions")
    again = control.init_module(batch, lab.station.modules.others["mod1"])
    replies = lab.submit(batch)

    assert (0, 0, 0) == (replies[gone].value, replies[sites].value, replies[again].value)
    assert "-EINVAL" == lab.apply(op.Unlivepatch("bar3"))
    assert "0" == lab.apply(op.Livepatch("foo1"))


def test_a_slot_can_be_declared_once(lab: Laboratory) -> None:
    """Slots beyond the last, and those not declared, are refused; so are words that are missing."""
    numbers = Numbers({"a": 0, "last": control.OPS_SLOTS - 1, "beyond": control.OPS_SLOTS}, {"T": 0}, lab.address)

    def answer(operation: op.Operation) -> int:
        return lab.command(control.encode(operation, numbers))

    assert -9 == answer(op.RegisterFtraceFunction("a"))
    assert 24 == answer(op.FtraceOps("a"))
    assert -17 == answer(op.FtraceOps("a"))
    assert 24 == answer(op.FtraceOps("last"))
    assert -22 == answer(op.FtraceOps("beyond"))
    assert -22 == lab.command(control.encode(op.FtraceOps("a"), numbers)[:-1])


def test_a_log_that_is_full_says_so(lab: Laboratory) -> None:
    """Records beyond its room are counted, and clearing makes room again."""
    batch = Batch()
    call = control.call(lab.address("foo12"), world().by_name["foo12"].prototype, (1,) * 12)
    for _ in range(30_000):
        batch.write_file(CONTROL, call)
    batch.read_file(CONTROL)
    log = control.decode(lab.submit(batch)[-1].data[0])

    assert 60_000 == len(log.records) + log.lost
    assert log.lost > 0
    assert 2 == len(lab.call("foo12", (1,) * 12))


def test_a_warning_taints_and_is_printed(lab: Laboratory) -> None:
    """The harness's own detector can be tested with it."""
    before = lab.taint()
    assert lab.command(control.pack(Command.WARN)) > 0

    assert (0, WARNED) == (before & WARNED, lab.taint() & WARNED)
    assert "massattach: a warning was asked for" in lab.guest.console()


def test_an_oops_ends_the_guest(lab: Laboratory) -> None:
    """It happens in the agent, which is the guest's first process."""
    with pytest.raises(GuestDiedError, match="Attempted to kill init"):
        lab.command(control.pack(Command.OOPS))
