"""What can be seen of ftrace after an operation: every site that is not a nop, and warnings and complaints."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import chain

from impl.linux.architectures import SiteCode
from impl.linux.directory import NOWHERE, Directory
from impl.linux.guest.batch import Batch, Reply
from impl.linux.guest.guest import Guest
from impl.linux.laboratory.tuning import untaint
from impl.linux.probes.disassembly import Disassembly, ProgramCall, disassemble
from impl.linux.probes.enabled import (
    EnabledFunction,
    direct_functions,
    parse_enabled_functions,
    require_sense,
    site_of,
)
from impl.linux.probes.records import RecordReader
from impl.linux.probes.reports import Kind, parse_reports
from impl.linux.probes.tracefs import ENABLED
from spec.abi import SLOT_BYTES
from spec.errors import BadInputError
from spec.sites import Site

__all__ = ["EmulatorLimitError", "IllegibleError", "KernelComplaintError", "Observer", "Spelling", "legible"]

TAINTED = "/proc/sys/kernel/tainted"
WARNED = 1 << 9
IMAGE_BYTES = 4096
IMAGE, STACK = "trampoline:", "stack"
CALLBACK, REDIRECT, FPROBE = re.compile(r"massattach_ops(\d+)"), "massattach_redirect", "fprobe_"
BEARABLE = frozenset({Kind.WARNING, Kind.SLOWNESS})
"""Kinds of reports that are no complaints: a warning is compared with what the model expects."""

MOST_TOLD = 4000
"""Characters of a report that are kept."""


class KernelComplaintError(Exception):
    """The kernel printed what no operation may make it print."""


class IllegibleError(Exception):
    """The kernel shows what cannot be read, so that something is wrong with it: a finding, and no bad input."""


class EmulatorLimitError(BadInputError):
    """The kernel complains that something took too long, which is the emulator's fault and not the kernel's."""


@dataclass(frozen=True, slots=True)
class Spelling:
    """How seeds spell what is at an address.

    tramp: a direct stub by its number; ops: by its slot; program: KIND:PROG by the address of its code, as it was when
    it was loaded last, or None.
    """

    tramp: Callable[[int], str]
    ops: Callable[[int], str]
    program: Callable[[ProgramCall], str | None]


@dataclass(slots=True)
class Observer:
    """Reads the state. warning: what the console printed in the last operation."""

    directory: Directory
    spelling: Spelling
    sites: dict[str, Site] = field(default_factory=dict)
    warning: str = ""
    _images: dict[int, tuple[bytes, str]] = field(default_factory=dict)
    _ways: dict[int, str] = field(default_factory=dict)
    _entries_of: dict[str, int] = field(default_factory=dict)
    _codes: dict[str, SiteCode] = field(default_factory=dict)
    _trampolines: Mapping[int, str] = field(default_factory=dict)

    def add(self, batch: Batch, *, locked: bool = False) -> Callable[[Sequence[Reply]], bool]:
        """Add the reads to a batch; what is returned makes `sites` of the reply, and says whether the kernel warned.

        locked: an operation waits that has ftrace's lock, which whoever reads enabled_functions needs, too.
        """
        if locked:
            return self._add_locked(batch)
        enabled, tainted = batch.read_file(ENABLED), batch.read_file(TAINTED)

        def read(replies: Sequence[Reply]) -> bool:
            with legible():
                self._trampolines = {}
                functions = parse_enabled_functions(replies[enabled].data[0].decode())
                require_sense(functions)
                self._observe(functions)
            return self._has_warned(int(replies[tainted].data[0]))

        return read

    def add_warnings(self, batch: Batch) -> Callable[[Sequence[Reply]], bool]:
        """As add(), after what changes no site."""
        tainted = batch.read_file(TAINTED)
        return lambda replies: self._has_warned(int(replies[tainted].data[0]))

    def _add_locked(self, batch: Batch) -> Callable[[Sequence[Reply]], bool]:
        tainted = batch.read_file(TAINTED)

        def read(replies: Sequence[Reply]) -> bool:
            with legible():
                station = self.directory.station
                reader = RecordReader(station.guest, self.directory.symbols, station.vmlinux)
                self._trampolines = reader.trampolines()
                self._observe(reader.enabled_functions())
            return self._has_warned(int(replies[tainted].data[0]))

        return read

    def entry(self, function: str) -> int:
        """What the site of a function calls directly, as it was seen last: an image, or a trampoline; 0 for none."""
        return self._entries_of.get(function, 0)

    def entry_behind(self, site: SiteCode) -> int:
        """A site that consists of this instruction leads to this address, by the kernel's own table; 0 for none."""
        if site.target is None:
            return 0
        table = self._read_direct_functions()
        entries = {entry & ~1 for entry in table.values()}
        return site.target if site.target in entries else table.get(site.address, 0) & ~1

    @property
    def _guest(self) -> Guest:
        return self.directory.station.guest

    def check(self) -> None:
        """Look only at what went wrong: a warning that no operation announced, or a program's context that stayed."""
        batch = Batch()
        tainted = batch.read_file(TAINTED)
        context = batch.read_memory(self.directory.station.run_context, SLOT_BYTES)
        replies = self._guest.submit(batch)
        if self._has_warned(int(replies[tainted].data[0])):
            raise KernelComplaintError(f"the kernel warned in a call:\n{self.warning[-MOST_TOLD:]}")
        if any(replies[context].data[0]):
            raise KernelComplaintError("the task that called has the context of a program, and runs none")

    def _observe(self, functions: Sequence[EnabledFunction]) -> None:
        """Read the bytes of every site that is shown or was shown before; one that is a nop is left out."""
        if not functions and self.sites and self._has_died():
            self._look_again()
            return
        addresses = self._find_addresses(functions)
        gone = [name for name in self.sites if name not in addresses]
        old = {name: address for name in gone if (address := self.directory.address(name)) > 1}
        places = {**{name: address for name, (address, _) in addresses.items()}, **old}
        codes = self._read_sites(places)
        live = {name: (function, codes[name]) for name, (_, function) in addresses.items()}
        self._codes = codes
        self._entries_of = entries = self._find_entries(live)
        spelled = self._spell({*(c.target for _, c in live.values() if c.target), *entries.values()}, functions)
        self.sites = {
            name: site_of(function, code, entries.get(name), lambda address: spelled.get(address, f"{address:#x}"))
            for name, (function, code) in live.items()
        }
        for name in old:
            if codes[name].kind != "nop":
                self.sites[name] = Site(0, False, False, False, f"{codes[name].target:#x}")

    def _has_died(self) -> bool:
        """Whether ftrace has died: enabled_functions is empty then."""
        (flag,) = self._guest.read_memory([(self.directory.symbols.address("ftrace_disabled"), 4)])
        return any(flag)

    def _look_again(self) -> None:
        """After ftrace has died a site that still has its bytes is as it was shown last; a nop is left out."""
        places = {name: address for name in self.sites if (address := self.directory.address(name)) > NOWHERE}
        codes = self._read_sites(places)
        self.sites = {name: self._as_before(name, codes[name]) for name in places if codes[name].kind != "nop"}

    def _as_before(self, name: str, code: SiteCode) -> Site:
        same = code.target == self._codes[name].target
        return self.sites[name] if same else Site(0, False, False, False, f"{code.target or 0:#x}")

    def _find_addresses(self, functions: Sequence[EnabledFunction]) -> dict[str, tuple[int, EnabledFunction]]:
        """The address of each function; of symbols that share a name, in order, of those whose sites are no nops."""
        found: dict[str, tuple[int, EnabledFunction]] = {}
        shared: dict[tuple[str, str | None], list[int]] = {}
        for function in functions:
            key = function.symbol, function.module
            starts = self.directory.starts(*key)
            if len(starts) > 1 and key not in shared:
                codes = self._read_sites(dict(zip(map(str, starts), starts, strict=True)))
                shared[key] = [start for start in starts if codes[str(start)].kind != "nop"]
            address = shared[key].pop(0) if shared.get(key) else (starts[0] if starts else 0)
            found[self.directory.named(function.symbol, function.module, address)] = address, function
        return found

    def _read_sites(self, places: Mapping[str, int]) -> dict[str, SiteCode]:
        architecture = self.directory.station.kernel.architecture
        texts = self._guest.read_memory([(address, architecture.site_bytes) for address in places.values()])
        return {name: architecture.decode_site(places[name], text) for name, text in zip(places, texts, strict=True)}

    def _find_entries(self, live: Mapping[str, tuple[EnabledFunction, SiteCode]]) -> dict[str, int]:
        """What is behind `direct-->`: what the site calls, or else what the kernel's own table has."""
        direct = {name: code for name, (function, code) in live.items() if function.entry}
        alone = {name for name in direct if live[name][0].count == 1}
        found = {name: code.target for name, code in direct.items() if name in alone and code.target}
        if len(found) < len(direct):
            table = self._read_direct_functions()
            for name in direct.keys() - found.keys():
                found[name] = table.get(direct[name].address, 0) & ~1
        return found

    def _read_direct_functions(self) -> Mapping[int, int]:
        return direct_functions(self._guest.read_memory, self.directory.symbols.address("direct_functions"))

    def count_images(self) -> int:
        """How many entries of the kernel's own table are trampolines of BPF, whatever the sites show."""
        entries = self._read_direct_functions().values()
        return sum(self.directory.stub(entry & ~1) is None for entry in entries)

    def _spell(self, addresses: set[int], functions: Sequence[EnabledFunction]) -> dict[int, str]:
        """How each address is spelled; the code of all images is read in one frame."""
        shown = {f.trampoline.at.address: f.trampoline.func.symbol for f in functions if f.trampoline}
        callbacks = chain(self._trampolines.items(), shown.items())
        known = {at: self._spell_ops(callback) for at, callback in callbacks}
        spelled = {
            address: text for address in addresses if (text := known.get(address) or self._spell_symbol(address))
        }
        images = sorted(addresses - spelled.keys() - {0})
        self._forget_but(images)
        codes = self._guest.read_memory([(address, IMAGE_BYTES) for address in images])
        return spelled | {
            address: self._spell_image(address, code) for address, code in zip(images, codes, strict=True)
        }

    def _forget_but(self, images: Collection[int]) -> None:
        """An image is known by its address as long as a site shows it; another one may come there.

        Memory of images and programs is given out anew, so that this may consist of the same bytes, and yet call a
        program that has come to the address of another.
        """
        self._images = {address: seen for address, seen in self._images.items() if address in images}
        self._ways = {address: way for address, way in self._ways.items() if address in images}

    def _spell_symbol(self, address: int) -> str | None:
        stub = self.directory.stub(address)
        if stub is not None:
            return f"direct:{self.spelling.tramp(stub)}"
        place = self.directory.symbols.at(address)
        exact = place is not None and place.module is None and not place.offset
        return place.symbol if place and exact else None

    def shares(self, function: str) -> bool:
        """Whether the function's image takes the original from its stack (ORIG_STACK), as for an IPMODIFY user."""
        return self._ways.get(self._entries_of.get(function, 0)) == STACK

    def originals(self) -> Mapping[str, str]:
        """How each image that a site shows reaches the original, if it calls it: by its address, or its stack."""
        shown = (name for name, site in self.sites.items() if (site.entry or "").startswith(IMAGE))
        ways = ((name, self._ways.get(self._entries_of.get(name, 0))) for name in shown)
        return {name: "address" if way == name else way for name, way in ways if way}

    def _spell_ops(self, callback: str | None) -> str:
        match = CALLBACK.fullmatch(callback or "")
        if match:
            return f"ops:{self.spelling.ops(int(match[1]))}"
        if (callback or "").startswith(FPROBE):
            return "ops:fprobe"
        return "ops:klp_ops" if callback == REDIRECT else "ops:graph_ops"

    def _spell_image(self, address: int, code: bytes) -> str:
        """The programs of an image in running order; an image's text stays while only detached programs are skipped."""
        seen = self._images.get(address)
        if seen and seen[0] == code:
            return seen[1]
        station = self.directory.station
        image = disassemble(station.kernel.architecture, address, code, station.helpers)
        if seen and any(call.skipped for call in image.programs):
            return seen[1]
        text = f"{IMAGE}{','.join(self._spell_programs(image))}"
        self._images[address] = code, text
        self._ways.pop(address, None)
        if image.original is not None:
            target = image.original.target
            self._ways[address] = STACK if target is None else self.directory.body_at(target)
        return text

    def _spell_programs(self, image: Disassembly) -> list[str]:
        return [self.spelling.program(call) or f"{call.kind}:{call.program:#x}" for call in image.programs]

    def _has_warned(self, taint: int) -> bool:
        """Whether the kernel has warned since the last look; then the same warning can come again."""
        station = self.directory.station
        console = station.guest.console()
        reports = parse_reports(console)
        if stall := next((report for report in reports if report.kind is Kind.STALL), None):
            raise EmulatorLimitError(f"the emulator is too slow for this kernel: {stall.title}")
        if complaint := next((report for report in reports if report.kind not in BEARABLE), None):
            raise KernelComplaintError(f"{complaint}\n{complaint.text[:MOST_TOLD]}")
        if (taint ^ station.taint) & ~WARNED:
            raise KernelComplaintError(f"the kernel is tainted ({taint}):\n{console[-MOST_TOLD:]}")
        self.warning = console
        if taint == station.taint:
            return False
        untaint(station.guest, self.directory.symbols, station.taint)
        return True


@contextmanager
def legible() -> Iterator[None]:
    """While this lasts, what cannot be read is the kernel's doing."""
    try:
        yield
    except EmulatorLimitError:
        raise
    except BadInputError as error:
        raise IllegibleError(str(error)) from error
