"""Defects of kernels that proofs have found (spec/DEFECTS.md), on the kernels themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest

from impl.linux.bpf import calls as links
from impl.linux.bpf import instructions as code
from impl.linux.bpf.programs import GET_FUNC_ARG, Program
from impl.linux.guest.frames import Batch, Ref
from impl.linux.guest.guest import Guest, GuestDiedError, boot
from impl.linux.guest.packages import fetch
from spec.errors import BadInputError
from spec.populations import load

pytestmark = pytest.mark.vm

KERNELS = ("linux-6.1", "linux-6.12", "linux-7.3")
TARGET = "bpf_fentry_test1"
R0, R2, R3, FRAME = 0, 2, 3, 10


@pytest.fixture(params=KERNELS)
def kernel(request: pytest.FixtureRequest) -> Iterator[tuple[str, Guest]]:
    """A guest that may die."""
    try:
        guest = boot(fetch(request.param))
    except BadInputError as error:
        pytest.skip(str(error))
    with closing(guest):
        yield request.param, guest


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
    program = links.load_program(batch, Program(0, "fentry", slots=1), instructions, btf_id=btf_id)
    links.open_link(batch, Ref(program))
    links.prog_test_run(batch, Ref(program))
    return [reply.value for reply in guest.submit(batch, timeout=60)]


def test_an_index_of_more_than_32_bits_ends_the_kernel(kernel: tuple[str, Guest]) -> None:
    """DEFECT-12: bpf_get_func_arg() answers for 0 and 7; for 1 << 32, which the verifier lets through, it panics."""
    name, guest = kernel
    btf_id = load(name).by_name[TARGET].btf_id
    assert btf_id is not None

    for index in (0, 7):
        assert min(asks_for(guest, btf_id, index)) >= 0
    with pytest.raises(GuestDiedError, match="Kernel panic"):
        asks_for(guest, btf_id, 1 << 32)
