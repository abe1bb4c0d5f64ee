"""What the operations so far have cost (rules COST-*)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

__all__ = ["POKE_BATCH", "Cost"]

POKE_BATCH = 256


@dataclass(frozen=True, slots=True)
class Cost:
    """Totals since the start.

    grace_periods: those waited for, by flavour, flavours at zero left out. poke_rounds: text-poke batches of at most
    256 sites, each three synchronisations of all cores. sites_patched: site instructions written. images_built: BPF
    trampoline images put to use. images_alive: those in use now. missed: by program, the runs that were skipped because
    it was running (PROG-8); programs at zero are left out.
    """

    grace_periods: Mapping[str, int] = field(default_factory=dict)
    poke_rounds: int = 0
    sites_patched: int = 0
    images_built: int = 0
    images_alive: int = 0
    missed: Mapping[str, int] = field(default_factory=dict)
