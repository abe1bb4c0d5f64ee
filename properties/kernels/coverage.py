"""Which blocks of the kernel's own code the runs executed, and what would reach the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from impl.linux.instruments.code import CodeFunction, find_code
from impl.linux.station import Station
from properties.kernels.unreached import obstacles
from properties.report.grid import Column, Grid, Line
from properties.report.writing import write_whole
from spec.reading import encode

__all__ = [
    "BlockRecord",
    "Coverage",
    "CoverageRecord",
    "KernelCoverage",
    "Share",
    "core_share",
    "coverage_table",
    "write_coverage",
]

CORE = ("kernel/bpf/trampoline.c", "kernel/trace/fgraph.c")
DIRECT = "kernel/trace/ftrace.c"
"""Of this file the functions of the direct API are counted by themselves, too: those with `direct` in their names."""


@dataclass(frozen=True, slots=True)
class BlockRecord:
    """A block. at: bytes from the function's first; a cold part is far from it. runs: the places in the list of runs.

    calls: what it calls. errnos: errors that it loads. unreached: what would reach it, if that is nothing in the
    alphabet; empty if it was executed, or should be.
    """

    at: int
    bytes: int
    calls: tuple[str, ...]
    errnos: tuple[str, ...]
    runs: tuple[int, ...]
    unreached: str = ""


@dataclass(frozen=True, slots=True)
class KernelCoverage:
    """The blocks that the runs of a kernel executed, by source file and function."""

    release: str
    runs: tuple[str, ...]
    files: dict[str, dict[str, tuple[BlockRecord, ...]]]


@dataclass(frozen=True, slots=True)
class CoverageRecord:
    """The file that `linux --coverage` writes, by kernel."""

    kernels: dict[str, KernelCoverage]


@dataclass(frozen=True, slots=True)
class Share:
    """How much was executed. beyond: blocks that the alphabet does not reach, by reason."""

    blocks: int
    executed: int
    beyond: Mapping[str, int]

    @classmethod
    def of(cls, blocks: Iterable[BlockRecord]) -> Share:
        """The share of these blocks."""
        every = list(blocks)
        beyond = Counter(block.unreached for block in every if block.unreached)
        return cls(len(every), sum(bool(block.runs) for block in every), beyond)

    @property
    def reachable(self) -> int:
        """How many blocks the alphabet reaches, or should."""
        return self.blocks - sum(self.beyond.values())

    @property
    def percent(self) -> float:
        """Of what the alphabet reaches; 100 if that is nothing."""
        return 100 * self.executed / self.reachable if self.reachable else 100.0


@dataclass(slots=True)
class Coverage:
    """Gathers what each run executed. code: the functions that are looked at; runs: by name, the addresses."""

    code: tuple[CodeFunction, ...] = ()
    runs: dict[str, set[int]] = field(default_factory=dict)

    def watch(self, station: Station) -> None:
        """Have a guest note what it executes, from now on. A kernel's text is the same in each of its guests."""
        self.code = self.code or find_code(station.guest, station.symbols)
        station.guest.watch([(block.start, block.end) for function in self.code for block in function.blocks])

    def note(self, run: str, station: Station) -> None:
        """A run has ended."""
        self.runs.setdefault(run, set()).update(station.guest.executed())

    def record(self, release: str) -> KernelCoverage:
        """All that is known now."""
        executed = list(self.runs.values())
        files: dict[str, dict[str, tuple[BlockRecord, ...]]] = {}
        for function in self.code:
            blocks = _record(function, executed)
            # static functions of a file that bear one name are told apart by their addresses
            names = files.setdefault(function.source, {})
            names[f"{function.name}@{function.start:x}" if function.name in names else function.name] = blocks
        return KernelCoverage(release, tuple(self.runs), files)


def _record(function: CodeFunction, executed: Sequence[set[int]]) -> tuple[BlockRecord, ...]:
    runs = {
        block.start: tuple(place for place, addresses in enumerate(executed) if block.start in addresses)
        for block in function.blocks
    }
    reasons = obstacles(function, {start for start, those in runs.items() if those})
    return tuple(
        BlockRecord(
            block.start - function.start,
            block.end - block.start,
            block.calls,
            block.errnos,
            runs[block.start],
            reasons.get(block.start, ""),
        )
        for block in function.blocks
    )


def write_coverage(kernels: Mapping[str, KernelCoverage], path: Path) -> None:
    """Write the file: whole or not at all."""
    write_whole(encode(CoverageRecord(dict(kernels))) + b"\n", path)


def coverage_table(kernel: str, coverage: KernelCoverage) -> Grid:
    """A line for each file, and below it for each function of which some block was not executed, and why."""
    columns = (
        Column("file, function", wrap="fold"),
        Column("blocks", right=True),
        Column("executed", right=True),
        Column("of what can be reached", right=True),
        Column("the others, and what would reach them"),
    )
    lines = [line for path, functions in coverage.files.items() for line in _tell_file(path, functions)]
    return Grid(f"{kernel}: the kernel's own code, in basic blocks", columns, tuple(lines))


def core_share(coverage: KernelCoverage) -> Share:
    """The share of what mass attach is made of: trampoline.c, fgraph.c and the direct API in ftrace.c."""
    whole = [block for path in CORE for blocks in coverage.files.get(path, {}).values() for block in blocks]
    return Share.of([*whole, *_select_direct(coverage.files.get(DIRECT, {}))])


def _select_direct(functions: Mapping[str, Sequence[BlockRecord]]) -> Iterator[BlockRecord]:
    """The blocks of the functions of ftrace.c that have `direct` in their names."""
    return (block for name, blocks in functions.items() if "direct" in name for block in blocks)


def _tell_file(path: str, functions: Mapping[str, Sequence[BlockRecord]]) -> Iterator[Line]:
    yield Line(
        (path, *_tell_share(Share.of(block for blocks in functions.values() for block in blocks))),
        "bold",
        new_section=True,
    )
    if path == DIRECT:
        yield Line((f"{path}, direct calls", *_tell_share(Share.of(_select_direct(functions)))), "bold")
    for name, blocks in functions.items():
        share = Share.of(blocks)
        if share.executed < share.blocks:
            yield Line((f"  {name}", *_tell_share(share)))


def _tell_share(share: Share) -> tuple[str, ...]:
    missing = share.reachable - share.executed
    reasons = [f"{count} by {reason}" for reason, count in sorted(share.beyond.items(), key=lambda item: -item[1])]
    others = "; ".join([*reasons, *([f"{missing} by the alphabet"] if missing else [])])
    return f"{share.blocks:,}", f"{share.executed:,}", f"{share.percent:.0f} %", others
