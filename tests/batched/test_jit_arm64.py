"""The generator's arm64: templates and their holes, what is refused, and the calls as Linux makes them."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
import pytest

from impl.batched.jit.arm64 import ARM64, BRANCH19, MOVE64
from impl.batched.jit.assembler import disassembler
from impl.batched.jit.generate import assembled, layout, statements, template
from impl.batched.jit.isa import Instruction
from impl.batched.jit.plan import ImagePlan, PlanError, TrampLink
from impl.batched.jit.template import Hole, Template, relocate_many
from spec.errors import BadInputError
from spec.prototypes import Shape
from tests.support.arm64_images import KINDS

ADDRESS = 0xFFFF800040010000
LONG = Shape((8,) * 12, 8)
INSTRUCTION = 4


def plans() -> Iterator[ImagePlan]:
    """Plans of every form: kinds, sharing, arguments on the stack."""
    for kinds in KINDS:
        links = tuple(TrampLink(kind, sleepable) for kind in kinds for sleepable in (False, True))  # type: ignore[arg-type]
        for shape in (Shape((), 0), Shape((4, 16, 1), 4), LONG):
            for func_ip in (False, True):
                yield ImagePlan(shape, links, func_ip)
                yield ImagePlan(shape, links, func_ip, shared=True)
        yield ImagePlan(None, links, func_ip=True)


def symbols_of(made: Template, first: int, step: int) -> dict[str, int]:
    """A value for each symbol, each another."""
    return {name: first + step * number for number, name in enumerate(sorted(made.symbols))}


def disassembled(code: bytes) -> list[tuple[str, str]]:
    return [(mnemonic, text) for _, _, mnemonic, text in disassembler(ARM64.dialect).disasm_lite(code, ADDRESS)]


def written(code: bytes, hole: Hole) -> int:
    """The value that a movz and three movk leave, as capstone reads them."""
    lines = disassembled(code[hole.offset : hole.offset + MOVE64.size])
    assert ["mov", "movk", "movk", "movk"] == [mnemonic for mnemonic, _ in lines]
    assert 1 == len({text.partition(",")[0] for _, text in lines})
    value = 0
    for _, text in lines:
        _, part, *shift = text.split(", ")
        value |= int(part.removeprefix("#"), 16) << int(shift[0].removeprefix("lsl #") if shift else "0")
    return value


def test_every_hole_is_where_the_template_says() -> None:
    """With two sets of symbols, each hole reads as its symbol's value, and all else stays."""
    for plan in plans():
        made = template(plan, ARM64)
        for symbols in (symbols_of(made, 0xFFFF800081234560, 0x1010), symbols_of(made, 0x123456789ABCDEF, 0xFFFFF)):
            code = made.relocate(ADDRESS, symbols)
            kept = bytearray(code)
            for hole in made.holes:
                assert MOVE64 is hole.form
                assert symbols[hole.symbol] == written(code, hole)
                kept[hole.offset : hole.offset + hole.form.size] = made.code[hole.offset : hole.offset + hole.form.size]

            assert made.code == bytes(kept)


def test_many_are_what_one_is() -> None:
    """relocate_many() gives what relocate() does, with symbols that differ by function."""
    made = template(ImagePlan(Shape((8, 8), 8), (TrampLink("fentry"), TrampLink("fexit")), func_ip=True), ARM64)
    draw = np.random.default_rng(64)
    addresses = ADDRESS + draw.integers(0, 1 << 20, 50, dtype=np.uint64) * np.uint64(INSTRUCTION)
    functions = draw.integers(0, 1 << 63, 50, dtype=np.uint64)
    symbols = symbols_of(made, 0xFFFF800081234560, 0x40)
    rows = relocate_many(made, addresses, {**symbols, "function": functions})

    for row, address, function in zip(rows, addresses, functions, strict=True):
        assert made.relocate(int(address), symbols | {"function": int(function)}) == row.tobytes()


def test_a_missing_symbol_is_named() -> None:
    """A template tells which address it needs."""
    made = template(ImagePlan(Shape((), 0), (TrampLink("fentry"),)), ARM64)

    with pytest.raises(BadInputError, match="code 0"):
        made.relocate(ADDRESS, dict.fromkeys(made.symbols - {"code 0"}, 0))


