"""Kernel symbols: names and addresses of the kernel proper, and of modules as they come and go.

The kernel's own do not move (nokaslr), so /proc/kallsyms is parsed once; those of a module that was loaded since are
worked out from its .ko and from where the kernel put its sections, which costs no read of all symbols.
"""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from impl.linux.guest.frames import Batch, Reply
from spec.errors import BadInputError

__all__ = ["Place", "Symbols", "Table", "module_sections", "module_table", "parse_kallsyms", "read_sections"]

# Beyond the last symbol of a table nothing says where the text ends.
REACH = 4096
# Symbols below are offsets into the per-CPU area, not addresses.
LOWEST = 1 << 63

ELF_HEADER = struct.Struct("<16sHHIQQQIHHHHHH")
SECTION_HEADER = struct.Struct("<IIQQQQIIQQ")
SYMBOL = struct.Struct("<IBBHQQ")
SHF_ALLOC, SHT_SYMTAB, STT_SECTION, STT_FILE, SHN_LORESERVE = 2, 2, 3, 4, 0xFF00


@dataclass(frozen=True, slots=True)
class Place:
    """An address as its symbol and the distance from it; module is None for the kernel proper."""

    symbol: str
    offset: int
    module: str | None

    def __str__(self) -> str:
        return f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol


@dataclass(frozen=True)
class Table:
    """Symbols in ascending order of addresses; of several at one address the first is the one to print."""

    starts: Sequence[int]
    names: Sequence[str]

    @cached_property
    def by_name(self) -> Mapping[str, Sequence[int]]:
        """Addresses of each name, ascending."""
        found: dict[str, list[int]] = {}
        for start, name in zip(self.starts, self.names, strict=True):
            found.setdefault(name, []).append(start)
        return found

    def at(self, address: int) -> tuple[str, int] | None:
        """The symbol at or before an address, and the distance; None outside the table."""
        after = bisect_right(self.starts, address)
        if not after:
            return None
        start = self.starts[after - 1]
        if start < LOWEST or (after == len(self.starts) and address - start >= REACH):
            return None
        first = after - 1
        while first and self.starts[first - 1] == start:
            first -= 1
        return self.names[first], address - start


@dataclass(frozen=True)
class Symbols:
    """The kernel's table, and one for each module; `bpf` and `__builtin__ftrace` count as modules, as in kallsyms."""

    kernel: Table
    modules: Mapping[str, Table] = field(default_factory=dict)

    def with_module(self, module: str, table: Table) -> Symbols:
        """The same with this table for the module, whatever was known of it."""
        return replace(self, modules={**self.modules, module: table})

    def without_module(self, module: str) -> Symbols:
        """The same after the module has gone."""
        return replace(self, modules={name: table for name, table in self.modules.items() if name != module})

    def addresses(self, name: str, module: str | None = None) -> Sequence[int]:
        """All addresses of a name, ascending, in the kernel proper or in one module; empty if there is none."""
        table = self.kernel if module is None else self.modules.get(module)
        return table.by_name.get(name, ()) if table else ()

    def address(self, name: str, module: str | None = None) -> int:
        """The one address of a name; BadInputError if it has none or several."""
        found = self.addresses(name, module)
        if len(found) != 1:
            where = f"module {module}" if module else "the kernel"
            raise BadInputError(f"{where} has {len(found) or 'no'} symbols {name}, one is needed")
        return found[0]

    def at(self, address: int) -> Place | None:
        """Where an address lies: in the kernel, else in the module whose nearest symbol is closest; None for data."""
        inside = self.kernel.at(address)
        if inside:
            return Place(*inside, None)
        found = [
            Place(*place, module) for module, table in self.modules.items() if (place := table.at(address)) is not None
        ]
        return min(found, key=lambda place: place.offset, default=None)


