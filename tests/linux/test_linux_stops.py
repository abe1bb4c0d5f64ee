"""Where a kernel stops while it patches text, and what it must have written by then; no kernel is needed."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any, cast

import pytest

from impl.linux.architectures.x86_64 import X86_64
from impl.linux.declining.pokes import LEADS_BACK, OWN_BATCHES, UNSEEN, UNSTOPPED, PokeDecliner
from impl.linux.guest.batch import Batch
from impl.linux.laboratory import control
from impl.linux.probes.patching import PatchReader, TextPatch, find_stops
from impl.linux.probes.symbols import Symbols, Table
from impl.linux.run import RunState
from impl.linux.stops import Stops, TornTextError
from impl.linux.tasks import StandingTask
from impl.linux.threads import AgentThread
from spec.following import follow
from spec.inventory import Inventory
from spec.outcomes import Ok, Pending
from spec.seeds import parse_operation
from spec.semantics import PRESETS
from spec.worlds import Function, World, synthetic

TEXT, VECTOR, SITE = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0xFFFFFFFF81000404
NOP, CALL = bytes.fromhex("0f1f440000"), bytes.fromhex("e811223344")
MEMBERS = {"rel_addr": 0, "disp": 4, "len": 8, "opcode": 9, "text": 10, "old": 15}
POKE = "poke bpf_raw_tracepoint_open l1 p1 foo1"


class Guest:
    """A machine's memory, by the address of each part, and what it was told."""

    kernel = SimpleNamespace(architecture=X86_64)

    def __init__(self, parts: Mapping[int, bytes]) -> None:
        self.parts = dict(parts)

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """What is at each place."""
        return [self._read(address, length) for address, length in places]

    def _read(self, address: int, length: int) -> bytes:
        start = max(start for start in self.parts if start <= address)
        return self.parts[start][address - start :][:length]

    def submit(self, batch: object) -> list[SimpleNamespace]:
        """Everything is done."""
        _ = batch
        return [SimpleNamespace(value=1)]


class Btf:
    """The structs of a kernel."""

    def __init__(self, holder: str, one: str) -> None:
        self.known = {holder: (24, {"vec": 0, "nr_entries": 8}), one: (16, MEMBERS)}

    def structs(self, name: str) -> Iterator[tuple[int, Mapping[str, int]]]:
        """One of a name, if there is one."""
        yield from [self.known[name]] if name in self.known else []


def symbols(**addresses: int) -> Symbols:
    ordered = sorted(addresses.items(), key=lambda one: one[1])
    return Symbols(Table([at for _, at in ordered], [name for name, _ in ordered]))


def entry(address: int, old: bytes, new: bytes) -> bytes:
    """An element of the kernel's vector."""
    return struct.pack("<iiBB5sB", address - TEXT, 0, 5, new[0], new, old[0])


def call_of(target: int, at: int) -> bytes:
    return b"\xe8" + struct.pack("<i", target - at - 5)


@pytest.mark.parametrize(("calls", "found"), [(3, (0x106, 0x10C, 0x112)), (2, ()), (4, ())])
def test_a_stop_is_behind_each_synchronisation(calls: int, found: tuple[int, ...]) -> None:
    """The kernel's own function is read; one that does not synchronise three times is another one."""
    places = [TEXT + 0x101 + 6 * number for number in range(calls)]
    code = b"\x90" + b"".join(call_of(TEXT + 0x900, place) + b"\x90" for place in places)
    end = TEXT + 0x100 + len(code)
    known = symbols(_stext=TEXT, text_poke_bp_batch=TEXT + 0x100, next=end, text_poke_sync=TEXT + 0x900, bp_desc=VECTOR)

    assert tuple(TEXT + place for place in found) == find_stops(cast("Any", Guest({TEXT + 0x100: code})), known)


@pytest.mark.parametrize("pointed", [True, False])
def test_what_is_being_patched_is_read(pointed: bool) -> None:
    """The vector is in a struct, or that points to it."""
    ones = entry(SITE, NOP, CALL)
    if pointed:
        vmlinux, parts = Btf("bp_patching_desc", "text_poke_loc"), {VECTOR: struct.pack("<QI", TEXT + 0x800, 1)}
        known = symbols(_stext=TEXT, bp_desc=VECTOR)
        parts[TEXT + 0x800] = ones
    else:
        vmlinux, parts = Btf("smp_text_poke_array", "smp_text_poke_loc"), {VECTOR: ones}
        vmlinux.known["smp_text_poke_array"] = (24, {"vec": 0, "nr_entries": 16})
        parts[VECTOR] += struct.pack("<I", 1)
        known = symbols(_stext=TEXT, text_poke_array=VECTOR)
    parts[SITE] = b"\xcc" + NOP[1:]

    read = PatchReader(cast("Any", Guest(parts)), known, cast("Any", vmlinux)).read()

    assert (TextPatch(SITE, NOP, CALL, b"\xcc" + NOP[1:]),) == read


