"""x86-64 as the kernel runs it: registers, flags and sites, and what the tools call them."""

from __future__ import annotations

from typing import Final

from properties.prover import x86_64_instructions as instructions
from properties.prover.architecture import Architecture, Branch, SiteEntry
from spec.abi import SYSTEM_V

__all__ = ["X86_64"]

CALL, JMP = 0xE8, 0xE9
BRANCH_BYTES: Final = 5
AF: Final = 1 << 4
IF: Final = 1 << 9
ALWAYS_SET: Final = 1 << 1


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
    frame_pointer="rbp",
    return_stack=True,
    entry={"call": SiteEntry(("body", "caller"), ("body",)), "jmp": SiteEntry(("caller",), ("caller",))},
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
    counters=instructions.COUNTERS,
    area="gs_offset",
    counting=instructions.counting,
    harmless=frozenset({"LOCK", "UNLOCK", "XACQUIRE", "XRELEASE"}),
    undefined=instructions.undefined,
    effectless=instructions.is_effectless,
    doubt=instructions.doubt,
    is_usual=instructions.is_usual,
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
