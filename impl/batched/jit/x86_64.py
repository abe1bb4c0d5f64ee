"""x86-64 for the generator: what a trampoline does, as instructions, after arch/x86/net/bpf_jit_comp.c.

rbx keeps what enter returned; rax and rcx are scratch. Conditional jumps have distances of 32 bits, so that sizes do
not depend on distances.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from impl.batched.jit import assembler
from impl.batched.jit.isa import MARK, Code, Emitter, Instruction, Isa, Layout, To
from impl.batched.jit.template import BitField, Form
from spec.abi import SLOT_BYTES, SYSTEM_V

__all__ = ["ABS64", "REL32", "X86_64"]

REL32: Final = Form("rel32", 4, (BitField(0, 4, 0, 32),), origin=4, reach=32)
ABS64: Final = Form("imm64", 8, (BitField(0, 8, 0, 64),))

NOP5: Final = bytes.fromhex("0f1f440000")
ALIGNMENT: Final = 16
SIGNED_IMMEDIATE: Final = 1 << 31


@dataclass(frozen=True)
class _Emitter(Emitter):
    """Code for one frame, whose top is rbp."""

    frame: Layout
    keeper, result, scratch, move = "rbx", "rax", "rax", "mov"

    def enter(self) -> Code:
        yield Instruction("push rbp")
        yield Instruction("mov rbp, rsp")
        yield Instruction(f"sub rsp, {self.frame.size:#x}")
        yield from self.store("rbx", self.frame.kept)

    def leave(self, to: To) -> Code:
        yield from self.load("rbx", self.frame.kept)
        yield Instruction("leave")
        if self.frame.site == "jmp" and to == "body":
            yield _branch_near("jmp", b"\xe9", "body")
            return
        if self.frame.site == "call" and to == "caller":
            yield Instruction("add rsp, 8")
        yield Instruction("ret")

    def store(self, register: str, below: int) -> Code:
        yield Instruction(f"mov {_write_place(below)}, {register}")

    def load(self, register: str, below: int) -> Code:
        yield Instruction(f"mov {register}, {_write_place(below)}")

    def copy(self, number: int, below: int) -> Code:
        above = (3 if self.frame.site == "call" else 2) + number
        yield from self.load("rax", -SLOT_BYTES * above)
        yield from self.store("rax", below)

    def put(self, value: int, below: int) -> Code:
        if value < SIGNED_IMMEDIATE:
            yield Instruction(f"mov {_write_place(below)}, {value:#x}")
        else:
            yield Instruction(f"movabs rax, {value:#x}")
            yield from self.store("rax", below)

    def put_meta(self, bits: int) -> Code:
        frame = self.frame
        if not frame.count:
            yield from self.put(bits | frame.slots, frame.meta)
            return
        yield Instruction(f"movabs rax, {bits:#x}")
        yield Instruction(f"add rax, {_write_place(frame.count)}")
        yield from self.store("rax", frame.meta)

    def symbol(self, register: str, symbol: str) -> Code:
        yield Instruction(f"movabs {register}, {MARK:#x}", ABS64, symbol)

    def address(self, register: str, below: int) -> Code:
        yield Instruction(f"lea {register}, {_write_place(below)}")

    def return_address(self, register: str) -> Code:
        yield from self.load(register, -SLOT_BYTES)

    def call(self, symbol: str) -> Code:
        yield _branch_near("call", b"\xe8", symbol)

    def call_back(self) -> Code:
        """No program runs now, so that rbx is free."""
        yield from self.return_address("rbx")
        yield Instruction("call rbx")

    def unless_result(self, label: str) -> Code:
        yield Instruction("test rax, rax")
        yield _branch_near("je", b"\x0f\x84", label)

    def store_slot(self) -> Code:
        yield from self._find_slot()
        yield Instruction(f"mov {self._slot}, rax")

    def clear_slot(self) -> Code:
        yield from self._find_slot()
        yield Instruction(f"mov {self._slot}, 0")

    def load_slot(self) -> Code:
        yield from self._find_slot()
        yield Instruction(f"mov rax, {self._slot}")

    def if_slot(self, label: str) -> Code:
        yield from self._find_slot()
        yield Instruction(f"cmp {self._slot}, 0")
        yield _branch_near("jne", b"\x0f\x85", label)

    def nop(self) -> Code:
        yield Instruction("nop dword ptr [rax + rax]", code=NOP5)

    def _find_slot(self) -> Code:
        if self.frame.count:
            yield from self.load("rcx", self.frame.count)

    @property
    def _slot(self) -> str:
        return _write_place(self.frame.context, " + rcx * 8") if self.frame.count else _write_place(self.frame.result)


def _write_place(below: int, index: str = "") -> str:
    return f"qword ptr [rbp{index} {'-' if below >= 0 else '+'} {abs(below):#x}]"


def _branch_near(name: str, opcode: bytes, symbol: str) -> Instruction:
    """A call or jump with a distance of 32 bits."""
    return Instruction(f"{name} {symbol}", REL32, symbol, code=opcode + bytes(REL32.size))


def _align_frame(used: int, outgoing: int, site: str) -> int:
    """Sizes a frame. With stack arguments, the stack is aligned to 16 bytes where the original is called."""
    pushed = (3 if site == "call" else 2) * SLOT_BYTES
    return used + (used + pushed) % ALIGNMENT if outgoing else used


X86_64: Final = Isa(
    name="x86-64",
    convention=SYSTEM_V,
    dialect=assembler.X86_64,
    mnemonics=frozenset("push mov movabs lea add sub test cmp je jne call jmp leave ret nop".split()),
    frame_bytes=_align_frame,
    emitter=_Emitter,
)