class Threads:
    """The one thread stands at a stop whenever it is waited for, so often, and then has answered."""

    def __init__(self, stops: int) -> None:
        self.left = stops

    def wait(self, thread: AgentThread) -> int | None:
        """What it has answered."""
        thread.stopped = self.left > 0
        self.left -= 1
        return None if thread.stopped else 7


def stops(monkeypatch: pytest.MonkeyPatch, texts: Sequence[bytes], site: int = SITE) -> Stops:
    """Stops of one site that comes to call, at which its bytes are these; a batch of no site of the world is before."""
    shown = iter([(TextPatch(TEXT, NOP, CALL, NOP),)] + [(TextPatch(site, NOP, CALL, text),) for text in texts])
    monkeypatch.setattr(PatchReader, "read", lambda _: next(shown))
    station = SimpleNamespace(guest=Guest({}), kernel=Guest.kernel, symbols=None, vmlinux=None, world=synthetic())
    directory = SimpleNamespace(station=station, address=lambda name: SITE - 4 if name == "foo1" else 1)
    made = Stops(cast("Any", directory), cast("Any", Threads(3 + len(texts))))
    made.points = (1, 2, 3)
    return made


WRITTEN = (b"\xcc" + NOP[1:], b"\xcc" + CALL[1:], CALL)


def begin(made: Stops) -> AgentThread:

    made.begin(Batch())
    return AgentThread(8, 100, stops=True)


def test_an_operation_stops_in_each_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    """What patches no site of the world is passed over, and behind the last phase the operation answers."""
    made = stops(monkeypatch, WRITTEN)
    thread = begin(made)

    assert [None, None, None, 7] == [made.wait(thread), made.go_on(thread), made.go_on(thread), made.go_on(thread)]


def test_a_site_that_stays_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """So is one that is given the instruction that it has."""
    made = stops(monkeypatch, ())
    same = TextPatch(SITE, NOP, NOP, NOP)
    monkeypatch.setattr(PatchReader, "read", lambda _: (same,))

    assert 7 == made.wait(begin(made))


@pytest.mark.parametrize("phase", [0, 1, 2])
@pytest.mark.parametrize("wrong", [b"\xcc" + bytes(4), NOP, CALL, WRITTEN[0], WRITTEN[1]])
def test_a_torn_site_is_found(monkeypatch: pytest.MonkeyPatch, phase: int, wrong: bytes) -> None:
    """At no stop a site has other bytes than those of its phase."""
    texts = [wrong if place == phase else text for place, text in enumerate(WRITTEN)]
    made = stops(monkeypatch, texts)
    thread = begin(made)

    def go_through() -> None:
        made.wait(thread)
        made.go_on(thread)
        made.go_on(thread)

    if wrong == WRITTEN[phase]:
        go_through()
        return
    with pytest.raises(TornTextError, match=f"behind synchronisation {phase + 1} 0x"):
        go_through()


def decliner(*lines: str, semantics: str = "linux-6.12", stopped: bool = False, known: bool = True) -> PokeDecliner:
    """One behind operations, the last of which has stopped if any has; a task stands at foo1."""
    run = RunState(Inventory.at_start(synthetic(), PRESETS[semantics]))
    for line in lines:
        operation = parse_operation(line)
        run.inventory = follow(run.inventory, operation, Pending() if line.startswith("poke") else Ok())
    modules = dict.fromkeys(("massattach", *synthetic().modules))
    order = {None: 0, **{name: 1 << 12 + place for place, name in enumerate(modules)}}
    directory = SimpleNamespace(
        station=SimpleNamespace(world=synthetic()),
        symbols=SimpleNamespace(modules=modules),
        address=lambda name: 2 + order[synthetic().by_name[name].module] + synthetic().by_name[name].btf_id,
        home=lambda function: function.module,
        functions_of_link=lambda inventory, wanted: [
            synthetic().by_name[name]
            for text, _ in wanted.targets
            for name in inventory.expand(wanted.prog, text) or [text]
        ],
    )
    tasks = SimpleNamespace(
        tasks={"t1": StandingTask("foo1", 0, {})},
        stops=SimpleNamespace(points=(1, 2, 3) if known else ()),
        stopped=stopped,
    )
    return PokeDecliner(cast("Any", directory), run, cast("Any", tasks), frozenset())


