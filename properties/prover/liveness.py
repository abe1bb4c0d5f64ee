"""Operations whose result nobody reads: without them instructions mean the same, and take less to run.

Most instructions set flags, each by several operations, and a trampoline reads few. A flag is *live* where a path that
goes on from there may read it before it is written; where that is not plain, it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

from properties.prover.operations import LiftedInstruction, Op, OpKind, Place, Space

__all__ = ["BRANCHES", "Flags", "skips", "without_dead_flags", "without_dead_temporaries"]

Flags = AbstractSet[int]
"""Offsets of the registers that are flags. Each has one byte."""

NO_FLAGS: Flags = frozenset()
BRANCHES = frozenset({OpKind.GOTO, OpKind.GOTO_IF})


def skips(ops: Iterable[Op]) -> bool:
    """Whether there are jumps within the instruction, which name operations by their index."""
    return any(op[0] in {OpKind.SKIP, OpKind.SKIP_IF} for op in ops)


def without_dead_temporaries(ops: Sequence[Op]) -> tuple[Op, ...]:
    """The operations of an instruction without skips, less those whose result is a temporary that none reads."""
    return _prune(ops, NO_FLAGS, NO_FLAGS, lambda _: NO_FLAGS)[0]


def without_dead_flags(
    instructions: Mapping[int, LiftedInstruction], image: range, flags: Flags, judged: Flags, patched: AbstractSet[int]
) -> dict[int, LiftedInstruction]:
    """The instructions by address, less operations whose result is a flag that is not live, and what only they read.

    image: its addresses. judged: flags that are asked for where control leaves it; callees leave the others unknown.
    patched: addresses where the kernel may have put a jump.
    """
    live: dict[int, Flags] = {}

    def find_live(target: Place) -> Flags:
        space, address, _ = target
        if space != Space.CONSTANT:
            return flags
        return live.get(address, flags) if address in image else judged

    found: dict[int, LiftedInstruction] = {}
    for at in sorted(instructions, reverse=True):
        found[at] = instruction = instructions[at]
        live[at] = flags
        if not skips(instruction.ops):
            after = live.get(at + instruction.size, flags)
            ops, before = _prune(instruction.ops, flags, after, find_live)
            found[at] = replace(instruction, ops=ops)
            live[at] = flags if at in patched else before
    return found


def _prune(
    ops: Sequence[Op], flags: Flags, live: Flags, find_live: Callable[[Place], Flags]
) -> tuple[tuple[Op, ...], Flags]:
    """The operations that count, and the flags that are live before them. live: those behind."""
    kept: list[Op] = []
    wanted: set[int] = set()
    alive = set(live)
    for op in reversed(ops):
        kind, _, output, inputs = op
        if kind in BRANCHES:
            alive = set(find_live(inputs[0])) | (alive if kind == OpKind.GOTO_IF else set())
        if kind == OpKind.COMPUTE and output is not None:
            space, offset, size = output
            if space == Space.UNIQUE and wanted.isdisjoint(range(offset, offset + size)):
                continue
            if space == Space.REGISTER and size == 1 and offset in flags:
                if offset not in alive:
                    continue
                alive.discard(offset)
        for space, offset, size in inputs:
            if space == Space.UNIQUE:
                wanted.update(range(offset, offset + size))
            elif space == Space.REGISTER:
                alive |= flags & set(range(offset, offset + size))
        kept.append(op)
    return tuple(reversed(kept)), alive
