"""A station: a guest that is ready for runs in one world, kept as a snapshot to which every run goes back.

Our modules are loaded, the tracer's instances made, grace periods shortened, tasks preempted, and what the kernel
offers is known.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

from impl.linux.allocations import open_fail_nth
from impl.linux.architectures import Architecture
from impl.linux.bpf import commands
from impl.linux.bpf.record_map import RecordMap
from impl.linux.bpf.recorders import Bindings
from impl.linux.guest.batch import AT_FDCWD, Batch
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.guest.packages import Kernel
from impl.linux.injection import SYMBOLS
from impl.linux.laboratory import control
from impl.linux.laboratory.build import CORE, Modules, build
from impl.linux.laboratory.tuning import preempt, shorten_grace_periods
from impl.linux.probes.btf import BTF_FILES, VMLINUX_BTF, Btf
from impl.linux.probes.disassembly import Helpers, helpers
from impl.linux.probes.holdings import Holdings, HoldingsReader
from impl.linux.probes.population import find_sites
from impl.linux.probes.ringbuffer import Formats, read_formats
from impl.linux.probes.symbols import KALLSYMS, Symbols, parse_kallsyms, read_module
from impl.linux.probes.tracefs import AVAILABLE, ROOT, GraphTracer, add_instance
from spec.abi import SLOT_BYTES
from spec.errors import BadInputError
from spec.worlds import World

__all__ = ["Station", "prepare"]

REMOVEDIR = 0x200
GRAPH_USERS = 4
MEMORY, OWN_MEMORY = 256, 512
"""MiB; a kernel of one's own may have sanitizers, which need as much again."""
CLOCK = "/sys/devices/system/clocksource/clocksource0/current_clocksource"


@dataclass(slots=True)
class Station:
    """A guest at its snapshot.

    own: functions of the world that the kernel itself has, or its BTF names; foreign: the symbols of its other ftrace
    records; foreign_modules: the modules among them. sited: of the own ones whose symbol several functions have, the
    addresses of those with a site, by the symbol. btfs and btf_fds: by module, None for vmlinux. symbols: with our
    modules as they were loaded first. taint: what the kernel's mask holds when nothing went wrong. holdings: what
    there is at the snapshot. fail_nth: a descriptor of /proc/self/fail-nth, or None. preempts: whether tasks that
    spin are preempted. run_context: where the agent's task has the context of the program that it runs.
    """

    guest: Guest
    kernel: Kernel
    world: World
    own: frozenset[str]
    foreign: frozenset[str]
    foreign_modules: frozenset[str]
    sited: Mapping[str, tuple[int, ...]]
    modules: Modules
    symbols: Symbols
    btfs: Mapping[str | None, Btf]
    btf_fds: Mapping[str, int]
    recorder: RecordMap
    bindings: Bindings
    graph: GraphTracer
    formats: Formats
    helpers: Helpers
    taint: int
    jit_limit: bytes
    holding: HoldingsReader
    holdings: Holdings
    fail_nth: int | None
    preempts: bool
    run_context: int

    @property
    def injects(self) -> bool:
        """Whether the kernel has every function that can be made to fail (FAIL-1)."""
        return all(self.symbols.addresses(symbol) for symbol in SYMBOLS)

    @property
    def vmlinux(self) -> Btf:
        """The kernel's own BTF."""
        return self.btfs[None]

    def left_over(self, *, loses_tables: bool = False) -> str:
        """What there is beyond the snapshot, once all that was put off is done; empty if nothing is.

        loses_tables: the kernel frees not all of its tables of direct calls (DEFECT-33).
        """
        control.settle(self.guest)
        before, after = self.holdings, self.holding.read()
        return after.without_tables().beyond(before.without_tables()) if loses_tables else after.beyond(before)

    def fresh(self) -> None:
        """Go back to the snapshot, also if the guest has died."""
        self.guest.restore()
        self.graph.forget()
        self.guest.console()


def prepare(kernel: Kernel, world: World) -> Station:
    """Boot a kernel, and make it ready for runs in a world. BadInputError: something that this needs is missing."""
    try:
        guest = boot(kernel, memory=OWN_MEMORY if kernel.build else MEMORY)
    except GuestDiedError as error:
        raise BadInputError(f"{kernel.name} does not boot in QEMU: {error.reason}", str(kernel.vmlinux)) from error
    try:
        return _prepare(guest, kernel, world)
    except BaseException:
        guest.close()
        raise


