"""x86-64 as the kernel runs it: registers, flags, sites and instructions, and what the tools call them."""

from __future__ import annotations

from itertools import dropwhile
from typing import Final

from properties.prover.architecture import Architecture, Branch, SiteEntry
from spec.abi import SYSTEM_V

__all__ = ["USUAL", "X86_64"]

CALL, JMP = 0xE8, 0xE9
BRANCH_BYTES: Final = 5
OPERAND_SIZE: Final = 0x66
LEGACY_PREFIXES: Final = frozenset({OPERAND_SIZE, 0x67, 0xF0, 0xF2, 0xF3, 0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65})
PREFIXES: Final = LEGACY_PREFIXES | frozenset(range(0x40, 0x50))
GROUP_5: Final = 0xFF
USUAL: Final = frozenset("push pop mov movabs lea add sub xor test cmp je jne jmp call leave ret nop".split())
AF: Final = 1 << 4
IF: Final = 1 << 9
ALWAYS_SET: Final = 1 << 1

# Flags that the manual leaves undefined, or defined for some counts only; AF is not in the model at all.
UNDEFINED: Final = (
    ("mul imul mulx", ("zf", "sf", "pf")),
    ("shl sal shr sar rol ror rcl rcr shld shrd", ("of", "cf")),
    ("bt btc btr bts", ("of", "sf", "pf")),
    ("tzcnt lzcnt", ("of", "sf", "pf")),
    ("bextr bzhi blsi blsr blsmsk andn", ("sf", "pf")),
)


def _list_undefined(mnemonic: str) -> tuple[str, ...]:
    return next((flags for names, flags in UNDEFINED if mnemonic in names.split()), ())


def _doubt(code: bytes, mnemonic: str) -> str | None:
    """Finds fault with what SLEIGH simplifies, and with what means one thing to AMD and another to Intel."""
    if mnemonic == "hlt":
        return "it waits for an interrupt"
    opcode = bytes(dropwhile(PREFIXES.__contains__, code))
    far = opcode[0] == GROUP_5 and opcode[1] >> 3 & 7 in {3, 5}
    if far or mnemonic in {"ljmp", "lcall", "retf", "retfq"}:
        return "it branches to another segment"
    branches = mnemonic.startswith(("j", "call", "ret", "loop"))
    sized = OPERAND_SIZE in code[: len(code) - len(opcode)]
    return "processors differ on a branch with an operand size" if branches and sized else None


def _is_usual(code: bytes, mnemonic: str) -> bool:
    return mnemonic == "nop" or (mnemonic in USUAL and code[0] not in LEGACY_PREFIXES)


def _is_jump(mnemonic: str) -> bool:
    return mnemonic.startswith("j")


def _encode_jump(at: int, target: int) -> bytes:
    """Encodes a jmp rel32 (e9)."""
    return bytes([JMP]) + (target - at - BRANCH_BYTES).to_bytes(4, "little", signed=True)


def _decode_branch(code: bytes, at: int) -> Branch | None:
    """Decodes a call or jmp rel32 (e8, e9)."""
    if len(code) < BRANCH_BYTES or code[0] not in {CALL, JMP}:
        return None
    distance = int.from_bytes(code[1:BRANCH_BYTES], "little", signed=True)
    return Branch("jmp" if code[0] == JMP else "call", (at + BRANCH_BYTES + distance) % (1 << 64), BRANCH_BYTES)


X86_64: Final = Architecture(
    name="x86-64",
    convention=SYSTEM_V,
    general=tuple("rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15".split()),
    flags={"cf": 0, "pf": 2, "zf": 6, "sf": 7, "df": 10, "of": 11},
    readable=("fs_offset", "gs_offset"),
    pc="rip",
    always_aligned=False,
    code_alignment=1,
    entry={"call": SiteEntry(("body", "caller")), "jmp": SiteEntry(("caller",))},
    frame=("rsp", "rbp"),
    kernel_text=(0xFFFFFFFF80000000, 0xFFFFFFFFFF000000),
    kernel_stack=(0xFFFF800000100000, 0xFFFFFFFF7FF00000),
    site_end=9,
    nop=bytes.fromhex("0f1f440000"),
    jump=_encode_jump,
    branch=_decode_branch,
    is_jump=_is_jump,
    language="x86:LE:64:default",
    scratch=(),
    harmless=frozenset({"LOCK", "UNLOCK", "XACQUIRE", "XRELEASE"}),
    undefined=_list_undefined,
    doubt=_doubt,
    is_usual=_is_usual,
    tools_name=("X86", "64"),
    register_aliases={"fs_offset": "FS_BASE", "gs_offset": "GS_BASE"},
    # The segments, the x87 unit, SSE.
    others=(
        *"CS DS ES FS GS SS FS_BASE GS_BASE FPCW FPSW FPTAG MXCSR".split(),
        *(f"ST{number}" for number in range(8)),
        *(f"XMM{number}" for number in range(16)),
    ),
    flags_register="EFLAGS",
    ignored_flags=AF,
    set_flags=IF | ALWAYS_SET,
)
