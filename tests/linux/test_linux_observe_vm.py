"""Observing running kernels: the same reads on each, with programs and tracers in place."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from impl.linux.guest.frames import Batch, Out, Struct
from impl.linux.guest.guest import Guest, boot
from impl.linux.guest.modules import closure
from impl.linux.guest.packages import fetch
from impl.linux.probes.btf import Btf
from impl.linux.probes.enabled import (
    EnabledFunction,
    SiteCode,
    decode_site,
    direct_functions,
    ops_of_trampoline,
    parse_enabled_functions,
    site_of,
)
from impl.linux.probes.images import Image, Original, ProgramCall, entry_text, helpers, parse_image
from impl.linux.probes.ringbuffer import Event, Formats, add_reads, read_formats
from impl.linux.probes.symbols import Symbols, module_sections, module_table, parse_kallsyms, read_sections
from impl.linux.probes.tracefs import (
    ROOT,
    GraphTracer,
    Limits,
    add_instance,
    record_numbers,
    set_buffer,
    set_patterns,
    set_tracer,
)
from spec.errors import BadInputError

pytestmark = pytest.mark.vm

KERNELS = ("linux-6.1", "linux-6.12", "linux-7.3")
ONE_GRAPH_USER = "linux-6.1"
SYS_BPF, SYS_CLOSE, SYS_SYSINFO = 321, 3, 99
PROG_LOAD, TEST_RUN, RAW_TRACEPOINT_OPEN = 5, 10, 17
FENTRY, FEXIT = 24, 25
RETURN_0 = bytes.fromhex("b7000000000000009500000000000000")
FUNCTION_INSTANCE = f"{ROOT}/instances/function"


@dataclass(frozen=True)
class Machine:
    """A guest at its snapshot, and what does not change there."""

    name: str
    guest: Guest
    symbols: Symbols
    formats: Formats
    numbers: dict[str, str]
    graph: GraphTracer

    def read(self, path: str) -> bytes:
        """A file of the guest."""
        batch = Batch()
        batch.read_file(path)
        return self.guest.submit(batch)[0].data[0]

    def memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """Kernel memory, each place's bytes."""
        batch = Batch()
        for address, length in places:
            batch.read_memory(address, length)
        return [reply.data[0] for reply in self.guest.submit(batch)]

    def site(self, function: str) -> SiteCode:
        """What is at a function's site."""
        address = self.symbols.address(function)
        return decode_site(address, self.memory([(address, 16)])[0])

    def enabled(self) -> dict[str, EnabledFunction]:
        """Enabled_functions by symbol."""
        text = self.read(f"{ROOT}/enabled_functions").decode()
        return {function.symbol: function for function in parse_enabled_functions(text)}

    def patterns(self, *functions: str) -> list[str]:
        """The numbers of functions' records."""
        return [self.numbers[function] for function in functions]

    def traced(self) -> str:
        """The graph tracer's events of one sysinfo(2), in the order of their times."""
        batch = Batch()
        batch.syscall(SYS_SYSINFO, Out(256))
        read = self.graph.add_reads(batch, self.formats)
        pages = read(self.guest.submit(batch))
        found = [(event.time, user, event) for user, own in pages.items() for page in own for event in page.events]
        return " ".join(self._spelled(user, event) for _, user, event in sorted(found, key=lambda one: one[0]))

    def _spelled(self, user: str, event: Event) -> str:
        place = self.symbols.at(event.address)
        assert place
        text = f"{user}:{place.symbol}@{event.depth}"
        return f">{text}" if event.kind == "entry" else f"<{text}"


@pytest.fixture(scope="module", params=KERNELS)
def booted(request: pytest.FixtureRequest) -> Iterator[Machine]:
    try:
        guest = boot(fetch(request.param))
    except BadInputError as error:
        pytest.skip(str(error))
    try:
        yield prepared(request.param, guest)
    finally:
        guest.close()


def prepared(name: str, guest: Guest) -> Machine:
    batch = Batch()
    texts = [batch.read_file(path) for path in ("/proc/kallsyms", f"{ROOT}/available_filter_functions")]
    formats = read_formats(batch, ROOT)
    answers = [add_instance(batch, "function"), set_buffer(batch, FUNCTION_INSTANCE)]
    batch.write_file("/sys/kernel/rcu_expedited", b"1")
    replies = guest.submit(batch)
    assert [0, 0] == [answer(replies) for answer in answers]
    graph = GraphTracer(guest.submit, 0 if name == ONE_GRAPH_USER else 17)
    graph.prepare()
    kallsyms, available = (replies[entry].data[0] for entry in texts)
    numbers = {symbol: str(found[0]) for (symbol, _), found in record_numbers(available.decode()).items()}
    guest.snapshot()
    return Machine(name, guest, parse_kallsyms(kallsyms), formats(replies), numbers, graph)


@pytest.fixture
def machine(booted: Machine) -> Machine:
    booted.guest.restore()
    booted.graph.forget()
    return booted


@pytest.fixture
def many_users(machine: Machine) -> Machine:
    if machine.name == ONE_GRAPH_USER:
        pytest.skip("6.1 has one user of the graph tracer")
    return machine


def attribute(size: int, words: dict[int, int], pointers: dict[int, bytes] | None = None) -> Struct:
    data = bytearray(size)
    for at, word in words.items():
        struct.pack_into("<I", data, at, word)
    return Struct(bytes(data), pointers or {})


