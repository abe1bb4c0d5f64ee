"""Calling conventions: where each slot of an argument is. That compilers do the same is for tests/prover to show."""

from __future__ import annotations

import pytest

from impl.batched.jit.arm64 import ARM64 as ARM64_ISA
from impl.batched.jit.isa import Isa
from impl.batched.jit.x86_64 import X86_64 as X86_64_ISA
from properties.prover.architecture import Architecture
from properties.prover.architectures import ARCHITECTURES
from spec.abi import AAPCS64, SYSTEM_V, Convention

# By sizes: registers by their numbers among the arguments', and words of the stack from -1 downwards.
PLACES: dict[tuple[int, ...], tuple[list[int], list[int]]] = {
    (): ([], []),
    (8,) * 12: ([0, 1, 2, 3, 4, 5, -1, -2, -3, -4, -5, -6], [0, 1, 2, 3, 4, 5, 6, 7, -1, -2, -3, -4]),
    (1, 2, 4, 8): ([0, 1, 2, 3], [0, 1, 2, 3]),
    (16, 12, 3): ([0, 1, 2, 3, 4], [0, 1, 2, 3, 4]),
    (8, 16, 16, 16, 8, 1): ([0, 1, 2, 3, 4, -1, -2, 5, -3], [0, 1, 2, 3, 4, 5, 6, 7, -1]),
    (4, 16, 8, 8, 8, 16, 1): ([0, 1, 2, 3, 4, 5, -1, -2, -3], [0, 1, 2, 3, 4, 5, 6, 7, -1]),
    (8, 16, 16, 16, 16, 8): ([0, 1, 2, 3, 4, -1, -2, -3, -4, 5], [0, 1, 2, 3, 4, 5, 6, -1, -2, -3]),
}


def places(convention: Convention, sizes: tuple[int, ...]) -> list[int]:
    """Where the slots of arguments of these sizes are, as PLACES has it."""
    found = []
    for slot in convention.slots(sizes):
        if slot.register is not None:
            assert slot.stack is None
            found.append(convention.arguments.index(slot.register))
        else:
            assert slot.stack is not None
            found.append(-1 - slot.stack)
    return found


@pytest.mark.parametrize("sizes", PLACES, ids=str)
def test_where_slots_are(sizes: tuple[int, ...]) -> None:
    """ARG-2: System V goes back to a register behind an argument on the stack; AAPCS64 stays on the stack."""
    assert PLACES[sizes] == (places(SYSTEM_V, sizes), places(AAPCS64, sizes))


@pytest.mark.parametrize("convention", [SYSTEM_V, AAPCS64], ids=lambda convention: convention.name)
@pytest.mark.parametrize("sizes", PLACES, ids=str)
def test_slots_are_the_words_of_arguments(convention: Convention, sizes: tuple[int, ...]) -> None:
    """ARG-1: in the order of arguments, each has a slot for each eight bytes, the last as wide as what is left."""
    words = [(index, at, min(8, size - at)) for index, size in enumerate(sizes) for at in range(0, size, 8)]

    assert words == [(slot.argument, slot.offset, slot.size) for slot in convention.slots(sizes)]


@pytest.mark.parametrize(
    ("convention", "registers"),
    [(SYSTEM_V, "rdi rsi rdx rcx r8 r9"), (AAPCS64, "x0 x1 x2 x3 x4 x5 x6 x7")],
    ids=["System V", "AAPCS64"],
)
def test_registers_of_arguments(convention: Convention, registers: str) -> None:
    """They are in the order of the manuals."""
    assert tuple(registers.split()) == convention.arguments


@pytest.mark.parametrize("convention", [SYSTEM_V, AAPCS64], ids=lambda convention: convention.name)
def test_a_register_has_one_part(convention: Convention) -> None:
    """What passes arguments and results is not preserved; a call pushes its return address, or has a link register."""
    assert set(convention.preserved).isdisjoint({*convention.arguments, *convention.results, convention.link})
    assert (convention.pushed == 0) == (convention.link is not None)


@pytest.mark.parametrize("isa", [X86_64_ISA, ARM64_ISA], ids=lambda isa: isa.name)
def test_prover_and_generator_mean_one_architecture(isa: Isa) -> None:
    """Each architecture's two modules, which do not know each other, agree on its name and on its convention."""
    architecture: Architecture = ARCHITECTURES[isa.name]

    assert architecture.convention is isa.convention
    assert set(architecture.general) >= {*isa.convention.arguments, *isa.convention.results, *isa.convention.preserved}
    assert isa.convention.stack_pointer in architecture.general
