"""A plan's sets of probes as a picture: groups of functions, and the trampolines that they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from properties.report.pictures import CalledTarget, CallingFunction, Picture
from properties.report.records import PlannedKernel, PlannedProbe, PlannedSet, PlanRecord
from spec.operations import LSM

__all__ = ["picture"]

MOST: Final = 16
LISTS: Final = ("fentry", "fmod_ret", "fexit")


def picture(plan: PlanRecord, kernel: PlannedKernel) -> Picture:
    """The largest sets, each as one trampoline that stands for as many images as it has shapes."""
    probes = {probe.name: probe for probe in plan.probes}
    sets = sorted(kernel.sets, key=lambda each: -each.functions)[:MOST]
    numbers = {each.probes: number for number, each in enumerate(kernel.sets, 1)}
    callers = tuple(
        CallingFunction(_name(each), place, count=max(1, each.functions)) for place, each in enumerate(sets)
    )
    callees = tuple(
        CalledTarget(f"TRAMPOLINE{numbers[each.probes]}", "trampoline", _run_order(each, probes), _serves(each))
        for each in sets
    )
    return Picture(callers, callees)


def _name(each: PlannedSet) -> str:
    return ", ".join(each.examples[:1]) + (", …" if each.functions > 1 else "")


def _serves(each: PlannedSet) -> str:
    images = each.images.get("per_shape", 0)
    return f"{images:,} shape{'' if images == 1 else 's'}"


def _run_order(each: PlannedSet, probes: Mapping[str, PlannedProbe]) -> tuple[str, ...]:
    """List by list, and in each the program that was attached last first (TRAMP-1); a session runs in two lists.

    An lsm program stands where it does on a hook that returns something (LSM-4).
    """
    known = [probes[name] for name in reversed(each.probes) if name in probes]
    return tuple(
        f"{probe.kind}:{probe.name}"
        for each_list in LISTS
        for probe in known
        if probe.kind == each_list
        or (probe.kind == "fsession" and each_list != "fmod_ret")
        or (probe.kind == LSM and each_list == "fmod_ret")
    )
