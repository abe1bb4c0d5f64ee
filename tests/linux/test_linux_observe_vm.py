"""Observing running kernels: the same reads on each, with programs and tracers in place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import pytest

from impl.linux.architectures import SiteCode
from impl.linux.bpf.commands import close, open_link
from impl.linux.bpf.features import load_empty
from impl.linux.guest.batch import Batch, Out, Ref
from impl.linux.guest.guest import Guest
from impl.linux.laboratory.build import CORE
from impl.linux.probes.disassembly import Disassembly, Original, ProgramCall, disassemble
from impl.linux.probes.enabled import EnabledFunction, direct_functions, parse_enabled_functions, site_of
from impl.linux.probes.ringbuffer import TracerEvent, add_reads
from impl.linux.probes.symbols import Symbols, parse_kallsyms, read_module
from impl.linux.probes.tracefs import ROOT, GraphTracer, Limits, add_instance, set_buffer, set_patterns, set_tracer
from impl.linux.station import GRAPH_USERS, Station

pytestmark = pytest.mark.vm

ONE_GRAPH_USER = "linux-6.1"
MOST_GRAPH_USERS = 16
FUNCTION_INSTANCE = f"{ROOT}/instances/function"


@dataclass(frozen=True)
class Machine:
    """A station, its users of the graph tracer, and the numbers of functions' records."""

    station: Station
    graph: GraphTracer
    numbers: Mapping[str, str]

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.station.kernel.name

    @property
    def guest(self) -> Guest:
        """The station's."""
        return self.station.guest

    @property
    def symbols(self) -> Symbols:
        """The station's."""
        return self.station.symbols

    def memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Kernel memory, each place's bytes."""
        batch = Batch()
        for address, length in places:
            batch.read_memory(address, length)
        return [reply.data[0] for reply in self.guest.submit(batch)]

    def site(self, function: str) -> SiteCode:
        """What is at a function's site."""
        address = self.symbols.address(function)
        return self.station.kernel.architecture.decode_site(address, self.memory([(address, 16)])[0])

    def enabled(self) -> dict[str, EnabledFunction]:
        """Enabled_functions by symbol."""
        text = self.guest.read(f"{ROOT}/enabled_functions")[0].decode()
        return {function.symbol: function for function in parse_enabled_functions(text)}

    def patterns(self, *functions: str) -> list[str]:
        """The numbers of functions' records."""
        return [self.numbers[function] for function in functions]

    def traced(self) -> str:
        """The graph tracer's events of one sysinfo(2), in the order of their times."""
        batch = Batch()
        batch.syscall("sysinfo", Out(256))
        read = self.graph.add_reads(batch, self.station.formats)
        pages = read(self.guest.submit(batch))
        found = [(event.time, user, event) for user, own in pages.items() for page in own for event in page.events]
        return " ".join(self._spelled(user, event) for _, user, event in sorted(found, key=lambda one: one[0]))

    def _spelled(self, user: str, event: TracerEvent) -> str:
        place = self.symbols.at(event.address)
        assert place
        text = f"{user}:{place.symbol}@{event.depth}"
        return f">{text}" if event.kind == "entry" else f"<{text}"


@pytest.fixture(scope="module")
def numbers(shared_station: Station) -> dict[str, str]:
    """The numbers of ftrace's records, from 1, by symbol: the first of each."""
    shared_station.fresh()
    (available,) = shared_station.guest.read(f"{ROOT}/available_filter_functions")
    symbols = [line.split(" ")[0] for line in available.decode().splitlines()]
    return {symbol: str(number) for number, symbol in reversed(list(enumerate(symbols, 1)))}


@pytest.fixture
def machine(station: Station, numbers: dict[str, str]) -> Machine:
    return Machine(station, station.graph, numbers)


@pytest.fixture
def many_users(machine: Machine) -> Machine:
    """One user more than the kernel takes; the station has the first of their instances."""
    if machine.name == ONE_GRAPH_USER:
        pytest.skip("6.1 has one user of the graph tracer")
    batch = Batch()
    names = [f"graph{number}" for number in range(GRAPH_USERS, MOST_GRAPH_USERS + 1)]
    answers = [add_instance(batch, name) for name in names]
    answers += [set_buffer(batch, f"{ROOT}/instances/{name}") for name in names]
    replies = machine.guest.submit(batch)
    assert {0} == {answer(replies) for answer in answers}
    return replace(machine, graph=GraphTracer(machine.guest.submit, MOST_GRAPH_USERS + 1))


def attach(machine: Machine, function: str, kind: str) -> int:
    """The descriptor of the link of a program that returns 0."""
    batch = Batch()
    loaded = load_empty(batch, kind, machine.station.btfs[None].functions[function])
    link = open_link(batch, Ref(loaded))
    descriptor = machine.guest.submit(batch)[link].value
    assert descriptor > 0
    return descriptor


