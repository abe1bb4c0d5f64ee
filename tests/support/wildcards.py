"""Wildcards that people used, with where they come from, and what a guest does with them.

wildcards.tsv has a line each: the probe as `plan` takes it, what was typed, and its address. Who typed kprobe,
funccount or a filter of ftrace meant the same functions: here they are taken by trampolines.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from impl.linux.bpf import commands
from impl.linux.bpf.features import load_empty
from impl.linux.bpf.recorders import ATTACH_TYPES
from impl.linux.guest.batch import Batch, Ref, Reply
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest, GuestDiedError
from impl.linux.guest.packages import Kernel
from impl.linux.laboratory.tuning import shorten_grace_periods
from impl.linux.probes.btf import BTF_FILES, VMLINUX_BTF, Btf
from impl.linux.probes.enabled import parse_enabled_functions
from impl.linux.probes.symbols import KALLSYMS, Symbols, parse_kallsyms
from impl.linux.probes.tracefs import AVAILABLE, ENABLED, ROOT, add_instance, set_patterns
from properties.kernels.population import booted
from spec.globs import libbpf_matcher

__all__ = ["Room", "Site", "Wildcard", "opened", "read_wildcards"]

FILE = Path(__file__).with_name("wildcards.tsv")
INSTANCE = f"{ROOT}/instances/wildcards"
PATIENCE, LINK_PATIENCE = 300.0, 90.0
WEAK = "__ftrace_invalid_address__"

Site = tuple[str | None, str]
"""A module, None for the kernel proper, and a symbol."""


@dataclass(frozen=True, slots=True)
class Wildcard:
    """A probe as `plan` takes it, what somebody typed, and where."""

    probe: str
    typed: str
    source: str

    def __str__(self) -> str:
        return self.probe


def read_wildcards() -> list[Wildcard]:
    """All of them, in the file's order."""
    return [Wildcard(*line.split("\t")) for line in FILE.read_text().splitlines()]


@dataclass(frozen=True)
class Room:
    """A guest in which nothing is attached.

    descriptors: of the BTFs, by the module's name. aliases: FUNCs of vmlinux whose site ftrace calls otherwise.
    hidden: functions whose record stands before that of a weak function that was overridden (DEFECT-22).
    """

    guest: Guest
    btfs: Mapping[str | None, Btf]
    descriptors: Mapping[str | None, int]
    traceable: frozenset[Site]
    aliases: frozenset[str]
    hidden: frozenset[Site]

    def expand(self, glob: str, module: str | None, *, traceable: bool) -> list[str]:
        """The FUNCs of one BTF that match as libbpf has it; those that are traceable by their name, or all."""
        btf, match = self.btfs[module], libbpf_matcher(glob)
        return [
            name
            for name, number in btf.functions.items()
            if match(name) and btf.prototype(number).describable and (not traceable or (module, name) in self.traceable)
        ]

    def select(self, glob: str) -> Counter[Site]:
        """What ftrace puts into a filter for this glob, which may end in :mod:GLOB."""
        batch = Batch()
        answer = set_patterns(batch, f"{INSTANCE}/set_ftrace_filter", [glob])
        batch.read_file(f"{INSTANCE}/set_ftrace_filter")
        replies = self.guest.submit(batch, PATIENCE)
        if answer(replies):
            return Counter()
        lines = (line.split() for line in replies[-1].data[0].decode().splitlines() if not line.startswith("#"))
        return Counter((words[1].strip("[]") if len(words) > 1 else None, words[0]) for words in lines)

    def link(self, kind: str, module: str | None, names: Sequence[str]) -> tuple[str, Counter[Site], Counter[Site]]:
        """One tracing_multi link: its errno, the sites while it is there, and those after it.

        GuestDiedError: it does not answer in time, since trampolines call trampolines; it is then as it was at first.
        """
        batch, ids = Batch(), [self.btfs[module].functions[name] for name in names]
        program = load_empty(batch, kind, multi=True, btf_fd=self.descriptors[module] if module else 0)
        made = commands.create_multi_link(batch, Ref(program), ATTACH_TYPES[kind, True], ids)
        batch.read_file(ENABLED)
        commands.close(batch, Ref(made))
        commands.close(batch, Ref(program))
        batch.read_file(ENABLED)
        replies = self._submit(batch)
        assert replies[program].value >= 0
        value = replies[made].value
        return errno_name(value) if value < 0 else "", _sites(replies[2].data[0]), _sites(replies[5].data[0])

    def singly(self, kind: str, sites: Iterable[Site]) -> tuple[dict[Site, str], Counter[Site], Counter[Site]]:
        """A program and a link for each function: the errno of each, the sites while they are there, and after.

        GuestDiedError as of `link`.
        """
        batch, entries = Batch(), {}
        for module, name in sites:
            number = self.btfs[module].functions[name]
            program = load_empty(batch, kind, number, btf_fd=self.descriptors[module] if module else 0)
            entries[module, name] = program, commands.open_link(batch, Ref(program))
        first = batch.read_file(ENABLED)
        for program, link in entries.values():
            commands.close(batch, Ref(link))
            commands.close(batch, Ref(program))
        last = batch.read_file(ENABLED)
        replies = self._submit(batch)
        errnos = {
            site: next((errno_name(replies[entry].value) for entry in pair if replies[entry].value < 0), "")
            for site, pair in entries.items()
        }
        return errnos, _sites(replies[first].data[0]), _sites(replies[last].data[0])

    def _submit(self, batch: Batch) -> tuple[Reply, ...]:
        try:
            return self.guest.submit(batch, LINK_PATIENCE)
        except GuestDiedError:
            self.guest.restore()
            raise


def _sites(text: bytes) -> Counter[Site]:
    return Counter((function.module, function.symbol) for function in parse_enabled_functions(text.decode()))


@contextmanager
def opened(kernel: Kernel, modules: Sequence[str]) -> Iterator[Room]:
    """A guest with these modules; grace periods end as soon as they can."""
    with booted(kernel, modules) as (guest, refused):
        assert refused == ()
        kallsyms, available, blob = guest.read(KALLSYMS, AVAILABLE, VMLINUX_BTF)
        symbols, vmlinux = parse_kallsyms(kallsyms), Btf(blob)
        shorten_grace_periods(guest, symbols, vmlinux)
        batch = Batch()
        made = add_instance(batch, INSTANCE.rpartition("/")[2])
        assert made(guest.submit(batch)) == 0
        lines = [line.split() for line in available.decode().splitlines()]
        records: list[Site] = [(words[1].strip("[]") if len(words) > 1 else None, words[0]) for words in lines]
        present = sorted({module for module, _ in records if module is not None})
        blobs = guest.read(*(f"{BTF_FILES}/{module}" for module in present))
        btfs = {module: Btf(found, vmlinux) for module, found in zip(present, blobs, strict=True)}
        descriptors = commands.open_btfs(guest, present)
        guest.snapshot()
        yield Room(
            guest,
            {None: vmlinux, **btfs},
            descriptors,
            frozenset(records),
            _find_aliases(symbols, vmlinux, frozenset(name for module, name in records if module is None)),
            frozenset(site for site, behind in pairwise(records) if behind[1].startswith(WEAK)),
        )


def _find_aliases(symbols: Symbols, vmlinux: Btf, traceable: frozenset[str]) -> frozenset[str]:
    places = {place for name in traceable for place in symbols.addresses(name)}
    return frozenset(
        name
        for name in vmlinux.functions
        if name not in traceable and symbols.addresses(name) and symbols.addresses(name)[0] in places
    )
