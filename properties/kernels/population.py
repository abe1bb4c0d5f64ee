"""Population files made from kernels: of a guest, with some modules loaded, or of this machine."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from impl.linux.guest.batch import Batch
from impl.linux.guest.drivers import load_order
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.guest.packages import Kernel, host_architecture
from impl.linux.host.running import RunningKernel
from impl.linux.laboratory.control import init_module
from impl.linux.probes.population import Survey, survey
from properties.report.writing import write_whole
from spec.errors import BadInputError

__all__ = ["MODULES", "booted", "of_guest", "of_host", "write"]

_COMMON = ("ext4", "xfs", "kvm", "nf_tables", "nf_conntrack", "virtio_net")
MODULES: Mapping[str, tuple[str, ...]] = {
    # xfs and netfilter ask for crc32c by its algorithm's name, which no dependency says.
    "linux-6.1": ("crc32c_generic", *_COMMON),
    "linux-6.12": ("crc32c_generic", *_COMMON),
    "linux-7.3": _COMMON,
}
"""The modules that the built-in populations have besides those that a guest needs, by kernel."""

GUEST_MEMORY = 512


def of_guest(kernel: Kernel, modules: Sequence[str]) -> Survey:
    """Boot a kernel in QEMU, load modules with what they depend on, and read its functions."""
    try:
        with booted(kernel, modules) as (guest, refused):
            found = survey(guest, kernel.architecture)
    except GuestDiedError as error:
        raise BadInputError(f"{kernel.name} does not come up: {error.reason}") from error
    return Survey(found.population, (*refused, *found.complaints))


@contextmanager
def booted(kernel: Kernel, modules: Sequence[str]) -> Iterator[tuple[Guest, tuple[str, ...]]]:
    """A guest with these modules and what they depend on, and a sentence for each that the kernel refused."""
    with closing(boot(kernel, memory=GUEST_MEMORY)) as guest:
        yield guest, _load(guest, kernel, modules)


def of_host() -> Survey:
    """Read the functions of the kernel that runs here."""
    return survey(RunningKernel(), host_architecture())


def _load(guest: Guest, kernel: Kernel, modules: Sequence[str]) -> tuple[str, ...]:
    """Load modules; a sentence for each that the kernel refuses."""
    if modules and kernel.modules is None:
        raise BadInputError("modules are to be loaded: write --modules lib/modules/RELEASE, too", kernel.name)
    refused: list[str] = []
    for name in modules:
        assert kernel.modules is not None
        batch = Batch()
        entries = [init_module(batch, image) for image in load_order(kernel.modules, (name,))]
        replies = guest.submit(batch)
        # What a module depends on may be there already.
        errors = [errno_name(replies[entry].value) for entry in entries if replies[entry].value < 0]
        if errors and errors[-1] != "EEXIST":
            refused.append(f"the module {name} is left out: the kernel refuses it with -{errors[-1]}")
    return tuple(refused)


def write(found: Survey, path: Path) -> None:
    """Write a population, compressed if the name ends in .gz; whole, or not at all."""
    data = json.dumps(found.population, separators=(",", ":")).encode()
    if path.suffix == ".gz":
        data = gzip.compress(data, mtime=0)
    write_whole(data, path)
