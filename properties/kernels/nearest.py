"""Which semantics a kernel of unknown kind has: the preset that shares most of the facts that can be tried."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

from impl.linux.bpf import features
from impl.linux.guest.batch import Batch
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.guest.packages import Kernel
from impl.linux.probes.btf import VMLINUX_BTF, Btf
from impl.linux.probes.symbols import KALLSYMS, parse_kallsyms
from impl.linux.probes.tracefs import ROOT, add_instance
from properties.systems.naming import KERNELS
from spec.errors import BadInputError
from spec.semantics import PRESETS, Semantics

__all__ = ["Nearest", "chosen", "nearest", "probed"]

PROBED = "bpf_fentry_test1"
INSTANCE = "probe"
ASK = "say whose rules it follows: --semantics linux-6.1, linux-6.12 or linux-7.3"
API = {
    "single_direct": "register_ftrace_direct_multi",
    "hash_direct": "update_ftrace_direct_add",
    "growth_waits": "ftrace_add_rec_direct",
}
"""Functions of the kernel by which facts show: the batch API has `_multi` in its name as long as the single one is."""


@dataclass(frozen=True, slots=True)
class Nearest:
    """The semantics that were chosen. differing: the probed facts that they have otherwise."""

    semantics: Semantics
    facts: Mapping[str, bool]
    differing: tuple[str, ...]

    def __str__(self) -> str:
        shared = f"{len(self.facts) - len(self.differing)} of {len(self.facts)} probed features are as there"
        return f"{shared}, otherwise: {', '.join(self.differing)}" if self.differing else shared


def nearest(kernel: Kernel) -> Nearest:
    """Boot the kernel and try what it has. BadInputError if it does not come up, or has nothing to try on."""
    try:
        with closing(boot(kernel)) as guest:
            facts = probed(guest)
    except GuestDiedError as error:
        raise BadInputError(f"{kernel.name} does not come up: {error.reason}") from error
    return chosen(facts)


def chosen(facts: Mapping[str, bool]) -> Nearest:
    """The preset that differs in the fewest facts; of several the newest."""
    presets = [PRESETS[name] for name in reversed(KERNELS)]
    judged = [Nearest(preset, facts, _compare(preset, facts)) for preset in presets]
    return min(judged, key=lambda one: len(one.differing))


def _compare(preset: Semantics, facts: Mapping[str, bool]) -> tuple[str, ...]:
    return tuple(name for name, value in facts.items() if _fact(preset, name) != value)


def _fact(preset: Semantics, name: str) -> bool:
    return preset.graph_users > 1 if name == "graph_users" else bool(getattr(preset, name))


def probed(guest: Guest) -> dict[str, bool]:
    """The facts of Semantics that the guest shows, by name; graph_users: whether there is more than one.

    Those of BPF are tried; the others are read from kallsyms and tracefs.
    """
    batch = Batch()
    reads = [batch.read_file(path) for path in (KALLSYMS, VMLINUX_BTF)]
    made = add_instance(batch, INSTANCE)
    tracers = batch.read_file(f"{ROOT}/instances/{INSTANCE}/available_tracers")
    replies = guest.submit(batch)
    symbols, blob = parse_kallsyms(replies[reads[0]].data[0]), replies[reads[1]].data[0]
    types = Btf(blob) if blob else None
    if types is None or PROBED not in types.functions or not symbols.addresses(PROBED):
        raise BadInputError(f"the kernel has no {PROBED} with BTF to try its features on: {ASK}")
    tried = features.probe(guest, types.functions[PROBED], symbols.address(PROBED))
    several = not made(replies) and b"function_graph" in replies[tracers].data[0].split()
    known = {fact: bool(symbols.addresses(name)) for fact, name in API.items()}
    bpf = {"cookies": tried.cookies, "fsession": tried.fsession, "tracing_multi": tried.tracing_multi}
    return {**bpf, **known, "graph_users": several}
