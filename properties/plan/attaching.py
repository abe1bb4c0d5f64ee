"""Runs attaches on `batched`, and reads its answers and costs: one function a call, one call a pattern, and raw.

Everything that is attached is detached again, in the same order. Nothing else is attached.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Final

import numpy as np

from impl.batched import Batched, per_function
from impl.batched.direct_functions import BPF, DirectFunctions
from impl.batched.parts import parts_met
from properties.plan.probes import SINGLE, Probe
from spec import operations as op
from spec.costs import Cost
from spec.operations import Operation
from spec.outcomes import Errno
from spec.prototypes import Prototype
from spec.semantics import Semantics
from spec.worlds import Function, World

__all__ = ["Batches", "Costs", "Singly", "attach_in_batches", "attach_singly", "meetings", "register_raw", "world_of"]

Costs = tuple[Cost, Cost]
"""Of attaching, and of detaching."""

FIGURES: Final = ("poke_rounds", "sites_patched", "images_built", "images_alive")


class _Meter:
    """Carries operations out. State: what they have cost since it was last read, and the images alive."""

    def __init__(self, system: Batched) -> None:
        self.system = system
        self._spent = Counter[str]()
        self._alive = 0

    def apply(self, operation: Operation, times: int = 1) -> str:
        """The errno of an operation, empty if it succeeds; it costs as much as that many of its kind."""
        before = _counts(self.system.cost())
        outcome = self.system.apply(operation)
        for name, count in _counts(self.system.cost()).items():
            self._spent[name] += times * (count - before[name])
        return outcome.name if isinstance(outcome, Errno) else ""

    def wait(self, flavour: str, times: int) -> None:
        """So many grace periods are waited for besides."""
        self._spent[flavour] += times

    def read(self) -> Cost:
        """The cost since this was last read."""
        spent, self._spent = self._spent, Counter()
        self._alive += spent["images_alive"]
        waits = {flavour: count for flavour, count in spent.items() if count and flavour not in FIGURES}
        return Cost(waits, spent["poke_rounds"], spent["sites_patched"], spent["images_built"], self._alive)


def _counts(cost: Cost) -> Counter[str]:
    return Counter({**cost.grace_periods, **{figure: getattr(cost, figure) for figure in FIGURES}})


def meetings(functions: Sequence[Sequence[Function]]) -> Iterator[tuple[Function, tuple[int, ...]]]:
    """Each function in any of these lists, with the numbers of the lists that have it."""
    found: dict[str, tuple[Function, list[int]]] = {}
    for number, some in enumerate(functions):
        for function in some:
            found.setdefault(function.name, (function, []))[1].append(number)
    return ((function, tuple(numbers)) for function, numbers in found.values())


def world_of(functions: Iterable[Function]) -> World:
    """A world of nothing but these functions, recorded or not."""
    recorded: list[Function] = []
    others: list[Function] = []
    for function in functions:
        (others if "unrecorded" in function.attributes else recorded).append(function)
    return World("plan", tuple(recorded), tuple(others))


def _world(functions: Sequence[Sequence[Function]]) -> World:
    return world_of(function for function, _ in meetings(functions))


# One function a call.


@dataclass(frozen=True, slots=True)
class Singly:
    """What came of attaching one by one.

    errnos: by probe and function, empty where it was attached; of the functions that speak for others. speaker: the
    name of the one that speaks for each.
    """

    errnos: Mapping[tuple[str, str], str]
    speaker: Mapping[str, str]
    costs: Costs

    def errno(self, probe: Probe, function: Function) -> str:
        """What attaching a probe to a function answers, empty if it succeeds."""
        return self.errnos[probe.name, self.speaker[function.name]]


def attach_singly(probes: Sequence[Probe], semantics: Semantics) -> Singly:
    """Attach each probe to one function after another.

    Functions that attaching cannot tell apart answer and cost the same, so one of them speaks for all. Only the waits
    for the size of direct_functions depend on how many there are (DIRECT-13).
    """
    groups = _alike(probes)
    sizes = {group[0].name: len(group) for group in groups}
    world = world_of(group[0] for group in groups)
    with closing(per_function(world, replace(semantics, growth_waits=False))) as system:
        meter = _Meter(system)
        errnos: dict[tuple[str, str], str] = {}
        for probe in probes:
            meter.apply(op.BpfProgLoad(probe.name, probe.kind))
            for name in (function.name for function in probe.matched if function.name in sizes):
                link = op.BpfRawTracepointOpen(f"{probe.name} {name}", probe.name, name)
                errnos[probe.name, name] = meter.apply(link, sizes[name])
        done = [link for link, errno in errnos.items() if not errno]
        if semantics.growth_waits:
            meter.wait("rcu_tasks", _exchanges(sum(sizes[name] for name in {name for _, name in done})))
        attach = meter.read()
        for probe_name, name in done:
            meter.apply(op.BpfLinkDetach(f"{probe_name} {name}"), sizes[name])
        speaker = {function.name: group[0].name for group in groups for function in group}
        return Singly(errnos, speaker, (attach, meter.read()))


def _alike(probes: Sequence[Probe]) -> list[list[Function]]:
    """Functions in groups: the same probes match them, and attaching cannot tell them apart."""
    groups: dict[object, list[Function]] = {}
    for function, numbers in meetings([probe.matched for probe in probes]):
        key = numbers, function.btf_id is None, function.attributes, _seen_of(function.prototype)
        groups.setdefault(key, []).append(function)
    return list(groups.values())


def _seen_of(prototype: Prototype | None) -> object:
    """All that attaching one by one sees of a prototype."""
    if prototype is None:
        return None
    return prototype.describable, prototype.has_union, len(prototype.slots), prototype.returns.size


def _exchanges(entries: int) -> int:
    """How often direct_functions is exchanged while so many entries are added one after another."""
    table, exchanges = DirectFunctions(entries), 0
    for place in range(entries):
        exchanges += table.growth(1)
        table.add(np.array([place]), BPF)
    return exchanges


# One call a pattern.


@dataclass(frozen=True, slots=True)
class Batches:
    """What came of attaching in batches.

    costs: None if there are no batches, or one was refused. cut: how many parts a refused link meets, by probe's name.
    """

    costs: Costs | None
    cut: Mapping[str, int]


def attach_in_batches(probes: Sequence[Probe], attached: Sequence[Sequence[Function]], semantics: Semantics) -> Batches:
    """Attach each probe in one call for each BTF to the functions that take it (LINK-17).

    There is no such call for some kinds (SINGLE).
    """
    if not semantics.tracing_multi:
        return Batches(None, {})
    cut: dict[str, int] = {}
    with closing(per_function(_world(attached), semantics)) as system:
        meter = _Meter(system)
        done = []
        for probe, functions in zip(probes, attached, strict=True):
            for load, link in _links(probe, functions):
                meter.apply(load)
                if meter.apply(link):
                    where = system.state.functions.indices([name for name, _ in link.targets])
                    cut[probe.name] = parts_met(system.state.trampolines, where)
                else:
                    done.append(link.link)
        attach = meter.read()
        for name in done:
            meter.apply(op.BpfLinkDetach(name))
        return Batches(None if cut else (attach, meter.read()), cut)


def _links(probe: Probe, functions: Sequence[Function]) -> Iterator[tuple[op.BpfProgLoad, op.BpfLinkCreate]]:
    """One program and link for all functions of a BTF, or one for each function."""
    multi = probe.kind not in SINGLE
    groups: dict[str, list[tuple[str, None]]] = {}
    for function in functions:
        groups.setdefault((function.module or "") if multi else function.name, []).append((function.name, None))
    for group, targets in groups.items():
        name = f"{probe.name} {group}"
        yield op.BpfProgLoad(name, probe.kind, multi=multi), op.BpfLinkCreate(name, name, tuple(targets))


# Without BPF.


def register_raw(attached: Sequence[Sequence[Function]], semantics: Semantics) -> Costs | None:
    """One raw trampoline on all these functions, of an ops allocated for it; None where there are batches, or none."""
    if semantics.tracing_multi or not any(attached):
        return None
    world = _world(attached)
    with closing(per_function(world, semantics)) as system:
        meter = _Meter(system)
        meter.apply(op.FtraceOps("ops", dynamic=True))
        meter.apply(op.FtraceSetFilterIps("ops", tuple(function.name for function in world.functions)))
        meter.apply(op.RegisterFtraceDirectMulti("ops", "T1"))
        attach = meter.read()
        meter.apply(op.UnregisterFtraceDirectMulti("ops", "T1"))
        return attach, meter.read()
