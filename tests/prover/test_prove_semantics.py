"""Three semantics agree: the p-code that the prover evaluates, unicorn, and the processor that this runs on."""

from __future__ import annotations

import random
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest

import properties.proofs
from impl.batched.jit.inlines import BPF_CTX, HELPERS, assembled, inline
from properties.proofs.generated import generated
from properties.proofs.image_files import read_image
from properties.prover.agreement import CODE, Agreement
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.tools import disassembler
from properties.prover.x86_64 import USUAL, X86_64
from spec.abi import SYSTEM_V
from spec.semantics import PRESETS
from tests.support.native_agreement import Evaluated, case, compared, difference, form
from tests.support.native_cpu import AT, Processor, unavailable
from tests.support.prove_images import Trampoline, goal_of, long, of_kinds

IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
LIFTER = lifter(X86_64)

native = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

# Forms that the images have not, which mutants and other generators may have.
OTHERS = """
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
2e8b45f0 f0488345f005
"""


def encodings(images: Iterable[Image]) -> set[bytes]:
    """The bytes of every instruction in these images."""
    found: set[bytes] = set()
    for image in images:
        for at, instruction in LIFTER.sweep(image.code, image.address, image.used).items():
            start = at - image.address
            found.add(image.code[start : start + instruction.size])
    return found


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
        found |= encodings([Image(CODE, code, len(code))])
    return found


def occurring() -> set[bytes]:
    """Every encoding in the images of running kernels, of our own making, and in the code of helpers.

    Of the generator's branches, which differ in their distance only, one each.
    """
    ours = {form(code) for code in encodings(by_the_generator())}
    return encodings([*(read_image(path).image for path in IMAGES), *by_hand()]) | ours | of_helpers()


def agree(codes: Iterable[bytes], count: int) -> tuple[int, int]:
    """How many encodings and states agree; each difference fails."""
    agreement = Agreement(X86_64, LIFTER.registers)
    forms = states = 0
    wrong: list[str] = []
    for code in sorted(codes):
        instruction = LIFTER.one(code, CODE, CODE)
        if instruction.unmodelled:
            wrong += [f"{code.hex()}: {instruction.unmodelled}"] if "unicorn" in instruction.unmodelled else []
            continue
        compared, found = agreement.compared(instruction, code, count, seed=3)
        forms, states = forms + bool(compared), states + compared
        wrong += [f"{code.hex()}: {found}"] if found else []

    assert [] == wrong
    return forms, states


def test_p_code_and_unicorn_agree_on_other_forms() -> None:
    """On some 200 forms that mutants and other generators may have, in states of any kind."""
    forms, _ = agree({bytes.fromhex(text) for text in OTHERS.split()}, 6)

    assert forms > 200


@pytest.mark.proof
def test_p_code_and_unicorn_agree_on_what_occurs() -> None:
    """On every encoding in the images of running kernels and our own; 20 random states each, 60 of the other forms."""
    forms, states = agree(occurring(), 20)
    others, more = agree({bytes.fromhex(text) for text in OTHERS.split()}, 60)
    print(f"{forms} encodings in {states} states, {others} others in {more}")

    assert forms > 2_000
    assert states > 40_000
    assert more > 10_000


@native
def test_p_code_and_this_processor_agree_on_other_forms() -> None:
    """The same forms, executed one at a time in a child process."""
    report = compared({bytes.fromhex(text) for text in OTHERS.split()}, 4)
    print(report)

    assert [] == report.wrong
    assert report.forms > 190


@native
@pytest.mark.proof
def test_p_code_and_this_processor_agree_on_what_occurs() -> None:
    """On every encoding that occurs, branches led to where they can be seen; 60 random states each."""
    report = compared(occurring() | {bytes.fromhex(text) for text in OTHERS.split()}, 60)
    print(report)

    assert [] == report.wrong
    assert report.forms > 900
    assert report.left_out.total() <= 10


