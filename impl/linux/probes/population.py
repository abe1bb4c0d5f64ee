"""A kernel's own account of its functions as a population file: what ftrace has records of, and what BTF names beside.

Whoever can read the files of a running kernel can give it: a guest, or this machine. What cannot be read is told in a
sentence, and left out; what nothing can be said without is an error.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from impl.linux.architectures import Architecture
from impl.linux.probes.btf import BTF_FILES, VMLINUX_BTF, Btf
from impl.linux.probes.symbols import KALLSYMS, Symbols, parse_kallsyms
from impl.linux.probes.tracefs import AVAILABLE, ROOT
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type

__all__ = ["Reader", "Survey", "find_sites", "survey"]

ADDRESSES = f"{ROOT}/available_filter_functions_addrs"
"""As AVAILABLE, with the address of each site ("tracing: Add available_filter_functions_addrs file", v6.5)."""

RELEASE, MODULES = "/proc/sys/kernel/osrelease", "/proc/modules"
WEAK = "__ftrace_invalid_address__"


class Reader(Protocol):
    """Where the kernel's files are read."""

    def read(self, *paths: str) -> list[bytes]:
        """The content of files; BadInputError if one cannot be read."""

    def read_memory(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The kernel's memory at each address and of each length; no bytes where it cannot be read."""


@dataclass(frozen=True, slots=True)
class Record:
    """One record of ftrace. address: of its symbol, None if that is not known. module: None for the kernel proper."""

    name: str
    address: int | None
    module: str | None


@dataclass(frozen=True, slots=True)
class Survey:
    """A population, as JSON's values; the complaints say what could not be read, a sentence each."""

    population: dict[str, Any]
    complaints: tuple[str, ...]


@dataclass(slots=True)
class _Account:
    """What was read so far. State: the complaints."""

    reader: Reader
    architecture: Architecture
    symbols: Symbols
    complaints: list[str] = field(default_factory=list)

    def try_to_read(self, path: str, loss: str) -> bytes:
        """The content of a file, or nothing and a complaint."""
        try:
            return self.reader.read(path)[0]
        except BadInputError as error:
            self.complaints.append(f"{error}: {loss}")
            return b""


def survey(reader: Reader, architecture: Architecture) -> Survey:
    """Read everything. BadInputError: kallsyms, the list of ftrace's records or vmlinux's BTF cannot be read."""
    release, kallsyms = reader.read(RELEASE, KALLSYMS)
    symbols = parse_kallsyms(kallsyms)
    if not any(symbols.kernel.starts):
        raise BadInputError(
            f"{KALLSYMS} shows no addresses: read it as root, with kernel.kptr_restrict at most 1 (sysctl)"
        )
    account = _Account(reader, architecture, symbols)
    records = _read_records(account)
    btfs = _read_btfs(account)
    names = _Names(symbols, records)
    types = _Types()
    functions = list(_list_records(records, btfs, names, types))
    others = list(_list_others(records, btfs, names, types))
    aliases = [row["name"] for row in others if row["attributes"] == [""]]
    others = [row for row in others if row["attributes"] != [""]]
    if aliases:
        account.complaints.append(
            f"{len(aliases):,} FUNCs are other names of functions that ftrace calls otherwise, such as {aliases[0]}: "
            "they are left out"
        )
    several = sum(btfs[None].repeated.values())
    if several:
        account.complaints.append(
            f"vmlinux's BTF has {several:,} FUNCs whose name an earlier one has: they are left out, since a name finds "
            "the first"
        )
    version = re.match(rb"[0-9]+\.[0-9]+(?:\.[0-9]+)?", release)
    if version is None:
        raise BadInputError(f"{RELEASE}: '{release.decode().strip()}' does not start with a version")
    population = {
        "kernel": version[0].decode(),
        "release": release.decode().strip(),
        "source": "available_filter_functions, kallsyms and BTF of the running kernel",
        "types": types.rows,
        "functions": functions,
        "others": others,
    }
    return Survey(population, tuple(account.complaints))


# ftrace's records.


def _read_records(account: _Account) -> list[Record]:
    try:
        text = account.reader.read(ADDRESSES)[0].decode()
    except BadInputError:
        return list(_place_by_order(account, _parse(account.reader.read(AVAILABLE)[0].decode())))
    return [_place(account, word, name, module) for (name, module), word in _parse_with_addresses(text)]


def _parse(text: str) -> list[tuple[str, str | None]]:
    """Lines NAME or NAME [MODULE]."""
    lines = (line.split() for line in text.splitlines())
    return [(words[0], words[1].strip("[]") if len(words) > 1 else None) for words in lines if words]


def _parse_with_addresses(text: str) -> Iterator[tuple[tuple[str, str | None], str]]:
    for line in text.splitlines():
        address, _, rest = line.partition(" ")
        if rest:
            yield _parse(rest)[0], address


def _place(account: _Account, word: str, name: str, module: str | None) -> Record:
    """A record whose site's address is known: its symbol is the one that starts right before that."""
    site = int(word, 16)
    starts = [
        start
        for start in account.symbols.addresses(name, module)
        if 0 <= site - start <= account.architecture.site_offset
    ]
    return Record(name, max(starts, default=None if name.startswith(WEAK) else site), module)


def _place_by_order(account: _Account, lines: Sequence[tuple[str, str | None]]) -> Iterator[Record]:
    """Records without addresses: of several symbols of a name those are meant whose code has a site at its start."""
    counts = Counter(lines)
    several = {
        (name, module): starts for name, module in counts if len(starts := account.symbols.addresses(name, module)) > 1
    }
    every = [start for starts in several.values() for start in starts]
    sites = find_sites(account.reader, account.architecture, every)
    chosen: dict[tuple[str, str | None], list[int]] = {}
    unsure = 0
    for key, starts in several.items():
        with_site = [start for start in starts if start in sites]
        unsure += len(with_site) != counts[key]
        chosen[key] = with_site if len(with_site) == counts[key] else list(starts[: counts[key]])
    if unsure:
        account.complaints.append(
            f"of {unsure:,} names that several symbols have it is not known which of these have sites, for the kernel "
            f"has no {ADDRESSES} and its memory does not tell: the first ones are taken"
        )
    for name, module in lines:
        starts = account.symbols.addresses(name, module)
        left = chosen.get((name, module))
        yield Record(name, left.pop(0) if left else starts[0] if starts else None, module)


def find_sites(reader: Reader, architecture: Architecture, starts: Sequence[int]) -> frozenset[int]:
    """Those of these functions that have a site of ftrace at their start."""
    memory = reader.read_memory([(start, architecture.site_bytes) for start in starts])
    return frozenset(start for start, code in zip(starts, memory, strict=True) if _has_site(architecture, start, code))


def _has_site(architecture: Architecture, start: int, code: bytes) -> bool:
    try:
        architecture.decode_site(start, code)
    except BadInputError:
        return False
    return True


# BTF.


def _read_btfs(account: _Account) -> dict[str | None, Btf]:
    vmlinux = Btf(account.reader.read(VMLINUX_BTF)[0])
    btfs: dict[str | None, Btf] = {None: vmlinux}
    for name in _list_modules(account):
        blob = account.try_to_read(f"{BTF_FILES}/{name}", f"BPF cannot name the functions of module {name}")
        if blob:
            btfs[name] = Btf(blob, vmlinux)
    return btfs


def _list_modules(account: _Account) -> list[str]:
    text = account.try_to_read(MODULES, "BPF cannot name the functions of modules").decode()
    return [line.split()[0] for line in text.splitlines() if line]


class _Types:
    """The types of a population, each once. rows: as the file has them."""

    def __init__(self) -> None:
        self.rows: list[list[object]] = []
        self._places: dict[tuple[str, int, str], int] = {}

    def describe(self, prototype: Prototype) -> dict[str, Any]:
        """The members of a record that give its prototype."""
        found: dict[str, Any] = {
            "args": [self._place(argument) for argument in prototype.arguments],
            "ret": self._place(prototype.returns),
        }
        return found | {"variadic": True} if prototype.variadic else found

    def _place(self, each: Type) -> int:
        key = each.kind, each.size, each.name
        if key not in self._places:
            self._places[key] = len(self.rows)
            self.rows.append(list(key))
        return self._places[key]


class _Names:
    """What BPF finds by the name of a FUNC (PROG-7)."""

    def __init__(self, symbols: Symbols, records: Iterable[Record]) -> None:
        self._symbols = symbols
        self._sites = frozenset((record.module, record.address) for record in records if record.address is not None)
        self._text = symbols.address("_stext"), symbols.address("_etext")

    def lookup(self, name: str, module: str | None) -> str:
        """One of spec.worlds.LOOKUPS, or empty if it is the site of a record."""
        found = self._symbols.addresses(name, module)
        if not found:
            return "no_symbol"
        if (module, found[0]) in self._sites:
            return ""
        # bpf_arch_text_poke() takes the kernel's own text alone.
        first, end = self._text
        return "no_site" if module is None and first <= found[0] < end else "outside"


def _list_records(
    records: Iterable[Record], btfs: Mapping[str | None, Btf], names: _Names, types: _Types
) -> Iterator[dict[str, Any]]:
    for record in records:
        yield _row(record, btfs.get(record.module), names, types)


def _row(record: Record, btf: Btf | None, names: _Names, types: _Types) -> dict[str, Any]:
    """One function of the file; a record of vmlinux has an address, perhaps null."""
    row: dict[str, Any] = {"name": record.name}
    if record.module is None:
        row["address"] = None if record.address is None else f"{record.address:x}"
    number = btf.functions.get(record.name) if btf else None
    if btf and number is not None:
        row |= {"btf_id": number, **types.describe(btf.prototype(number))}
        if lookup := names.lookup(record.name, record.module):
            row["attributes"] = [lookup]
    if record.module is not None:
        row["module"] = record.module
    return row


def _list_others(
    records: Iterable[Record], btfs: Mapping[str | None, Btf], names: _Names, types: _Types
) -> Iterator[dict[str, Any]]:
    """The FUNCs that no record is called like, in the order of ids."""
    recorded = frozenset((record.module, record.name) for record in records)
    for module, btf in btfs.items():
        for name, number in btf.functions.items():
            if (module, name) not in recorded:
                row = {"name": name, "btf_id": number, **types.describe(btf.prototype(number))}
                row |= {"attributes": [names.lookup(name, module)]}
                yield row if module is None else row | {"module": module}
