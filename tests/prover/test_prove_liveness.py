"""Without what computes flags that nobody reads, code does what it did; where somebody may read them, all stays."""

from __future__ import annotations

import random
from collections.abc import Mapping

import pytest

from properties.prover.cells import Cells
from properties.prover.lift import lifter
from properties.prover.liveness import skips
from properties.prover.operations import LiftedInstruction, OpKind, Place, Space
from properties.prover.pcode import truth
from properties.prover.x86_64 import X86_64

START = 0xFFFFFFFFC0100000
OUTSIDE = START - 0x1000
MOST_OPERATIONS = 4_000

PLAIN = (
    *("4839d8", "4885c0", "4801d8", "4829c8", "31c0", "48ffc1", "48d1e0", "4821d9", "48f7d8"),  # Set flags.
    *("0f94c1", "480f42cb", "4811d8", "4819cb", "0f9ac1", "0f90c3", "0f98c0", "480f4fc3", "f5", "f8"),  # Read some.
    *("4889d8", "488d0c18", "90"),  # Neither.
)
CONDITIONS = ("72", "74", "7a", "78", "70", "7f")
"""Short jumps: below, equal, parity, sign, overflow, greater."""


def snippet(draw: random.Random) -> bytes:
    """Random instructions, among them jumps forward, that end by a jump out of the code."""
    pieces = [bytes.fromhex(draw.choice(PLAIN)) for _ in range(draw.randrange(3, 12))]
    for _ in range(draw.randrange(3)):
        place = draw.randrange(len(pieces))
        distance = len(b"".join(pieces[place : draw.randrange(place, len(pieces)) + 1]))
        pieces.insert(place, bytes.fromhex(draw.choice(CONDITIONS)) + bytes([distance]))
    code = b"".join(pieces)
    return code + b"\xe9" + (OUTSIDE - START - len(code) - 5).to_bytes(4, "little", signed=True)


def executed(instructions: Mapping[int, LiftedInstruction], registers: Cells) -> int:
    """Runs p-code on numbers until control leaves the code. Returns how many operations ran."""
    at, count = START, 0
    while at in instructions:
        instruction = instructions[at]
        at += instruction.size
        temporaries = Cells()
        assert not skips(instruction.ops)
        for kind, function, output, inputs in instruction.ops:
            count += 1
            assert count < MOST_OPERATIONS
            numbers = [number(place, registers, temporaries) for place in inputs]
            if kind == OpKind.COMPUTE:
                assert function is not None
                assert output is not None
                (registers if output[0] == Space.REGISTER else temporaries).write(*output[1:], function(*numbers))
            elif kind == OpKind.GOTO or (kind == OpKind.GOTO_IF and truth(numbers[1])):
                at = numbers[0]
                break
    return count


def number(place: Place, registers: Cells, temporaries: Cells) -> int:
    """The value of an operand."""
    space, offset, size = place
    if space == Space.CONSTANT:
        return offset
    value = (registers if space == Space.REGISTER else temporaries).read(offset, size, lambda *_: 0)
    assert isinstance(value, int)
    return value


def test_random_code_does_what_it_did() -> None:
    """On random registers, the general ones are the same behind random code; and a good part of it was left out."""
    draw = random.Random(8)
    lifted = lifter(X86_64)
    whole = rest = 0
    for _ in range(1_500):
        code = snippet(draw)
        every = lifted.sweep(code, START, len(code))
        lean = lifted.lean(code, START, len(code), frozenset()).instructions
        first = {
            place: (size, draw.choice((0, 1, (1 << 63) - 1, 1 << 63, draw.getrandbits(64))) % (1 << 8 * size))
            for name, (place, size) in lifted.registers.items()
            if name in X86_64.general
        } | {lifted.registers[flag][0]: (1, draw.randrange(2)) for flag in X86_64.flags}
        one, other = Cells(dict(first)), Cells(dict(first))
        whole += executed(every, one)
        rest += executed(lean, other)
        for name in (*X86_64.general, "df"):
            place = lifted.registers[name]
            assert one.read(*place, lambda *_: 0) == other.read(*place, lambda *_: 0), (code.hex(), name)

    assert rest < 0.7 * whole


ZERO = "31c0"
"""xor eax, eax"""


def leaving(code: str) -> str:
    """The code behind ZERO, with a jump out of it at its end."""
    end = len(bytes.fromhex(ZERO + code)) + 5
    return f"{code}e9{(OUTSIDE - START - end).to_bytes(4, 'little', signed=True).hex()}"


@pytest.mark.parametrize(
    ("behind", "patched", "kept"),
    [
        (leaving(""), False, False),
        (leaving("4885c9"), False, False),
        ("c3", False, True),
        ("ffe1", False, True),
        ("", False, True),
        ("ebff", False, True),
        (leaving("4885c9"), True, True),
        (leaving("740266904885c9"), False, True),
    ],
    ids=[
        "a jump to elsewhere",
        "flags that are set again",
        "a return",
        "a jump to an address in a register",
        "the end of the code",
        "a jump into an instruction",
        "a place where the kernel may put a jump",
        "a conditional jump",
    ],
)
def test_where_flags_stay(behind: str, patched: bool, kept: bool) -> None:
    """The zero flag of an instruction is computed where what comes behind it may read it."""
    code = bytes.fromhex(ZERO + behind)
    lifted = lifter(X86_64)
    places = frozenset({START + len(bytes.fromhex(ZERO))}) if patched else frozenset()
    flag = lifted.registers["zf"][0]
    first = lifted.lean(code, START, len(code), places).instructions[START]

    assert kept == any(output is not None and output[:2] == (Space.REGISTER, flag) for _, _, output, _ in first.ops)
