"""Which instructions of x86-64 are believed, and what the manual leaves open: Intel's SDM, volume 2, each's page.

An instruction that is not listed here is undecided, whatever SLEIGH says of it: it may not be there on every processor,
or do more than its p-code.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import takewhile
from typing import Final

from properties.prover.terms import Value, add, ashr

__all__ = [
    "CONDITIONAL",
    "COUNTERS",
    "EFFECTLESS",
    "MODELLED",
    "UNDEFINED",
    "USUAL",
    "counting",
    "doubt",
    "is_effectless",
    "is_usual",
    "undefined",
]

OPERAND_SIZE: Final = 0x66
REPEATS: Final = frozenset({0xF2, 0xF3})
SEGMENTS: Final = frozenset({0x2E, 0x36, 0x3E, 0x26, 0x64, 0x65})
LEGACY_PREFIXES: Final = frozenset({OPERAND_SIZE, 0x67, 0xF0}) | REPEATS | SEGMENTS
REX: Final = range(0x40, 0x50)
REX_W, REX_R = 8, 4
GROUPS: Final = frozenset({0x80, 0x81, 0x83, 0x8F, 0xC0, 0xC1, 0xC6, 0xC7, *range(0xD0, 0xD4), 0xF6, 0xF7, 0xFE, 0xFF})
"""Opcodes whose ModRM has more of the opcode in the place of a register, so that REX.R is for nothing; QEMU faults."""

NO_OPERATION: Final = 0x90
GROUP_5: Final = 0xFF
SHIFTS_BY_ONE: Final = frozenset({0xD0, 0xD1})
SHIFTS_BY_CL: Final = frozenset({0xD2, 0xD3})

USUAL: Final = frozenset("push pop mov movabs lea add sub xor test cmp je jne jmp call leave ret nop".split())

MODELLED: Final = USUAL | frozenset(
    """
movzx movsx movsxd adc sbb and or not neg inc dec xchg xadd cmpxchg bswap enter
shl sal shr sar rol ror rcl rcr shld shrd imul mul bt btc btr bts cdq cdqe cqo cwd cwde cbw cmc clc stc cld std
movsb movsw movsd movsq lodsb lodsw lodsd lodsq stosb stosw stosd stosq loop loope loopne jecxz jrcxz
endbr64 pause lfence mfence sfence
""".split()
)
"""Mnemonics of those whose p-code is the whole effect, on every processor."""

CONDITIONAL: Final = re.compile("(set|cmov|j)n?(a|ae|b|be|e|g|ge|l|le|o|p|s)")
"""More of them."""

EFFECTLESS: Final[Mapping[str, str]] = {
    "(66)*90": "nop",
    "(66)*(2e)?0f1f[048c][0-7].*": "nop of several bytes (/0): it computes an address at most",
    "f390": "pause: it gives way to the other thread of the core",
    "f30f1efa": "endbr64: a landing pad; where control may land is no obligation",
    "0faee8": "lfence: it orders loads, which are in order here",
    "0faef0": "mfence: it orders memory accesses, which are in order here",
    "0faef8": "sfence: it orders stores, which are in order here",
}
"""Encodings, in hexadecimal digits, that may have no p-code, and why."""

UNDEFINED: Final[Mapping[str, tuple[str, ...]]] = {
    "mul imul": ("zf", "sf", "pf"),
    "shld shrd": ("of",),
    "bt btc btr bts": ("of", "sf", "pf"),
}
"""Flags that instructions leave undefined, beside shifts and rotations. AF is not in the model at all."""


COUNTERS: Final[Mapping[str, Callable[[Value], Value]]] = {
    "__x86_call_depth": lambda depth: ashr(depth, 5, 64),
    "__x86_call_count": lambda count: add(count, 1, 64),
}
"""What x86_call_depth_emit_accounting() puts before calls: `sarq $5`, and `incq` with CONFIG_CALL_THUNKS_DEBUG."""

COUNTING: Final[Mapping[str, re.Pattern[bytes]]] = {
    "__x86_call_depth": re.compile(rb"\x65\x48\xc1(?:\x3c\x25|(\x3d))(.{4})\x05", re.DOTALL),
    "__x86_call_count": re.compile(rb"\x65\x48\xff(?:\x04\x25|(\x05))(.{4})", re.DOTALL),
}
"""These instructions, which have an address or, in the first group, a distance from the next instruction."""


@dataclass(frozen=True, slots=True)
class _Encoding:
    """An instruction's bytes: prefixes, REX among them, and the rest from the opcode on."""

    prefixes: bytes
    opcode: bytes

    @property
    def rex(self) -> int:
        """The REX prefix that counts, which stands before the opcode; 0 if there is none."""
        return self.prefixes[-1] if self.prefixes and self.prefixes[-1] in REX else 0

    @property
    def bits(self) -> int:
        """The width of operands, if the opcode's last bit tells bytes from words."""
        if not self.opcode[0] & 1:
            return 8
        return 64 if self.rex & REX_W else 16 if OPERAND_SIZE in self.prefixes else 32


