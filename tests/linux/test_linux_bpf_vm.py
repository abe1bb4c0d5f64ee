"""Recorder programs, links and BTF on real kernels: what programs see, and what the kernel refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from impl.linux.bpf import commands
from impl.linux.bpf.features import EMPTY, Features, load_empty, probe
from impl.linux.bpf.record_map import AT_ONCE, Recording
from impl.linux.bpf.recorders import RECORDS, RecorderProgram, load
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from impl.linux.laboratory import control
from impl.linux.laboratory.build import CORE
from impl.linux.probes.btf import Btf
from impl.linux.station import Station
from spec import populations
from spec.prototypes import Prototype
from spec.traces import ProgramRun
from tests.support.stations import prog_test_run

pytestmark = pytest.mark.vm

# what BPF_PROG_TEST_RUN calls bpf_fentry_test1 and so on with, and what they return: net/bpf/test_run.c
CALLS = [
    ((1,), 2),
    ((2, 3), 5),
    ((4, 5, 6), 15),
    ((7, 8, 9, 10), 34),
    ((11, 12, 13, 14, 15), 65),
    ((16, 17, 18, 19, 20, 21), 111),
    ((0,), 0),
]
FEATURES = {
    "linux-6.1": Features(cookies=True, fsession=False, tracing_multi=False, kprobe_multi=False),
    "linux-6.12": Features(cookies=True, fsession=False, tracing_multi=False, kprobe_multi=True),
    "linux-7.3": Features(cookies=True, fsession=True, tracing_multi=True, kprobe_multi=True),
}
WARNED = 1 << 9


@dataclass
class Bench:
    """A station, and the programs that were loaded, by their numbers."""

    station: Station
    loaded: list[tuple[RecorderProgram, str]] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The kernel's."""
        return self.station.kernel.name

    @property
    def guest(self) -> Guest:
        """The station's."""
        return self.station.guest

    @property
    def btf(self) -> Btf:
        """That of vmlinux."""
        return self.station.btfs[None]

    def one(self, add: Callable[[Batch], int]) -> Reply:
        """The reply to an entry that is alone in its frame."""
        batch = Batch()
        index = add(batch)
        return self.guest.submit(batch)[index]

    def load(self, kind: str, function: str | None, **options: Any) -> tuple[RecorderProgram, Reply]:
        """A program for a function, or with None for several."""
        btf_id = self.btf.functions[function] if function else 0
        slots = len(self.btf.prototype(btf_id).slots) if function else None
        loads = self.btf.loadable(btf_id) if function else ()
        program = RecorderProgram(len(self.loaded), kind, loads, slots, **options)
        self.loaded.append((program, function or ""))
        return program, self.one(lambda batch: load(batch, program, self.station.bindings, btf_id=btf_id))

    def attach(self, kind: str, function: str, cookie: int | None = None, **options: Any) -> tuple[int, int]:
        """Descriptors of the program and of its link."""
        program, loaded = self.load(kind, function, **options)
        assert loaded.value > 0, errno_name(loaded.value)

        def link(batch: Batch) -> int:
            if cookie is None:
                return commands.open_link(batch, loaded.value)
            return commands.create_link(batch, loaded.value, program.attach_type, cookie)

        opened = self.one(link).value
        assert opened > 0, errno_name(opened)
        return loaded.value, opened

    def run(self, program: int, times: int = 1) -> tuple[Recording, int]:
        """What the kernel's test functions leave, and the kernel's verdict."""
        batch = Batch()
        self.station.recorder.clear(batch)
        tested = [prog_test_run(batch, program) for _ in range(times)][-1]
        read = self.station.recorder.read(batch)
        replies = self.guest.submit(batch)
        assert replies[tested].value == 0, errno_name(replies[tested].value)
        verdict = int.from_bytes(replies[tested].data[0][4:8], "little")
        return self.station.recorder.recording(self.guest, replies[read]), verdict

    def runs(self, program: int, prototype: Prototype | None = None) -> list[ProgramRun]:
        """What programs saw of their functions, or of functions with this prototype."""
        names = {number: f"p{number}" for number in range(len(self.loaded))}
        found = []
        for one in self.run(program)[0].records:
            code, function = self.loaded[one.number]
            known = prototype or self.btf.prototype(self.btf.functions[function])
            found.append(one.run(code, names[one.number], known, lambda at: str(self.station.symbols.at(at)), names))
        return found

    def taint(self) -> int:
        """What the kernel's mask has gained."""
        return int(self.guest.read("/proc/sys/kernel/tainted")[0]) ^ self.station.taint

    def takes(self, function: str) -> set[str]:
        """Whether fmod_ret programs, and sleepable ones, may be attached to a function: its attributes."""
        btf_id = self.btf.functions[function]
        tried = {
            "fmod_ret": lambda batch: load_empty(batch, "fmod_ret", btf_id),
            "sleepable": lambda batch: load_empty(batch, "fentry", btf_id, sleepable=True),
        }
        return {attribute for attribute, add in tried.items() if self.one(add).value >= 0}


