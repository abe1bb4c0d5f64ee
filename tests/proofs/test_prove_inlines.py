"""Helpers' code is proved by the helpers' contracts; together with trampolines, by what these promise to programs."""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import properties.proofs
from impl.batched.jit.inlines import HELPERS, SESSION_HELPERS, Inline, assembled, inline, offered
from properties.proofs.composition import Composed, composed
from properties.proofs.generated import generated
from properties.proofs.image_files import read_image
from properties.proofs.inlines import HelperCall, calls, image_of
from properties.prover.confirm import Emulation, confirm
from properties.prover.goal import Goal, Kind, Program
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.machine import NO_LOAD, NO_STALE, NO_STORE, STACK_POINTER
from properties.prover.operations import LiftedInstruction
from properties.prover.proving import prove
from properties.prover.verdicts import Counterexample, Verdict
from properties.prover.x86_64 import X86_64
from spec.errors import BadInputError
from spec.semantics import PRESETS
from tests.support.prove_images import Trampoline, goal_of, long, of_kinds, sized
from tests.support.verdicts import refuted

LINUX = ("linux-6.1", "linux-6.12", "linux-7.3")
IMAGES = sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))


@pytest.mark.parametrize("kernel", LINUX[1:])
def test_every_helper_of_every_kind(kernel: str) -> None:
    """By its contract, whatever is in the context and wherever the value goes; as a function, and within a program."""
    for code, call in calls(PRESETS[kernel], range(0, 13, 4)):
        function = call.slots % 8 == 0
        verdict = prove(image_of(code, function=function), replace(call, function=function))

        assert "proved" == verdict.outcome, (call, verdict)


@pytest.mark.proof
def test_every_helper_at_every_number_of_slots() -> None:
    """The same for contexts of 0 to 12 slots."""
    table = Table(title="helpers' code: proofs, and questions to z3", title_justify="left")
    for heading in ("helper", *(f"{kernel} {what}" for kernel in LINUX for what in ("proofs", "asked"))):
        table.add_column(heading)
    counts: Counter[tuple[str, str]] = Counter()
    for kernel in LINUX:
        for code, call in calls(PRESETS[kernel], range(13)):
            for function in (True, False):
                verdict = prove(image_of(code, function=function), replace(call, function=function))
                counts[call.helper, kernel] += 1
                counts[call.helper, f"{kernel} asked"] += verdict.figures.asked

                assert "proved" == verdict.outcome, call
    for helper in HELPERS:
        row = (str(counts[helper, key]) for kernel in LINUX for key in (kernel, f"{kernel} asked"))
        table.add_row(helper, *row)
    Console(width=160).print(table)

    assert 1_664 == sum(count for (_, key), count in counts.items() if key in LINUX)


@pytest.mark.proof
def test_z3_alone_proves_the_helpers() -> None:
    """Deciding every obligation by itself, it says the same as the identity of terms."""
    for code, call in calls(PRESETS["linux-7.3"], range(0, 13, 6)):
        verdict = prove(image_of(code), call, thorough=True)

        assert ("proved", 0) == (verdict.outcome, verdict.figures.plain), call


def test_a_region_may_begin_where_the_stack_ends() -> None:
    """After the return the stack pointer is where `*value` is; it has not left the frame for all that."""
    code = inline("bpf_get_func_ret", PRESETS["linux-7.3"], "fexit")
    changed = replace(code, statements=tuple("nop" if "mov [rsi]" in one else one for one in code.statements))
    top = 0xFFFF888000108000
    values = {"rsp": top, "rsi": top + 8, "ctx[3]": 1, "*value": 2}
    executed = confirm(image_of(changed), HelperCall("bpf_get_func_ret", "fexit", 3), X86_64, {}, values)

    assert isinstance(executed, Counterexample), executed
    assert "*value is the word asked for, or what it was" == executed.obligation


@pytest.mark.parametrize("kernel", LINUX)
def test_an_index_of_more_than_32_bits(kernel: str) -> None:
    """The inlined bpf_get_func_arg() compares 32 bits of the index and uses 64; the function casts it, as C has it.

    So a program that passes more than a u32 reads outside its context, and no verifier sees it.
    """
    call = HelperCall("bpf_get_func_arg", "fexit", 3, PRESETS[kernel].fsession, index_bits=64)
    verdict = prove(image_of(inline(call.helper, PRESETS[kernel], call.kind)), call)

    assert NO_LOAD == refuted(verdict)
    assert verdict.counterexample is not None
    index = verdict.counterexample.values[X86_64.convention.arguments[1]]
    assert index % (1 << 32) < 3 <= index


