"""Instructions of each architecture: those that occur in images, others that may, and those that have no model."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import keystone  # type: ignore[import-untyped]

import properties.proofs
from impl.batched.jit.inlines import BPF_CTX, HELPERS, assembled, inline
from properties.proofs.generated import generated
from properties.proofs.image_files import read_image
from properties.prover import arm64, x86_64, x86_64_instructions
from properties.prover.agreement import CODE
from properties.prover.architecture import Architecture
from properties.prover.image import Image
from properties.prover.lift import lifter
from spec.abi import SYSTEM_V
from spec.semantics import PRESETS
from tests.support.arm64_images import KINDS, image_of
from tests.support.native_agreement import form
from tests.support.prove_images import Trampoline, goal_of, long, of_kinds

__all__ = ["ARM64_FORMS", "FORMS", "X86_64_FORMS", "Forms", "encodings"]

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))

# Forms that the images have not, which mutants and other generators may have.
X86_64_OTHERS = """
f30f1efa 90 6690 f390 0f1f00 660f1f440000 0faee8 c9 c3 c21000 5b 4153 ff75f0 8f45f0 c8100000 ffd3 ffe0 ff65f0 eb05
7405 0f8510000000 b805000000 48c7c0ffffffff 48b81122334455667788 c745f401000000 66c745f40100 c645f401 48894de8
894de8 66894de8 884de8 488b4de8 8b4de8 668b4de8 8a4de8 8a65e8 88c4 480fb645f0 0fb745f0 480fbe45f0 0fbf45f0 4863c8
488d4410f8 488d0500100000 4801c8 01c8 6601c8 00c8 4883c008 4805ff0f0000 4829c8 29c8 4883ec28 4811c8 4819c8 f7d8
48f7d8 48f7d0 4821c8 4883e4f0 83e00f 4809c8 4831c0 31c0 30c0 4885c0 85c0 84c0 a801 48837df800 837df800 4839c8 3b45f8
48ffc0 ffc8 fe45f0 48d1e0 48c1e004 c1e81f 48c1f803 48d3e0 48d3e8 d3f8 d0e0 66c1e003 48c1c007 48c1c807 d3c0 480fafc1
486bc107 69c101020000 48f7e1 f7e1 48f7e9 f6e1 480fa3c8 480fbae005 480fabc8 480fbae805 0f94c0 0f9fc0 480f44c1 0f4dc1
480f42c1 4887c8 87c8 4893 86c4 480fc1c8 f0480fc145f0 480fb14df0 f0480fb14df0 4899 99 4898 98 fc fd f8 f9 f5 480fc8
0fc9 480fa4c805 480facc805 480fa5c8 f3480fb8c1 f30fb8c1 e305 f2c3 f3c3 4157 415f 4889e5 e800000000 488b0425f0ff0000
a4 aa 48ab ac 48ad 66ab 58 50 6a05 68ffffff7f 9090 c48a f3480fbcc1 ff55f0 ff75e8 8f45e8 41ff55f0 480145f0 0145f0
0045f0 8045f005 8145f005000001 488345f0fb 482945f0 2945f0 2845f0 483345f0 3145f0 3045f0 8075f005 4881f1ff0f0000
4883f1fb 0405 2c05 3405 3c05 4805f0ffffff 2d05000000 3505000000 3d05000000 483d05000000 a80f a9ff000000 48a9ff000000
f645f005 f745f005000000 48f745f005000000 8545f0 488545f0 8445f0 f6c405 4038c7 40b605 41b005 4d89c8 4488c0 4589c8
88cc 8ae1 4883fcf0 4c8b6424f8 4a8d0480 488d042500000080 4c8d7d08 8d4508 678d4508 66ff75f0 665a 6668ffff 64488b4510
2e8b45f0 f0488345f005 6548c13c25c8a1030005 6548c13d0743034005 6548ff0425c8a10300 6548ff0507430340
"""

X86_64_UNMODELLED = {
    "0f0b": "invalidInstructionException has no model",
    "cc": "swi has no model",
    "f4": "it waits for an interrupt",
    "0f05": "syscall has no model",
    "9c": "it reads",
    "fa": "it writes IF",
    "660fefc0": "XMM0",
    "8ed8": "it writes DS",
    "d9e8": "it writes",
    "48f7f1": "INT_DIV has no model",
    "480fbcc1": "it repeats itself",
    "4cc7c080cff981": "it has a REX prefix that does not count",
    "4cf7d8": "it has a REX prefix that does not count",
    "66eb05": "processors differ on it with an operand size",
    "ff6df0": "it branches to another segment",
    "48ff7df0": "a second decoder does not know these bytes",
    "0fc14d89": "p-code and unicorn differ: rcx is",
    "06": "these bytes are no instruction that SLEIGH knows",
    "f0488945f8": "these bytes are no instruction that SLEIGH knows",
}

ARM64_OTHERS = """
add x0, x1, x2, lsl #3; add x0, x1, w2, uxtw #2; add w0, w1, w2; add x0, sp, x1; adds x3, x4, #9; adds w3, w4, w5
sub x0, x1, x2, lsr #7; subs x0, x1, x2; subs w0, w1, #4; sub sp, sp, x3; cmp x1, x2; cmp w1, #7; cmn x1, x2
and x0, x1, #0xff; ands w0, w1, w2; orr x0, x1, x2, ror #5; orr w0, wzr, #1; eor x0, x1, x2
bic x0, x1, x2; orn x0, x1, x2; eon w0, w1, w2; mvn x0, x1; neg x0, x1; negs w0, w1; adc x0, x1, x2; sbcs x0, x1, x2
mov w0, w1; mov x0, xzr; movn x0, #5; movn w0, #5, lsl #0x10; movk w0, #7; movz w0, #9, lsl #0x10
lsl x0, x1, #3; lsr w0, w1, #0x1f; asr x0, x1, #0x3f; ror x0, x1, #9; lsl x0, x1, x2; lsr w0, w1, w2; asr x0, x1, x2
ror w0, w1, w2; ubfx x0, x1, #8, #8; sbfx w0, w1, #3, #7; bfi x0, x1, #8, #0x10; bfxil x0, x1, #4, #9
ubfiz x0, x1, #3, #9; tst x0, #8; and sp, x0, #0xfffffffffffffff0; adds w3, w4, w5, asr #3; bfi w0, w1, #3, #4
sxtb x0, w1; sxth w0, w1; sxtw x0, w1; uxtb w0, w1; uxth w0, w1; extr x0, x1, x2, #0x11; clz x0, x1; cls w0, w1
rbit x0, x1; rev x0, x1; rev16 w0, w1; rev32 x0, x1; mul x0, x1, x2; madd w0, w1, w2, w3; msub x0, x1, x2, x3
smulh x0, x1, x2; umulh x0, x1, x2; smull x0, w1, w2; umaddl x0, w1, w2, x3; csel x0, x1, x2, ne; csinc x0, x1, x2, lt
csinv w0, w1, w2, hi; csneg x0, x1, x2, vs; cset x0, eq; csetm w0, mi; ccmp x0, x1, #4, ge; ccmn w0, #3, #2, lo
ldr x0, [x1]; ldr w0, [x1, #4]; ldr x0, [x1, x2]; ldr x0, [x1, w2, sxtw]; ldr x0, [x1, x2, lsl #3]; ldr x0, [x1], #8
ldr x0, [x1, #-8]!; ldrb w0, [x1]; ldrh w0, [x1, #2]; ldrsb x0, [x1]; ldrsh x0, [x1]; ldrsw x0, [x1]; ldur x0, [x1, #-3]
str w0, [x1]; str x0, [x1, x2]; str xzr, [x1]; str x0, [x1], #-8; str w0, [x1, #4]!; strb w0, [x1]; strh w0, [x1]
stur x0, [x1, #5]; ldp w0, w1, [x2]; ldp x0, x1, [sp, #0x10]!; ldp x0, x1, [x2, #-0x10]; stp w0, w1, [x2], #8
stp xzr, x1, [sp]; ldnp x0, x1, [x2]; stnp x0, x1, [x2]; cbz w3, #8; cbnz x3, #8; tbz x3, #0x28, #8; tbnz w3, #4, #8
b #8; bl #8; br x3; blr x3; ret x3; b.eq #8; b.ne #8; b.hs #8; b.lo #8; b.mi #8; b.pl #8; b.vs #8; b.vc #8; b.hi #8
b.ls #8; b.ge #8; b.lt #8; b.gt #8; b.le #8; dmb ish; dsb sy; isb; prfm pldl1keep, [x1]; prfum pldl1keep, [x1, #-3]
"""

ARM64_UNMODELLED = {
    "hint #0x19": "paciasp may do more than its p-code",
    "hint #0x1d": "autiasp may do more than its p-code",
    "hint #7": "xpaclri may do more than its p-code",
    "ldxr x1, [sp]": "ldxr may do more than its p-code",
    "ldar x1, [sp]": "ldar may do more than its p-code",
    "ldtr x1, [sp]": "ldtr may do more than its p-code",
    "msr daifset, #2": "it reads daif",
    "mrs x0, nzcv": "it reads nzcv",
    "mrs x0, sp_el0": "it reads sp_el0",
    "fmov d0, x0": "it writes d0",
    "ldr q0, [sp]": "it writes q0",
    "udiv x0, x1, x2": "INT_DIV has no model",
    "brk #1": "SoftwareBreakpoint has no model",
    "svc #0": "CallSupervisor has no model",
    "sev": "SendEvent has no model",
    "wfi": "WaitForInterrupt has no model",
    "eret": "ExceptionReturn has no model",
    ".word 0": "UndefinedInstructionException has no model",
    ".word 0xffffffff": "these bytes are no instruction that SLEIGH knows",
    # SLEIGH 3.3.3 fills the whole register with the sign, and takes the second word of a pair for one.
    "ldrsb w1, [sp]": "p-code and unicorn differ: x1 is",
    "ldrsh w1, [sp]": "p-code and unicorn differ: x1 is",
    "ldpsw x1, x2, [sp]": "p-code and unicorn differ: x2 is",
    # str x9, [x9, #8]!; ldrsb x8, [x8, #-0x80]!
    ".word 0xf8008d29": "the manual leaves open what it does with its base register",
    ".word 0x38980d08": "the manual leaves open what it does with its base register",
    # ldr x29, [x29], #8; ldp x29, x9, [x29], #0x10; ldp x1, x1, [sp]
    ".word 0xf84087bd": "a second decoder does not know these bytes",
    ".word 0xa8c127bd": "a second decoder does not know these bytes",
    ".word 0xa94007e1": "a second decoder does not know these bytes",
}


@dataclass(frozen=True)
class Forms:
    """An architecture's instructions, as bytes.

    others: that the images have not. usual: what is believed, by mnemonic; besides: of these, what no image here has.
    unmodelled: why, by bytes. images: that have what is usual. more: what occurs elsewhere.
    """

    architecture: Architecture
    others: frozenset[bytes]
    usual: frozenset[str]
    besides: frozenset[str]
    unmodelled: Mapping[bytes, str]
    images: Callable[[], Iterable[Image]]
    more: Callable[[], set[bytes]]

    @cached_property
    def occurring(self) -> set[bytes]:
        """Every encoding in images, and of our own making."""
        return encodings(self.images(), self.architecture) | self.more()


def encodings(images: Iterable[Image], architecture: Architecture) -> set[bytes]:
    """The bytes of every instruction in these images."""
    found: set[bytes] = set()
    for image in images:
        for at, instruction in lifter(architecture).sweep(image.code, image.address, image.used).items():
            start = at - image.address
            found.add(image.code[start : start + instruction.size])
    return found


def x86_64_images() -> Iterable[Image]:
    """Those of running kernels, and those of the prover's tests."""
    return [*(read_image(path).image for path in IMAGES), *by_hand()]


def by_hand() -> Iterable[Image]:
    """Those of the prover's tests."""
    kinds = ("fentry", "fsession", "lsm", "fmod_ret", "fexit")
    for arity in range(13):
        for site in ("call", "jmp"):
            yield Trampoline(goal_of(long(arity), *of_kinds(*kinds), site=site, func_ip=True), skips=True).image()
            yield Trampoline(goal_of(long(arity), *of_kinds("fentry"), site=site)).image()


def by_the_generator() -> Iterable[Image]:
    """Those of the generator, in each of its forms."""
    kinds = ("fentry", "fsession", "fmod_ret", "fexit")
    shared, generic = {"shared": True}, {"generic": True}
    for arity in range(13):
        for options in (
            {},
            {"site": "jmp"},
            {"orig_stack": True},
            shared,
            *([generic] if arity <= len(SYSTEM_V.arguments) else []),
        ):
            for programs in (of_kinds(*kinds, cookies=True), of_kinds("fentry", sleepable=True)):
                yield generated(long(arity), programs, func_ip=True, **options)[0]  # type: ignore[arg-type]


def of_helpers() -> set[bytes]:
    """The encodings in the code of helpers."""
    found = set()
    for helper in HELPERS:
        code = assembled(inline(helper, PRESETS["linux-7.3"], "fsession"), {BPF_CTX: CODE})
        found |= encodings([Image(CODE, code, len(code))], x86_64.X86_64)
    return found


def x86_64_more() -> set[bytes]:
    """What the generator and helpers have; of the generator's branches, which differ in their distance, one each."""
    return {form(code) for code in encodings(by_the_generator(), x86_64.X86_64)} | of_helpers()


def arm64_images() -> Iterator[Image]:
    """Those of the generator for arm64, in each of its forms."""
    for arity in range(13):
        for kinds in KINDS:
            for options in (
                {},
                {"func_ip": True, "cookies": True},
                {"orig_stack": True},
                {"shared": True, "func_ip": True},
            ):
                yield image_of(long(arity), *kinds, sleepable=True, **options)[0]
    for kinds in KINDS:
        yield image_of(long(8), *kinds, generic=True, func_ip=True)[0]


def code_of(text: str) -> bytes:
    """One instruction; keystone takes the target of a branch for an address, here from 0."""
    made, count = keystone.Ks(keystone.KS_ARCH_ARM64, keystone.KS_MODE_LITTLE_ENDIAN).asm(text, 0, as_bytes=True)
    assert count == 1
    assert len(made) == arm64.INSTRUCTION_BYTES
    return bytes(made)


X86_64_FORMS = Forms(
    architecture=x86_64.X86_64,
    others=frozenset(bytes.fromhex(text) for text in X86_64_OTHERS.split()),
    usual=x86_64_instructions.USUAL,
    besides=frozenset(),
    unmodelled={bytes.fromhex(text): reason for text, reason in X86_64_UNMODELLED.items()},
    images=x86_64_images,
    more=x86_64_more,
)
ARM64_FORMS = Forms(
    architecture=arm64.ARM64,
    others=frozenset(code_of(text.strip()) for text in ARM64_OTHERS.replace("\n", ";").split(";") if text.strip()),
    usual=arm64.USUAL,
    # What a site, a patch, and a trampoline of Linux have besides.
    besides=frozenset({"cmp", "b", "bl", "br"}),
    unmodelled={code_of(text): reason for text, reason in ARM64_UNMODELLED.items()},
    images=arm64_images,
    more=set,
)
FORMS = (X86_64_FORMS, ARM64_FORMS)
