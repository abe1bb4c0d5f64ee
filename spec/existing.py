"""Records of what an inventory holds: ops, entries of direct_functions, users of the graph tracer, links."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property

__all__ = [
    "ADDRESS_ZERO",
    "AWAITS",
    "SINGLE_API",
    "DirectEntry",
    "GraphRecord",
    "Lines",
    "LinkRecord",
    "OpsRecord",
    "Targets",
    "is_address",
]

SINGLE_API = ""
"""The owner of a direct entry that the single API made; no ops of a seed has this name."""

ADDRESS_ZERO = "0 "
"""Stands in a tracer's hash for functions that have gone (MODULE-5)."""

AWAITS = "mod "
"""Stands in the filter hash of a user of the graph tracer while a line of it waits for its module (FILTER-13)."""


Targets = tuple[tuple[str, int | None], ...]
Lines = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class OpsRecord:
    """A declared ops.

    slot: how many were declared before it. The hashes hold functions and, where a module has gone, their addresses
    (MODULE-5), in the order in which they joined. func, direct: as DIRECT-7 and NAME-3 have them.
    """

    slot: int
    ipmodify: bool = False
    filter_hash: tuple[str, ...] = ()
    notrace_hash: tuple[str, ...] = ()
    enabled: bool = False
    func: bool = False
    direct: bool = False
    save_regs: bool = False

    @property
    def filter(self) -> tuple[str, ...]:
        """The functions of the filter hash that are still there."""
        return tuple(name for name in self.filter_hash if not is_address(name))

    def covers(self, function: str) -> bool:
        """FILTER-1."""
        return (not self.filter_hash or function in self.filter_hash) and function not in self.notrace_hash


@dataclass(frozen=True, slots=True)
class DirectEntry:
    """What direct_functions has for one site: a raw trampoline, and the ops that registered it."""

    tramp: str
    owner: str


@dataclass(frozen=True)
class GraphRecord:
    """A user of the graph tracer: the hashes of its ops as in OpsRecord, and whether its depth is limited.

    mod_trace, mod_notrace: GLOB and MODULE of each line for either that waits for its module (FILTER-12).
    """

    filter_hash: tuple[str, ...] = ()
    notrace_hash: tuple[str, ...] = ()
    depth: bool = False
    mod_trace: Lines = ()
    mod_notrace: Lines = ()


@dataclass(frozen=True)
class LinkRecord:
    """A link: its program's name, and what its targets stood for when it was made."""

    prog: str
    exact: frozenset[str]
    globs: tuple[str, ...] = ()
    expand: Callable[[str], Iterable[str]] = field(default=lambda _: (), repr=False, compare=False)

    @cached_property
    def functions(self) -> frozenset[str]:
        """The functions that it is attached to. A glob may select all of a population, so it is read when asked."""
        return self.exact.union(*map(self.expand, self.globs))


def is_address(name: str) -> bool:
    """Whether a name in a hash is the address of a function that has gone; no name in a seed has a blank."""
    return " " in name
