"""What the kernel holds for ftrace and BPF: memory of the JIT, names, links, records, and objects of its allocators.

Names that kallsyms has of BPF's programs and images and of ops' own trampolines are read from the lists that it walks,
which takes no search of all symbols. Who allocated an area is always told; who an object, where the kernel was booted
with slub_debug=U.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from impl.linux.bpf.commands import first_link
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.guest import Guest
from impl.linux.probes.btf import Btf
from impl.linux.probes.ringbuffer import ROOT
from impl.linux.probes.symbols import Symbols
from spec.abi import SLOT_BYTES

__all__ = ["Holdings", "HoldingsReader"]

JIT = "bpf_jit_current"
IMAGES, TRAMPOLINES = "bpf_kallsyms", "ftrace_ops_trampoline_list"
TABLE, EMPTY, OF_TABLE = "direct_functions", "empty_hash", "alloc_ftrace_hash"
RECORDS, COUNTED = f"{ROOT}/dyn_ftrace_total_info", ("records", "pages of records", "groups of pages of records")
SLABS, TRACES = "/proc/slabinfo", "/sys/kernel/debug/slab/{}/alloc_traces"
AREAS, AREA = "/proc/vmallocinfo", re.compile(r"^\S+ +\d+ (\w+)", re.MULTILINE)
"""Areas of vmalloc() and of code, with who allocated each."""

SHRINK, QUARANTINE = "/sys/kernel/slab/{}/shrink", "kasan_quarantine_remove_cache"
CACHE = re.compile(r"^(kmalloc-(?:rnd-\d+-)?\d+k?) ", re.MULTILINE)
SITE = re.compile(r"^ *(\d+) (\w+)", re.MULTILINE)
NUMBER = re.compile(r"-?\d+")
ALLOCATES = re.compile(r".*(ftrace|trampoline|tramp_|tracing_(prog|multi|link)|hash_entry|jit_alloc_exec).*")
"""Functions whose allocations are counted; inlined ones count as the function that they are in."""

BARRIER = "kvfree_rcu_barrier"
IMAGE_BYTES, MAKES_IMAGES = 1024, frozenset({"bpf_trampoline_update", "bpf_tramp_image_alloc"})
"""Images go by kfree_rcu(): in a kernel without that barrier nobody can wait until they have gone."""

STACK_BYTES, MAKES_STACKS = 2048, frozenset({"register_ftrace_graph", "ftrace_graph_init_idle_task"})
"""Tasks keep the shadow stacks that they got with the first user of the graph tracer."""

KEEPERS = frozenset({"ftrace_free_mem", "arch_ftrace_update_trampoline"})
"""The kernel notes a module's init functions until it goes; an ops that is not dynamic keeps its trampoline."""

DYNAMIC = 1 << 1
"""FTRACE_OPS_FL_DYNAMIC."""

HASH_BYTES = 48
"""Of struct ftrace_hash."""

SIZES = (8, 16, 32, 64, 96, 128, 192, 256, *(512 << power for power in range(5)))
"""Of the objects of kmalloc()'s caches."""

MOST_NAMES = 10_000
NAME_BYTES = 512


@dataclass(frozen=True, slots=True)
class Holdings:
    """jit: bytes that are charged. names: how often kallsyms has each. linked: whether a link has an id.

    records: how many there are, and the pages and groups that they are kept in. objects: how many there are by the
    function that allocated them; but for the two of the kernel's table of direct calls, once it has one. What the
    kernel does not tell is 0 or empty.
    """

    jit: int
    names: Mapping[str, int]
    linked: bool
    records: Mapping[str, int]
    objects: Mapping[str, int]

    def without_tables(self) -> Holdings:
        """The same without objects that tables of direct calls, and other hashes, are made of."""
        return replace(self, objects={name: number for name, number in self.objects.items() if name != OF_TABLE})

    def beyond(self, before: Holdings) -> str:
        """What there is more, or less, than before, a line each; empty if nothing is."""
        lines = [*_differ("in kallsyms: {}", before.names, self.names)]
        lines += _differ("{}", before.records, self.records)
        lines += _differ("allocated by {}", before.objects, self.objects)
        if self.jit != before.jit:
            lines.append(f"{self.jit - before.jit:+} bytes of JIT memory")
        if self.linked and not before.linked:
            lines.append("a link that has an id")
        return "\n".join(lines)


def _differ(what: str, before: Mapping[str, int], after: Mapping[str, int]) -> Iterator[str]:
    for name in sorted(before.keys() | after.keys()):
        more = after.get(name, 0) - before.get(name, 0)
        if more:
            yield f"{more:+} {what.format(name)}"


def _count_records(told: Reply) -> Mapping[str, int]:
    """The numbers of the first line; those behind it are times."""
    if told.value < 0:
        return {}
    numbers = NUMBER.findall(told.data[0].decode().partition("\n")[0])
    return dict(zip(COUNTED, map(int, numbers), strict=True))


def _read_size(cache: str) -> int:
    """The bytes of an object of a cache, which stand last in its name."""
    text = cache.rpartition("-")[2]
    return int(text.removesuffix("k")) << (10 if text.endswith("k") else 0)


