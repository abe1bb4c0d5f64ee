"""Attaching to many functions in every way that a kernel has, measured: seconds, grace periods, and what was attached.

The kernel's grace periods take as long as they take: nothing is tuned here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from impl.linux import control, links
from impl.linux.btf import Btf
from impl.linux.build import Modules, build
from impl.linux.control import CONTROL, Numbers
from impl.linux.enabled import parse_enabled_functions
from impl.linux.errnos import errno_name
from impl.linux.features import EMPTY
from impl.linux.frames import Batch, Reply
from impl.linux.grace import Waits, Watch, watch
from impl.linux.guest import Guest, boot
from impl.linux.packages import Kernel
from impl.linux.programs import Program
from impl.linux.symbols import Symbols, parse_kallsyms
from impl.linux.tracefs import ROOT
from spec import operations as op
from spec.errors import BadInputError
from spec.worlds import synthetic

__all__ = ["Bench", "Measured", "Phase", "direct_multi", "kprobe_multi", "one_by_one", "prepare", "tracing_multi"]

CORE = "massattach"
OPS, STUB = "measured", "T1"
KALLSYMS, BTF = "/proc/kallsyms", "/sys/kernel/btf/vmlinux"
AVAILABLE, ENABLED = f"{ROOT}/available_filter_functions", f"{ROOT}/enabled_functions"
PATIENCE = 600.0
"""Seconds that a guest may take for hundreds of grace periods on a busy machine."""

Step = Callable[[Batch], int]


@dataclass(frozen=True, slots=True)
class Phase:
    """Attaching or detaching: seconds that its system calls took by the guest's clock, and what they waited for."""

    seconds: float
    waits: Waits


@dataclass(frozen=True, slots=True)
class Measured:
    """One attach and its detach.

    attached and left: functions that enabled_functions shows after each. refused: the errno of what was not attached,
    by function, or by "" for a call as a whole.
    """

    attach: Phase
    detach: Phase
    attached: frozenset[str]
    left: frozenset[str]
    refused: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Bench:
    """A guest at its snapshot, in which nothing is attached and nothing is tuned. traceable: symbols with a site."""

    guest: Guest
    kernel: Kernel
    symbols: Symbols
    vmlinux: Btf
    traceable: frozenset[str]
    watch: Watch

    def fresh(self) -> None:
        """Go back to the snapshot."""
        self.guest.restore()
        self.guest.console()

    def enabled(self) -> frozenset[str]:
        """The functions of enabled_functions, those left out that the watch traces."""
        batch = Batch()
        batch.read_file(ENABLED)
        text = self.guest.submit(batch, PATIENCE)[0].data[0].decode()
        return frozenset(function.symbol for function in parse_enabled_functions(text)) - self.watch.symbols

    def timed(self, steps: Sequence[Step]) -> tuple[Phase, list[int]]:
        """Carry out calls in one frame: what they cost, and what each returned."""
        batch = Batch()
        started = self.watch.start(batch)
        entries = [step(batch) for step in steps]
        ended = self.watch.read(batch)
        replies = self.guest.submit(batch, PATIENCE)
        seconds = sum(replies[entry].nanoseconds for entry in entries) / 1e9
        return Phase(seconds, ended(replies).since(started(replies))), [replies[entry].value for entry in entries]

    def submit(self, steps: Sequence[Step]) -> tuple[Reply, ...]:
        """Carry out calls that are not measured."""
        batch = Batch()
        for step in steps:
            step(batch)
        return self.guest.submit(batch, PATIENCE)


def prepare(kernel: Kernel, *, memory: int = 256, files: Mapping[str, bytes] | None = None) -> Bench:
    """Boot a kernel, load massattach.ko, watch the agent and what it starts. memory in MiB; files: more of them."""
    guest = boot(kernel, memory=memory, extra_files=files or {})
    try:
        return _prepared(guest, kernel)
    except BaseException:
        guest.close()
        raise


def _prepared(guest: Guest, kernel: Kernel) -> Bench:
    batch = Batch()
    for path in (KALLSYMS, AVAILABLE, BTF):
        batch.read_file(path)
    kallsyms, available, blob = (reply.data[0] for reply in guest.submit(batch))
    _load(guest, build(kernel, synthetic()), parse_kallsyms(kallsyms))
    batch = Batch()
    batch.read_file(KALLSYMS)
    symbols, vmlinux = parse_kallsyms(guest.submit(batch)[0].data[0]), Btf(blob)
    traceable = frozenset(line.split(" ")[0] for line in available.decode().splitlines())
    bench = Bench(guest, kernel, symbols, vmlinux, traceable, watch(guest, symbols, vmlinux))
    guest.snapshot()
    return bench