def _split(code: bytes) -> _Encoding:
    prefixes = bytes(takewhile(lambda byte: byte in LEGACY_PREFIXES or byte in REX, code))
    return _Encoding(prefixes, code[len(prefixes) :])


def _plain(mnemonic: str) -> str:
    return mnemonic.removeprefix("lock ")


def undefined(code: bytes, mnemonic: str) -> tuple[str, ...]:
    """The flags that it leaves undefined, or for some counts only where the count is in a register."""
    name = _plain(mnemonic)
    if name in {"shl", "sal", "shr", "sar", "rol", "ror", "rcl", "rcr"}:
        return _leave_by_shift(_split(code), name)
    return next((flags for names, flags in UNDEFINED.items() if name in names.split()), ())


def _leave_by_shift(encoding: _Encoding, name: str) -> tuple[str, ...]:
    """OF is defined for a count of 1; CF of shl and shr for one below the width. With a count of 0, all flags stay."""
    opcode, bits = encoding.opcode, encoding.bits
    known = 1 if opcode[0] in SHIFTS_BY_ONE else opcode[-1] & (63 if bits == 64 else 31)
    counts = range(64 if bits == 64 else 32) if opcode[0] in SHIFTS_BY_CL else range(known, known + 1)
    carry = name in {"shl", "sal", "shr"} and counts[-1] >= bits
    return (("of",) if counts[-1] > 1 else ()) + (("cf",) if carry else ())


def counting(code: bytes, at: int) -> tuple[str, int] | None:
    """The name and the place of the counter that it counts, if it is one of COUNTING."""
    for name, pattern in COUNTING.items():
        if match := pattern.fullmatch(code):
            number = int.from_bytes(match[2], "little", signed=True)
            return name, (number + at + len(code) if match[1] else number) % (1 << 64)
    return None


def is_effectless(code: bytes, _: str) -> bool:
    """Whether it is one of EFFECTLESS."""
    return any(re.fullmatch(pattern, code.hex()) for pattern in EFFECTLESS)


def doubt(code: bytes, mnemonic: str) -> str | None:
    """Why it may not do what SLEIGH says; None if it does. Some means one thing to AMD and another to Intel."""
    encoding, name = _split(code), _plain(mnemonic)
    if mnemonic == "hlt":
        return "it waits for an interrupt"
    if _is_far(encoding, mnemonic):
        return "it branches to another segment"
    if name not in MODELLED and not CONDITIONAL.fullmatch(name):
        return f"{mnemonic} is not among the instructions that the prover believes SLEIGH"
    return None if is_effectless(code, mnemonic) else _doubt_prefixes(encoding, name)


def _is_far(encoding: _Encoding, mnemonic: str) -> bool:
    opcode = encoding.opcode
    far = opcode[0] == GROUP_5 and opcode[1] >> 3 & 7 in {3, 5}
    return far or mnemonic in {"ljmp", "lcall", "retf", "retfq"}


def _doubt_prefixes(encoding: _Encoding, name: str) -> str | None:
    """What decoders, and processors, do not agree on."""
    prefixes, rex = encoding.prefixes, encoding.rex
    legacy = prefixes[:-1] if rex else prefixes
    if not LEGACY_PREFIXES.issuperset(legacy) or (rex & REX_R and encoding.opcode[0] in GROUPS):
        return "it has a REX prefix that does not count"
    if len(set(legacy)) < len(legacy) or len(SEGMENTS.intersection(legacy)) > 1 or not REPEATS.isdisjoint(legacy):
        return "it has prefixes that mean nothing to it"
    if encoding.opcode[0] == NO_OPERATION and not rex & 1:
        return "decoders differ on a nop with prefixes"
    sized = OPERAND_SIZE in legacy
    if sized and name.startswith(("j", "call", "ret", "loop", "movsxd", "enter", "leave")):
        return "processors differ on it with an operand size"
    return "the manual leaves open what it does by a count above 16" if sized and name in {"shld", "shrd"} else None


def is_usual(code: bytes, mnemonic: str) -> bool:
    """Whether tests have looked at its p-code; others are compared with unicorn one by one."""
    prefixes = _split(code).prefixes
    usual = mnemonic in USUAL and LEGACY_PREFIXES.isdisjoint(prefixes) and len(prefixes) <= 1
    return usual or counting(code, 0) is not None
