"""The real kernel in a virtual machine, as a System.

A station (station.py) is a booted guest with our modules, kept as a snapshot; a run (system.py) starts from it. Below
them are wings, each of which imports only those before it:

    host           this machine: its tools, apt, the cache
    architectures  what differs from one processor architecture to the next
    guest          QEMU, the files of a kernel, the agent, and batches of system calls for it
    bpf            bpf(2)
    probes         what the kernel shows of ftrace, BPF and its symbols
    laboratory     our modules, with the functions of a world, and their control
    instruments    measurements that stand beside the runs
"""

from __future__ import annotations

import atexit
from collections.abc import Callable, Collection
from pathlib import Path

from impl.linux.guest.packages import Kernel, fetch, from_files
from impl.linux.station import Station, prepare
from impl.linux.system import Linux
from spec.border import bordered
from spec.errors import BadInputError
from spec.semantics import Semantics
from spec.system import System, SystemFactory
from spec.worlds import World

__all__ = ["close", "factory", "own", "own_factory", "station_of", "system"]

_STATIONS: dict[tuple[str, str, str, str], Station] = {}


def station_of(kernel: Kernel, world: World) -> Station:
    """The station of a kernel and a world, which is kept until this process ends."""
    key = kernel.name, kernel.build, kernel.parameters, world.name
    if key not in _STATIONS:
        _STATIONS[key] = prepare(kernel, world)
    return _STATIONS[key]


def close() -> None:
    """End all guests."""
    while _STATIONS:
        _STATIONS.popitem()[1].guest.close()


def system(world: World, semantics: Semantics) -> System:
    """A run in the Debian kernel that has the name of these semantics."""
    return factory(semantics.name)(world, semantics)


def factory(name: str, *, asked: Collection[str] = ()) -> SystemFactory:
    """The factory of one of Debian's kernels (packages.fetch); its first system boots it, and fetches it before.

    asked: known defects that it is asked to show, which it declines otherwise.
    """
    return _factory(lambda: fetch(name), asked)


def own(bzimage: Path, modules: Path | None) -> Kernel:
    """A developer's own kernel, for which modules can be compiled; BadInputError if that cannot be."""
    kernel = from_files(bzimage, modules)
    if kernel.headers is None:
        how = "`make modules` makes it there; or give lib/modules/RELEASE with its link `build`, too"
        missing = "Module.symvers, by which modules are compiled for the kernel, is not in the tree where it was built"
        raise BadInputError(f"{missing}: {how}", str(bzimage))
    return kernel


def own_factory(kernel: Kernel, *, asked: Collection[str] = ()) -> SystemFactory:
    """The factory of a developer's own kernel."""
    return _factory(lambda: kernel, asked)


def _factory(files: Callable[[], Kernel], asked: Collection[str]) -> SystemFactory:
    def make(world: World, semantics: Semantics) -> System:
        run = Linux(station_of(files(), world), world, semantics, asked=asked)
        return bordered(run, world, semantics)

    return make


atexit.register(close)
