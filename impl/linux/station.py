"""A station: a guest that is ready for runs in one world, kept as a snapshot to which every run goes back.

Our modules are loaded, the tracer's instances made, grace periods shortened, and what the kernel offers is known.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from impl.linux.bpf import calls as links
from impl.linux.bpf.programs import Bindings
from impl.linux.bpf.recorder import Recorder
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.frames import Batch
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.guest.packages import Kernel
from impl.linux.laboratory import control
from impl.linux.laboratory.build import Modules, build
from impl.linux.laboratory.tuning import shorten_grace_periods
from impl.linux.probes.btf import Btf
from impl.linux.probes.images import Helpers, helpers
from impl.linux.probes.ringbuffer import Formats, read_formats
from impl.linux.probes.symbols import Symbols, module_sections, module_table, parse_kallsyms, read_sections
from impl.linux.probes.tracefs import ROOT, GraphTracer, add_instance
from spec.errors import BadInputError
from spec.worlds import World

__all__ = ["CORE", "Station", "btf_descriptors", "module_symbols", "prepare"]

CORE = "massattach"
"""Our module that has the functions of no module."""

RECORDS_FILE = f"{ROOT}/available_filter_functions"
BTF = "/sys/kernel/btf/vmlinux"
SYS_RMDIR = 84
GRAPH_USERS = 4


@dataclass(slots=True)
class Station:
    """A guest at its snapshot.

    own: functions of the world that the kernel itself has; foreign: the symbols of its other ftrace records. btfs and
    btf_fds: by module, None for vmlinux. symbols: with our modules as they were loaded first. taint: what the kernel's
    mask holds when nothing went wrong.
    """

    guest: Guest
    kernel: Kernel
    world: World
    own: frozenset[str]
    foreign: frozenset[str]
    modules: Modules
    symbols: Symbols
    btfs: Mapping[str | None, Btf]
    btf_fds: Mapping[str, int]
    recorder: Recorder
    bindings: Bindings
    graph: GraphTracer
    formats: Formats
    helpers: Helpers
    taint: int
    jit_limit: bytes

    def fresh(self) -> None:
        """Go back to the snapshot, also if the guest has died."""
        self.guest.restore()
        self.graph.forget()
        self.guest.console()


def prepare(kernel: Kernel, world: World) -> Station:
    """Boot a kernel, and make it ready for runs in a world. BadInputError: something that this needs is missing."""
    try:
        guest = boot(kernel)
    except GuestDiedError as error:
        raise BadInputError(f"{kernel.name} does not boot in QEMU: {error.reason}", str(kernel.vmlinux)) from error
    try:
        return _prepared(guest, kernel, world)
    except BaseException:
        guest.close()
        raise


def _prepared(guest: Guest, kernel: Kernel, world: World) -> Station:
    kallsyms, records, blob = _files(guest, "/proc/kallsyms", f"{ROOT}/available_filter_functions", BTF)
    symbols, vmlinux = parse_kallsyms(kallsyms), Btf(blob)
    traceable = frozenset(line.split(" ")[0] for line in records.decode().splitlines())
    own = frozenset(f.name for f in world.functions if f.module is None and f.symbol in traceable)
    modules = build(kernel, world, own)
    symbols = _load(guest, modules, symbols)
    btfs: dict[str | None, Btf] = {None: vmlinux}
    btfs |= {name: Btf(_module_btf(guest, name), vmlinux) for name in (CORE, *modules.others)}
    recorder = Recorder.create(guest)
    graph = GraphTracer(guest.submit, GRAPH_USERS if _has_graph_instances(guest) else 0)
    graph.prepare()
    shorten_grace_periods(guest, symbols, vmlinux)
    formats = _formats(guest)
    taint, limit = _files(guest, "/proc/sys/kernel/tainted", links.JIT_LIMIT)
    station = Station(
        guest=guest,
        kernel=kernel,
        world=world,
        own=own,
        foreign=traceable - {world.by_name[name].symbol for name in own},
        modules=modules,
        symbols=symbols,
        btfs=btfs,
        btf_fds=btf_descriptors(guest, (CORE, *modules.others)),
        recorder=recorder,
        bindings=_bindings(recorder, vmlinux, btfs[CORE]),
        graph=graph,
        formats=formats,
        helpers=helpers(symbols),
        taint=int(taint),
        jit_limit=limit,
    )
    guest.snapshot()
    return station


def _files(guest: Guest, *paths: str) -> list[bytes]:
    batch = Batch()
    for path in paths:
        batch.read_file(path)
    replies = guest.submit(batch)
    for path, reply in zip(paths, replies, strict=True):
        if reply.value < 0:
            raise BadInputError(f"the kernel does not show {path}: {errno_name(reply.value)}")
    return [reply.data[0] for reply in replies]


def _load(guest: Guest, modules: Modules, symbols: Symbols) -> Symbols:
    """Load all our modules; the symbols with theirs."""
    for name, image in {CORE: modules.massattach, **modules.others}.items():
        words = control.parameters(modules, symbols.address) if name == CORE else b""
        batch = Batch()
        control.init_module(batch, image, words)
        refused = guest.submit(batch)[0].value
        if refused:
            raise BadInputError(f"the kernel refuses the module {name}.ko: {errno_name(refused)}")
        symbols = module_symbols(guest, name, image, symbols)
    return symbols


def module_symbols(guest: Guest, name: str, image: bytes, symbols: Symbols) -> Symbols:
    """The symbols with those of a loaded module."""
    batch = Batch()
    read = read_sections(batch, name, module_sections(image))
    return symbols.with_module(name, module_table(image, read(guest.submit(batch))))


def _module_btf(guest: Guest, name: str) -> bytes:
    return _files(guest, f"/sys/kernel/btf/{name}")[0]


def btf_descriptors(guest: Guest, names: tuple[str, ...]) -> dict[str, int]:
    """Descriptors of the BTF of loaded modules, by their names."""
    found = {name: links.find_btf(guest, name) for name in names}
    return {name: btf.fd for name, btf in found.items() if btf}


def _bindings(recorder: Recorder, vmlinux: Btf, core: Btf) -> Bindings:
    ids = vmlinux.functions
    return Bindings(
        recorder.map_fd,
        session_is_return=ids.get("bpf_session_is_return", 0),
        session_cookie=ids.get("bpf_session_cookie", 0),
        nested=core.functions.get("massattach_nested", 0),
    )


def _has_graph_instances(guest: Guest) -> bool:
    """Whether the graph tracer runs in instances, each of which is a user then."""
    batch = Batch()
    made = add_instance(batch, "probe")
    tracers = batch.read_file(f"{ROOT}/instances/probe/available_tracers")
    batch.syscall(SYS_RMDIR, f"{ROOT}/instances/probe\0".encode())
    replies = guest.submit(batch)
    if made(replies):
        raise BadInputError("the kernel makes no instances of its tracers")
    return "function_graph" in replies[tracers].data[0].decode().split()


def _formats(guest: Guest) -> Formats:
    batch = Batch()
    read = read_formats(batch, ROOT)
    return read(guest.submit(batch))
