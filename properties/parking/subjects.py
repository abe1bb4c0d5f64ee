"""Who is swept: the emulated machine, or a kernel, of which each is given the world that it can have."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import cast

from impl import batched, linux
from impl.linux.guest import packages
from impl.linux.guest.packages import Kernel
from impl.linux.system import Linux
from properties.systems.kernels import like_a_kernel
from properties.systems.naming import OWN_KERNEL, own_files
from spec.border import bordered
from spec.semantics import Semantics
from spec.standing import Standable
from spec.system import System, SystemFactory
from spec.worlds import World, synthetic

__all__ = ["BATCHED", "Parking", "parking", "release_of"]

BATCHED = "batched"

KNOWN = "DEFECT-17"
"""It is known to end kernels while a task stands."""


@dataclass(slots=True)
class Parking:
    """A system whose tasks can be stopped at any instruction. make: a system that declines what is known, or does not.

    shows_defects: it has some, which it can be made to show. State: the system that was made last.
    """

    world: World
    shows_defects: bool
    make: Callable[[World, Semantics, bool], System]
    _made: list[System] = field(default_factory=list)

    def factory(self, *, known: bool) -> SystemFactory:
        """The factory of runs. known: they decline what is known to end the system while a task stands."""

        def make(world: World, semantics: Semantics) -> System:
            self._made[:] = [self.make(world, semantics, known)]
            return bordered(self._made[0], world, semantics)

        return make

    def standing(self) -> Standable:
        """The system of the last run."""
        return cast("Standable", self._made[0])


def parking(system: str, semantics: Semantics) -> Parking:
    """The system of a name: batched, linux-* or bzimage:FILE[,MODULES]."""
    if system == BATCHED:
        return Parking(synthetic(), False, lambda world, semantics, _: batched.Batched(world, semantics))
    kernel = _kernel(system)

    def make(world: World, semantics: Semantics, known: bool) -> System:
        return Linux(linux.station_of(kernel, world), world, semantics, asked=() if known else (KNOWN,))

    return Parking(like_a_kernel(synthetic(), semantics), True, make)


def release_of(system: str) -> str:
    """The release of a kernel; empty of the emulated machine."""
    return "" if system == BATCHED else _kernel(system).release


@cache
def _kernel(system: str) -> Kernel:
    return linux.own(*own_files(system)) if system.startswith(OWN_KERNEL) else packages.fetch(system)
