"""x86-64 machine code at ftrace's sites, in BPF trampoline images and in functions.

Source of images: arch_prepare_bpf_trampoline() and invoke_bpf_prog() of arch/x86/net/bpf_jit_comp.c.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator

import capstone  # type: ignore[import-untyped]

from impl.linux.architectures import Flow, FlowInstruction, ImageInstruction, Meaning, SiteCode
from spec.errors import BadInputError

__all__ = ["CALL_BYTES", "ENDBR_BYTES", "TRAP", "decode_site", "read_flow", "read_image"]

ENDBR_BYTES, CALL_BYTES, OR_BYTES = 4, 5, 7
# endbr64, and the nops that gen_endbr_poison() puts in its place where no indirect call comes; the last is 7.3's
ENDBR = (bytes.fromhex("f30f1efa"), bytes.fromhex("660f1f00"), bytes.fromhex("0f1f40d6"))
NOP5 = bytes.fromhex("0f1f440000")
TRAP = b"\xcc"
CALLS = {0xE8: "call", 0xE9: "jmp"}

DECODER = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
# goes on behind bytes that are no instruction, which only padding and data in the text have
UNINTERRUPTED = capstone.Cs(capstone.CS_ARCH_X86, capstone.CS_MODE_64)
UNINTERRUPTED.skipdata = True
NUMBER = re.compile(r"-?0x[0-9a-f]+|-?\d+")
LEADING = {Flow.CALL, Flow.BRANCH, Flow.JUMP}
MODULUS = 1 << 64
RETURN_SLOT = "qword ptr [rbp - 8]"


def decode_site(address: int, code: bytes) -> SiteCode:
    """The site of the function at an address, from its first nine bytes: at once, or behind an endbr64.

    A site in the middle of a text poke, or of any other form, is a BadInputError.
    """
    skipped = ENDBR_BYTES if code[:ENDBR_BYTES] in ENDBR else 0
    site, instruction = address + skipped, code[skipped : skipped + CALL_BYTES]
    if instruction == NOP5:
        return SiteCode(site, "nop", None)
    kind = CALLS.get(instruction[0]) if len(instruction) == CALL_BYTES else None
    if kind is None:
        raise BadInputError(f"no ftrace site at {site:#x}: its bytes are {instruction.hex()}")
    return SiteCode(site, kind, site + CALL_BYTES + struct.unpack_from("<i", instruction, 1)[0])


def read_image(address: int, code: bytes) -> Iterator[ImageInstruction]:
    """The instructions through `ret`, or through the jump to a return thunk."""
    for at, size, name, operands in DECODER.disasm_lite(code, address):
        # a call through a register is that of an original whose address the image takes from its stack
        number = _read_number(name, operands)
        leaves = name == "jmp" and not address <= (number or 0) < address + len(code)
        listed = name == "movabs" or (number is not None and (name == "call" or leaves))
        meaning, text = _classify(name, operands, size), f"{name} {operands}".rstrip()
        yield ImageInstruction(at - address, size, meaning, number, name if listed else "", text)
        if name == "ret" or leaves:
            return
    raise BadInputError(f"the trampoline image at {address:#x} has no end in its {len(code)} bytes")


def read_flow(address: int, code: bytes) -> Iterator[FlowInstruction]:
    """Every instruction of the code at an address."""
    for at, size, name, operands in UNINTERRUPTED.disasm_lite(code, address):
        flow = _judge_flow(name, operands)
        target = int(operands, 0) if flow in LEADING and NUMBER.fullmatch(operands) else None
        constant = _read_constant(operands) if name == "mov" else None
        yield FlowInstruction(at, size, flow, target, constant)


def _read_constant(operands: str) -> int | None:
    """The number that a mov loads into a register, by the register's width."""
    register, _, number = operands.partition(", ")
    if "[" in register or not NUMBER.fullmatch(number):
        return None
    bits = 64 if register.startswith("r") and not register.endswith("d") else 32
    value = int(number, 0) % (1 << bits)
    return value - (1 << bits) if value >> (bits - 1) else value


def _judge_flow(name: str, operands: str) -> Flow:
    if name == "call":
        return Flow.CALL
    if name == "jmp":
        return Flow.JUMP
    if name.startswith(("j", "loop")):
        return Flow.BRANCH
    if name in {"ret", "iretq"}:
        return Flow.RETURN
    if name in {"ud1", "ud2"}:
        return Flow.TRAP
    is_padding = name in {"nop", "int3", ".byte"} or (name, operands) == ("xchg", "ax, ax")
    return Flow.PADDING if is_padding else Flow.NEXT


def _classify(name: str, operands: str, size: int) -> Meaning:
    if name == "call":
        return Meaning.CALL
    if name == "jmp":
        return Meaning.SKIP
    if name == "nop" and size == CALL_BYTES:
        return Meaning.ROOM
    if operands.startswith(("rdi, ", "edi, ")):
        return Meaning.ARGUMENT
    if operands.startswith("qword ptr [rbp") and operands.endswith(", rdi"):
        return Meaning.COOKIE
    if name == "cmp" and operands == f"{RETURN_SLOT}, 0":
        return Meaning.TEST_RETURN
    return Meaning.DROP_FRAME if name == "add" and operands == "rsp, 8" else Meaning.OTHER


def _read_number(name: str, operands: str) -> int | None:
    """The target of a call or jump, or the constant that an instruction loads; None if that is in a register."""
    if name == "xor":
        return 0
    last = operands.rpartition(", ")[2]
    immediate = name in {"call", "jmp", "mov", "movabs"} and NUMBER.fullmatch(last)
    return int(last, 0) % MODULUS if immediate else None


def leave_at_once(address: int, value: int, note: int, bits: int) -> bytes:
    """`or byte ptr [rip + note], bits; mov rax, value; ret`, to stand at an address."""
    behind = address + OR_BYTES
    return b"\x80\x0d" + struct.pack("<iB", note - behind, bits) + b"\x48\xc7\xc0" + struct.pack("<i", value) + b"\xc3"