LOADED = ("bpf_prog_load p1 fentry", "bpf_raw_tracepoint_open l1 p1 foo1")


@pytest.mark.parametrize(
    ("asked", "line", "reason"),
    [
        (decliner(), POKE, ""),
        (decliner(known=False), POKE, UNSTOPPED),
        (decliner(stopped=True), "site foo1", UNSEEN),
        (decliner(), "site foo1", ""),
        (decliner(*LOADED, "poke bpf_link_detach l1", stopped=True), "step t1 to=body", LEADS_BACK),
        (decliner(*LOADED, "poke bpf_link_detach l1", stopped=True), "finish t1", ""),
        (decliner(*LOADED, "poke bpf_link_detach l1", semantics="linux-7.3"), "step t1 to=body", ""),
        (decliner(*LOADED), "step t1 to=body", ""),
        (decliner(), "poke bpf_link_create l1 p1 attachable(foo*)", ""),
    ],
)
def test_what_a_kernel_is_not_asked(asked: PokeDecliner, line: str, reason: str) -> None:
    """A kernel declines unknown stops, a look at one, and a way to freed code; the border answers for the rest."""
    assert reason == asked.reason(parse_operation(line))


FILTERED = (
    "ftrace_ops o1",
    "ftrace_set_filter_ips o1 foo1 bar1",
    "ftrace_ops o2",
    "ftrace_set_filter_ips o2 foo1 foo2",
)
MANY = ("bpf_prog_load p1 fentry multi", "bpf_link_create l1 p1 foo1 bar1")


@pytest.mark.parametrize(
    ("before", "line", "declined"),
    [
        (FILTERED, "poke register_ftrace_function o1", True),
        (FILTERED, "poke register_ftrace_function o2", False),
        (FILTERED, "poke ftrace_set_filter_ip o2 bar1", True),
        (FILTERED, "poke ftrace_set_filter_ip o2 foo3", False),
        (FILTERED, "poke ftrace_set_filter o2 bar1", True),
        (FILTERED, "poke ftrace_set_filter_ips o2 foo1 foo2 remove", True),
        (FILTERED[2:3], "poke register_ftrace_function o2", True),
        (MANY, "poke bpf_link_detach l1", True),
        (MANY[:1], "poke bpf_link_create l1 p1 foo1 bar1", True),
        (MANY[:1], "poke bpf_link_create l1 p1 foo1 foo2", False),
        (LOADED, "poke bpf_link_detach l1", False),
        (LOADED[:1], "poke bpf_raw_tracepoint_open l1 p1 bar1", False),
        ((), "poke modify_ftrace_direct foo1 T1 T2", False),
    ],
)
def test_batches_follow_the_world(before: tuple[str, ...], line: str, declined: bool) -> None:
    """Sites of a module that is below those of the kernel in memory have batches of their own, if both are patched."""
    asked = decliner(*before, semantics="linux-7.3")
    place = asked.directory.address
    cast("Any", asked.directory).address = lambda name: 2 if name == "bar1" else place(name)

    assert (OWN_BATCHES if declined else "") == asked.reason(parse_operation(line))


def test_a_large_pass_is_in_order_itself() -> None:
    """Where more than a batch of sites may be patched, those of one module must be as in the world."""
    functions = tuple(Function(f"f{number}", None, 1000 - number, None) for number in range(300))
    asked, line = decliner("ftrace_ops o1"), parse_operation("poke register_ftrace_function o1")
    asked.run.inventory = asked.run.inventory.changed(world=World("large", functions))
    cast("Any", asked.directory).station.world = asked.run.inventory.world
    places = {function.name: place for place, function in enumerate(functions)}
    cast("Any", asked.directory).address = lambda name: 2 + places[name]
    assert not asked.reason(line)

    cast("Any", asked.directory).address = lambda name: 1000 - places[name]
    assert OWN_BATCHES == asked.reason(line)


def test_the_verb_of_stops_is_the_modules() -> None:
    """The last place of the table `verbs`."""
    assert max(control.Command) == control.Command.PARK_THREAD
