"""What wildcard attaches do under one kernel's rules, as values: who is refused, who meets, what it costs.

`attaching` runs the attaches, and `explaining` says why an answer is what it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from properties.plan.attaching import Costs, Singly, attach_in_batches, attach_singly, meetings, register_raw
from properties.plan.explaining import Reason, explain
from properties.plan.probes import Probe
from spec.costs import Cost
from spec.semantics import Semantics
from spec.sharing import image_key
from spec.worlds import Function

__all__ = ["BATCH", "DIRECT_MULTI", "ONE_BY_ONE", "Plan", "explain_refusals", "plan"]

ONE_BY_ONE = "one function a call"
BATCH = "one call a pattern"
DIRECT_MULTI = "instead of BPF: one raw direct_multi"


@dataclass(frozen=True)
class Plan:
    """What the probes do under one kernel's rules.

    attached and refused: by probe, in the order given, functions in address order. sets: the functions on which
    exactly these probes meet. costs: of attaching and of detaching, by the way it is done; None where there is none.
    cut: how many parts a link of the proposal meets where they are too many (LINK-11), by probe's name.
    """

    semantics: Semantics
    attached: tuple[tuple[Function, ...], ...]
    refused: tuple[dict[Reason, list[Function]], ...]
    sets: dict[tuple[int, ...], list[Function]]
    costs: dict[str, Cost | None]
    cut: dict[str, int]

    def images(self, level: str, probes: tuple[int, ...]) -> int:
        """How many images of these probes a sharing level needs."""
        return len({image_key(level, function) for function in self.sets.get(probes, [])})


def plan(probes: Sequence[Probe], semantics: Semantics) -> Plan:
    """What attaching these probes, in this order, does and costs under one kernel's rules."""
    singly = attach_singly(probes, semantics)
    attached = tuple(
        tuple(function for function in probe.matched if not singly.errno(probe, function)) for probe in probes
    )
    batches = attach_in_batches(probes, attached, semantics)
    return Plan(
        semantics,
        attached,
        tuple(explain_refusals(probe, singly, semantics) for probe in probes),
        _sets(attached),
        {
            **_ways(ONE_BY_ONE, singly.costs),
            **_ways(BATCH, batches.costs),
            **_ways(DIRECT_MULTI, register_raw(attached, semantics)),
        },
        dict(batches.cut),
    )


def explain_refusals(probe: Probe, singly: Singly, semantics: Semantics) -> dict[Reason, list[Function]]:
    """The functions that refuse a probe, by reason."""
    refused: dict[Reason, list[Function]] = {}
    for function in probe.matched:
        if errno := singly.errno(probe, function):
            refused.setdefault(explain(errno, function, probe.kind, semantics), []).append(function)
    return refused


def _sets(attached: Sequence[Sequence[Function]]) -> dict[tuple[int, ...], list[Function]]:
    """Functions by the probes that meet on them, P1 before P1 P2 before P2."""
    sets: dict[tuple[int, ...], list[Function]] = {}
    for function, numbers in meetings(attached):
        sets.setdefault(numbers, []).append(function)
    return dict(sorted(sets.items()))


def _ways(way: str, costs: Costs | None) -> dict[str, Cost | None]:
    attach, detach = costs or (None, None)
    return {f"attach, {way}": attach, f"detach, {way}": detach}
