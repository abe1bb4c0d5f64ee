"""What operations cost (COST-*): a bill for the one under way, a ledger of all that took effect."""

from __future__ import annotations

from collections import Counter

from spec.costs import POKE_BATCH, Cost
from spec.semantics import Semantics

__all__ = ["Bill", "Ledger"]


class Bill:
    """What an operation will have cost if it succeeds."""

    def __init__(self) -> None:
        self.sites = self.rounds = 0
        self.waits: dict[str, int] = {}

    def patch(self, sites: int) -> None:
        """One patching pass over so many sites (COST-2)."""
        self.sites += sites
        self.rounds += -(-sites // POKE_BATCH)

    def change_entries(self, alone: int) -> None:
        """Direct entries change in place at so many sites that only a direct ops covers (COST-3)."""
        self.patch(alone)
        self.patch(alone)

    def change_each(self, alone: int) -> None:
        """The same, each site by itself."""
        self.sites += 2 * alone
        self.rounds += 2 * alone

    def wait(self, flavour: str, times: int = 1) -> None:
        """So many grace periods are waited for."""
        if times:
            self.waits[flavour] = self.waits.get(flavour, 0) + times

    def wait_dynamic(self, facts: Semantics, times: int = 1, *, direct: bool = False) -> None:
        """A dynamic ops is unregistered, and with one that is not direct its own trampoline (OPS-8)."""
        self.wait("rcu_tasks", times)
        if facts.rude_waits:
            self.wait("rcu_tasks_rude", times)
        if not direct:
            self.wait("rcu", times)


class Ledger:
    """The totals so far, but for the images alive, which the trampolines know."""

    def __init__(self) -> None:
        self.sites = self.rounds = self.built = 0
        self._waits: Counter[str] = Counter()

    def add(self, bill: Bill) -> None:
        """Enter an operation that takes effect."""
        self.sites += bill.sites
        self.rounds += bill.rounds
        self._waits.update(bill.waits)

    def total(self, alive: int) -> Cost:
        """The totals, with so many images alive."""
        return Cost(dict(self._waits), self.rounds, self.sites, self.built, alive)