def test_there_are_no_jmp_sites() -> None:
    """A site is a `bl`, and a plan for another is refused in one sentence."""
    with pytest.raises(PlanError, match="arm64 has no jmp sites: the site must be call"):
        assembled(ImagePlan(LONG, (TrampLink("fentry"),), site="jmp"), ARM64)


def test_frames_are_aligned() -> None:
    """The stack pointer stays a multiple of 16, whatever is in the frame; words in it do not overlap."""
    for plan in plans():
        frame = layout(plan, ARM64)

        assert 0 == frame.size % 16
        assert (
            frame.size - 16
            < frame.run_context
            + 8
            * sum(slot.stack is not None for slot in ARM64.convention.slots(plan.shape.arguments if plan.shape else ()))
            * plan.calls_original
            <= frame.size
        )


def test_numbers_read_alike_in_any_radix() -> None:
    """None depends on it: keystone takes that of arm64's numbers from memory that it has not set."""
    for plan in plans():
        for one in statements(plan, ARM64):
            if isinstance(one, Instruction) and not one.code:
                bare = re.findall(r"(?<![0-9a-zA-Z])[0-9][0-9a-fA-Fx]*", one.text)

                assert [] == [number for number in bare if not number.startswith("0x") and len(number) > 1]


def test_an_image_begins_with_a_landing_pad_and_two_frame_records() -> None:
    """As Linux's: of the caller, by what the site has saved of lr, and of the function."""
    made = template(ImagePlan(LONG, (TrampLink("fexit"),)), ARM64)
    begins = [f"{mnemonic} {text}" for mnemonic, text in disassembled(made.code)[:6]]

    assert [
        "bti jc",
        "stp x29, x9, [sp, #-0x10]!",
        "mov x29, sp",
        "stp x29, x30, [sp, #-0x10]!",
        "mov x29, sp",
        f"sub sp, sp, #{layout(ImagePlan(LONG, (TrampLink('fexit'),)), ARM64).size:#x}",
    ] == begins


def test_the_original_is_reached_by_ret() -> None:
    """It has no landing pad for a blr; lr is set to behind the ret, where the nop is that teardown patches."""
    made = template(ImagePlan(LONG, (TrampLink("fexit"),)), ARM64)
    assert made.after_call is not None
    assert made.epilogue is not None
    code = made.code[made.after_call - 4 * INSTRUCTION : made.after_call + INSTRUCTION]

    assert ["ldr", "adr", "ret", "str", "nop"] == [mnemonic for mnemonic, _ in disassembled(code)]
    assert disassembled(code)[1][1] == f"x30, #{ADDRESS + 3 * INSTRUCTION:#x}"


def test_what_can_be_patched_is_a_nop() -> None:
    """Each run begins with one; a `b` from it reaches behind the run."""
    for plan in plans():
        made = template(plan, ARM64)
        places = [skip.at for skip in made.skips] + ([made.after_call] if made.after_call is not None else [])

        assert {("nop", "")} == {disassembled(made.code[at : at + INSTRUCTION])[0] for at in places}
        assert len(plan.fentry) + len(plan.fmod_ret) + len(plan.fexit) == len(made.skips)


def test_branches_go_to_their_labels() -> None:
    """A conditional branch's hole is filled once and for all: cbz behind the program, cbnz to the fexit programs."""
    plan = ImagePlan(Shape((8,), 8), (TrampLink("fmod_ret"), TrampLink("fexit")))
    forms = {one.form for one in statements(plan, ARM64) if isinstance(one, Instruction) and one.form}
    made = template(plan, ARM64)
    branches = [
        (at, int(text.rpartition("#")[2], 16))
        for at, _, mnemonic, text in disassembler(ARM64.dialect).disasm_lite(made.code, 0)
        if mnemonic in {"cbz", "cbnz"}
    ]

    assert {BRANCH19, MOVE64} == forms
    assert 3 == len(branches)
    assert all(at < target < len(made.code) for at, target in branches)
    assert branches[1][1] == made.skips[1].at