def attach(machine: Machine, function: str, kind: int) -> tuple[int, int]:
    """Descriptors of a program that returns 0, and of its link."""
    target = Btf(machine.read("/sys/kernel/btf/vmlinux")).functions[function]
    batch = Batch()
    words = {0: 26, 4: len(RETURN_0) // 8, 68: kind, 108: target}
    batch.syscall(SYS_BPF, PROG_LOAD, attribute(144, words, {8: RETURN_0, 16: b"GPL\0"}), 144)
    program = machine.guest.submit(batch)[0].value
    batch = Batch()
    batch.syscall(SYS_BPF, RAW_TRACEPOINT_OPEN, attribute(16, {8: program}), 16)
    link = machine.guest.submit(batch)[0].value
    assert min(program, link) > 0
    return program, link


def close(machine: Machine, descriptor: int) -> None:
    batch = Batch()
    batch.syscall(SYS_CLOSE, descriptor)
    machine.guest.submit(batch)


def image_at(machine: Machine, function: str) -> Image:
    """The image behind `direct-->`, by the kernel's own table."""
    entries = direct_functions(machine.memory, machine.symbols.address("direct_functions"))
    address = entries[machine.site(function).address] & ~1
    listed = machine.enabled()[function].entry
    assert listed
    return parse_image(address, machine.memory([(address, listed.size)])[0], helpers(machine.symbols))


def test_module_symbols(machine: Machine) -> None:
    """A loaded module's symbols are those that kallsyms lists, worked out without it."""
    if not machine.symbols.modules.keys() - {"bpf"}:
        pytest.skip("this kernel's guest needs no modules")
    assert machine.guest.kernel.modules
    (ko,) = closure(machine.guest.kernel.modules, ("virtio_ring",))[:1]
    batch = Batch()
    read = read_sections(batch, "virtio_ring", module_sections(ko))
    table = module_table(ko, read(machine.guest.submit(batch)))

    listed = machine.symbols.modules["virtio_ring"].by_name
    assert listed["virtqueue_add_sgs"] == table.by_name["virtqueue_add_sgs"]
    assert {name: found for name, found in table.by_name.items() if name in listed} == dict(listed)


def test_image_of_one_program(machine: Machine) -> None:
    """A site with a direct ops alone calls the image, which the kernel's table names, too."""
    attach(machine, "bpf_fentry_test1", FENTRY)
    site = machine.site("bpf_fentry_test1")
    image = image_at(machine, "bpf_fentry_test1")

    assert site.target in direct_functions(machine.memory, machine.symbols.address("direct_functions")).values()
    assert ["fentry"] == [call.kind for call in image.programs]
    assert None is image.original


def test_image_order(machine: Machine) -> None:
    """The newest program of a kind runs first, and fexit programs behind the original."""
    descriptors = [attach(machine, "bpf_fentry_test1", kind) for kind in (FENTRY, FEXIT, FENTRY)]
    image = image_at(machine, "bpf_fentry_test1")
    close(machine, descriptors[2][1])
    after = image_at(machine, "bpf_fentry_test1")

    first, second = image.programs[:2]
    site = machine.site("bpf_fentry_test1")
    assert [ProgramCall, ProgramCall, Original, ProgramCall] == [type(step) for step in image.steps]
    assert Original(site.address + 5) == image.original
    assert [second, image.programs[2]] == list(after.programs)
    assert first.program != second.program
    assert image.skips_frame is (site.kind == "call")
    assert machine.enabled()["bpf_fentry_test1"].jmp is (site.kind == "jmp")
    assert "trampoline:fentry,fexit" == entry_text(after, lambda call: call.kind)


def test_site_with_several_ops(machine: Machine) -> None:
    """The graph tracer beside BPF: the site calls ftrace_regs_caller, the entry stays; alone, its own trampoline."""
    _, link = attach(machine, "bpf_fentry_test1", FENTRY)
    alone = machine.site("bpf_fentry_test1").target
    machine.graph.register("u", machine.patterns("bpf_fentry_test1"), Limits())
    both, site, image = (
        machine.enabled()["bpf_fentry_test1"],
        machine.site("bpf_fentry_test1"),
        image_at(machine, "bpf_fentry_test1"),
    )
    close(machine, link)
    (trampoline,) = machine.memory([(machine.site("bpf_fentry_test1").target or 0, 512)])

    def spell(address: int) -> str:
        return "entry" if address == alone else str(machine.symbols.at(address))

    assert "(2) RD ftrace_regs_caller direct-->entry" == str(site_of(both, site, alone, spell))
    assert ["fentry"] == [call.kind for call in image.programs]
    assert machine.symbols.address("graph_ops") == ops_of_trampoline(trampoline)


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
    filtered = set_patterns(batch, f"{FUNCTION_INSTANCE}/set_ftrace_filter", machine.patterns("get_avenrun"))
    started = set_tracer(batch, FUNCTION_INSTANCE, "function")
    replies = machine.guest.submit(batch)
    assert (0, 0) == (filtered(replies), started(replies))
    machine.graph.register("u", machine.patterns("get_avenrun"), Limits())
    batch = Batch()
    batch.syscall(SYS_SYSINFO, Out(256))
    read = add_reads(batch, FUNCTION_INSTANCE, machine.formats)
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
