"""Making a point fail in a running kernel: the function that stands for it returns at once, as if it had failed.

While an operation is carried out in which the point is reached, the first instructions of that function are replaced in
the guest's memory; they note that they ran, so that a fault is used up when the kernel came by it (FAIL-1).
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from impl.linux.guest.guest import Guest
from impl.linux.laboratory.build import CORE
from impl.linux.probes.symbols import Symbols
from spec import operations as op
from spec.operations import Operation

__all__ = ["POINTS", "SYMBOLS", "Injector", "StandIn", "place_of", "reaches"]

NOTE = "massattach_reached"
"""A word of our module, which the replaced instructions set."""

_FILTERS = op.FtraceSetFilterIp, op.FtraceSetFilterIps, op.FtraceSetFilter, op.FtraceSetNotrace
_GRAPH_HASHES = op.SetFtraceFilter, op.SetFtraceNotrace
_GRAPH_LISTS = op.SetGraphFunction, op.SetGraphNotrace
_ATTACHING = op.BpfRawTracepointOpen, op.BpfLinkCreate
_SINGLE = op.RegisterFtraceDirect, op.ModifyFtraceDirect
_HASHES = op.UpdateFtraceDirectAdd, op.UpdateFtraceDirectDel
_STARTING = op.RegisterFtraceFunction, op.RegisterFtraceDirectMulti


@dataclass(frozen=True, slots=True)
class StandIn:
    """A function of the kernel, what it returns when it fails, and the operations in which it stands for a point."""

    symbol: str
    returns: int
    operations: tuple[type[Operation], ...]


_PLACES: dict[str, tuple[StandIn, ...]] = {
    "alloc": (
        StandIn("alloc_ftrace_hash", 0, (*_FILTERS, *_GRAPH_HASHES, *_GRAPH_LISTS)),
        StandIn("bpf_trampoline_update", -errno.ENOMEM, (op.BpfLinkDetach,)),
    ),
    "filter": (StandIn("ftrace_hash_move_and_update_ops", -errno.EINVAL, _FILTERS),),
    "register": (StandIn("__register_ftrace_function", -errno.EBUSY, (*_STARTING, op.ModifyFtraceDirectMulti)),),
    "patch": (
        StandIn(
            "ftrace_verify_code",
            -errno.EINVAL,
            (*_STARTING, op.Livepatch, op.RegisterFtraceGraph, op.BpfRawTracepointOpen, op.FtraceEnabled),
        ),
    ),
}
_REACHING: dict[str, tuple[type[Operation], ...]] = {
    "alloc": (*_ATTACHING, *_SINGLE, *_HASHES, op.RegisterFtraceDirectMulti, op.Livepatch),
    "filter": (*_ATTACHING, op.RegisterFtraceDirect, *_HASHES, op.Livepatch, *_GRAPH_HASHES),
    "register": (
        *(*_ATTACHING, op.RegisterFtraceDirect, op.UpdateFtraceDirectAdd, op.UpdateFtraceDirectMod),
        *(op.Livepatch, op.Unlivepatch, op.UnregisterFtraceFunction, op.RegisterFtraceGraph, op.BpfLinkDetach),
    ),
    "patch": (
        *(*_FILTERS, *_GRAPH_HASHES, *_SINGLE, *_HASHES, op.UnregisterFtraceDirect, op.UpdateFtraceDirectMod),
        *(op.UnregisterFtraceFunction, op.UnregisterFtraceDirectMulti, op.ModifyFtraceDirectMulti),
        *(op.UnregisterFtraceGraph, op.Unlivepatch, op.BpfLinkCreate, op.BpfLinkDetach),
    ),
}
"""Operations in which a point may be reached, and of which no function stands for it alone."""

POINTS = frozenset(_PLACES)
SYMBOLS = tuple(place.symbol for places in _PLACES.values() for place in places)


def place_of(point: str, operation: Operation) -> StandIn | None:
    """The function that stands for a point in an operation, if there is one."""
    return next((place for place in _PLACES[point] if isinstance(operation, place.operations)), None)


def reaches(point: str, operation: Operation) -> bool:
    """Whether the operation may reach the point where nothing stands for it."""
    return isinstance(operation, _REACHING[point])


class Injector:
    """Replaces functions of one guest."""

    def __init__(self, guest: Guest, symbols: Symbols) -> None:
        self._guest, self._symbols = guest, symbols

    @contextmanager
    def failing(self, points: set[str], operation: Operation) -> Iterator[None]:
        """While this lasts, these points fail in the operation; those that the kernel came by leave the set."""
        places = {point: place for point in sorted(points) if (place := place_of(point, operation))}
        if not places:
            yield
            return
        (note,) = self._symbols.addresses(NOTE, CORE)
        replaced: dict[int, bytes] = {}
        for point, place in places.items():
            address = self._symbols.address(place.symbol)
            code = self._guest.kernel.architecture.leave_at_once(address, place.returns, note, 1 << _number(point))
            replaced[address] = self._guest.read_memory([(address, len(code))])[0]
            self._guest.poke(address, code)
        self._guest.poke(note, bytes(8))
        try:
            yield
        finally:
            for address, code in replaced.items():
                self._guest.poke(address, code)
        seen = int.from_bytes(self._guest.read_memory([(note, 8)])[0], "little")
        points -= {point for point in places if seen & 1 << _number(point)}


def _number(point: str) -> int:
    return sorted(POINTS).index(point)
