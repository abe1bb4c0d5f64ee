"""A poke that stops behind each of its phases, and the handler of the traps that processors meet meanwhile (POKE-*)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices
from impl.batched.machine import addresses as at
from impl.batched.machine.entries import CALL, JMP, SITE_BYTES, branches, site_offsets
from impl.batched.machine.memory import MemoryRegion
from impl.batched.machine.poke import poke
from spec.costs import POKE_BATCH

__all__ = ["Passage", "SteppedPoke", "emulate", "passages"]

Targets = NDArray[np.uint32]


class Passage(NamedTuple):
    """One pass over sites. targets: what each comes to call. late: before entries change that are changed in place."""

    where: Indices
    targets: Targets
    late: bool


def passages(targets: Targets, single: Indices, written: Indices, caller: np.uint32) -> Iterator[Passage]:
    """The passes by which sites come to their targets; written: those for which a direct entry is written in place.

    That is done, be it with what it was or where there is none, while a temporary ops makes the site call
    ftrace_regs_caller (__modify_ftrace_direct).
    """
    if len(single):
        yield Passage(single, targets[single], late=True)
    if len(written):
        yield Passage(written, np.full(len(written), caller), late=True)
        yield Passage(written, targets[written], late=False)


class SteppedPoke:
    """Passes of one operation. synchronize: is told of the offsets at which all processors then see what was written.

    late: whether direct entries are still those before the operation. vector: the instructions, by address, that are to
    be where a processor meets a trap. text: the memory of sites.
    """

    def __init__(
        self, text: MemoryRegion, passes: Iterator[Passage], synchronize: Callable[[NDArray[np.int64]], None]
    ) -> None:
        self.late = True
        self.vector: Mapping[int, bytes] = {}
        self.text, self._passes, self._synchronize = text, passes, synchronize
        self._steps = self._run()

    def advance(self) -> bool:
        """Goes to the next stop; whether there is one."""
        return next(self._steps, None) is not None

    def _run(self) -> Iterator[str]:
        for one in self._passes:
            self.late = one.late
            places = site_offsets(one.where)
            code = branches(places, one.targets)
            for start in range(0, len(places), POKE_BATCH):
                yield from self._patch(places[start : start + POKE_BATCH], code[start : start + POKE_BATCH])

    def _patch(self, places: NDArray[np.int64], code: NDArray[np.void]) -> Iterator[str]:
        self.vector = {at.TEXT + place: row.tobytes() for place, row in zip(places.tolist(), code, strict=True)}
        for phase in poke(self.text.u8, places, code):
            self._synchronize(places)
            yield phase
        self.vector = {}


CALLS: Final = CALL, JMP


def emulate(code: bytes, place: int) -> tuple[int, bool]:
    """poke_int3_handler(): where a processor goes on that met a trap in the place of this instruction.

    And whether it pushes the address behind it, as a call does.
    """
    behind = place + SITE_BYTES
    if code[0] not in CALLS:
        return behind, False
    return behind + int.from_bytes(code[1:], "little", signed=True), code[0] == CALL