class HoldingsReader:
    """Reads a guest; what its kernel does not show is left out."""

    def __init__(self, guest: Guest, symbols: Symbols, vmlinux: Btf) -> None:
        self._guest, self._symbols = guest, symbols
        # Looking for a struct takes most of a second.
        self._ksym = vmlinux.member_offset("bpf_ksym", "lnode"), vmlinux.member_offset("bpf_ksym", "name")
        self._ops = vmlinux.member_offset("ftrace_ops", "list"), vmlinux.member_offset("ftrace_ops", "flags")
        self._caches = self._find_caches()

    def read(self) -> Holdings:
        """What there is now; settle before."""
        batch = Batch()
        link = first_link(batch)
        jit = self._add_jit(batch)
        records = batch.read_file(RECORDS)
        objects = self._add_objects(batch)
        table = self._add_table(batch)
        replies = self._guest.submit(batch)
        names = Counter((*self._name_images(), *self._name_trampolines()))
        counted = objects(replies)
        counted[OF_TABLE] -= self._count_table(table(replies))
        told = _count_records(replies[records])
        return Holdings(jit(replies), names, replies[link].value >= 0, told, +counted)

    def _find_caches(self) -> Sequence[str]:
        """The caches of kmalloc() of which the kernel tells who allocates."""
        batch = Batch()
        table = batch.read_file(SLABS)
        reply = self._guest.submit(batch)[table]
        if reply.value < 0:
            return ()
        names = CACHE.findall(reply.data[0].decode())
        batch = Batch()
        traces = [batch.read_file(TRACES.format(name)) for name in names]
        replies = self._guest.submit(batch)
        return [name for name, trace in zip(names, traces, strict=True) if replies[trace].value > 0]

    def _add_jit(self, batch: Batch) -> Callable[[Sequence[Reply]], int]:
        place = self._symbols.addresses(JIT)
        if len(place) != 1:
            return lambda _: 0
        read = batch.read_memory(place[0], SLOT_BYTES)
        return lambda replies: int.from_bytes(replies[read].data[0], "little")

    def _add_objects(self, batch: Batch) -> Callable[[Sequence[Reply]], Counter[str]]:
        # KASAN keeps what was freed, as if it were in use, until its cache is shrunk (mm/kasan/quarantine.c).
        for name in self._caches if self._symbols.addresses(QUARANTINE) else ():
            batch.write_file(SHRINK.format(name), b"1")
        traces = {name: batch.read_file(TRACES.format(name)) for name in self._caches}
        areas = batch.read_file(AREAS)

        def count(replies: Sequence[Reply]) -> Counter[str]:
            callers = AREA.findall(replies[areas].data[0].decode()) if replies[areas].value >= 0 else ()
            found = Counter(each for each in callers if ALLOCATES.fullmatch(each) and each not in KEEPERS)
            for name, trace in traces.items():
                for number, function in SITE.findall(replies[trace].data[0].decode()):
                    if ALLOCATES.fullmatch(function) and not self._stays(name, function):
                        found[function] += int(number)
            return found

        return count

    def _stays(self, cache: str, function: str) -> bool:
        """Whether objects of a cache that this function has allocated may be there once all is undone and settled."""
        size = _read_size(cache)
        images = size == IMAGE_BYTES and function in MAKES_IMAGES and not self._symbols.addresses(BARRIER)
        stacks = size >= STACK_BYTES and function in MAKES_STACKS
        return images or stacks or function in KEEPERS

    def _add_table(self, batch: Batch) -> Callable[[Sequence[Reply]], int]:
        """The address of what direct_functions is; 0 for the empty hash that it is at first."""
        variable, empty = (self._symbols.addresses(name) for name in (TABLE, EMPTY))
        if not self._caches or len(variable) != 1:
            return lambda _: 0
        read = batch.read_memory(variable[0], SLOT_BYTES)

        def find(replies: Sequence[Reply]) -> int:
            table = int.from_bytes(replies[read].data[0], "little")
            return 0 if table in empty else table

        return find

    def _count_table(self, table: int) -> int:
        """How many objects of the caches that are looked at a table of direct calls is: itself, and its buckets."""
        if not table:
            return 0
        (bits,) = self._guest.read_memory([(table, SLOT_BYTES)])
        sizes = (HASH_BYTES, SLOT_BYTES << int.from_bytes(bits, "little"))
        known = {_read_size(name) for name in self._caches}
        return sum(next((size for size in SIZES if size >= needed), 0) in known for needed in sizes)

    def _name_images(self) -> Iterator[str]:
        member, name = self._ksym
        for entry in self._walk(IMAGES):
            (text,) = self._guest.read_memory([(entry - member + name, NAME_BYTES)])
            yield text.split(b"\0", 1)[0].decode(errors="replace")

    def _name_trampolines(self) -> Iterator[str]:
        """Those of dynamic ops: others keep theirs for the next time, as graph_ops does."""
        member, flags = self._ops
        for entry in self._walk(TRAMPOLINES):
            (word,) = self._guest.read_memory([(entry - member + flags, SLOT_BYTES)])
            if int.from_bytes(word, "little") & DYNAMIC:
                yield "ftrace_trampoline"

    def _walk(self, symbol: str) -> Iterator[int]:
        """The entries of a list of the kernel's."""
        heads = self._symbols.addresses(symbol)
        if len(heads) != 1:
            return
        at = heads[0]
        for _ in range(MOST_NAMES):
            (following,) = self._guest.read_memory([(at, SLOT_BYTES)])
            at = int.from_bytes(following, "little")
            if at == heads[0] or not at:
                return
            yield at
