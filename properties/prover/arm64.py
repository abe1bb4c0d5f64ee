"""AArch64 as the kernel runs it: registers, AAPCS64, and what the lifter and unicorn call it.

What a site is, and the form of a trampoline, are those of arch/arm64/net/bpf_jit_comp.c: `mov x9, lr` before the
patched `bl`, so that x9 has the caller's return address, and lr the body's. Landing pads are not modelled: whether a
`br` or `blr` goes to one is no obligation, and an address that has been signed is none that the prover knows.
"""

from __future__ import annotations

from typing import Any, Final

import capstone  # type: ignore[import-untyped]
import unicorn
from unicorn import arm64_const

from properties.prover.architecture import Architecture, Branch, Entry
from spec.prototypes import Prototype, Slot, assigned

__all__ = ["ARM64", "MODELLED", "USUAL"]

ARGUMENTS: Final = tuple(f"x{number}" for number in range(8))
GENERAL: Final = (*(f"x{number}" for number in range(31)), "sp")
PRESERVED: Final = tuple(f"x{number}" for number in range(18, 30))
FLAGS: Final = {"ng": 31, "zr": 30, "cy": 29, "ov": 28}
SCRATCH: Final = ("pc", "tmpng", "tmpzr", "tmpcy", "tmpov", "shift_carry")
INSTRUCTION_BYTES: Final = 4
NOP: Final = bytes.fromhex("1f2003d5")
BL, B = 0b100101, 0b000101
IMMEDIATE: Final = 26
ZERO_OR_SP: Final = 31
WRITES_BACK_MASK: Final = 0b111 << 27 | 0b111 << 24 | 1 << 21 | 1 << 10
WRITES_BACK: Final = 0b111 << 27 | 1 << 10

USUAL: Final = frozenset("stp ldp str ldr mov movk add sub cmp cbz cbnz b bl blr br ret adr nop bti".split())

_OTHERS: Final = """
adc adcs adds adrp and ands asr asrv bfi bfm bfxil bic bics ccmn ccmp cinc cinv cls clz cmn cneg csel cset csetm csinc
csinv csneg eon eor extr ldnp ldpsw ldrb ldrh ldrsb ldrsh ldrsw ldur ldurb ldurh ldursb ldursh ldursw lsl lslv lsr lsrv
madd mneg movn movz msub mul mvn neg negs ngc ngcs orn orr rbit rev rev16 rev32 ror rorv sbc sbcs sbfiz sbfm sbfx
smaddl smnegl smsubl smulh smull stnp strb strh stur sturb sturh subs sxtb sxth sxtw tbnz tbz tst ubfiz ubfm ubfx
umaddl umnegl umsubl umulh umull uxtb uxth
dmb dsb isb prfm prfum
"""

MODELLED: Final = USUAL | frozenset(_OTHERS.split())
"""Those whose p-code can be the whole effect: SLEIGH leaves out what others do, such as to sign an address."""


def _slots(prototype: Prototype) -> tuple[Slot, ...]:
    """AAPCS64, section 6.8.2: once an argument is on the stack, those behind it are as well."""
    return assigned(prototype.shape.arguments, ARGUMENTS, back_fills=False)


def _undefined(_: str) -> tuple[str, ...]:
    """No flags: instructions set all four or none."""
    return ()


def _dubious(code: bytes, mnemonic: str) -> str | None:
    """Instructions which SLEIGH simplifies, and encodings whose effect the manual leaves open."""
    if mnemonic.partition(".")[0] not in MODELLED:
        return f"{mnemonic} may do more than its p-code"
    return "the manual leaves open what it does with its base register" if _overlaps(code) else None


def _overlaps(code: bytes) -> bool:
    """Whether a load or store of one register writes its base back, which is that one; capstone knows no such pair."""
    word = int.from_bytes(code, "little")
    base, register = word >> 5 & 31, word & 31
    return word & WRITES_BACK_MASK == WRITES_BACK and base == register and base != ZERO_OR_SP