def _load(guest: Guest, modules: Modules, symbols: Symbols) -> None:
    batch = Batch()
    control.init_module(batch, modules.massattach, control.parameters(modules, symbols.address))
    refused = guest.submit(batch)[0].value
    if refused:
        raise BadInputError(f"the kernel refuses the module {CORE}.ko: {errno_name(refused)}")


def one_by_one(bench: Bench, kinds: Sequence[str], functions: Sequence[str]) -> Measured:
    """A program of each kind for each function, and a link for each program; links are closed in the same order."""
    wanted = [(function, kind) for function in functions for kind in kinds]
    loaded = [reply.value for reply in bench.submit([_loading(bench, *pair) for pair in wanted])]
    programs = [fd for fd in loaded if fd >= 0]
    attach, opened = bench.timed([partial(links.open_link, program=fd) for fd in programs])
    attached = bench.enabled()
    detach, _ = bench.timed([partial(links.close, fd=fd) for fd in opened if fd >= 0])
    answers = iter(opened)
    outcomes = [fd if fd < 0 else next(answers) for fd in loaded]
    refused = {function: errno_name(value) for (function, _), value in zip(wanted, outcomes, strict=True) if value < 0}
    return Measured(attach, detach, attached, bench.enabled(), refused)


def _loading(bench: Bench, function: str, kind: str) -> Step:
    program = Program(0, kind, slots=0)
    btf_id = bench.vmlinux.functions.get(function, 0)
    return partial(links.load_program, program=program, instructions=EMPTY, btf_id=btf_id)


def tracing_multi(bench: Bench, kinds: Sequence[str], functions: Sequence[str]) -> Measured:
    """One program of each kind, and one link for each that has all functions."""
    ids = [bench.vmlinux.functions[function] for function in functions]
    programs = [Program(number, kind) for number, kind in enumerate(kinds)]
    loaded = bench.submit([partial(links.load_program, program=one, instructions=EMPTY) for one in programs])
    fds = [reply.value for reply in loaded]
    return _batch(
        bench,
        [
            partial(links.create_multi_link, program=fd, attach_type=one.attach_type, btf_ids=ids)
            for fd, one in zip(fds, programs, strict=True)
        ],
    )


def kprobe_multi(bench: Bench, functions: Sequence[str]) -> Measured:
    """One program and one link that has a fprobe on the entry of all functions."""
    addresses = [bench.symbols.address(function) for function in functions]
    fd = bench.submit([partial(links.load_kprobe, instructions=EMPTY)])[0].value
    return _batch(bench, [partial(links.create_kprobe_multi, program=fd, addresses=addresses)])


def _batch(bench: Bench, creating: Sequence[Step]) -> Measured:
    attach, opened = bench.timed(creating)
    attached = bench.enabled()
    detach, _ = bench.timed([partial(links.close, fd=fd) for fd in opened if fd >= 0])
    return Measured(attach, detach, attached, bench.enabled(), _refusal(opened))


def _refusal(values: Sequence[int]) -> dict[str, str]:
    """The first errno among what calls returned, if any."""
    errors = [errno_name(value) for value in values if value < 0]
    return {"": errors[0]} if errors else {}


def direct_multi(bench: Bench, functions: Sequence[str]) -> Measured:
    """One dynamic ftrace_ops, as BPF's are, with a filter of all functions and one direct stub."""
    numbers = Numbers({OPS: 0}, {STUB: 0}, bench.symbols.address)

    def command(operation: op.Operation) -> Step:
        text = control.encode(operation, numbers)
        return partial(Batch.write_file, path=CONTROL, data=text)

    bench.submit([command(op.FtraceOps(OPS, dynamic=True))])
    filling = command(op.FtraceSetFilterIps(OPS, tuple(functions)))
    attach, answers = bench.timed([filling, command(op.RegisterFtraceDirectMulti(OPS, STUB))])
    attached = bench.enabled()
    detach, gone = bench.timed([command(op.UnregisterFtraceDirectMulti(OPS, STUB))])
    return Measured(attach, detach, attached, bench.enabled(), _refusal([*answers, *gone]))
