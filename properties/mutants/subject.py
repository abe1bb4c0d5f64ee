"""The kernel whose code is mutated, by names that cross the border of a process."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

from impl import linux
from impl.linux.guest import packages
from impl.linux.guest.packages import Kernel
from properties.kernels.conformance import fixed_runs
from properties.runs.corpus import FixedRun
from properties.systems.kernels import laboratory_of, without_own
from properties.systems.naming import OWN_KERNEL, own_files, semantics_named
from spec.semantics import Semantics
from spec.worlds import World

__all__ = ["TELLS_OBJECTS", "Subject"]

SIZES = ("32", "64", "96", "128", "192", "256", "512", "1k", "2k")
TELLS_OBJECTS = f"slub_debug=U,{','.join(f'kmalloc-{size}' for size in SIZES)}"
"""So that the kernel tells who allocated an object: a hash, its entries, a trampoline, an image, a link, an ops."""

PATIENCE = 25.0
"""Seconds that a mutant may take for an answer: what the kernel itself does takes a few."""


@dataclass(frozen=True, slots=True)
class Subject:
    """A kernel by its system's name, linux-* or bzimage:FILE[,MODULES], and the semantics whose rules it follows."""

    system: str
    semantics: str

    @property
    def kernel(self) -> Kernel:
        """Its files."""
        return _kernel(self.system)

    @property
    def rules(self) -> Semantics:
        """Its semantics."""
        return semantics_named(self.semantics)

    @property
    def lab(self) -> World:
        """The world of random runs."""
        lab = laboratory_of(self.rules)
        return without_own(lab) if self.system.startswith(OWN_KERNEL) else lab

    @property
    def runs(self) -> Mapping[str, FixedRun]:
        """Its fixed runs, by world and name."""
        return _runs(self)

    @contextmanager
    def changed(self, world: World, changes: tuple[tuple[int, str], ...]) -> Iterator[None]:
        """While this lasts, each run in this world has these bytes, as hex, at these addresses of the kernel."""
        guest = linux.station_of(self.kernel, world).guest
        patience, guest.patience = guest.patience, PATIENCE
        guest.change([(address, bytes.fromhex(code)) for address, code in changes])
        try:
            yield
        finally:
            guest.change(())
            guest.patience = patience


@cache
def _kernel(system: str) -> Kernel:
    kernel = linux.own(*own_files(system)) if system.startswith(OWN_KERNEL) else packages.fetch(system)
    return replace(kernel, parameters=TELLS_OBJECTS)


@cache
def _runs(subject: Subject) -> Mapping[str, FixedRun]:
    return {f"{run.world.name}: {run.name}": run for run in fixed_runs(subject.rules, subject.lab)}