def detach(machine: Machine, link: int) -> None:
    batch = Batch()
    close(batch, link)
    machine.guest.submit(batch)


def image_at(machine: Machine, function: str) -> Disassembly:
    """The image behind `direct-->`, by the kernel's own table."""
    entries = direct_functions(machine.memory, machine.symbols.address("direct_functions"))
    address = entries[machine.site(function).address] & ~1
    listed = machine.enabled()[function].entry
    assert listed
    station = machine.station
    (code,) = machine.memory([(address, listed.size)])
    return disassemble(station.kernel.architecture, address, code, station.helpers)


def test_module_symbols(machine: Machine) -> None:
    """A loaded module's symbols are those that kallsyms lists, worked out without it."""
    listed = parse_kallsyms(*machine.guest.read("/proc/kallsyms")).modules[CORE].by_name
    table = read_module(machine.guest, CORE, machine.station.modules.massattach)

    assert len(listed["massattach_stub0"]) == 1
    assert {name: found for name, found in table.by_name.items() if name in listed} == dict(listed)


def test_image_of_one_program(machine: Machine) -> None:
    """A site with a direct ops alone calls the image, which the kernel's table names, too."""
    attach(machine, "bpf_fentry_test1", "fentry")
    site = machine.site("bpf_fentry_test1")
    image = image_at(machine, "bpf_fentry_test1")

    assert site.target in direct_functions(machine.memory, machine.symbols.address("direct_functions")).values()
    assert ["fentry"] == [call.kind for call in image.programs]
    assert None is image.original


def test_image_order(machine: Machine) -> None:
    """The newest program of a kind runs first, and fexit programs behind the original."""
    links = [attach(machine, "bpf_fentry_test1", kind) for kind in ("fentry", "fexit", "fentry")]
    image = image_at(machine, "bpf_fentry_test1")
    detach(machine, links[2])
    after = image_at(machine, "bpf_fentry_test1")

    first, second = image.programs[:2]
    site = machine.site("bpf_fentry_test1")
    assert [ProgramCall, ProgramCall, Original, ProgramCall] == [type(step) for step in image.steps]
    assert Original(site.address + 5) == image.original
    assert [second, image.programs[2]] == list(after.programs)
    assert first.program != second.program
    assert image.skips_frame is (site.kind == "call")
    assert machine.enabled()["bpf_fentry_test1"].jmp is (site.kind == "jmp")
    assert ["fentry", "fexit"] == [call.kind for call in after.programs]


def test_site_with_several_ops(machine: Machine) -> None:
    """The graph tracer beside BPF: the site calls ftrace_regs_caller, the entry stays; alone, its own trampoline."""
    link = attach(machine, "bpf_fentry_test1", "fentry")
    alone = machine.site("bpf_fentry_test1").target
    machine.graph.register("u", machine.patterns("bpf_fentry_test1"), Limits())
    both, site, image = (
        machine.enabled()["bpf_fentry_test1"],
        machine.site("bpf_fentry_test1"),
        image_at(machine, "bpf_fentry_test1"),
    )
    detach(machine, link)
    trampoline = machine.enabled()["bpf_fentry_test1"].trampoline

    def spell(address: int) -> str:
        return "entry" if address == alone else str(machine.symbols.at(address))

    assert "(2) RD ftrace_regs_caller direct-->entry" == str(site_of(both, site, alone, spell))
    assert ["fentry"] == [call.kind for call in image.programs]
    assert trampoline
    assert (machine.site("bpf_fentry_test1").target, "ftrace_graph_func") == (
        trampoline.at.address,
        trampoline.func.symbol,
    )


def test_graph_nesting(machine: Machine) -> None:
    """A user sees entries and returns in order, with the depth of frames on the shadow stack."""
    traced = machine.patterns("__x64_sys_sysinfo", "get_avenrun", "si_swapinfo")
    assert 0 == machine.graph.register("u", traced, Limits())
    expected = (
        ">u:__x64_sys_sysinfo@0 >u:get_avenrun@1 <u:get_avenrun@1 >u:si_swapinfo@1 <u:si_swapinfo@1 "
        "<u:__x64_sys_sysinfo@0"
    )

    assert expected == machine.traced()
    assert 0 == machine.graph.unregister("u")
    assert {} == machine.enabled()


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (Limits(function=("get_*",)), ">u:get_avenrun@0 <u:get_avenrun@0"),
        (Limits(notrace=("get_avenrun",)), ">u:__x64_sys_sysinfo@0 <u:__x64_sys_sysinfo@0"),
        (Limits(depth=1), ">u:__x64_sys_sysinfo@0 <u:__x64_sys_sysinfo@0"),
    ],
)
def test_graph_limits(machine: Machine, limits: Limits, expected: str) -> None:
    """set_graph_function, set_graph_notrace and max_graph_depth hold, and no longer for the next user."""
    traced = machine.patterns("__x64_sys_sysinfo", "get_avenrun")
    assert 0 == machine.graph.register("u", traced, limits)
    seen = machine.traced()
    machine.graph.unregister("u")
    assert 0 == machine.graph.register("v", traced, Limits())

    assert expected == seen
    assert 4 == len(machine.traced().split())