def test_the_count_must_be_masked_where_there_are_sessions() -> None:
    """What 6.12's verifier makes is wrong for ctx[-1] as it is since sessions exist; 7.3's is right for both."""
    old, new = (inline("bpf_get_func_arg_cnt", PRESETS[kernel], "fexit") for kernel in ("linux-6.12", "linux-7.3"))
    call = HelperCall("bpf_get_func_arg_cnt", "fexit", 3, metadata=True)

    assert "the result is the number of slots" == refuted(prove(image_of(old), call))
    assert "proved" == prove(image_of(new), call).outcome
    assert "proved" == prove(image_of(new), replace(call, metadata=False)).outcome


EINVAL, EOPNOTSUPP = "mov rax, -0x16", "mov rax, -0x5f"
ARG, CNT, RET = "bpf_get_func_arg", "bpf_get_func_arg_cnt", "bpf_get_func_ret"
IP, COOKIE = "bpf_get_func_ip", "bpf_get_attach_cookie"
IS_RETURN, SESSION_COOKIE = SESSION_HELPERS
BEYOND = "the result is 0, or -EINVAL from the number of slots on"
NO_SLOT = "the result is 0, or -EOPNOTSUPP where there is no return slot"
STORED = "*value is the word asked for, or what it was"

# (helper, kind, statement, what stands in its place, the obligation that must fall)
BROKEN: tuple[tuple[str, Kind, str, str, str], ...] = (
    (IP, "fentry", "mov rax, [rdi - 0x10]", "mov rax, [rdi - 8]", "the result is ctx[-2]"),
    (IP, "fentry", "mov rax, [rdi - 0x10]", "mov eax, [rdi - 0x10]", "the result is ctx[-2]"),
    (IP, "fentry", "mov rax, [rdi - 0x10]", "mov rax, [rdi - 0x18]", NO_LOAD),
    (CNT, "fentry", "mov rax, [rdi - 8]", "mov rax, [rdi - 0x10]", NO_LOAD),
    (CNT, "fentry", "mov rax, [rdi - 8]", "mov rax, [rdi]", "the result is the number of slots"),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0x7f", ""),
    (CNT, "fentry", "and rax, 0xff", "and rax, 7", "the result is the number of slots"),
    (CNT, "fentry", "and rax, 0xff", "nop", "the result is the number of slots"),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; mov ebx, eax", "rbx is preserved"),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; std", "df is clear"),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; add rsp, 8", NO_LOAD),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; mov [rdi], rax", NO_STORE),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; sub rsp, 8; pop rcx", NO_STALE),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; ret 8", STACK_POINTER),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; push rax; ret", "it returns to its caller"),
    (CNT, "fentry", "and rax, 0xff", "and rax, 0xff; mov rcx, [rsp]; push rcx; ret", "rsp is restored"),
    (ARG, "fexit", "cmp esi, eax", "cmp eax, esi", NO_LOAD),
    (ARG, "fexit", "cmp esi, eax", "cmp rsi, rax", ""),
    (ARG, "fexit", "cmp esi, eax", "cmp sil, al", NO_LOAD),
    (ARG, "fexit", "jae beyond", "ja beyond", BEYOND),
    (ARG, "fexit", "jae beyond", "jge beyond", NO_LOAD),
    (ARG, "fentry", "jae beyond", "ja beyond", NO_LOAD),
    (ARG, "fexit", "jae beyond", "nop", NO_LOAD),
    (ARG, "fexit", "shl rsi, 3", "shl rsi, 2", STORED),
    (ARG, "fexit", "shl rsi, 3", "shl rsi, 4", NO_LOAD),
    (ARG, "fexit", "add rsi, rdi", "add rsi, rdx", NO_LOAD),
    (ARG, "fexit", "mov rax, [rsi]", "mov rax, [rsi - 8]", STORED),
    (ARG, "fexit", "mov rax, [rsi]", "mov eax, [rsi]", STORED),
    (ARG, "fexit", "mov [rdx], rax", "mov [rdx], eax", STORED),
    (ARG, "fexit", "mov [rdx], rax", "mov [rdx + 8], rax", NO_STORE),
    (ARG, "fexit", "mov [rdx], rax", "mov [rsi], rax", NO_STORE),
    (ARG, "fexit", "mov [rdx], rax", "mov rax, [rdx]", NO_LOAD),
    (ARG, "fexit", "xor eax, eax", "nop", BEYOND),
    (ARG, "fexit", "xor eax, eax", "mov [rdx], eax; xor eax, eax", ""),
    (ARG, "fexit", "xor eax, eax", "xor eax, eax; mov [rdx], eax", STORED),
    (ARG, "fexit", "jmp done", "nop", BEYOND),
    (ARG, "fexit", f"beyond: {EINVAL}", "beyond: mov rax, -0x5f", BEYOND),
    (ARG, "fexit", f"beyond: {EINVAL}", "beyond: mov eax, -0x16", BEYOND),
    (ARG, "fexit", f"beyond: {EINVAL}", f"beyond: {EINVAL}; mov qword ptr [rdx], 0", STORED),
    (RET, "fentry", EOPNOTSUPP, EINVAL, NO_SLOT),
    (RET, "fentry", EOPNOTSUPP, "xor eax, eax", NO_SLOT),
    (RET, "fentry", EOPNOTSUPP, f"{EOPNOTSUPP}; mov qword ptr [rsi], 0", STORED),
    (RET, "fexit", "and rax, 0xff", "nop", NO_LOAD),
    (RET, "fexit", "shl rax, 3", "shl rax, 2", STORED),
    (RET, "fexit", "add rax, rdi", "lea rax, [rax + rdi + 8]", NO_LOAD),
    (RET, "fexit", "add rax, rdi", "lea rax, [rax + rdi - 8]", STORED),
    (RET, "fexit", "mov [rsi], rdx", "mov [rsi], edx", STORED),
    (RET, "fexit", "mov [rsi], rdx", "nop", STORED),
    (RET, "fexit", "mov [rsi], rdx", "mov [rax], rdx", NO_STORE),
    (RET, "fexit", "xor eax, eax", "mov eax, 1", NO_SLOT),
    (RET, "fmod_ret", "xor eax, eax", EOPNOTSUPP, NO_SLOT),
    (COOKIE, "fentry", "mov rax, [rax]", "mov eax, [rax]", NO_LOAD),
    (COOKIE, "fentry", "mov rax, [rax]", "mov rax, [rax + 8]", NO_LOAD),
    (COOKIE, "fentry", "mov rax, [rax]", "nop", "the result is the run context's cookie"),
    (IS_RETURN, "fsession", "shr rax, 0x3f", "shr rax, 0x3e", "the result is whether this is the return"),
    (IS_RETURN, "fsession", "shr rax, 0x3f", "sar rax, 0x3f", ""),
    (IS_RETURN, "fsession", "and rax, 1", "nop", ""),
    (IS_RETURN, "fsession", "and rax, 1", "not rax; and rax, 1", "the result is whether this is the return"),
    (SESSION_COOKIE, "fsession", "shr rax, 8", "shr rax, 0x10", "the result is where ctx[-1] says the cookie is"),
    (SESSION_COOKIE, "fsession", "and rax, 0xff", "nop", "the result is where ctx[-1] says the cookie is"),
    (SESSION_COOKIE, "fsession", "shl rax, 3", "shl rax, 2", "the result is where ctx[-1] says the cookie is"),
    (SESSION_COOKIE, "fsession", "neg rax", "not rax", "the result is where ctx[-1] says the cookie is"),
    (SESSION_COOKIE, "fsession", "neg rax", "nop", "the result is where ctx[-1] says the cookie is"),
)


