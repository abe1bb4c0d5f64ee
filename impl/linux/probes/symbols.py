"""Kernel symbols: names and addresses of the kernel proper, and of modules as they come and go.

The kernel's own do not move (nokaslr), so /proc/kallsyms is parsed once; those of a module that was loaded since are
worked out from its .ko and from where the kernel put its sections, which costs no read of all symbols.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from io import BytesIO

from elftools.common.exceptions import ELFError
from elftools.elf.constants import SH_FLAGS
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from impl.linux.guest.batch import Batch
from impl.linux.guest.guest import Guest
from spec.errors import BadInputError

__all__ = ["KALLSYMS", "Place", "Symbols", "Table", "module_sections", "module_table", "parse_kallsyms", "read_module"]

KALLSYMS = "/proc/kallsyms"
# no symbol says where the text behind the last one ends
LAST_SYMBOL_BYTES = 4096
# symbols below are offsets into the per-CPU area
LOWEST_ADDRESS = 1 << 63
NO_SYMBOLS = {"STT_SECTION", "STT_FILE"}


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
        if start < LOWEST_ADDRESS or (after == len(self.starts) and address - start >= LAST_SYMBOL_BYTES):
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
        """These symbols, with this table for the module in place of any other."""
        return replace(self, modules={**self.modules, module: table})

    def without_module(self, module: str) -> Symbols:
        """These symbols, without those of the module."""
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
        """The place of an address: in the kernel, or in the module with the nearest symbol before it; None for data."""
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
    return Symbols(
        _make_table(zip(map(_parse_address, words[::3]), words[2::3], strict=True)),
        _parse_modules(text[boundary:].decode()),
    )


def _parse_modules(text: str) -> dict[str, Table]:
    pairs: dict[str, list[tuple[int, str]]] = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) != 4:
            raise BadInputError(f"kallsyms: a module's line is not ADDRESS TYPE NAME [MODULE]: {line}")
        pairs.setdefault(words[3].strip("[]"), []).append((_parse_address(words[0]), words[2]))
    return {module: _make_table(found) for module, found in pairs.items()}


def _parse_address(word: str) -> int:
    try:
        return int(word, 16)
    except ValueError:
        raise BadInputError(f"kallsyms: {word} is no address") from None


def _make_table(pairs: Iterable[tuple[int, str]]) -> Table:
    ordered = sorted(pairs, key=lambda pair: pair[0])
    return Table([start for start, _ in ordered], [name for _, name in ordered])


@lru_cache(maxsize=8)
def _read_elf_symbols(ko: bytes) -> Sequence[tuple[str, str, int]]:
    """Symbols of a .ko: section, name, offset in the section; none of .init, whose memory the kernel takes back."""
    try:
        elf = ELFFile(BytesIO(ko))
        table = elf.get_section_by_name(".symtab")
        kept = {
            index: section.name
            for index, section in enumerate(elf.iter_sections())
            if section["sh_flags"] & SH_FLAGS.SHF_ALLOC and not section.name.startswith(".init")
        }
        return [
            (kept[symbol["st_shndx"]], symbol.name, symbol["st_value"])
            for symbol in (table.iter_symbols() if isinstance(table, SymbolTableSection) else ())
            if symbol.name and symbol["st_shndx"] in kept and symbol["st_info"]["type"] not in NO_SYMBOLS
        ]
    except ELFError as error:
        raise BadInputError("a module is no ELF file") from error


def module_sections(ko: bytes) -> tuple[str, ...]:
    """The sections of a module's .ko whose addresses are needed for its symbols, in the order of their names."""
    return tuple(sorted({section for section, _, _ in _read_elf_symbols(ko)}))


def module_table(ko: bytes, addresses: Mapping[str, int]) -> Table:
    """The symbols of a loaded module, by the addresses of its sections; a section without one is left out."""
    symbols = _read_elf_symbols(ko)
    return _make_table((addresses[section] + offset, name) for section, name, offset in symbols if section in addresses)


def read_module(guest: Guest, module: str, ko: bytes) -> Table:
    """The symbols of a module that is loaded, by what /sys/module/NAME/sections says of its sections.

    The symbols of sections that the kernel did not keep are left out.
    """
    batch = Batch()
    sections = module_sections(ko)
    for section in sections:
        batch.read_file(f"/sys/module/{module}/sections/{section}")
    answers = zip(sections, guest.submit(batch), strict=True)
    return module_table(ko, {section: int(reply.data[0], 16) for section, reply in answers if reply.value > 0})