def parse_kallsyms(text: bytes) -> Symbols:
    """The whole of /proc/kallsyms: lines ADDRESS TYPE NAME, for modules followed by [MODULE], the kernel's first."""
    # A line of a module has four words and the others three, so each part is split as a whole, which is fast.
    bracket = text.find(b"\t[")
    boundary = text.rfind(b"\n", 0, bracket) + 1 if bracket >= 0 else len(text)
    words = text[:boundary].decode().split()
    if len(words) % 3:
        raise BadInputError("kallsyms: a line is not ADDRESS TYPE NAME")
    return Symbols(_table(zip(map(_hex, words[::3]), words[2::3], strict=True)), _modules(text[boundary:].decode()))


def _modules(text: str) -> dict[str, Table]:
    pairs: dict[str, list[tuple[int, str]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 4:
            raise BadInputError(f"kallsyms: a module's line is not ADDRESS TYPE NAME [MODULE]: {line}")
        pairs.setdefault(words[3].strip("[]"), []).append((_hex(words[0]), words[2]))
    return {module: _table(found) for module, found in pairs.items()}


def _hex(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise BadInputError(f"kallsyms: {word} is no address") from None


def _table(pairs: Iterable[tuple[int, str]]) -> Table:
    ordered = sorted(pairs, key=lambda pair: pair[0])
    return Table([start for start, _ in ordered], [name for _, name in ordered])


@dataclass(frozen=True, slots=True)
class _Section:
    name: str
    kind: int
    flags: int
    content: bytes
    link: int


def _sections(ko: bytes) -> list[_Section]:
    # The last field of the ELF header is the index of the section that holds the sections' names.
    fields = ELF_HEADER.unpack_from(ko)
    if fields[0][:6] != b"\x7fELF\x02\x01":
        raise BadInputError("a module is no little-endian 64-bit ELF file")
    at, count, names = fields[6], fields[12], fields[13]
    headers = [SECTION_HEADER.unpack_from(ko, at + SECTION_HEADER.size * index) for index in range(count)]
    strings = _content(ko, headers[names])
    return [
        _Section(_string(strings, header[0]), header[1], header[2], _content(ko, header), header[6])
        for header in headers
    ]


def _content(ko: bytes, header: Sequence[int]) -> bytes:
    return ko[header[4] : header[4] + header[5]]


def _string(strings: bytes, at: int) -> str:
    return strings[at : strings.index(b"\0", at)].decode()


def _defined(ko: bytes) -> list[tuple[str, str, int]]:
    """Symbols of a .ko: section, name, offset in the section; none of .init, whose memory the kernel takes back."""
    sections = _sections(ko)
    found = []
    for table in (section for section in sections if section.kind == SHT_SYMTAB):
        strings = sections[table.link].content
        for name, info, _, index, value, _ in SYMBOL.iter_unpack(table.content):
            if not name or index >= SHN_LORESERVE or info & 15 in {STT_SECTION, STT_FILE}:
                continue
            section = sections[index]
            if section.flags & SHF_ALLOC and not section.name.startswith(".init"):
                found.append((section.name, _string(strings, name), value))
    return found


def module_sections(ko: bytes) -> tuple[str, ...]:
    """The sections of a module's .ko whose addresses are needed for its symbols, in the order of their names."""
    return tuple(sorted({section for section, _, _ in _defined(ko)}))


def module_table(ko: bytes, addresses: Mapping[str, int]) -> Table:
    """The symbols of a loaded module, by the addresses of its sections; a section without one is left out."""
    return _table((addresses[section] + offset, name) for section, name, offset in _defined(ko) if section in addresses)


def read_sections(batch: Batch, module: str, sections: Sequence[str]) -> Callable[[Sequence[Reply]], dict[str, int]]:
    """Add the reads of a loaded module's section addresses; what is returned makes them of the reply.

    A section that the kernel did not keep is left out. Source: /sys/module/NAME/sections.
    """
    entries = {section: batch.read_file(f"/sys/module/{module}/sections/{section}") for section in sections}

    def result(replies: Sequence[Reply]) -> dict[str, int]:
        return {
            section: int(replies[entry].data[0], 16) for section, entry in entries.items() if replies[entry].value > 0
        }

    return result
