"""Where the functions of a world are: their addresses now, their modules' BTF, and whose an address is."""

from __future__ import annotations

import re
from dataclasses import dataclass

from impl.linux.probes.symbols import Symbols
from impl.linux.station import CORE, Station, btf_descriptors, module_symbols
from spec.prototypes import Prototype
from spec.worlds import Function

__all__ = ["NOWHERE", "PATCHED", "Directory"]

NOWHERE = 1
"""An address at which no function is; 0 would be the entry that a gone module leaves in a hash."""

ENDBR_BYTES = 4
PAGE = 4096
STUB = re.compile(r"massattach_stub(\d+)")
PATCHED = "__patched"


@dataclass(slots=True)
class Directory:
    """The symbols as they are now, modules that were loaded again included."""

    station: Station
    symbols: Symbols
    btf_fds: dict[str, int]

    @classmethod
    def of(cls, station: Station) -> Directory:
        """As the station's snapshot has it."""
        return cls(station, station.symbols, dict(station.btf_fds))

    def home(self, function: Function) -> str | None:
        """The module that holds a function; None for the kernel itself."""
        return None if function.name in self.station.own else function.module or CORE

    def address(self, name: str) -> int:
        """The address of a function of the world, of a patched twin, or NOWHERE."""
        plain = name.removesuffix(PATCHED)
        function = self.station.world.by_name.get(plain)
        if function is None:
            return NOWHERE
        number = int(function.name.partition("@")[2] or 1)
        symbol = function.symbol + (PATCHED if plain != name else "")
        found = self.symbols.addresses(symbol, self.home(function))
        return found[number - 1] if len(found) >= number else NOWHERE

    def btf_id(self, function: Function) -> int:
        """The id of its FUNC in its module's BTF; 0 if that does not name it, or the module is not loaded."""
        if function.name != function.symbol or self.address(function.name) == NOWHERE:
            return 0
        return self.station.btfs[self.home(function)].functions.get(function.symbol, 0)

    def btf_fd(self, function: Function) -> int:
        """The descriptor of its module's BTF, 0 for vmlinux's."""
        home = self.home(function)
        return self.btf_fds.get(home, 0) if home else 0

    def prototype(self, name: str) -> Prototype | None:
        """As the world has it."""
        return self.station.world.by_name[name].prototype

    def function_at(self, ip: int) -> str:
        """The function of the world, or the symbol, whose beginning or site is at an address."""
        place = self.symbols.at(ip)
        if place is None or place.offset > ENDBR_BYTES:
            return f"{ip:#x}"
        return self.named(place.symbol, place.module, ip - place.offset)

    def named(self, symbol: str, module: str | None, address: int) -> str:
        """How the world calls a symbol, which may be one of several of its name; else the symbol itself."""
        starts = list(self.symbols.addresses(symbol, module))
        number = starts.index(address) + 1 if len(starts) > 1 and address in starts else 1
        return symbol if number == 1 else f"{symbol}@{number}"

    def stub(self, address: int) -> int | None:
        """The number of the direct stub at an address."""
        place = self.symbols.at(address)
        match = STUB.fullmatch(place.symbol) if place and not place.offset else None
        return int(match[1]) if match else None

    def find(self, module: str) -> None:
        """Note the addresses of a module that has just been loaded."""
        image = self.station.modules.others[module]
        self.symbols = module_symbols(self.station.guest, module, image, self.symbols)
        self.btf_fds |= btf_descriptors(self.station.guest, (module,))

    def forget(self, module: str) -> tuple[int, int]:
        """A module has gone; the pages that its functions were in, by their first address and the one behind them."""
        functions = [f.name for f in self.station.world.functions if f.module == module]
        addresses = [self.address(name) for name in functions]
        pages = min(addresses) & -PAGE, (max(addresses) & -PAGE) + PAGE
        self.symbols = self.symbols.without_module(module)
        self.btf_fds.pop(module, None)
        return pages
