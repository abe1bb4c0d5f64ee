"""The cost of operations (COST-*): a bill for the current one, and a ledger of all that took effect."""

from __future__ import annotations

from collections import Counter

from spec.costs import POKE_BATCH, Cost
from spec.semantics import Semantics

__all__ = ["Bill", "Ledger"]


class Bill:
    """The cost of an operation, if it succeeds."""

    def __init__(self) -> None:
        self.sites = self.rounds = 0
        self.waits: dict[str, int] = {}

    def patch(self, sites: int) -> None:
        """Enter one patching pass over this number of sites (COST-2)."""
        self.sites += sites
        self.rounds += -(-sites // POKE_BATCH)

    def change_entries(self, alone: int) -> None:
        """Direct entries change in place; `alone` counts the sites that at most one ops covers (COST-3)."""
        self.patch(alone)
        self.patch(alone)

    def change_each(self, alone: int) -> None:
        """Entries change as in `change_entries`, but each site is patched by itself."""
        self.sites += 2 * alone
        self.rounds += 2 * alone

    def spare_text(self) -> None:
        """Nothing is patched while ftrace is off (SYSCTL-2)."""
        self.sites = self.rounds = 0

    def wait(self, flavour: str, times: int = 1) -> None:
        """The operation waits for this number of grace periods."""
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
        self.waits: Counter[str] = Counter()
        self.missed: Counter[str] = Counter()

    def add(self, bill: Bill) -> None:
        """Enter an operation that takes effect."""
        self.sites += bill.sites
        self.rounds += bill.rounds
        self.waits.update(bill.waits)

    def miss(self, programs: Counter[str]) -> None:
        """Enter how often each program was missed in a call (PROG-8)."""
        self.missed += programs

    def total(self, alive: int) -> Cost:
        """The totals, given how many images are alive."""
        return Cost(dict(self.waits), self.rounds, self.sites, self.built, alive, dict(self.missed))
