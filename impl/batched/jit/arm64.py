"""AArch64 for the generator: what a trampoline does, as instructions, after arch/arm64/net/bpf_jit_comp.c.

x19 keeps what enter returned; x10 and x11 are scratch. The site is `mov x9, lr; bl image`: x9 is the way back to the
function's caller, lr the way on into the function. Two frame records, of the caller and of the function, are above the
frame, so that both are in a backtrace.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from impl.batched.jit import assembler
from impl.batched.jit.isa import MARK, Code, Emitter, Instruction, Isa, Layout, To
from impl.batched.jit.plan import PlanError
from impl.batched.jit.template import BitField, Form
from spec.abi import AAPCS64, SLOT_BYTES

__all__ = ["ARM64", "BRANCH19", "MOVE64"]

BRANCH19: Final = Form("imm19", 4, (BitField(0, 4, 5, 19, 2),), origin=0, reach=21, align=4)
MOVE64: Final = Form("movz/movk", 16, tuple(BitField(4 * part, 4, 5, 16, 16 * part) for part in range(4)))

ALIGNMENT: Final = 16
RECORDS: Final = 32
FUNCTION_LR: Final = 8
BTI_JC: Final = bytes.fromhex("df2403d5")
ADR_LR_8: Final = bytes.fromhex("5e000010")
CBZ_X0: Final = bytes.fromhex("000000b4")
CBNZ_X10: Final = bytes.fromhex("0a0000b5")


@dataclass(frozen=True)
class _Emitter(Emitter):
    """Code for one frame, whose top is x29, and whose bottom sp."""

    frame: Layout
    keeper, result, scratch, move = "x19", "x0", "x10", "mov"

    def enter(self) -> Code:
        yield Instruction("bti jc", code=BTI_JC)
        yield Instruction("stp x29, x9, [sp, #-0x10]!")
        yield Instruction("mov x29, sp")
        yield Instruction("stp x29, x30, [sp, #-0x10]!")
        yield Instruction("mov x29, sp")
        yield Instruction(f"sub sp, sp, #{self.frame.size:#x}")
        yield from self.store("x19", self.frame.kept)

    def leave(self, to: To) -> Code:
        """Either way lr is the function's caller's, as if the image had never been called."""
        yield from self.load("x19", self.frame.kept)
        yield Instruction("mov sp, x29")
        yield Instruction("ldp x29, x30, [sp], #0x10")
        yield Instruction("ldp x29, x9, [sp], #0x10")
        if to == "body":
            yield Instruction("mov x10, x30")
        yield Instruction("mov x30, x9")
        yield Instruction("ret x10" if to == "body" else "ret")

    def store(self, register: str, below: int) -> Code:
        yield Instruction(f"str {register}, {self._write_place(below)}")

    def load(self, register: str, below: int) -> Code:
        yield Instruction(f"ldr {register}, {self._write_place(below)}")

    def copy(self, number: int, below: int) -> Code:
        yield Instruction(f"ldr x10, [x29, #{RECORDS + SLOT_BYTES * number:#x}]")
        yield from self.store("x10", below)

    def put(self, value: int, below: int) -> Code:
        if not value:
            yield from self.store("xzr", below)
            return
        yield from _load_constant("x10", value)
        yield from self.store("x10", below)

    def put_meta(self, bits: int) -> Code:
        frame = self.frame
        if not frame.count:
            yield from self.put(bits | frame.slots, frame.meta)
            return
        yield from self.load("x10", frame.count)
        if bits:
            yield from _load_constant("x11", bits)
            yield Instruction("add x10, x10, x11")
        yield from self.store("x10", frame.meta)

    def symbol(self, register: str, symbol: str) -> Code:
        text = "\n".join(_write_moves(register, MARK, range(4)))
        yield Instruction(text, MOVE64, symbol, count=4)

    def address(self, register: str, below: int) -> Code:
        yield Instruction(f"add {register}, sp, #{self.frame.size - below:#x}")

    def return_address(self, register: str) -> Code:
        yield Instruction(f"ldr {register}, [x29, #{FUNCTION_LR:#x}]")

    def call(self, symbol: str) -> Code:
        """The body is called where the site's lr points."""
        if symbol == "body":
            yield from self.call_back()
            return
        yield from self.symbol("x10", symbol)
        yield Instruction("blr x10")

    def call_back(self) -> Code:
        """By ret, since a blr may go to a landing pad only, and the body has none."""
        yield from self.return_address("x10")
        yield Instruction("adr x30, . + 8", code=ADR_LR_8)
        yield Instruction("ret x10")

    def unless_result(self, label: str) -> Code:
        yield Instruction(f"cbz x0, {label}", BRANCH19, label, code=CBZ_X0)

    def store_slot(self) -> Code:
        yield from self._access_slot("str", "x0")

    def clear_slot(self) -> Code:
        yield from self._access_slot("str", "xzr")

    def load_slot(self) -> Code:
        yield from self._access_slot("ldr", "x0")

    def if_slot(self, label: str) -> Code:
        yield from self._access_slot("ldr", "x10")
        yield Instruction(f"cbnz x10, {label}", BRANCH19, label, code=CBNZ_X10)

    def nop(self) -> Code:
        yield Instruction("nop")

    def _write_place(self, below: int) -> str:
        return f"[sp, #{self.frame.size - below:#x}]"

    def _access_slot(self, operation: str, register: str) -> Code:
        """Loads or stores the return slot, which in a generic image is behind as many words as the function has."""
        frame = self.frame
        if not frame.count:
            yield Instruction(f"{operation} {register}, {self._write_place(frame.result)}")
            return
        yield from self.load("x10", frame.count)
        yield from self.address("x11", frame.context)
        yield Instruction(f"{operation} {register}, [x11, x10, lsl #3]")


def _load_constant(register: str, value: int) -> Code:
    parts = [part for part in range(4) if value >> 16 * part & 0xFFFF]
    for text in _write_moves(register, value, parts or [0]):
        yield Instruction(text)


def _write_moves(register: str, value: int, parts: Sequence[int]) -> list[str]:
    """Writes these 16-bit parts of a value by a movz and as many movk as that takes."""
    return [
        f"{'movk' if place else 'movz'} {register}, #{value >> 16 * part & 0xFFFF:#x}, lsl #{16 * part:#x}"
        for place, part in enumerate(parts)
    ]


def _align_frame(used: int, _: int, site: str) -> int:
    """Sizes a frame; outgoing words count like others. PlanError for a site that is not a `bl`: there is no other."""
    if site != "call":
        raise PlanError(f"arm64 has no {site} sites: the site must be call")
    return used + -used % ALIGNMENT


ARM64: Final = Isa(
    name="arm64",
    convention=AAPCS64,
    dialect=assembler.ARM64,
    mnemonics=frozenset("bti stp ldp str ldr mov movk add sub cbz cbnz blr ret adr nop".split()),
    frame_bytes=_align_frame,
    emitter=_Emitter,
)
