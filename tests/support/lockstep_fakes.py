"""Systems for testing the harness: the model behind the System protocol alone, and with one planted flaw each."""

# ruff: noqa: D102  # what a method of a System does stands in the protocol

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace

import model
from spec.capabilities import HashSetting, Linking
from spec.costs import Cost
from spec.following import follow
from spec.inventory import Inventory
from spec.operations import (
    BpfLinkDetach,
    Finish,
    FtraceSetFilterIp,
    Livepatch,
    Operation,
    RegisterFtraceFunction,
    Step,
    UnregisterFtraceFunction,
)
from spec.outcomes import Errno, Ok, Outcome, Pending
from spec.semantics import Semantics
from spec.sites import Site
from spec.traces import Trace
from spec.worlds import World


class Honest:
    """Does what the model does."""

    name = "honest"

    def __init__(self, world: World, semantics: Semantics) -> None:
        self._inner = model.system(world, semantics)
        self.supports = self._inner.supports

    def apply(self, operation: Operation) -> Outcome:
        return self._inner.apply(operation)

    def sites(self) -> Mapping[str, Site]:
        return self._inner.sites()

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        return self._inner.call(function, arguments)

    def step(self, operation: Step) -> str:
        return self._inner.step(operation)

    def finish(self, operation: Finish) -> Trace:
        return self._inner.finish(operation)

    def cost(self) -> Cost:
        return self._inner.cost()

    def close(self) -> None:
        self._inner.close()


class WrongOutcome(Honest):
    """Has no memory where an ops could be registered."""

    def apply(self, operation: Operation) -> Outcome:
        outcome = super().apply(operation)
        return Errno("ENOMEM") if isinstance(operation, RegisterFtraceFunction) and outcome == Ok() else outcome


class Warns(Honest):
    """Warns at every registration."""

    def apply(self, operation: Operation) -> Outcome:
        outcome = super().apply(operation)
        return replace(outcome, warn=True) if isinstance(operation, RegisterFtraceFunction) else outcome


class WrongSites(Honest):
    """Does not show foo1."""

    def sites(self) -> Mapping[str, Site]:
        return {name: site for name, site in super().sites().items() if name != "foo1"}


class WrongTrace(Honest):
    """Loses the first event of every call of foo1 that has more than the body."""

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        trace = super().call(function, arguments)
        return replace(trace, events=trace.events[1:]) if function == "foo1" and len(trace.events) > 1 else trace


class WrongContext(Honest):
    """Shows every program a wrong argument count."""

    def call(self, function: str, arguments: tuple[int, ...]) -> Trace:
        trace = super().call(function, arguments)
        events = [replace(event, arg_cnt=9) if hasattr(event, "arg_cnt") else event for event in trace.events]
        return replace(trace, events=tuple(events))


class WrongCost(Honest):
    """Counts one more poke round as soon as anything was patched."""

    def cost(self) -> Cost:
        cost = super().cost()
        return replace(cost, poke_rounds=cost.poke_rounds + 1) if cost.sites_patched else cost


class LeaksImages(Honest):
    """Never frees an image."""

    def cost(self) -> Cost:
        cost = super().cost()
        return replace(cost, images_alive=cost.images_built)


class CountsImages(WrongCost):
    """Says that it counts nothing but images."""

    counts = frozenset({"images_alive"})


class LeaksCountedImages(LeaksImages):
    """Never frees an image, and counts nothing else."""

    counts = frozenset({"images_alive"})


class KnowsNoMisses(Honest):
    """Does not know of runs that were missed, and does not say what it counts."""

    def cost(self) -> Cost:
        return replace(super().cost(), missed={})


class LosesMisses(KnowsNoMisses):
    """Says that it counts the runs that were missed, and counts none."""

    counts = frozenset({"missed"})


class Declines(Honest):
    """Takes one livepatch at a time."""

    def __init__(self, world: World, semantics: Semantics) -> None:
        super().__init__(world, semantics)
        self._patched = 0

    def declines(self, operation: Operation) -> str:
        full = isinstance(operation, Livepatch) and self._patched
        return "has no room for a second livepatch" if full else ""

    def apply(self, operation: Operation) -> Outcome:
        self._patched += isinstance(operation, Livepatch)
        return super().apply(operation)


class IgnoresReset(Honest):
    """ftrace_set_filter_ip does not see its `reset`."""

    def apply(self, operation: Operation) -> Outcome:
        return super().apply(replace(operation, reset=False) if isinstance(operation, FtraceSetFilterIp) else operation)


class Raises(Honest):
    """Raises when a link is detached."""

    def apply(self, operation: Operation) -> Outcome:
        if isinstance(operation, BpfLinkDetach):
            raise ZeroDivisionError("no link can be detached")
        return super().apply(operation)