def test_graph_refusals(machine: Machine) -> None:
    """A pattern that matches nothing is -EINVAL in each place, a record's number also in set_graph_function."""
    traced = machine.patterns("get_avenrun")
    refused = [
        machine.graph.register("u", ["no_such_function"], Limits()),
        machine.graph.register("u", traced, Limits(function=("no_such_function",))),
        machine.graph.register("u", traced, Limits(function=("get_avenrun",), notrace=("no_such_function",))),
        machine.graph.register("u", traced, Limits(function=tuple(traced))),
    ]

    assert [-22] * 4 == refused
    assert {} == machine.enabled()
    assert 0 == machine.graph.register("u", traced, Limits())
    assert ">u:get_avenrun@0 <u:get_avenrun@0" == machine.traced()


def test_graph_slots(many_users: Machine) -> None:
    """Users run in the order of slots, each for its own filter; the 17th is -ENOSPC."""
    traced = many_users.patterns("get_avenrun")
    registered = [many_users.graph.register(f"u{number}", traced, Limits()) for number in range(17)]
    seen = many_users.traced().split()

    assert [0] * 16 + [-28] == registered
    assert [f">u{number}:get_avenrun@0" for number in range(16)] == seen[:16]
    assert [f"<u{number}:get_avenrun@0" for number in range(16)] == seen[16:]


def test_graph_slot_0(many_users: Machine) -> None:
    """The user in slot 0 sees returns that it did not take in 6.12, and not in 7.3."""
    many_users.graph.register("zero", many_users.patterns("get_avenrun"), Limits())
    many_users.graph.register("one", many_users.patterns("__x64_sys_sysinfo", "get_avenrun"), Limits())
    returns = {"linux-6.12": ["<zero:__x64_sys_sysinfo@0"], "linux-7.3": []}[many_users.name]
    expected = [
        ">one:__x64_sys_sysinfo@0",
        ">zero:get_avenrun@1",
        ">one:get_avenrun@1",
        "<zero:get_avenrun@1",
        "<one:get_avenrun@1",
        *returns,
        "<one:__x64_sys_sysinfo@0",
    ]

    assert expected == many_users.traced().split()


def test_function_tracer(machine: Machine) -> None:
    """The function tracer of an instance is one more ops, with events of its own."""
    batch = Batch()
    made = add_instance(batch, "function")
    buffered = set_buffer(batch, FUNCTION_INSTANCE)
    filtered = set_patterns(batch, f"{FUNCTION_INSTANCE}/set_ftrace_filter", machine.patterns("get_avenrun"))
    started = set_tracer(batch, FUNCTION_INSTANCE, "function")
    replies = machine.guest.submit(batch)
    assert [0] * 4 == [answer(replies) for answer in (made, buffered, filtered, started)]
    machine.graph.register("u", machine.patterns("get_avenrun"), Limits())
    batch = Batch()
    batch.syscall("sysinfo", Out(256))
    read = add_reads(batch, FUNCTION_INSTANCE, machine.station.formats)
    events = [event for page in read(machine.guest.submit(batch)) for event in page.events]

    assert [("function", machine.site("get_avenrun").address, None)] == [
        (event.kind, event.address, event.depth) for event in events
    ]
    assert 2 == machine.enabled()["get_avenrun"].count
    assert machine.symbols.address("ftrace_caller") == machine.site("get_avenrun").target


def test_regs_flag_outlives_its_ops(machine: Machine) -> None:
    """R stays where an ops that saves regs loses a site by its filter, as long as another ops covers the site."""
    batch = Batch()
    for number in (1, 2):
        batch.write_file(f"{ROOT}/kprobe_events", f"p:k{number} bpf_fentry_test{number}\n".encode(), append=True)
    for number in (1, 2):
        batch.write_file(f"{ROOT}/events/kprobes/k{number}/enable", b"1")
    assert min(reply.value for reply in machine.guest.submit(batch)) > 0
    machine.graph.register("u", machine.patterns("bpf_fentry_test1"), Limits())
    batch = Batch()
    batch.write_file(f"{ROOT}/events/kprobes/k1/enable", b"0")
    machine.guest.submit(batch)

    site = machine.enabled()["bpf_fentry_test1"]
    assert (1, True) == (site.count, site.regs)
