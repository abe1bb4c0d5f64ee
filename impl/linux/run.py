"""What a run remembers: a running kernel has no names for ops, programs and links, and crashes on some misuses."""

from __future__ import annotations

from dataclasses import dataclass, field

from spec.inventory import Inventory

__all__ = ["RunState"]


@dataclass(slots=True)
class RunState:
    """State of one run.

    inventory: what exists by the kernel's answers; nothing that can be observed is answered from it. charge_fails: the
    next charge for an image's memory will be refused. stubs: the numbers of direct trampolines, by name.
    """

    inventory: Inventory
    charge_fails: bool = False
    stubs: dict[str, int] = field(default_factory=dict)
