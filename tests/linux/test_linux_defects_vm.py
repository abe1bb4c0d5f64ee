"""Defects of kernels that proofs have found (spec/DEFECTS.md), on the kernels themselves."""

from __future__ import annotations

import pytest

from impl.linux.bpf import commands
from impl.linux.bpf import instructions as code
from impl.linux.bpf.recorders import ATTACH_TYPES, GET_FUNC_ARG
from impl.linux.guest.batch import Batch, Ref
from impl.linux.guest.guest import Guest, GuestDiedError
from impl.linux.station import Station
from tests.support.stations import prog_test_run

pytestmark = pytest.mark.vm

TARGET = "bpf_fentry_test1"
R0, R2, R3, FRAME = 0, 2, 3, 10


def asks_for(guest: Guest, btf_id: int, index: int) -> list[int]:
    """Loads a fentry program that asks for one argument, attaches it and has it run; the answers."""
    instructions = code.encode(
        [
            *code.move(R2, index),
            code.move_register(R3, FRAME),
            code.add(R3, -8),
            code.store_constant(FRAME, -8, 0),
            code.call_helper(GET_FUNC_ARG),
            *code.move(R0, 0),
            code.exit_program(),
        ]
    )
    batch = Batch()
    program = commands.load_program(batch, instructions, ATTACH_TYPES["fentry", False], "asks", btf_id=btf_id)
    commands.open_link(batch, Ref(program))
    prog_test_run(batch, Ref(program))
    return [reply.value for reply in guest.submit(batch, timeout=60)]


def test_an_index_of_more_than_32_bits_ends_the_kernel(station: Station) -> None:
    """DEFECT-12: bpf_get_func_arg() answers for 0 and 7; for 1 << 32, which the verifier lets through, it panics."""
    guest, btf_id = station.guest, station.btfs[None].functions[TARGET]

    for index in (0, 7):
        assert min(asks_for(guest, btf_id, index)) >= 0
    with pytest.raises(GuestDiedError, match="Kernel panic"):
        asks_for(guest, btf_id, 1 << 32)