class Dies(Honest):
    """Ends the process when a link is detached."""

    def apply(self, operation: Operation) -> Outcome:
        if isinstance(operation, BpfLinkDetach):
            os._exit(9)
        return super().apply(operation)


class DoesNotStart(Honest):
    """Raises before it is there."""

    def __init__(self, world: World, semantics: Semantics) -> None:
        raise OSError(f"nothing for {world.name} and {semantics.name}")


class CannotClose(Honest):
    """Raises at the very end."""

    def close(self) -> None:
        raise OSError("still in use")


class Sharing(Honest):
    """Shares images as the model expects it of its level."""

    name = "batched:per_shape"

    def cost(self) -> Cost:
        cost = super().cost()
        return replace(cost, images_alive=self._inner.images("per_shape"), images_built=min(1, cost.images_built))


class Talks(Warns):
    """Warns at every registration, and says at what."""

    def apply(self, operation: Operation) -> Outcome:
        self._last = operation.verb
        return super().apply(operation)

    def console(self) -> str:
        return f"a warning about {self._last}"


class Shares(Sharing):
    """Shares images at a level that its name does not tell."""

    name = "shares"
    sharing = "per_shape"


class Fails(Honest):
    """Lets any allocation fail."""

    fails_nth = True


class Looks(Honest):
    """Tells how its images reach the original."""

    def originals(self) -> Mapping[str, str]:
        return self._inner.originals()


class LooksAtStacks(Looks):
    """Takes the original from the stack, whoever else is there."""

    def originals(self) -> Mapping[str, str]:
        return dict.fromkeys(super().originals(), "stack")


class Hides(Honest):
    """Shows no site while an operation stops."""

    stops = False

    def apply(self, operation: Operation) -> Outcome:
        outcome = super().apply(operation)
        self.stops = outcome == Pending()
        return outcome

    def sites(self) -> Mapping[str, Site]:
        return {} if self.stops else super().sites()


class Veils(Hides):
    """Says so."""

    def unseen(self) -> str:
        return "shows no site" if self.stops else ""


class Tells(Honest):
    """Tells what its links are."""

    def link_info(self, operation: Linking) -> str:
        return self._inner.link_info(operation)


class TellsKind(Tells):
    """Tells of a link its kind alone."""

    def link_info(self, operation: Linking) -> str:
        return super().link_info(operation).partition(" ")[0]


class Reads(Honest):
    """Reads the files that it has written."""

    def hash_file(self, operation: HashSetting) -> str:
        return self._inner.hash_file(operation)


class ReadsFirst(Reads):
    """Shows of a file the first line alone."""

    def hash_file(self, operation: HashSetting) -> str:
        return super().hash_file(operation).partition(" ")[0]


class Leaks(Honest):
    """Never frees what a link held."""

    def __init__(self, world: World, semantics: Semantics) -> None:
        super().__init__(world, semantics)
        self._leaked = 0

    def apply(self, operation: Operation) -> Outcome:
        outcome = super().apply(operation)
        self._leaked += isinstance(operation, BpfLinkDetach) and outcome == Ok()
        return outcome

    def left_over(self) -> str:
        return f"+{self._leaked} links" if self._leaked else ""


class Capable(Declines, CountsImages, Talks, Shares, Fails, Looks, Veils, Tells, Reads, Leaks):
    """Has every capability."""

    name = "capable"


class Listens:
    """A witness that keeps what it hears."""

    def __init__(self) -> None:
        self.declines: list[tuple[Operation, str]] = []

    def agreed(self, operation: Operation, observed: str, rules: tuple[str, ...]) -> None: ...

    def declined(self, operation: Operation, reason: str) -> None:
        self.declines.append((operation, reason))


class Forgetful(Honest):
    """Never unregisters: what the harness plants in the model, so that undoing leaves something."""

    def __init__(self, world: World, semantics: Semantics) -> None:
        super().__init__(world, semantics)
        self._inventory = Inventory.at_start(world, semantics)

    def apply(self, operation: Operation) -> Outcome:
        forgets = isinstance(operation, UnregisterFtraceFunction) and operation.ops in self._inventory.ops
        outcome = Ok() if forgets else super().apply(operation)
        self._inventory = follow(self._inventory, operation, outcome)
        return outcome

    def reached(self) -> Mapping[str, int]:
        return self._inner.reached()

    def cited(self) -> tuple[str, ...]:
        return self._inner.cited()

    def images(self, level: str) -> int:
        return self._inner.images(level)

    def originals(self) -> Mapping[str, str]:
        return self._inner.originals()

    def link_info(self, operation: Linking) -> str:
        return self._inner.link_info(operation)