@pytest.mark.parametrize("case", BROKEN, ids=lambda case: " ".join(case[:4]))
def test_each_obligation_of_a_contract_can_fall(case: tuple[str, Kind, str, str, str]) -> None:
    """With another statement the obligation is refuted, and broken in execution; without a name, nothing changes."""
    helper, kind, statement, instead, obligation = case
    code = inline(helper, PRESETS["linux-7.3"], kind)
    assert statement in code.statements
    place = code.statements.index(statement)
    changed = replace(code, statements=(*code.statements[:place], instead, *code.statements[place + 1 :]))
    verdicts = [prove(image_of(changed), HelperCall(helper, kind, slots, metadata=True)) for slots in (3, 12, 0)]
    fallen = [refuted(verdict) for verdict in verdicts if verdict.outcome != "proved"]

    assert [obligation][: len(obligation)] == fallen[:1]


def test_of_every_obligation_of_a_contract_there_is_one_that_falls() -> None:
    """What these proofs name, registers aside, is refuted by some statement."""
    named = {
        re.sub(r"^r[a-z0-9]+ is preserved", "a register is preserved", name)
        for code, call in calls(PRESETS["linux-7.3"], range(3, 4))
        for name in prove(image_of(code), call).obligations
    }
    fallen = {re.sub(r"^r[a-z0-9]+ is preserved", "a register is preserved", case[4]) for case in BROKEN}

    assert set() == named - fallen


