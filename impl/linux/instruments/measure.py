"""Attaching to many functions in every way that a kernel has, measured: seconds, grace periods, and what was attached.

The kernel's grace periods take as long as they take: nothing is tuned here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from impl.linux.bpf import commands
from impl.linux.bpf.features import EMPTY, load_empty
from impl.linux.bpf.recorders import ATTACH_TYPES
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest, boot
from impl.linux.guest.packages import Kernel
from impl.linux.instruments.grace import Waits, Watch, watch
from impl.linux.laboratory import control
from impl.linux.laboratory.build import CORE, build
from impl.linux.laboratory.control import CONTROL, Numbers
from impl.linux.probes.btf import VMLINUX_BTF, Btf
from impl.linux.probes.enabled import parse_enabled_functions
from impl.linux.probes.symbols import KALLSYMS, Symbols, parse_kallsyms
from impl.linux.probes.tracefs import AVAILABLE, ENABLED
from spec.operations import Operation
from spec.worlds import synthetic

__all__ = [
    "OPS",
    "PATIENCE",
    "STUB",
    "Bench",
    "Measured",
    "Phase",
    "kprobe_multi",
    "one_by_one",
    "prepare",
    "through_module",
    "tracing_multi",
]

OPS, STUB = "measured", "T1"
PATIENCE = 600.0
"""Seconds that a guest may take for hundreds of grace periods on a busy machine."""

Step = Callable[[Batch], int]


@dataclass(frozen=True, slots=True)
class Phase:
    """Attaching or detaching: the seconds of its system calls by the guest's clock, and their grace periods."""

    seconds: float
    waits: Waits


@dataclass(frozen=True, slots=True)
class Measured:
    """One attach and its detach.

    attached and left: functions that enabled_functions shows after each. refused: the errno of what was not attached,
    by KIND:FUNCTION, or by "" for a call as a whole.
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

    def has(self, function: str) -> bool:
        """Whether the kernel has one function of this name, with a site, which BTF names."""
        one = len(self.symbols.addresses(function)) == 1
        return one and function in self.traceable and function in self.vmlinux.functions

    def enabled(self) -> frozenset[str]:
        """The functions of enabled_functions, but for those that the watch traces."""
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
        return _prepare(guest, kernel)
    except BaseException:
        guest.close()
        raise


def _prepare(guest: Guest, kernel: Kernel) -> Bench:
    kallsyms, available, blob = guest.read(KALLSYMS, AVAILABLE, VMLINUX_BTF)
    control.load_module(guest, build(kernel, synthetic()), CORE, parse_kallsyms(kallsyms).address)
    symbols, vmlinux = parse_kallsyms(*guest.read(KALLSYMS)), Btf(blob)
    traceable = frozenset(line.split(" ")[0] for line in available.decode().splitlines())
    bench = Bench(guest, kernel, symbols, vmlinux, traceable, watch(guest, symbols, vmlinux))
    guest.snapshot()
    return bench


def one_by_one(bench: Bench, kinds: Sequence[str], functions: Sequence[str]) -> Measured:
    """A program of each kind for each function, and a link for each program; links are closed in the same order."""
    wanted = [(kind, function) for function in functions for kind in kinds]
    loaded = [reply.value for reply in bench.submit([_load(bench, *pair) for pair in wanted])]
    attach, opened = bench.timed([partial(commands.open_link, program=fd) for fd in loaded if fd >= 0])
    attached = bench.enabled()
    detach, _ = bench.timed([partial(commands.close, fd=fd) for fd in opened if fd >= 0])
    answers = iter(opened)
    outcomes = zip(wanted, [fd if fd < 0 else next(answers) for fd in loaded], strict=True)
    refused = {f"{kind}:{function}": errno_name(value) for (kind, function), value in outcomes if value < 0}
    return Measured(attach, detach, attached, bench.enabled(), refused)


def _load(bench: Bench, kind: str, function: str) -> Step:
    btf_id = bench.vmlinux.functions.get(function, 0)
    return partial(load_empty, kind=kind, btf_id=btf_id)


def tracing_multi(bench: Bench, wanted: Mapping[str, Sequence[str]]) -> Measured:
    """One program of each kind, and for each one link that has all of the kind's functions."""
    loads = [partial(load_empty, kind=kind, multi=True) for kind in wanted]
    creating = [
        partial(
            commands.create_multi_link,
            program=loaded.value,
            attach_type=ATTACH_TYPES[kind, True],
            btf_ids=[bench.vmlinux.functions.get(function, 0) for function in functions],
        )
        for loaded, (kind, functions) in zip(bench.submit(loads), wanted.items(), strict=True)
    ]
    return _measure(bench, creating)


def kprobe_multi(bench: Bench, functions: Sequence[str]) -> Measured:
    """One program and one link that has a fprobe on the entry of all functions."""
    addresses = [bench.symbols.address(function) for function in functions]
    fd = bench.submit([partial(commands.load_kprobe, instructions=EMPTY)])[0].value
    return _measure(bench, [partial(commands.create_kprobe_multi, program=fd, functions=addresses)])


def _measure(bench: Bench, creating: Sequence[Step]) -> Measured:
    attach, opened = bench.timed(creating)
    attached = bench.enabled()
    detach, _ = bench.timed([partial(commands.close, fd=fd) for fd in opened if fd >= 0])
    return Measured(attach, detach, attached, bench.enabled(), _find_refusal(opened))


def through_module(
    bench: Bench, before: Sequence[Operation], attaching: Sequence[Operation], detaching: Sequence[Operation]
) -> Measured:
    """Operations of ftrace's own interfaces, which name one ops, OPS, and one trampoline, STUB."""
    numbers = Numbers({OPS: 0}, {STUB: 0}, bench.symbols.address)

    def commands(operations: Sequence[Operation]) -> list[Step]:
        texts = [control.encode(operation, numbers) for operation in operations]
        return [partial(Batch.write_file, path=CONTROL, data=text) for text in texts]

    bench.submit(commands(before))
    attach, made = bench.timed(commands(attaching))
    attached = bench.enabled()
    detach, undone = bench.timed(commands(detaching))
    return Measured(attach, detach, attached, bench.enabled(), _find_refusal([*made, *undone]))


def _find_refusal(values: Sequence[int]) -> dict[str, str]:
    """The first errno among what calls returned, if any."""
    errors = [errno_name(value) for value in values if value < 0]
    return {"": errors[0]} if errors else {}
