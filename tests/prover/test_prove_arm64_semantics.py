"""Two semantics of arm64 agree, the p-code that the prover evaluates and unicorn; what they differ on has no model."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator

import keystone  # type: ignore[import-untyped]
import pytest

from properties.prover.agreement import CODE, Agreement
from properties.prover.arm64 import ARM64, MODELLED, USUAL
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.tools import disassembler
from tests.support.arm64_images import KINDS, image_of
from tests.support.prove_images import long

LIFTER = lifter(ARM64)
DISASSEMBLER = disassembler(ARM64)
WORD_BYTES = 4

# Forms that the images have not, which mutants and other generators may have.
OTHERS = """
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

UNMODELLED = {
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


def code_of(text: str) -> bytes:
    """One instruction; keystone takes the target of a branch for an address, here from 0."""
    made, count = keystone.Ks(keystone.KS_ARCH_ARM64, keystone.KS_MODE_LITTLE_ENDIAN).asm(text, 0, as_bytes=True)
    assert count == 1
    assert len(made) == WORD_BYTES
    return bytes(made)


def others() -> set[bytes]:
    return {code_of(text.strip()) for line in OTHERS.split("\n") for text in line.split(";") if text.strip()}


def mnemonic(code: bytes) -> str:
    found = next(DISASSEMBLER.disasm_lite(code, CODE, 1), None)
    return str(found[2]).partition(".")[0] if found else ""


def generated() -> Iterator[Image]:
    for arity in range(13):
        for kinds in KINDS:
            for form in (
                {},
                {"func_ip": True, "cookies": True},
                {"orig_stack": True},
                {"shared": True, "func_ip": True},
            ):
                yield image_of(long(arity), *kinds, sleepable=True, **form)[0]
    for kinds in KINDS:
        yield image_of(long(8), *kinds, generic=True, func_ip=True)[0]


def encodings(images: Iterable[Image]) -> set[bytes]:
    return {image.code[at : at + WORD_BYTES] for image in images for at in range(0, image.used, WORD_BYTES)}


def agree(codes: Iterable[bytes], count: int) -> tuple[int, int]:
    """How many encodings and states agree; each difference fails, and each encoding that could not be compared."""
    agreement = Agreement(ARM64, LIFTER.registers)
    forms = states = 0
    wrong: list[str] = []
    for code in sorted(codes):
        instruction = LIFTER.one(code, CODE, CODE)
        if instruction.unmodelled:
            wrong.append(f"{code.hex()}: {instruction.unmodelled}")
            continue
        compared, found = agreement.compared(instruction, code, count, seed=3)
        forms, states = forms + 1, states + compared
        wrong += [f"{code.hex()}: {found}"] if found else []
        wrong += [] if compared else [f"{code.hex()}: is never within its memory"]

    assert [] == wrong
    return forms, states


def test_p_code_and_unicorn_agree_on_other_forms() -> None:
    """On some 125 forms that mutants and other generators may have, in states of any kind."""
    forms, _ = agree(others(), 6)

    assert forms > 120


@pytest.mark.proof
def test_p_code_and_unicorn_agree_on_what_occurs() -> None:
    """On every encoding in generated images, 20 random states each; 60 of the other forms."""
    occurring = encodings(generated())
    forms, states = agree(occurring, 20)
    more, again = agree(others(), 60)
    print(f"{forms} encodings in {states} states, {more} others in {again}")

    assert forms > 300
    assert states > 6_000


@pytest.mark.parametrize("count", [500, pytest.param(15_000, marks=pytest.mark.proof)])
def test_any_word_that_has_a_model_is_agreed_on(count: int) -> None:
    """Of random words, those that the prover would believe are the same to unicorn; the others say why not."""
    draw = random.Random(7)
    agreement = Agreement(ARM64, LIFTER.registers)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for _ in range(count):
        code = draw.getrandbits(32).to_bytes(WORD_BYTES, "little")
        instruction = LIFTER.one(code, CODE, CODE)
        if instruction.unmodelled:
            seen["no model"] += 1
            continue
        compared, found = agreement.compared(instruction, code, 8, seed=5)
        seen["agree" if compared else "not within its memory"] += 1
        seen["usual"] += mnemonic(code) in USUAL
        wrong += [f"{code.hex()}: {found}"] if found else []
    print(dict(seen))

    assert [] == wrong
    assert 10 * seen["agree"] > count


def test_the_usual_instructions_are_those_that_occur() -> None:
    """What is believed without a look at each occurrence is what images have, and is looked at by these tests."""
    occurring = {mnemonic(code) for code in encodings(generated())}

    # What a site, a patch, and a trampoline of Linux have besides.
    assert USUAL == occurring | {"cmp", "b", "bl", "br"}


def test_an_instruction_means_the_same_elsewhere() -> None:
    """What is kept of an instruction for other addresses is what lifting it there gives."""
    there = CODE + 0x123400
    fresh = type(LIFTER)(ARM64)
    for code in sorted(others()):
        LIFTER.one(code, CODE, CODE)

        assert fresh.one(code, there, there) == LIFTER.one(code, there, there)


@pytest.mark.parametrize("text", UNMODELLED)
def test_what_has_no_model_says_why(text: str) -> None:
    """An instruction whose effect is not wholly known is never evaluated."""
    instruction = LIFTER.one(code_of(text), CODE, CODE)

    assert instruction.unmodelled is not None
    assert UNMODELLED[text] in instruction.unmodelled


def test_each_modelled_instruction_is_one() -> None:
    """The list of instructions with a model has none that these tests or images do not have."""
    assert USUAL <= MODELLED
    assert MODELLED - {mnemonic(code) for code in others() | encodings(generated())} <= ALIASES


# Other names of what is tested, which capstone prefers or not by their operands; and what p-code has wrong.
ALIASES = frozenset(
    (
        "adcs adrp asrv bfm bics cinc cinv cneg ldpsw ldurb ldurh ldursb ldursh ldursw lslv lsrv mneg movn movz ngc "
        "ngcs rorv sbc sbfiz sbfm smaddl smnegl smsubl sturb sturh subs ubfm umnegl umsubl umull"
    ).split()
)