def byte_mutants(code: Inline, call: HelperCall) -> Iterator[tuple[Image, Verdict]]:
    """Each bit of the code, turned over."""
    original = image_of(code, function=call.function)
    for bit in range(8 * original.used):
        changed = bytearray(original.code)
        changed[bit // 8] ^= 1 << bit % 8
        image = replace(original, code=bytes(changed))
        yield image, prove(image, call)


def operations(image: Image) -> list[LiftedInstruction]:
    """What the code does, whatever its encoding; unicorn refuses some encodings that SLEIGH and processors know."""
    return list(lifter(X86_64).sweep(image.code, image.address, image.used).values())


def results(image: Image, call: HelperCall, seed: int) -> list[object]:
    """What one execution leaves, with random values of all that is unknown, or the obligation that it breaks."""
    draw = random.Random(seed)
    index = draw.choice((0, 1, call.slots - 1, call.slots, 1 << 31, (1 << 32) - 1, draw.getrandbits(32)))
    execution = Emulation(
        image, call, X86_64, {}, {X86_64.convention.arguments[1]: index} if call.helper == ARG else {}
    )
    execution.run()
    out = call.out()
    stored = execution.word(execution.symbol(X86_64.convention.arguments[out], 64)) if out is not None else None
    return [execution.register(X86_64.convention.results[0]), stored]


@pytest.mark.proof
def test_each_bit_of_a_helpers_code() -> None:
    """Turned over, each is refuted by an execution, or proved, and then executions show what those of the code show."""
    table = Table(title="helpers' code with a bit turned over", title_justify="left")
    for heading in ("helper", "bits", "refuted", "proved", "undecided", "not confirmed"):
        table.add_column(heading)
    total: Counter[str] = Counter()
    for helper in HELPERS:
        kind: Kind = "fsession" if helper in SESSION_HELPERS else "fexit"
        code, call = inline(helper, PRESETS["linux-7.3"], kind), HelperCall(helper, kind, 3, metadata=True)
        counts: Counter[str] = Counter()
        for image, verdict in byte_mutants(code, call):
            confirmed = "a bug of the prover" not in str(verdict.reason)
            counts[verdict.outcome if confirmed else "not confirmed"] += 1
            if verdict.outcome == "proved" and operations(image) != operations(image_of(code)):
                for seed in range(8):
                    assert results(image_of(code), call, seed) == results(image, call, seed)
        outcomes = ("refuted", "proved", "undecided", "not confirmed")
        table.add_row(helper, *map(str, (counts.total(), *(counts[outcome] for outcome in outcomes))))
        total += counts
    Console(width=160).print(table)

    # Refused for a flag that a shift may leave undefined, or an encoding that only unicorn refuses.
    assert 100 * total["not confirmed"] <= total["refuted"]
    assert 80 * total.total() <= 100 * total["refuted"]
    # REX prefixes that mean nothing to the processor, and instructions that have no model.
    assert total["undecided"] <= 12


def test_the_code_executed_breaks_nothing() -> None:
    """Emulated, with random values, every helper meets its contract; the contract is the same code on numbers."""
    for code, call in calls(PRESETS["linux-7.3"], range(0, 13, 12)):
        for seed in range(3):
            results(image_of(code), call, seed)


SESSION = Program("fsession", 0, session_cookie=True)
WHOLE = goal_of(long(8), *of_kinds("fentry", "fmod_ret", "fexit", "lsm", cookies=True), SESSION, func_ip=True)


def questions(goal: Goal, kernel: str) -> Iterator[Composed]:
    """Every program of a goal asks every helper that it may; arguments at both ends and beyond."""
    slots = len(goal.prototype.slots)
    for place, program in enumerate(goal.programs):
        for helper in HELPERS:
            if not offered(helper, PRESETS[kernel], program.kind) or (helper == IP and not goal.func_ip):
                continue
            for index in sorted({0, slots - 1, slots, 1 << 31} - {-1}) if helper == ARG else (0,):
                yield Composed(goal, place, helper, index)


@pytest.mark.parametrize("goal", [WHOLE, goal_of(sized([1, 16, 2, 12, 4], 4), *of_kinds("fexit", "fsession"))])
def test_what_a_trampoline_promises_is_what_helpers_tell(goal: Goal) -> None:
    """Each program of an image asks each helper: the answers are those that the image's goal tells, on every path."""
    image = Trampoline(goal).image()
    for asks in questions(goal, "linux-7.3"):
        verdict = prove(composed(image, asks, PRESETS["linux-7.3"]), asks)

        assert "proved" == verdict.outcome, (asks.helper, verdict)
        assert any(name.endswith(f"{asks.helper} stores what is promised") for name in verdict.obligations)


@pytest.mark.parametrize("form", ["shared", "generic", "orig_stack"])
def test_what_generated_images_promise_is_what_helpers_tell(form: str) -> None:
    """The same of the generator's images, be they for one function, for several, or for every arity."""
    image, goal = generated(
        long(6), (SESSION, *of_kinds("fexit", "fmod_ret", cookies=True)), func_ip=True, **{form: True}
    )
    for asks in questions(goal, "linux-7.3"):
        verdict = prove(composed(image, asks, PRESETS["linux-7.3"]), asks)

        assert "proved" == verdict.outcome, (asks.helper, verdict)


def test_helpers_of_another_kernel_are_refuted_by_a_trampoline() -> None:
    """In an image with sessions 6.12's code takes all of ctx[-1] for the number of slots: the answer is wrong."""
    goal = goal_of(long(2), SESSION, *of_kinds("fexit"))
    asks = Composed(goal, 1, CNT)
    verdict = prove(composed(Trampoline(goal).image(), asks, PRESETS["linux-6.12"]), asks)

    assert "fexit 1: bpf_get_func_arg_cnt returns what is promised" == refuted(verdict)


@pytest.mark.proof
def test_what_real_images_promise_is_what_helpers_tell() -> None:
    """The same of the images of running kernels, with that kernel's code of the helpers."""
    counts: Counter[tuple[str, str]] = Counter()
    for path in IMAGES:
        kernel = next(name for name in LINUX[::-1] if path.name.startswith(name + "."))
        dump = read_image(path)
        possible = list(questions(dump.goal, kernel))
        for asks in random.Random(path.name).sample(possible, min(len(possible), 8)):
            verdict = prove(composed(dump.image, asks, PRESETS[kernel]), asks)
            counts[kernel, asks.helper] += 1

            assert "proved" == verdict.outcome, (path.name, asks.helper, asks.index, verdict)
    for (kernel, helper), count in sorted(counts.items()):
        print(f"{kernel} {helper}: {count} proved")

    assert counts.total() > 400


@pytest.mark.parametrize(
    ("helper", "kind", "text"),
    [
        ("bpf_get_prandom_u32", "fentry", "'bpf_get_prandom_u32' is no helper of the context"),
        (SESSION_COOKIE, "fexit", "linux-7.3 does not offer bpf_session_cookie to fexit programs"),
        (IP, "lsm", "linux-7.3 does not offer bpf_get_func_ip to lsm programs"),
    ],
)
def test_helpers_that_a_program_has_not(helper: str, kind: Kind, text: str) -> None:
    """They are named in one sentence."""
    with pytest.raises(BadInputError, match=text):
        inline(helper, PRESETS["linux-7.3"], kind)


def test_the_task_must_be_known_for_its_cookie() -> None:
    """bpf_get_attach_cookie() is not inlined: it reads the task's pointer to the run context, wherever that is."""
    with pytest.raises(BadInputError, match="bpf_get_attach_cookie needs the address of bpf_ctx"):
        assembled(inline(COOKIE, PRESETS["linux-6.12"], "fentry"))
