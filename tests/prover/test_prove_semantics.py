"""Semantics agree: the p-code that the prover evaluates, unicorn, and, of x86-64, the processor that this runs on."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest

from properties.prover.agreement import CODE, Agreement
from properties.prover.architecture import Architecture
from properties.prover.arm64 import ARM64, INSTRUCTION_BYTES, MODELLED, USUAL
from properties.prover.lift import Lifter, lifter
from properties.prover.tools import disassembler
from properties.prover.x86_64 import X86_64
from tests.support.instruction_forms import ARM64_FORMS, FORMS, X86_64_FORMS, Forms, encodings
from tests.support.native_agreement import Evaluated, case, compared, difference
from tests.support.native_cpu import AT, Processor, unavailable

LIFTER = lifter(X86_64)

native = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))
each_architecture = pytest.mark.parametrize("forms", FORMS, ids=lambda forms: forms.architecture.name)


def mnemonic(code: bytes, architecture: Architecture) -> str:
    """What capstone calls an instruction; of arm64 without its condition."""
    found = next(disassembler(architecture).disasm_lite(code, CODE, 1), None)
    return str(found[2]).partition(".")[0] if found else ""


def agree(codes: Iterable[bytes], count: int, architecture: Architecture) -> tuple[int, int]:
    """How many encodings and states agree; each difference fails, and on arm64 each that could not be compared."""
    agreement = Agreement(architecture, lifter(architecture).registers)
    every = architecture is ARM64
    forms = states = 0
    wrong: list[str] = []
    for code in sorted(codes):
        instruction = lifter(architecture).one(code, CODE, CODE)
        if instruction.unmodelled:
            wrong += [f"{code.hex()}: {instruction.unmodelled}"] if every or "unicorn" in instruction.unmodelled else []
            continue
        compared, found = agreement.compared(instruction, code, count, seed=3)
        forms, states = forms + bool(compared), states + compared
        wrong += [f"{code.hex()}: {found}"] if found else []
        wrong += [f"{code.hex()}: is never within its memory"] if every and not compared else []

    assert [] == wrong
    return forms, states


@each_architecture
def test_p_code_and_unicorn_agree_on_other_forms(forms: Forms) -> None:
    """On some hundreds of forms that mutants and other generators may have, in states of any kind."""
    agreed, _ = agree(forms.others, 6, forms.architecture)

    assert agreed > {"x86-64": 200, "arm64": 120}[forms.architecture.name]


@pytest.mark.proof
@each_architecture
def test_p_code_and_unicorn_agree_on_what_occurs(forms: Forms) -> None:
    """On every encoding in the images of running kernels and our own; 20 random states each, 60 of the other forms."""
    occurring, states = agree(forms.occurring, 20, forms.architecture)
    others, more = agree(forms.others, 60, forms.architecture)
    print(f"{occurring} encodings in {states} states, {others} others in {more}")

    assert occurring > {"x86-64": 2_000, "arm64": 300}[forms.architecture.name]
    assert states > {"x86-64": 40_000, "arm64": 6_000}[forms.architecture.name]
    assert more > {"x86-64": 10_000, "arm64": 7_000}[forms.architecture.name]


@native
def test_p_code_and_this_processor_agree_on_other_forms() -> None:
    """The same forms, executed one at a time in a child process."""
    report = compared(X86_64_FORMS.others, 4)
    print(report)

    assert [] == report.wrong
    assert report.forms > 190


@native
@pytest.mark.proof
def test_p_code_and_this_processor_agree_on_what_occurs() -> None:
    """On every encoding that occurs, branches led to where they can be seen; 60 random states each."""
    report = compared(X86_64_FORMS.occurring | X86_64_FORMS.others, 60)
    print(report)

    assert [] == report.wrong
    assert report.forms > 900
    # A process has no segment like the kernel's; unicorn has, and there these are compared.
    assert report.left_out.total() - report.left_out["relative to a segment's base"] <= 10


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


@each_architecture
def test_an_instruction_means_the_same_elsewhere(forms: Forms) -> None:
    """What is kept of an instruction for other addresses is what lifting it there gives."""
    there = CODE + 0x123400
    kept, fresh = lifter(forms.architecture), Lifter(forms.architecture)
    for code in sorted(forms.others):
        kept.one(code, CODE, CODE)

        assert fresh.one(code, there, there) == kept.one(code, there, there)


@each_architecture
def test_the_usual_instructions_are_those_that_occur(forms: Forms) -> None:
    """What is believed without a look at each occurrence is what the images have, and is looked at by these tests."""
    found = {(code, mnemonic(code, forms.architecture)) for code in encodings(forms.images(), forms.architecture)}

    architecture = forms.architecture
    believed = {each for each in found if architecture.is_usual(*each) or architecture.effectless(*each)}

    assert found == believed
    assert forms.usual == {name for code, name in found if architecture.counting(code, 0) is None} | forms.besides


def test_an_instruction_cut_short_is_none() -> None:
    """At the end of the code SLEIGH makes up the missing bytes; the prover does not, nor does it keep what it made."""
    whole = bytes.fromhex("48c7c0ffffffff")
    cut = LIFTER.one(whole[:5], CODE, CODE)

    assert "it goes beyond the end of the code" == cut.unmodelled
    assert LIFTER.one(whole, CODE, CODE).unmodelled is None


WITHOUT_MODEL = [(forms, code) for forms in FORMS for code in forms.unmodelled]


@pytest.mark.parametrize(
    ("forms", "code"), WITHOUT_MODEL, ids=[f"{forms.architecture.name} {code.hex()}" for forms, code in WITHOUT_MODEL]
)
def test_what_has_no_model_says_why(forms: Forms, code: bytes) -> None:
    """An instruction whose effect is not wholly known is never evaluated."""
    instruction = lifter(forms.architecture).one(code, CODE, CODE)

    assert instruction.unmodelled is not None
    assert forms.unmodelled[code] in instruction.unmodelled


def test_flags_that_the_processor_leaves_undefined() -> None:
    """They are lost: no proof can rest on what SLEIGH makes of them."""
    undefined = {
        text: LIFTER.one(bytes.fromhex(text), CODE, CODE).undefined for text in ("48c1e004", "480fafc1", "4801c8")
    }

    assert {"48c1e004": ("of",), "480fafc1": ("zf", "sf", "pf"), "4801c8": ()} == undefined


@pytest.mark.parametrize(
    ("text", "flags"),
    [
        ("d1e0", ()),
        ("c1e001", ()),
        ("c1e000", ()),
        ("c1e021", ()),
        ("48c1e021", ("of",)),
        ("c1f81f", ("of",)),
        ("c0e008", ("of", "cf")),
        ("c0f808", ("of",)),
        ("66c1e810", ("of", "cf")),
        ("66c1e80f", ("of",)),
        ("d3e0", ("of",)),
        ("66d3e0", ("of", "cf")),
        ("d2f8", ("of",)),
        ("c1c801", ()),
        ("48d3c0", ("of",)),
        ("f7e1", ("zf", "sf", "pf")),
        ("480fa3c8", ("of", "sf", "pf")),
        ("f0480fbaad0000000005", ("of", "sf", "pf")),
        ("480fa4c805", ("of",)),
    ],
)
def test_what_a_shift_leaves_undefined_depends_on_its_count(text: str, flags: tuple[str, ...]) -> None:
    """Intel's manual, volume 2: OF but for a count of 1, and CF of shl and shr for counts that reach the width."""
    assert flags == LIFTER.one(bytes.fromhex(text), CODE, CODE).undefined


