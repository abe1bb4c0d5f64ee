"""Bugs in how text is patched, which only a call shows that is made between two of its writes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from impl.batched.functions import Indices
from impl.batched.machine import addresses as at
from impl.batched.machine.entries import SITE_BYTES
from impl.batched.machine.poke import INT3, Phase
from impl.batched.machine.stopping import Passage, SteppedPoke
from impl.batched.machine.text import Text
from impl.planted.planting import Origin, Original, planted

Places = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Code = NDArray[np.void]


@planted(
    "machine.cpu.emulate",
    rule="POKE-2",
    origin=Origin(69),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    poke register_ftrace_function o1
    call foo0
    """,
)
def int3_not_emulated(_original: Original, _code: bytes, place: int) -> tuple[int, bool]:
    """The handler skips a site as if a nop were to stand there, whatever is being written."""
    return place + SITE_BYTES, False


@planted(
    "machine.stopping.SteppedPoke._patch",
    rule="POKE-2",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    poke register_ftrace_function o1
    call foo0
    """,
)
def int3_emulates_the_old(original: Original, poke: SteppedPoke, places: Places, code: Code) -> Iterator[str]:
    """The handler does what the instruction did that is being replaced, also when all processors have seen the trap."""
    old = {at.TEXT + place: poke.text.u8[place : place + SITE_BYTES].tobytes() for place in places.tolist()}
    for phase in original(poke, places, code):
        poke.vector = old
        yield phase


@planted(
    "machine.stopping.poke",
    rule="POKE-2",
    origin=Origin(72),
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    poke register_ftrace_function o1
    call foo0
    """,
)
def tail_before_the_trap(_original: Original, text: Bytes, where: Places, code: Code) -> Iterator[Phase]:
    """The other bytes of an instruction are written before its first one is a trap: it is torn."""
    _write_tail(text, where, code)
    yield "tail"
    text[where] = INT3
    yield "int3"
    text[where] = code["first"]
    yield "first"


@planted(
    "machine.stopping.poke",
    rule="POKE-2",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    poke register_ftrace_function o1
    poke_step
    call foo0
    """,
)
def first_byte_before_the_tail(_original: Original, text: Bytes, where: Places, code: Code) -> Iterator[Phase]:
    """The first byte of an instruction is there before the others are."""
    text[where] = INT3
    yield "int3"
    text[where] = code["first"]
    yield "first"
    _write_tail(text, where, code)
    yield "tail"


@planted(
    "machine.text.Text._synchronize",
    rule="POKE-2",
    semantics="linux-6.12",
    minimal="""
    ftrace_ops o1
    call foo0
    poke register_ftrace_function o1
    call foo0
    """,
)
def processors_do_not_synchronize(_original: Original, _text: Text, _places: Places) -> None:
    """A processor goes on to run what it had read of a site before it was written."""


@planted(
    "machine.text.Text._begin_poke",
    rule="POKE-2",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    poke bpf_raw_tracepoint_open l2 p2 foo1
    call foo1 1
    """,
)
def old_image_freed_before_text_is_written(original: Original, text: Text) -> None:
    """An image is freed as soon as another is made, while its site still calls it."""
    text.free(text.unused)
    text.unused = text.unused._replace(where=text.unused.where[:0])
    original(text)


@planted(
    "machine.text.passages",
    rule="POKE-3",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    poke bpf_raw_tracepoint_open l2 p2 foo1
    call foo1 1
    """,
)
def entries_change_too_early(
    original: Original, targets: NDArray[np.uint32], single: Indices, direct: Indices, caller: np.uint32
) -> Iterator[Passage]:
    """Direct entries are already changed while sites are led to ftrace_regs_caller."""
    for passage in original(targets, single, direct, caller):
        yield passage._replace(late=False)


@planted(
    "system.Batched._list_left",
    rule="POKE-2",
    semantics="linux-7.3",
    minimal="""
    bpf_prog_load p1 fentry
    bpf_prog_load p2 fentry
    bpf_raw_tracepoint_open l1 p1 foo1
    bpf_raw_tracepoint_open l2 p2 foo1
    poke bpf_link_detach l1
    call foo1 1
    """,
)
def skipped_behind_the_patching(_original: Original, *_arguments: Any) -> list[Any]:
    """A program that is detached is skipped only once text was patched, and may be freed under who comes to it."""
    return []


@planted(
    "machine.text.Text.advance",
    rule="POKE-4",
    semantics="linux-6.12",
    minimal="""
    bpf_prog_load p1 fexit
    bpf_raw_tracepoint_open l1 p1 foo1
    task t1 foo1 1
    step t1 to=body how=sleep
    poke bpf_link_detach l1
    await poke bpf_link_detach l1
    finish t1
    """,
)
def put_image_freed_behind_the_patching(original: Original, text: Text) -> bool:
    """An image is freed as soon as no site calls it any more, though a task is in it."""
    put, text.put = text.put, None
    stands: bool = original(text)
    text.put = put
    return stands


def _write_tail(text: Bytes, where: Places, code: Code) -> None:
    for byte, column in enumerate(code["tail"].copy().view(np.uint8).reshape(len(code), -1).T, 1):
        text[where + byte] = column
