"""x86-64 as the kernel runs it: registers, the System V calling convention, and what the lifter and unicorn call it."""

from __future__ import annotations

from itertools import dropwhile
from typing import Any, Final

import capstone  # type: ignore[import-untyped]
import unicorn
from unicorn import x86_const

from properties.prover.architecture import Architecture, Branch, Entry
from spec.prototypes import REGISTERS, Prototype, Slot

__all__ = ["USUAL", "X86_64"]

GENERAL: Final = tuple("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split())
BASES: Final = ("fs_offset", "gs_offset")
CALL, JMP = 0xE8, 0xE9
JUMP_BYTES: Final = 5
OPERAND_SIZE: Final = 0x66
LEGACY_PREFIXES: Final = frozenset({OPERAND_SIZE, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65})
PREFIXES: Final = LEGACY_PREFIXES | frozenset(range(0x40, 0x50))
GROUP_5: Final = 0xFF
USUAL: Final = frozenset("push pop mov movabs lea add sub xor test cmp je jne jmp call leave ret nop".split())
AF: Final = 1 << 4
IF: Final = 1 << 9
ALWAYS_SET: Final = 1 << 1

# Flags that the manual leaves undefined, or defined for some counts only; AF is not in the model at all.
_UNDEFINED: Final = (
    ("mul imul mulx", ("zf", "sf", "pf")),
    ("shl sal shr sar rol ror rcl rcr shld shrd", ("of", "cf")),
    ("bt btc btr bts", ("of", "sf", "pf")),
    ("tzcnt lzcnt", ("of", "sf", "pf")),
    ("bextr bzhi blsi blsr blsmsk andn", ("sf", "pf")),
)


def _undefined(mnemonic: str) -> tuple[str, ...]:
    return next((flags for names, flags in _UNDEFINED if mnemonic in names.split()), ())


def _dubious(code: bytes, mnemonic: str) -> str | None:
    """Instructions which SLEIGH simplifies, or whose meaning is the processor's maker's."""
    if mnemonic == "hlt":
        return "it waits for an interrupt"
    opcode = bytes(dropwhile(PREFIXES.__contains__, code))
    far = opcode[0] == GROUP_5 and opcode[1] >> 3 & 7 in {3, 5}
    if far or mnemonic in {"ljmp", "lcall", "retf", "retfq"}:
        return "it branches to another segment"
    branches = mnemonic.startswith(("j", "call", "ret", "loop"))
    sized = OPERAND_SIZE in code[: len(code) - len(opcode)]
    return "processors differ on a branch with an operand size" if branches and sized else None


def _usual(code: bytes, mnemonic: str) -> bool:
    return mnemonic == "nop" or (mnemonic in USUAL and code[0] not in LEGACY_PREFIXES)


def _slots(prototype: Prototype) -> tuple[Slot, ...]:
    return prototype.slots


def _jumps(mnemonic: str) -> bool:
    return mnemonic.startswith("j")


def _jump(at: int, target: int) -> bytes:
    """A jmp rel32 (e9)."""
    return bytes([JMP]) + (target - at - JUMP_BYTES).to_bytes(4, "little", signed=True)


def _branch(code: bytes, at: int) -> Branch | None:
    """A call or jmp rel32 (e8, e9)."""
    if len(code) < JUMP_BYTES or code[0] not in {CALL, JMP}:
        return None
    distance = int.from_bytes(code[1:JUMP_BYTES], "little", signed=True)
    return Branch("jmp" if code[0] == JMP else "call", (at + JUMP_BYTES + distance) % (1 << 64), JUMP_BYTES)


def _emulator() -> Any:
    """A fresh processor. Kernel addresses need the virtual TLB: a physical address is cut to 52 bits."""
    machine: Any = unicorn.Uc(unicorn.UC_ARCH_X86, unicorn.UC_MODE_64)  # type: ignore[attr-defined, no-untyped-call]
    machine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    return machine


def _disassembler() -> Any:
    return capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)


def _numbers() -> dict[str, int]:
    numbers = {name: getattr(x86_const, f"UC_X86_REG_{name.upper()}") for name in (*GENERAL, "rip")}
    return numbers | {"fs_offset": x86_const.UC_X86_REG_FS_BASE, "gs_offset": x86_const.UC_X86_REG_GS_BASE}


def _others() -> tuple[int, ...]:
    """The segments, the x87 unit, SSE."""
    names = "CS DS ES FS GS SS FS_BASE GS_BASE FPCW FPSW FPTAG MXCSR".split()
    names += [f"{kind}{number}" for kind, count in (("ST", 8), ("XMM", 16)) for number in range(count)]
    return tuple(getattr(x86_const, f"UC_X86_REG_{name}") for name in names)


X86_64: Final = Architecture(
    name="x86-64",
    language="x86:LE:64:default",
    stack_pointer="rsp",
    general=GENERAL,
    flags=("cf", "pf", "zf", "sf", "df", "of"),
    readable=BASES,
    scratch=(),
    pc="rip",
    stack_alignment=8,
    always_aligned=False,
    code_alignment=1,
    arguments=REGISTERS,
    slots=_slots,
    results=("rax", "rdx"),
    preserved=("rbx", "rbp", "r12", "r13", "r14", "r15"),
    clear=("df",),
    entry={"call": Entry(("body", "caller")), "jmp": Entry(("caller",))},
    return_words=1,
    link=None,
    harmless=frozenset({"LOCK", "UNLOCK", "XACQUIRE", "XRELEASE"}),
    undefined=_undefined,
    dubious=_dubious,
    jump=_jump,
    branch=_branch,
    usual=_usual,
    jumps=_jumps,
    frame=("rsp", "rbp"),
    nop=bytes.fromhex("0f1f440000"),
    site_end=9,
    kernel_text=(0xFFFFFFFF80000000, 0xFFFFFFFFFF000000),
    kernel_stack=(0xFFFF800000100000, 0xFFFFFFFF7FF00000),
    emulator=_emulator,
    emulator_registers=_numbers(),
    flag_bits={"cf": 0, "pf": 2, "zf": 6, "sf": 7, "df": 10, "of": 11},
    flags_register=x86_const.UC_X86_REG_EFLAGS,
    ignored_flags=AF,
    set_flags=IF | ALWAYS_SET,
    others=_others(),
    disassembler=_disassembler,
)