@pytest.fixture
def bench(station: Station) -> Bench:
    return Bench(station)


def test_btf_of_vmlinux(bench: Bench) -> None:
    """Prototypes are those of the population; if that is of the same release, all of them, and the ids too."""
    named = {f.name: f for f in populations.load(bench.name).functions if f.btf_id is not None}
    found = bench.btf.functions
    differing = [name for name, f in named.items() if name in found and bench.btf.prototype(found[name]) != f.prototype]
    same_release = all(found.get(name) == f.btf_id for name, f in named.items())

    assert len(named) > 30_000
    assert len(differing) <= (0 if same_release else len(named) // 100)


def test_features(bench: Bench) -> None:
    """Probing tells the kernels apart."""
    function = "bpf_fentry_test1"
    found = probe(bench.guest, bench.btf.functions[function], bench.station.symbols.address(function))

    assert FEATURES[bench.name] == found


def test_attributes(bench: Bench) -> None:
    """Security hooks take fmod_ret, bpf_fentry_test1 both from 6.12 on, an ordinary function neither."""
    names = ("security_file_open", "bpf_fentry_test1", "vfs_read")
    both = set() if bench.name == "linux-6.1" else {"fmod_ret", "sleepable"}

    assert [{"fmod_ret"}, both, set()] == [bench.takes(name) for name in names]


def test_what_programs_see(bench: Bench) -> None:
    """Context, helpers and cookies of fentry and fexit programs on functions of one to six arguments."""
    wanted = []
    for place, (words, value) in enumerate(CALLS):
        function = f"bpf_fentry_test{place + 1}"
        fentry, _ = bench.attach("fentry", function, func_ip=True)
        bench.attach("fexit", function, cookie=(1 << 63) + place)
        common = {"arg_cnt": len(words), "args": (*words, "EINVAL")}
        wanted.append(
            ProgramRun("fentry", f"p{2 * place}", words, function, ret="EOPNOTSUPP", cookie=0, **common),
        )
        cookie = (1 << 63) + place
        wanted.append(
            ProgramRun("fexit", f"p{2 * place + 1}", (*words, value), None, ret=value, cookie=cookie, **common)
        )

    assert wanted == bench.runs(fentry)


def test_times_are_in_order(bench: Bench) -> None:
    """Records are in the order of the runs, and so are their times."""
    for _ in range(3):
        program, _ = bench.attach("fentry", "bpf_fentry_test1")
    found, _ = bench.run(program)

    assert [2, 1, 0] == [one.number for one in found.records]
    assert sorted(one.time for one in found.records) == [one.time for one in found.records]


def test_many_records(bench: Bench) -> None:
    """Those that do not come with the call are fetched by a second frame; there is room for so many and no more."""
    program, _ = bench.attach("fentry", "bpf_fentry_test2")
    some, _ = bench.run(program, AT_ONCE + 5)
    many, _ = bench.run(program, RECORDS + 5)

    assert (AT_ONCE + 5, AT_ONCE + 5) == (some.runs, len(some.records))
    assert {(2, 3)} == {tuple(one.words[9:11]) for one in some.records}
    assert (RECORDS + 5, RECORDS) == (many.runs, len(many.records))


def test_detached_by_close(bench: Bench) -> None:
    """The last descriptor of a link is the link."""
    program, link = bench.attach("fentry", "bpf_fentry_test1")
    bench.one(lambda batch: commands.close(batch, link))

    assert 0 == bench.run(program)[0].runs


@pytest.mark.parametrize("returns", [0, 7, -22, 1 << 40])
def test_fmod_ret(bench: Bench, returns: int) -> None:
    """Its R0 takes the place of the body unless it is 0, also if the low half is; 6.1 has no function for it."""
    _, loaded = bench.load("fmod_ret", "bpf_modify_return_test", returns=returns)
    if "fmod_ret" not in bench.takes("bpf_modify_return_test"):
        assert "EINVAL" == errno_name(loaded.value)
        return
    bench.one(lambda batch: commands.open_link(batch, loaded.value))
    recording, verdict = bench.run(loaded.value)
    first, second = (returns & 0xFFFFFFFF, 0) if returns else (4, 1)

    assert 1 == recording.runs
    assert ((1 + second) << 16 | (first + 29) & 0xFFFF) == verdict


def test_fmod_ret_of_several_functions(bench: Bench) -> None:
    """There are none."""
    _, loaded = bench.load("fmod_ret", None)

    assert "EINVAL" == errno_name(loaded.value)


def test_program_info(bench: Bench) -> None:
    """Tag and address are those that kallsyms shows."""
    program, _ = bench.attach("fentry", "bpf_fentry_test1")
    found = commands.loaded_program(bench.one(lambda batch: commands.program_info(batch, program)))
    kallsyms = bench.one(lambda batch: batch.read_file("/proc/kallsyms")).data[0].decode()

    assert f"{found.address:x} t bpf_prog_{found.tag}_m0\t[bpf]" in kallsyms


def test_btfs_by_name(bench: Bench) -> None:
    """The BTF of vmlinux and those of modules are found; a module that is not there has none."""
    found = commands.open_btfs(bench.guest, ("vmlinux", CORE, "nowhere"))
    btf_id = bench.btf.functions["bpf_fentry_test1"]

    assert {"vmlinux", CORE} == found.keys()
    assert bench.one(lambda batch: load_empty(batch, "fentry", btf_id, btf_fd=found["vmlinux"])).value > 0


def test_session(bench: Bench) -> None:
    """Each session has its own cookie between the two runs of a call; the return slot is 0 at entry."""
    if not FEATURES[bench.name].fsession:
        assert "EINVAL" == errno_name(bench.load("fsession", "bpf_fentry_test2")[1].value)
        return
    bench.attach("fsession", "bpf_fentry_test2")
    program, _ = bench.attach("fsession", "bpf_fentry_test2", cookie=5)
    found = bench.runs(program)

    assert [(False, ""), (False, ""), (True, "p1"), (True, "p0")] == [(run.is_return, run.session) for run in found]
    assert [(2, 3, 0)] * 2 + [(2, 3, 5)] * 2 == [run.context for run in found]
    assert [0, 0, 5, 5] == [run.ret for run in found]
    assert [5, 0, 5, 0] == [run.cookie for run in found]


def test_multi_link(bench: Bench) -> None:
    """One link on several functions: cookies follow the functions, and a function that is named twice is refused."""
    program, loaded = bench.load("fexit", None, func_ip=True)
    if not FEATURES[bench.name].tracing_multi:
        assert "EINVAL" == errno_name(loaded.value)
        return
    names = ["bpf_fentry_test3", "bpf_fentry_test1", "bpf_fentry_test2"]
    ids = [bench.btf.functions[name] for name in names]
    create = commands.create_multi_link
    twice = bench.one(lambda batch: create(batch, loaded.value, program.attach_type, [*ids, ids[0]]))
    bench.one(lambda batch: create(batch, loaded.value, program.attach_type, ids, [3, 1, 2]))
    found = [bench.runs(loaded.value, bench.btf.prototype(number))[place] for place, number in enumerate(sorted(ids))]

    assert "EINVAL" == errno_name(twice.value)
    assert [(1, 2), (2, 3, 5), (4, 5, 6, 15)] == [run.context for run in found]
    assert [1, 2, 3] == [run.cookie for run in found]
    assert ["bpf_fentry_test1", "bpf_fentry_test2", "bpf_fentry_test3"] == [run.func_ip for run in found]
    assert [(1, "EINVAL"), (2, 3, "EINVAL"), (4, 5, 6, "EINVAL")] == [run.args for run in found]


def test_kprobe_multi(bench: Bench) -> None:
    """An empty program on two functions, at entry and at return; 6.1 is built without fprobe."""
    program = bench.one(lambda batch: commands.load_kprobe(batch, EMPTY)).value
    where = [bench.station.symbols.address(f"bpf_fentry_test{number}") for number in (1, 2)]
    create = commands.create_kprobe_multi
    values = [
        bench.one(lambda batch, at=at_return: create(batch, program, where, [1, 2], at_return=at)).value
        for at_return in (False, True)
    ]

    if FEATURES[bench.name].kprobe_multi:
        assert min(values) > 0
    else:
        assert ["EOPNOTSUPP"] * 2 == [errno_name(value) for value in values]


def test_jit_charge_refused(bench: Bench) -> None:
    """Attaching fails with EPERM once, both ways, and succeeds afterwards; a high limit refuses nothing."""
    program, loaded = bench.load("fentry", "bpf_fentry_test1")
    ways: list[Callable[[Batch], int]] = [
        lambda batch: commands.open_link(batch, loaded.value),
        lambda batch: commands.create_link(batch, loaded.value, program.attach_type, 1),
    ]
    refused = [
        bench.one(lambda batch, add=add: commands.without_jit_charge(batch, add, bench.station.jit_limit)).value
        for add in ways
    ]
    generous = int(bench.station.jit_limit)
    opened = bench.one(
        lambda batch: commands.without_jit_charge(batch, ways[0], bench.station.jit_limit, generous)
    ).value

    assert ["EPERM", "EPERM"] == [errno_name(value) for value in refused]
    assert opened > 0
    assert bench.station.jit_limit == bench.one(lambda batch: batch.read_file(commands.JIT_LIMIT)).data[0]
    assert 0 == bench.taint()


def test_jit_charge_refused_to_a_multi_link(bench: Bench) -> None:
    """A link on several functions is refused as a whole."""
    program, loaded = bench.load("fentry", None)
    if not FEATURES[bench.name].tracing_multi:
        assert "EINVAL" == errno_name(loaded.value)
        return
    ids = [bench.btf.functions[f"bpf_fentry_test{number}"] for number in (1, 2)]

    def create(batch: Batch) -> int:
        return commands.create_multi_link(batch, loaded.value, program.attach_type, ids)

    refused = bench.one(lambda batch: commands.without_jit_charge(batch, create, bench.station.jit_limit)).value

    assert "EPERM" == errno_name(refused)
    assert 0 == bench.run(loaded.value)[0].runs


def test_jit_charge_refused_to_a_detach(bench: Bench) -> None:
    """Closing a link answers 0 even if the image cannot be made anew; the kernel warns."""
    bench.attach("fentry", "bpf_fentry_test1")
    _, link = bench.attach("fentry", "bpf_fentry_test1")

    def close(batch: Batch) -> int:
        return commands.close(batch, link)

    closed = bench.one(lambda batch: commands.without_jit_charge(batch, close, bench.station.jit_limit)).value

    assert (0, WARNED) == (closed, bench.taint())
    assert "bpf_tracing_link_release" in bench.guest.console()


def load_own(station: Station, program: RecorderProgram, function: str = "", module: str = CORE) -> int:
    """A program for a function of one of our modules, or for several."""
    batch = Batch()
    load(
        batch,
        program,
        station.bindings,
        btf_id=station.btfs[module].functions[function] if function else 0,
        btf_fd=station.btf_fds[module],
        nested_btf=station.btf_fds[CORE],
    )
    return station.guest.submit(batch)[0].value


def call_recorded(station: Station, function: str, nested: int) -> list[int]:
    """The numbers of the programs that run in a call, while those with entry 5 call what is at an address."""
    btf = station.btfs[CORE]
    batch = Batch()
    station.recorder.clear(batch)
    station.recorder.set_nested(batch, 5, nested)
    prototype = btf.prototype(btf.functions[function])
    where = station.symbols.address(function, CORE)
    batch.write_file(control.CONTROL, control.call(where, prototype, (9,) * len(prototype.slots)))
    read = station.recorder.read(batch)
    recording = station.recorder.recording(station.guest, station.guest.submit(batch)[read])
    return [one.number for one in recording.records]


def test_nested_call(station: Station) -> None:
    """A program calls the function whose address the header has, 0 stands for none; programs of one entry are one."""
    btf = station.btfs[CORE]
    for number, (function, entry) in enumerate([("foo1", 5), ("foo2", 5), ("foo2", None)]):
        slots = len(btf.prototype(btf.functions[function]).slots)
        program = RecorderProgram(number, "fentry", slots=slots, nested=entry)
        batch = Batch()
        commands.open_link(batch, load_own(station, program, function))
        assert station.guest.submit(batch)[0].value > 0
    nested = station.symbols.address("foo2", CORE)

    assert [0, 2] == call_recorded(station, "foo1", nested)
    assert [0] == call_recorded(station, "foo1", 0)
    assert [2, 1, 2] == call_recorded(station, "foo2", nested)


def test_multi_link_of_one_btf(station: Station) -> None:
    """A link has functions of the BTF that its program was loaded with, and of no other."""
    program = RecorderProgram(0, "fentry")
    own, other = station.btfs[CORE].functions["foo3"], station.btfs[None].functions["bpf_fentry_test1"]
    loaded = load_own(station, program)
    if not FEATURES[station.kernel.name].tracing_multi:
        assert "EINVAL" == errno_name(loaded)
        return
    batch = Batch()
    for ids in ([own, other], [own]):
        commands.create_multi_link(batch, loaded, program.attach_type, ids)
    both, alone = (reply.value for reply in station.guest.submit(batch))

    assert "ENOENT" == errno_name(both)
    assert alone > 0
