"""Records in which everything is there that a report can show, with any text for its names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from properties.report.grid import Column, Grid, Line
from properties.report.pictures import CalledTarget, CallingFunction, Picture
from properties.report.records import (
    CheckRecord,
    ChecksRecord,
    CostRecord,
    DifferenceRecord,
    FigureRecord,
    FoundBug,
    KernelRecord,
    LinuxRecord,
    PhaseRecord,
    PlannedKernel,
    PlannedProbe,
    PlannedRefusal,
    PlannedSet,
    PlanRecord,
    PowerRecord,
    RuleRecord,
    WaitsRecord,
)
from properties.report.results import CheckVerdict, ProofCell, ToldDivergence
from properties.report.writing import write_record

__all__ = ["every_record", "write_records"]


def picture(name: str) -> Picture:
    callees = (
        CalledTarget(f"TRAMPOLINE1{name}", "trampoline", (f"fentry:{name}", f"{name}:p2"), name),
        CalledTarget(f"ops:{name}", "ops"),
        CalledTarget(f"direct:{name}", "direct"),
    )
    callers = (
        CallingFunction(name, 0, site=name),
        CallingFunction(f"two {name}", 1, 2, name, 1234),
        CallingFunction(f"nop {name}", None),
    )
    return Picture(callers, callees, 1)


def run(name: str) -> ChecksRecord:
    grid = Grid(name, (Column(name), Column("count", right=True)), (Line((name, "3")), Line((name,))))
    difference = ToldDivergence(
        f"call {name}", "sites", name, f"both {name} a", f"both {name} b", ("LINK-3", name), name
    )
    cells = tuple(
        ProofCell(architecture, name, arity, kind, outcome, 1.5)
        for architecture in ("x86-64", "arm64")
        for arity, outcome in (("0", "proved"), (name, "refuted"), ("2", "undecided"))
        for kind in ("fentry", name)
    )
    checks = (
        CheckRecord(f"seeds agree {name}", CheckVerdict.HOLDS, 1.5, 51, name, 2000, 10, {name: 30}, "", grid),
        CheckRecord(
            name,
            CheckVerdict.FELL,
            130.0,
            3,
            detail=name,
            differences=(
                DifferenceRecord(difference, picture(f"{name}1"), picture(name), picture(f"{name}2")),
                DifferenceRecord(difference),
            ),
        ),
        CheckRecord(f"third {name}", CheckVerdict.NOT_RUN, 0.0, detail=name),
        CheckRecord("proofs", CheckVerdict.HOLDS, 2.0, 12, "images", tally=grid, proofs=cells),
    )
    return ChecksRecord(f"massattach verify {name}", f"Checked {name}.", checks, (f"left out {name}",))


def linux(name: str) -> LinuxRecord:
    kernels = {kernel: KernelRecord(name, name, 1, 2, 3, 4, 5.0) for kernel in ("linux-7.3", name)}
    rules = {
        "LINK-3": {"linux-7.3": RuleRecord("confirmed", 674), name: RuleRecord("never reached")},
        "COST-1": {"linux-7.3": RuleRecord("not observable", reason=name)},
        name: {name: RuleRecord("not in this kernel")},
    }
    phase = PhaseRecord(0.25, WaitsRecord({"rcu_tasks": 1}))
    costs = tuple(
        CostRecord(kernel, way, size, "holds", phase, phase, size)
        for kernel in kernels
        for way in (f"one by one {name}", "batch")
        for size in (10, 50, 200)
    )
    return LinuxRecord(rules, kernels, costs, run(name))


def plan(name: str) -> PlanRecord:
    probes = (PlannedProbe("P1", "fentry", name, 20), PlannedProbe(name, "fsession", f"kfunc:{name}", 3))
    sets = tuple(PlannedSet(which, 7, {"per_shape": 2}, (name, "vfs_read")) for which in (("P1",), ("P1", name)))
    refused = (PlannedRefusal("P1", name, name, 2, (name,)),)
    costs = {name: {"sites_patched": 3, name: 4}, "detach": None, "nothing": {"sites_patched": 0}}
    return PlanRecord(name, 47_382, probes, (PlannedKernel(name, {"P1": 20}, refused, sets, costs),))


def bench(name: str, value: float) -> tuple[FigureRecord, ...]:
    return (
        FigureRecord(f"faster {name}", value, 100.0, "higher", value >= 100, name),
        FigureRecord("slower", value, 3.0, "lower", value <= 3, "times"),
    )


def every_record(name: str) -> Mapping[str, object]:
    """A record of each kind by the name of its file, and two of bench."""
    found = FoundBug("tramp-not-restored", name, 1.5, 25, 4, name)
    return {
        "verify.json": run(name),
        "linux.json": linux(name),
        "bench-1.json": bench(name, 150.0),
        "bench-2.json": bench(name, 2.0),
        "power.json": PowerRecord((1, 2), (found, FoundBug(name, None))),
        "plan.json": plan(name),
    }


def write_records(directory: Path, name: str = "name") -> None:
    """Write every record."""
    for file, record in every_record(name).items():
        write_record(record, directory / file)
