"""The functions of the kernel that implement mass attach, as basic blocks of the guest's own text.

No source is read. sources.json names the functions of each source file, as the kallsyms of Debian's kernels list them.
A compiler keeps the functions of a file together, so that of a file that is `whole` a function of another kernel that
has no such name counts, too, if it stands among those that have one: so does what a developer has just added.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from statistics import median_low
from typing import Final

from impl.linux.architectures import Flow, FlowInstruction
from impl.linux.guest.errnos import errno_name
from impl.linux.guest.guest import Guest
from impl.linux.guest.qemu import Range
from impl.linux.probes.symbols import Symbols, Table
from spec.errors import BadInputError
from spec.reading import load

__all__ = ["Block", "CodeFunction", "Source", "find_code", "sources"]

SOURCES: Final = Path(__file__).with_name("sources.json")
MOST_BYTES: Final = 1 << 20
COLD: Final = ".cold"
PREFIX: Final = "__pfx_"
NEVER_PATCHED: Final = "__fentry__"
MOST_ERRNO: Final = 133
LARGEST_FILE: Final = 1 << 18
"""The text of a source file is no larger: a symbol that is so far from most of its others is another file's."""


@dataclass(frozen=True, slots=True)
class Source:
    """A source file. whole: every function of it counts, and not only those that are named."""

    whole: bool
    functions: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Block:
    """A basic block: it is entered at `start` alone, and left behind its last byte. A call does not end it.

    calls: the symbols that it calls, or jumps to in other functions. errnos: the errors that it loads into a register.
    traps: it is a WARN or a BUG. behind: the starts of the blocks of its function that may come next.
    """

    start: int
    end: int
    calls: tuple[str, ...]
    errnos: tuple[str, ...]
    traps: bool
    behind: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CodeFunction:
    """A function and its blocks in ascending order, those of its cold part among them. name: as kallsyms has it."""

    source: str
    name: str
    start: int
    blocks: tuple[Block, ...]


def sources() -> Mapping[str, Source]:
    """The source files by their paths in the kernel's tree."""
    return load(SOURCES, dict[str, Source], MOST_BYTES)


def find_code(guest: Guest, symbols: Symbols) -> tuple[CodeFunction, ...]:
    """Every function that is looked at, by source file and address; BadInputError if its text cannot be read."""
    text = _Text.of(symbols.kernel)
    places = [(path, name, part) for path, source in sources().items() for name, part in _find(text, source)]
    code = _read(guest, [part for _, _, part in places])
    colds = [tuple(_find_cold_parts(text, code[part], part)) for _, _, part in places]
    code |= _read(guest, [part for parts in colds for part in parts])
    return tuple(
        CodeFunction(path, name, part[0], _cut(text, [(each, code[each]) for each in (part, *parts)]))
        for (path, name, part), parts in zip(places, colds, strict=True)
    )


@dataclass(frozen=True, slots=True)
class _Text:
    """The kernel's symbols. extents: of each, from its address to the next one; functions: what may be functions."""

    table: Table
    extents: Mapping[int, Range]
    functions: Sequence[tuple[str, int]]

    @classmethod
    def of(cls, table: Table) -> _Text:
        names = dict(zip(reversed(table.starts), reversed(table.names), strict=True))
        extents = {start: (start, end) for start, end in pairwise(sorted(names))}
        functions = [
            (name, start)
            for start in extents
            if not (name := names[start]).startswith(PREFIX) and not name.endswith(COLD)
        ]
        return cls(table, extents, functions)

    def symbol(self, address: int) -> str:
        """The symbol that an address is in; empty if it is in none."""
        place = self.table.at(address)
        return place[0] if place else ""


def _find(text: _Text, source: Source) -> Iterator[tuple[str, Range]]:
    """The functions of a source file, by name and extent, in the order of their addresses."""
    wanted = frozenset(source.functions)
    listed = {start: name for name, start in text.functions if name.partition(".")[0] in wanted}
    sure = [start for start, name in listed.items() if len(text.table.by_name[name]) == 1]
    if not sure:
        return
    middle = median_low(sure)
    near = [start for start in sure if abs(start - middle) < LARGEST_FILE]
    for name, start in text.functions:
        if min(near) <= start <= max(near) and (source.whole or start in listed):
            yield name, text.extents[start]


def _read(guest: Guest, parts: Sequence[Range]) -> dict[Range, tuple[FlowInstruction, ...]]:
    """The instructions of parts of the text."""
    texts = guest.read_memory([(start, end - start) for start, end in parts])
    if any(len(text) != end - start for text, (start, end) in zip(texts, parts, strict=True)):
        raise BadInputError("the kernel does not show its own text in /proc/kcore: build it with CONFIG_PROC_KCORE")
    flow = guest.kernel.architecture.read_flow
    return {part: tuple(flow(part[0], text)) for part, text in zip(parts, texts, strict=True)}


def _find_cold_parts(text: _Text, code: Iterable[FlowInstruction], part: Range) -> Iterator[Range]:
    """The extents of cold parts that a function jumps to."""
    targets = {each.target for each in code if each.flow in {Flow.BRANCH, Flow.JUMP} and each.target is not None}
    outside = (target for target in targets if not part[0] <= target < part[1])
    places = {target: place for target in outside if (place := text.table.at(target)) and place[0].endswith(COLD)}
    starts = sorted({target - distance for target, (_, distance) in places.items()})
    return (text.extents[start] for start in starts)


def _cut(text: _Text, parts: Sequence[tuple[Range, Sequence[FlowInstruction]]]) -> tuple[Block, ...]:
    """The blocks of a function, which has these parts.

    One is cut where something jumps to, behind what jumps, and where a part begins; padding behind a jump is none.
    """
    code = [each for _, part in parts for each in part]
    leaders = {each.target for each in code if each.flow in {Flow.BRANCH, Flow.JUMP}}
    leaders |= {start for (start, _), _ in parts}
    cut: list[list[FlowInstruction]] = []
    ended = True
    for each in code:
        if each.address in leaders or (ended and each.flow is not Flow.PADDING):
            cut.append([each])
            ended = False
        elif not ended:
            cut[-1].append(each)
        ended = ended or each.flow in {Flow.BRANCH, Flow.JUMP, Flow.RETURN}
    starts = {block[0].address for block in cut}
    return _without_overridden(parts[0][0], [_make_block(text, block, starts) for block in cut])


def _without_overridden(extent: Range, blocks: Sequence[Block]) -> tuple[Block, ...]:
    """Weak functions that others override have no symbol: they stand behind a function, with calls never made nops."""
    start, end = extent
    behind = (each.start for each in blocks if start < each.start < end and NEVER_PATCHED in each.calls)
    dead = range(min(behind, default=end), end)
    return tuple(sorted((each for each in blocks if each.start not in dead), key=lambda each: each.start))


def _make_block(text: _Text, code: Sequence[FlowInstruction], starts: Container[int]) -> Block:
    last, end = code[-1], code[-1].address + code[-1].size
    targets = [each.target for each in code if each.target is not None]
    behind = {end} if last.flow not in {Flow.JUMP, Flow.RETURN} else set()
    behind |= {last.target} if last.flow in {Flow.BRANCH, Flow.JUMP} and last.target is not None else set()
    constants = [each.constant for each in code if each.constant is not None]
    return Block(
        code[0].address,
        end,
        tuple(filter(None, (text.symbol(target) for target in targets if target not in starts))),
        tuple(errno_name(value) for value in constants if -MOST_ERRNO <= value < 0),
        any(each.flow is Flow.TRAP for each in code),
        tuple(sorted(start for start in behind if start in starts)),
    )
