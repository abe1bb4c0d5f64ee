"""Mutants of the kernel's own machine code: every small change of the functions that implement mass attach.

A mutant is poked into a guest that was restored, so that it needs no boot and no source. What the kernel has patched
itself since it was linked, such as static calls, jump labels and ftrace's sites, is left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from elftools.elf.elffile import ELFFile

from impl.linux.architectures import Change, Mutation
from impl.linux.guest.guest import Guest
from impl.linux.instruments.code import Block, CodeFunction
from impl.linux.probes.symbols import Symbols

__all__ = ["Candidates", "Linked", "Mutant", "find_mutants"]

NEIGHBOURS: Final = 2
"""The blocks on either side of a mutant's own that tell it from others of its function."""

DIGITS: Final = 12
NEVER_LEFT_OUT: Final = (
    *("__fentry__", "__x86_*", "__SCT__*", "srso_*", "retbleed_*", "clear_bhb_*", "its_*", "preempt_schedule*_thunk"),
    *(
        "__stack_chk_fail",
        "__ubsan_*",
        "__asan_*",
        "__kasan_*",
        "__sanitizer_*",
        "__warn*",
        "_printk",
        "__cond_resched",
    ),
)
"""Calls that are no part of what a function does: of thunks, of what the compiler adds, and of what only prints."""


@dataclass(frozen=True, slots=True)
class Mutant:
    """A change of one instruction of a function, as a value that goes from process to process.

    source: the file; function: as kallsyms has it; at: bytes from its first; code: the digest of the code around it,
    which is the same in another build of the same code; old and new: bytes as hex. target: the symbol that a call
    calls, or that a jump leaves the function for. block: the address of its basic block; ways: those of the blocks to
    which a jump leads, then behind it. before: the instructions right before it in its block, two at most. near: what
    is called in its block, and in those on each way.
    """

    source: str
    function: str
    at: int
    address: int
    change: Change
    text: str
    old: str
    new: str
    target: str
    code: str
    block: int
    ways: tuple[int, ...]
    before: tuple[str, ...]
    near: tuple[tuple[str, ...], ...]

    @property
    def stem(self) -> str:
        """The function's name without what the compiler added."""
        return self.function.partition(".")[0]

    def __str__(self) -> str:
        name = f"{self.function}+{self.at:#x}"
        return f"{name}, {self.change}: {self.text}" + (f" ({self.target})" if self.target else "")


@dataclass(frozen=True, slots=True)
class Candidates:
    """All mutants of a kernel, and how many instructions were left alone, as the kernel has patched them."""

    mutants: tuple[Mutant, ...]
    patched: int


class Linked:
    """The kernel as it was linked: the bytes of its ELF file by address."""

    def __init__(self, path: Path) -> None:
        self._path = path
        with path.open("rb") as file:
            parts = [segment.header for segment in ELFFile(file).iter_segments("PT_LOAD")]
        self._parts = [(part.p_vaddr, part.p_filesz, part.p_offset) for part in parts]

    def read(self, places: Sequence[tuple[int, int]]) -> list[bytes]:
        """The bytes at each address and of each length; none where the file has none."""
        with self._path.open("rb") as file:
            found = []
            for address, length in places:
                offset = self._find(address, length)
                file.seek(offset or 0)
                found.append(b"" if offset is None else file.read(length))
        return found

    def _find(self, address: int, length: int) -> int | None:
        end = address + length
        found = (part for part in self._parts if part[0] <= address and end <= part[0] + part[1])
        return next((offset + address - start for start, _, offset in found), None)


def find_mutants(guest: Guest, symbols: Symbols, functions: Iterable[CodeFunction]) -> Candidates:
    """Every mutant of these functions, in their order."""
    linked = Linked(guest.kernel.vmlinux)
    mutants: list[Mutant] = []
    patched: set[int] = set()
    for function in functions:
        places = [(block.start, block.end - block.start) for block in function.blocks]
        live, built = guest.read_memory(places), linked.read(places)
        codes = dict(zip(function.blocks, zip(live, built, strict=True), strict=True))
        for mutant, is_patched in _mutate(guest, symbols, function, codes):
            if is_patched:
                patched.add(mutant.address)
            else:
                mutants.append(mutant)
    return Candidates(tuple(mutants), len(patched))


def _mutate(
    guest: Guest, symbols: Symbols, function: CodeFunction, codes: Mapping[Block, tuple[bytes, bytes]]
) -> Iterator[tuple[Mutant, bool]]:
    """The mutants of a function, and whether the kernel has patched the instruction.

    codes: of each block as it is, and as it was linked.
    """
    architecture = guest.kernel.architecture
    blocks = {block.start: block for block in function.blocks}
    masked = [architecture.mask(block.start, codes[block][1] or codes[block][0]) for block in function.blocks]
    for place, block in enumerate(function.blocks):
        before, around = masked[max(0, place - NEIGHBOURS) : place], masked[place : place + NEIGHBOURS + 1]
        live, built = codes[block]
        for mutation in architecture.mutate(block.start, live):
            target = _name_target(symbols, mutation, blocks)
            if mutation.change is Change.CALL and (not target or _is_passed_over(target)):
                continue
            offset = mutation.address - block.start
            ways = (mutation.target, block.end) if mutation.change in JUMPS and mutation.target else ()
            yield (
                Mutant(
                    function.source,
                    function.name,
                    mutation.address - function.start,
                    mutation.address,
                    mutation.change,
                    mutation.text,
                    mutation.old.hex(),
                    mutation.new.hex(),
                    target,
                    _digest(offset, before, around),
                    block.start,
                    ways,
                    mutation.before,
                    (block.calls, *(blocks[way].calls if way in blocks else () for way in ways)),
                ),
                built[offset : offset + len(mutation.old)] != mutation.old,
            )


JUMPS: Final = frozenset({Change.INVERTED, Change.ALWAYS, Change.NEVER})


def _name_target(symbols: Symbols, mutation: Mutation, blocks: Mapping[int, Block]) -> str:
    """The symbol of a target outside the function; empty if there is none."""
    if mutation.target is None or mutation.target in blocks:
        return ""
    place = symbols.kernel.at(mutation.target)
    return place[0] if place else ""


def _is_passed_over(callee: str) -> bool:
    return any(fnmatchcase(callee, pattern) for pattern in NEVER_LEFT_OUT)


def _digest(offset: int, before: Sequence[bytes], behind: Sequence[bytes]) -> str:
    """A name for a place so many bytes behind some blocks."""
    place = b"%d %d:" % (offset, len(before))
    return hashlib.sha256(place + b"/".join([*before, *behind])).hexdigest()[:DIGITS]
