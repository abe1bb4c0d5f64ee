"""The functions of a world as they are now: their addresses, the BTF of their modules, and what is at an address."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from impl.linux.bpf.commands import open_btfs
from impl.linux.laboratory.build import CORE
from impl.linux.probes.symbols import Symbols, read_module
from impl.linux.station import Station
from spec.globs import link_pattern
from spec.inventory import Inventory
from spec.operations import BpfLinkCreate
from spec.prototypes import Prototype
from spec.worlds import Function

__all__ = ["NOWHERE", "PATCHED", "Directory"]

NOWHERE = 1
"""An address at which no function is. It is not 0, which a hash has in place of functions that have gone."""

STUB = re.compile(r"massattach_stub(\d+)")
PATCHED = "__patched"


@dataclass(slots=True)
class Directory:
    """The symbols as they are now; modules may have been loaded again."""

    station: Station
    symbols: Symbols
    btf_fds: dict[str, int]

    @classmethod
    def of(cls, station: Station) -> Directory:
        """The state at the station's snapshot."""
        return cls(station, station.symbols, dict(station.btf_fds))

    def home(self, function: Function) -> str | None:
        """The module that holds a function; None for the kernel itself."""
        return None if function.name in self.station.own else function.module or CORE

    def beside_the_world(self, modules: Iterable[str]) -> tuple[str, ...]:
        """Lines for a filter file that select every function of the kernel but those of the world.

        First all that is not in our module, and then, taken out again, the world's modules that are loaded, and the
        functions that the kernel itself has.
        """
        functions = self.station.world.functions
        own = {one.symbol for one in functions if one.has_site and one.name in self.station.own}
        return (
            f"*:mod:!{CORE}",
            *(f"!*:mod:{name}" for name in sorted(modules)),
            *(f"!{name}" for name in sorted(own)),
        )

    def home_of_link(self, inventory: Inventory, wanted: BpfLinkCreate) -> str | None:
        """The module for whose BTF the program of a link over many functions is loaded; None: vmlinux's (LINK-17)."""
        btf = inventory.btf_of(wanted.prog, wanted.targets[0][0])
        if btf is not None:
            return btf
        homes = (self.home(f) for f in self.functions_of_link(inventory, wanted) if f.module is None)
        return next(homes, None)

    def functions_of_link(self, inventory: Inventory, wanted: BpfLinkCreate) -> tuple[Function, ...]:
        """What the targets of a link stand for, as far as the world has it."""
        names = (
            name
            for text, _ in wanted.targets
            for name in (inventory.expand(wanted.prog, text) if link_pattern(text) else (text,))
        )
        return tuple(found for name in names if (found := self.station.world.find(name)))

    def address(self, name: str) -> int:
        """The address of a function of the world, of a patched twin, or NOWHERE."""
        plain = name.removesuffix(PATCHED)
        function = self.station.world.by_name.get(plain)
        if function is None:
            return NOWHERE
        home = self.home(function)
        symbol = function.symbol + (PATCHED if plain != name else "")
        found, place = self.starts(symbol, home), self._namesakes(function.symbol, home).index(function.name)
        return found[place] if len(found) > place else NOWHERE

    def starts(self, symbol: str, module: str | None) -> Sequence[int]:
        """The addresses of the functions that the world may call by a symbol, in the order of its numbers."""
        sited = self.station.sited.get(symbol) if module is None else None
        return sited or self.symbols.addresses(symbol, module)

    def btf_id(self, function: Function) -> int:
        """The id of a function's FUNC in its module's BTF; 0 if that does not name it, or the module is not loaded."""
        if function.name in self.station.own and function.name not in self.station.world.by_name:
            return self.station.btfs[None].functions.get(function.symbol, 0)
        home = self.home(function)
        first = next(iter(self._namesakes(function.symbol, home)), function.name)
        if first != function.name or self.address(function.name) == NOWHERE:
            return 0
        return self.station.btfs[home].functions.get(function.symbol, 0)

    def names_of_ids(self, btf: str) -> dict[int, str]:
        """The functions of the world by their ids in the BTF of a module, or of `vmlinux`."""
        world, home = self.station.world, None if btf == "vmlinux" else btf
        held = (function for function in (*world.functions, *world.others) if self.home(function) == home)
        return {number: function.name for function in held if (number := self.btf_id(function))}

    def btf_fd(self, function: Function) -> int:
        """The descriptor of the BTF of a function's module, 0 for vmlinux's."""
        home = self.home(function)
        return self.btf_fds.get(home, 0) if home else 0

    def prototype(self, name: str) -> Prototype | None:
        """The prototype that the world gives a function."""
        return self.station.world.by_name[name].prototype

    def function_at(self, ip: int) -> str:
        """The function of the world, or the symbol, whose beginning or site is at an address."""
        place = self.symbols.at(ip)
        if place is None or place.offset > self.station.kernel.architecture.site_offset:
            return f"{ip:#x}"
        return self.named(place.symbol, place.module, ip - place.offset)

    def body_at(self, address: int) -> str:
        """The function behind whose site an address is, or the address."""
        architecture = self.station.kernel.architecture
        place = self.symbols.at(address)
        if place is None or place.offset > architecture.site_offset + architecture.site_bytes:
            return f"{address:#x}"
        return self.named(place.symbol, place.module, address - place.offset)

    def named(self, symbol: str, module: str | None, address: int) -> str:
        """How the world calls a symbol, which may be one of several of its name; else the symbol itself."""
        starts, names = list(self.starts(symbol, module)), self._namesakes(symbol, module)
        place = starts.index(address) if len(starts) > 1 and address in starts else 0
        return names[place] if len(names) > place else f"{symbol}@{place + 1}" if place else symbol

    def _namesakes(self, symbol: str, module: str | None) -> list[str]:
        """How the world calls the functions of a symbol that are in one module, in the order of their addresses."""
        return [one.name for one in self.station.world.namesakes(symbol) if self.home(one) == module]

    def stub(self, address: int) -> int | None:
        """The number of the direct stub at an address."""
        place = self.symbols.at(address)
        match = STUB.fullmatch(place.symbol) if place and not place.offset else None
        return int(match[1]) if match else None

    def find(self, module: str) -> None:
        """Note the addresses of a module that has just been loaded."""
        image = self.station.modules.others[module]
        self.symbols = self.symbols.with_module(module, read_module(self.station.guest, module, image))
        self.btf_fds |= open_btfs(self.station.guest, (module,))

    def forget(self, module: str) -> tuple[int, int]:
        """A module has gone; the pages that its functions were in, by their first address and the one behind them."""
        functions = [f.name for f in self.station.world.functions if f.module == module]
        addresses = [self.address(name) for name in functions]
        page = self.station.kernel.architecture.page_bytes
        pages = min(addresses) & -page, (max(addresses) & -page) + page
        self.symbols = self.symbols.without_module(module)
        self.btf_fds.pop(module, None)
        return pages