def _usual(_: bytes, mnemonic: str) -> bool:
    return mnemonic.partition(".")[0] in USUAL


def _jumps(mnemonic: str) -> bool:
    return mnemonic.partition(".")[0] in {"b", "cbz", "cbnz", "tbz", "tbnz"}


def _jump(at: int, target: int) -> bytes:
    """A `b`."""
    distance = (target - at) // INSTRUCTION_BYTES % (1 << IMMEDIATE)
    return (B << IMMEDIATE | distance).to_bytes(INSTRUCTION_BYTES, "little")


def _branch(code: bytes, at: int) -> Branch | None:
    """A `b` or `bl`."""
    word = int.from_bytes(code[:INSTRUCTION_BYTES], "little")
    if len(code) < INSTRUCTION_BYTES or word >> IMMEDIATE not in {B, BL}:
        return None
    distance = (word % (1 << IMMEDIATE) ^ 1 << IMMEDIATE - 1) - (1 << IMMEDIATE - 1)
    target = (at + INSTRUCTION_BYTES * distance) % (1 << 64)
    return Branch("jmp" if word >> IMMEDIATE == B else "call", target, INSTRUCTION_BYTES)


def _emulator() -> Any:
    """A fresh processor without address translation."""
    machine: Any = unicorn.Uc(unicorn.UC_ARCH_ARM64, unicorn.UC_MODE_ARM)  # type: ignore[attr-defined, no-untyped-call]
    machine.ctl_set_tlb_mode(unicorn.UC_TLB_VIRTUAL)
    return machine


def _disassembler() -> Any:
    return capstone.Cs(capstone.CS_ARCH_ARM64, capstone.CS_MODE_ARM)


def _numbers() -> dict[str, int]:
    return {name: getattr(arm64_const, f"UC_ARM64_REG_{name.upper()}") for name in (*GENERAL, "pc")}


def _others() -> tuple[int, ...]:
    """Floating point and vectors, the threads' registers."""
    names = ["FPCR", "FPSR", "TPIDR_EL0", "TPIDR_EL1", "TPIDRRO_EL0", *(f"Q{number}" for number in range(32))]
    return tuple(getattr(arm64_const, f"UC_ARM64_REG_{name}") for name in names)


ARM64: Final = Architecture(
    name="arm64",
    language="AARCH64:LE:64:v8A",
    stack_pointer="sp",
    general=GENERAL,
    flags=tuple(FLAGS),
    readable=(),
    scratch=SCRATCH,
    pc="pc",
    stack_alignment=16,
    always_aligned=True,
    code_alignment=INSTRUCTION_BYTES,
    arguments=ARGUMENTS,
    slots=_slots,
    results=("x0", "x1"),
    # The kernel keeps x18 for the shadow call stack, which every function leaves as it was.
    preserved=PRESERVED,
    clear=(),
    entry={"call": Entry((), {"x9": "caller", "x30": "body"})},
    return_words=0,
    link="x30",
    harmless=frozenset(
        "Hint_Prefetch DataMemoryBarrier DataSynchronizationBarrier InstructionSynchronizationBarrier".split()
    ),
    undefined=_undefined,
    dubious=_dubious,
    jump=_jump,
    branch=_branch,
    usual=_usual,
    jumps=_jumps,
    frame=("sp", "x29"),
    nop=NOP,
    site_end=12,
    kernel_text=(0xFFFF800000000000, 0xFFFF800200000000),
    kernel_stack=(0xFFFF800200100000, 0xFFFFFBFFFFF00000),
    emulator=_emulator,
    emulator_registers=_numbers(),
    flag_bits=FLAGS,
    flags_register=arm64_const.UC_ARM64_REG_NZCV,
    ignored_flags=0,
    set_flags=0,
    others=_others(),
    disassembler=_disassembler,
)
