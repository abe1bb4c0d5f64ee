"""AArch64 as the kernel runs it: registers, flags, sites and instructions, and what the tools call them.

What a site is, and the form of a trampoline, are those of arch/arm64/net/bpf_jit_comp.c: `mov x9, lr` before the
patched `bl`, so that x9 has the caller's return address, and lr the body's. Landing pads are not modelled: whether a
`br` or `blr` goes to one is no obligation, and an address that has been signed is none that the prover knows.
"""

from __future__ import annotations

from typing import Final

from properties.prover.architecture import Architecture, Branch, SiteEntry
from spec.abi import AAPCS64

__all__ = ["ARM64", "MODELLED", "USUAL"]

INSTRUCTION_BYTES: Final = 4
BL, B = 0b100101, 0b000101
IMMEDIATE_BITS: Final = 26
ZERO_OR_SP: Final = 31
WRITES_BACK_MASK: Final = 0b111 << 27 | 0b111 << 24 | 1 << 21 | 1 << 10
WRITES_BACK: Final = 0b111 << 27 | 1 << 10

USUAL: Final = frozenset("stp ldp str ldr mov movk add sub cmp cbz cbnz b bl blr br ret adr nop bti".split())

UNUSUAL: Final = """
adc adcs adds adrp and ands asr asrv bfi bfm bfxil bic bics ccmn ccmp cinc cinv cls clz cmn cneg csel cset csetm csinc
csinv csneg eon eor extr ldnp ldpsw ldrb ldrh ldrsb ldrsh ldrsw ldur ldurb ldurh ldursb ldursh ldursw lsl lslv lsr lsrv
madd mneg movn movz msub mul mvn neg negs ngc ngcs orn orr rbit rev rev16 rev32 ror rorv sbc sbcs sbfiz sbfm sbfx
smaddl smnegl smsubl smulh smull stnp strb strh stur sturb sturh subs sxtb sxth sxtw tbnz tbz tst ubfiz ubfm ubfx
umaddl umnegl umsubl umulh umull uxtb uxth
dmb dsb isb prfm prfum
"""

COMPUTING: Final = frozenset(
    "add adds and ands bic eon eor extr madd mov movn movz mul mvn neg orn orr sub ubfm".split()
)
"""Those that may write to the zero register and do nothing else."""

MODELLED: Final = USUAL | frozenset(UNUSUAL.split())
"""Those whose p-code can be the whole effect: SLEIGH leaves out what others do, such as to sign an address."""

EFFECTLESS: Final = {
    "nop": "a hint that is none",
    "bti": "a landing pad; where control may land is no obligation",
    "dmb": "it orders memory accesses, which are in order here",
    "dsb": "it orders memory accesses, which are in order here",
    "isb": "it orders fetches, and the image does not change its own code",
    "prfm": "it loads into a cache, and never faults",
    "prfum": "it loads into a cache, and never faults",
}
"""Instructions whose p-code may be empty, and why."""


def _is_effectless(code: bytes, mnemonic: str) -> bool:
    """Finds those of EFFECTLESS, and what computes into the zero register, such as `mov xzr, x1`."""
    into_zero = mnemonic in COMPUTING and int.from_bytes(code, "little") & ZERO_OR_SP == ZERO_OR_SP
    return mnemonic in EFFECTLESS or into_zero


def _list_undefined(_: bytes, __: str) -> tuple[str, ...]:
    """Lists no flags: instructions set all four or none."""
    return ()


def _doubt(code: bytes, mnemonic: str) -> str | None:
    """Finds fault with what SLEIGH simplifies, and with encodings whose effect the manual leaves open."""
    if mnemonic.partition(".")[0] not in MODELLED:
        return f"{mnemonic} may do more than its p-code"
    return "the manual leaves open what it does with its base register" if _overlaps(code) else None


def _overlaps(code: bytes) -> bool:
    """Whether a load or store of one register writes its base back, which is that one; capstone knows no such pair."""
    word = int.from_bytes(code, "little")
    base, register = word >> 5 & 31, word & 31
    return word & WRITES_BACK_MASK == WRITES_BACK and base == register and base != ZERO_OR_SP


def _is_usual(_: bytes, mnemonic: str) -> bool:
    return mnemonic.partition(".")[0] in USUAL


def _is_jump(mnemonic: str) -> bool:
    return mnemonic.partition(".")[0] in {"b", "cbz", "cbnz", "tbz", "tbnz"}


def _encode_jump(at: int, target: int) -> bytes:
    """Encodes a `b`."""
    distance = (target - at) // INSTRUCTION_BYTES % (1 << IMMEDIATE_BITS)
    return (B << IMMEDIATE_BITS | distance).to_bytes(INSTRUCTION_BYTES, "little")


def _decode_branch(code: bytes, at: int) -> Branch | None:
    """Decodes a `b` or `bl`."""
    word = int.from_bytes(code[:INSTRUCTION_BYTES], "little")
    if len(code) < INSTRUCTION_BYTES or word >> IMMEDIATE_BITS not in {B, BL}:
        return None
    distance = (word % (1 << IMMEDIATE_BITS) ^ 1 << IMMEDIATE_BITS - 1) - (1 << IMMEDIATE_BITS - 1)
    target = (at + INSTRUCTION_BYTES * distance) % (1 << 64)
    return Branch("jmp" if word >> IMMEDIATE_BITS == B else "call", target, INSTRUCTION_BYTES)


ARM64: Final = Architecture(
    name="arm64",
    convention=AAPCS64,
    general=(*(f"x{number}" for number in range(31)), "sp"),
    flags={"ng": 31, "zr": 30, "cy": 29, "ov": 28},
    readable=(),
    pc="pc",
    always_aligned=True,
    code_alignment=INSTRUCTION_BYTES,
    frame_pointer="x29",
    return_stack=False,
    entry={"call": SiteEntry((), ("body", "caller"), {"x9": "caller", "x30": "body"})},
    frame=("sp", "x29"),
    kernel_text=(0xFFFF800000000000, 0xFFFF800200000000),
    kernel_stack=(0xFFFF800200100000, 0xFFFFFBFFFFF00000),
    site_end=12,
    nop=bytes.fromhex("1f2003d5"),
    jump=_encode_jump,
    branch=_decode_branch,
    is_jump=_is_jump,
    language="AARCH64:LE:64:v8A",
    scratch=("pc", "tmpng", "tmpzr", "tmpcy", "tmpov", "shift_carry"),
    counters={},
    area="",
    counting=lambda _, __: None,
    harmless=frozenset(
        "Hint_Prefetch DataMemoryBarrier DataSynchronizationBarrier InstructionSynchronizationBarrier".split()
    ),
    undefined=_list_undefined,
    effectless=_is_effectless,
    doubt=_doubt,
    is_usual=_is_usual,
    tools_name=("ARM64", "ARM"),
    register_aliases={},
    # Floating point and vectors, the threads' registers.
    others=("FPCR", "FPSR", "TPIDR_EL0", "TPIDR_EL1", "TPIDRRO_EL0", *(f"Q{number}" for number in range(32))),
    flags_register="NZCV",
    ignored_flags=0,
    set_flags=0,
)