@pytest.mark.parametrize("count", [500, pytest.param(15_000, marks=pytest.mark.proof)])
def test_any_word_that_has_a_model_is_agreed_on(count: int) -> None:
    """Of random words, those that the prover would believe are the same to unicorn; the others say why not."""
    draw = random.Random(7)
    agreement = Agreement(ARM64, lifter(ARM64).registers)
    seen: Counter[str] = Counter()
    wrong: list[str] = []
    for _ in range(count):
        code = draw.getrandbits(32).to_bytes(INSTRUCTION_BYTES, "little")
        instruction = lifter(ARM64).one(code, CODE, CODE)
        if instruction.unmodelled:
            seen["no model"] += 1
            continue
        compared, found = agreement.compared(instruction, code, 8, seed=5)
        seen["agree" if compared else "not within its memory"] += 1
        seen["usual"] += mnemonic(code, ARM64) in USUAL
        wrong += [f"{code.hex()}: {found}"] if found else []
    print(dict(seen))

    assert [] == wrong
    assert 10 * seen["agree"] > count


def test_each_modelled_instruction_is_one() -> None:
    """The list of instructions with a model has none that these tests or images do not have."""
    assert USUAL <= MODELLED
    assert MODELLED - {mnemonic(code, ARM64) for code in ARM64_FORMS.others | ARM64_FORMS.occurring} <= ALIASES


# Other names of what is tested, which capstone prefers or not by their operands; and what p-code has wrong.
ALIASES = frozenset(
    (
        "adcs adrp asrv bfm bics cinc cinv cneg ldpsw ldurb ldurh ldursb ldursh ldursw lslv lsrv mneg movn movz ngc "
        "ngcs rorv sbc sbfiz sbfm smaddl smnegl smsubl sturb sturh subs ubfm umnegl umsubl umull"
    ).split()
)