@native
@pytest.mark.parametrize(("text", "other"), [("4801c8", "4829c8"), ("89c0", "4889c0"), ("7440", "7540"), ("c9", "90")])
def test_a_wrong_model_is_noticed(text: str, other: str) -> None:
    """Where p-code is that of another instruction, the processor's state is another."""
    code = bytes.fromhex(text)
    draw, wrong = random.Random(1), LIFTER.one(bytes.fromhex(other), AT, AT)
    if wrong.size != len(code):
        wrong = replace(wrong, size=len(code))
    found = [one for _ in range(20) if (one := case(wrong, code, Evaluated(LIFTER.registers), draw))]
    with Processor() as processor:
        after = processor.run([run for _, run in found])

    assert any(difference(wrong, expected, got) for (expected, _), got in zip(found, after, strict=True))


@native
def test_what_ends_the_child_is_told() -> None:
    """An instruction of which the processor kills the child is a result, and the next has a child of its own."""
    run = next(
        one
        for _ in range(20)
        if (one := case(LIFTER.one(b"\x90", AT, AT), b"\x90", Evaluated(LIFTER.registers), random.Random(1)))
    )[1]
    with Processor() as processor:
        killed, halted, fine = processor.run(
            [replace(run, code=bytes.fromhex("0f0b")), replace(run, code=b"\xf4"), run]
        )

    assert ("SIGILL", "SIGSEGV") == (killed, halted)
    assert fine == replace(run, pc=AT + 1)


def test_an_instruction_means_the_same_elsewhere() -> None:
    """What is kept of an instruction for other addresses is what lifting it there gives."""
    texts = [bytes.fromhex(text) for text in OTHERS.split()]
    for code in texts:
        here = LIFTER.one(code, CODE, CODE)
        there = LIFTER.one(code, CODE + 0x123400, CODE + 0x123400)
        fresh = type(LIFTER)(X86_64) if code is texts[0] else None

        assert here.size == there.size
        if fresh is not None:
            assert fresh.one(code, CODE + 0x123400, CODE + 0x123400) == there


UNMODELLED = {
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
    "66eb05": "processors differ on a branch with an operand size",
    "ff6df0": "it branches to another segment",
    "48ff7df0": "a second decoder does not know these bytes",
    "0fc14d89": "p-code and unicorn differ: rcx is",
    "06": "these bytes are no instruction that SLEIGH knows",
    "f0488945f8": "these bytes are no instruction that SLEIGH knows",
}


def test_the_usual_instructions_are_those_that_occur() -> None:
    """What is believed without a look at each occurrence is what the images have, and is looked at by these tests."""
    codes = encodings([*(read_image(path).image for path in IMAGES), *by_hand()])
    decoder = disassembler(X86_64)
    found = {(code, next(decoder.disasm_lite(code, CODE, 1))[2]) for code in codes}

    assert set() == {(code, mnemonic) for code, mnemonic in found if not X86_64.is_usual(code, mnemonic)}
    assert USUAL == {mnemonic for _, mnemonic in found}


def test_an_instruction_cut_short_is_none() -> None:
    """At the end of the code SLEIGH makes up the missing bytes; the prover does not, nor does it keep what it made."""
    whole = bytes.fromhex("48c7c0ffffffff")
    cut = LIFTER.one(whole[:5], CODE, CODE)

    assert "it goes beyond the end of the code" == cut.unmodelled
    assert LIFTER.one(whole, CODE, CODE).unmodelled is None


@pytest.mark.parametrize("text", UNMODELLED)
def test_what_has_no_model_says_why(text: str) -> None:
    """An instruction whose effect is not wholly known is never evaluated."""
    instruction = LIFTER.one(bytes.fromhex(text), CODE, CODE)

    assert instruction.unmodelled is not None
    assert UNMODELLED[text] in instruction.unmodelled


def test_flags_that_the_processor_leaves_undefined() -> None:
    """They are lost: no proof can rest on what SLEIGH makes of them."""
    undefined = {
        text: LIFTER.one(bytes.fromhex(text), CODE, CODE).undefined for text in ("48c1e004", "480fafc1", "4801c8")
    }

    assert {"48c1e004": ("of", "cf"), "480fafc1": ("zf", "sf", "pf"), "4801c8": ()} == undefined