def _prepare(guest: Guest, kernel: Kernel, world: World) -> Station:
    _check_clock(guest)
    kallsyms, records, blob = guest.read(KALLSYMS, AVAILABLE, VMLINUX_BTF)
    symbols, vmlinux = parse_kallsyms(kallsyms), Btf(blob)
    listed = records.decode()
    traceable = frozenset(line.split(" ")[0] for line in listed.splitlines())
    recorded = frozenset(f.name for f in world.functions if f.module is None and f.symbol in traceable)
    own = recorded.union(f.name for f in world.others if f.module is None)
    modules = build(kernel, world, own)
    symbols = _load(guest, modules, symbols)
    btfs: dict[str | None, Btf] = {None: vmlinux}
    btfs |= {name: Btf(guest.read(f"{BTF_FILES}/{name}")[0], vmlinux) for name in (CORE, *modules.others)}
    recorder = RecordMap.create(guest)
    graph = GraphTracer(guest.submit, GRAPH_USERS if has_graph_instances(guest) else 0)
    graph.prepare()
    shorten_grace_periods(guest, symbols, vmlinux)
    preempts = preempt(guest, symbols)
    formats = read_formats(guest)
    taint, limit = guest.read("/proc/sys/kernel/tainted", commands.JIT_LIMIT)
    btf_fds = commands.open_btfs(guest, (CORE, *modules.others))
    bindings = _bind(guest.kernel.architecture, recorder, vmlinux, btfs[CORE])
    holding = HoldingsReader(guest, symbols, vmlinux)
    control.settle(guest)
    station = Station(
        guest=guest,
        kernel=kernel,
        world=world,
        own=own,
        foreign=traceable - {world.by_name[name].symbol for name in recorded},
        foreign_modules=frozenset(re.findall(r"\[(.+)\]$", listed, re.MULTILINE)),
        sited=_find_sited(guest, symbols, {world.by_name[name].symbol for name in recorded}),
        modules=modules,
        symbols=symbols,
        btfs=btfs,
        btf_fds=btf_fds,
        recorder=recorder,
        bindings=bindings,
        graph=graph,
        formats=formats,
        helpers=helpers(symbols),
        taint=int(taint),
        jit_limit=limit,
        holding=holding,
        holdings=holding.read(),
        fail_nth=open_fail_nth(guest),
        preempts=preempts,
        run_context=_find_run_context(guest, symbols, vmlinux),
    )
    guest.snapshot(symbols.address("rcu_state") + vmlinux.member_offset("rcu_state", "gp_seq"))
    return station


def _find_sited(guest: Guest, symbols: Symbols, own: AbstractSet[str]) -> dict[str, tuple[int, ...]]:
    shared = {name: starts for name in sorted(own) if len(starts := symbols.addresses(name)) > 1}
    sites = find_sites(guest, guest.kernel.architecture, [start for starts in shared.values() for start in starts])
    return {name: tuple(start for start in starts if start in sites) for name, starts in shared.items()}


def _check_clock(guest: Guest) -> None:
    """BadInputError if events that follow one another may bear one time."""
    clock = guest.read(CLOCK)[0].decode().strip()
    if clock.endswith("jiffies"):
        cure = 'build the kernel with CONFIG_ACPI=y, or with CONFIG_CMDLINE="tsc_early_khz=1000000"'
        raise BadInputError(f"the kernel's clock is {clock}, too coarse for the order of events: {cure}")


def _load(guest: Guest, modules: Modules, symbols: Symbols) -> Symbols:
    """Load all our modules; returns the symbols and theirs."""
    for name, image in {CORE: modules.massattach, **modules.others}.items():
        control.load_module(guest, modules, name, symbols.address)
        symbols = symbols.with_module(name, read_module(guest, name, image))
    return symbols


def _find_run_context(guest: Guest, symbols: Symbols, vmlinux: Btf) -> int:
    """The address of the member bpf_ctx of the agent's task, which is the first one behind init_task."""
    tasks = vmlinux.member_offset("task_struct", "tasks")
    (link,) = guest.read_memory([(symbols.address("init_task") + tasks, SLOT_BYTES)])
    return int.from_bytes(link, "little") - tasks + vmlinux.member_offset("task_struct", "bpf_ctx")


def _bind(architecture: Architecture, recorder: RecordMap, vmlinux: Btf, core: Btf) -> Bindings:
    ids = vmlinux.functions
    return Bindings(
        recorder.map_fd,
        session_is_return=ids.get("bpf_session_is_return", 0),
        session_cookie=ids.get("bpf_session_cookie", 0),
        nested=core.functions.get("massattach_nested", 0),
        saved_arguments=architecture.saved_arguments,
        saved_result=architecture.saved_result,
    )


def has_graph_instances(guest: Guest) -> bool:
    """Whether the graph tracer runs in instances, so that there can be several users."""
    batch = Batch()
    made = add_instance(batch, "probe")
    tracers = batch.read_file(f"{ROOT}/instances/probe/available_tracers")
    batch.syscall("unlinkat", AT_FDCWD, f"{ROOT}/instances/probe\0".encode(), REMOVEDIR)
    replies = guest.submit(batch)
    if made(replies):
        raise BadInputError("the kernel makes no instances of its tracers")
    return "function_graph" in replies[tracers].data[0].decode().split()
