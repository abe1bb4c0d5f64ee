"""The prover under attack: what an executor that shares nothing with it calls wrong is never proved.

`tests/support/prover_cases` has an image for each kind of wrong verdict that was found once; here are their brothers
too, and mutants: some by default, a hundred thousand with `tox -e proof -- --attack`.
"""

from __future__ import annotations

import json
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import pytest
from rich.console import Console
from rich.table import Table

import properties.proofs
from properties.proofs.image_files import parse_image
from properties.proofs.judging import judge, variants
from properties.prover.architecture import Architecture
from properties.prover.arm64 import ARM64
from properties.prover.goal import Goal, Program
from properties.prover.image import Image
from properties.prover.lift import lifter
from properties.prover.operations import OpKind
from properties.prover.proving import prove
from properties.prover.verdicts import Verdict
from properties.prover.x86_64 import X86_64
from spec.abi import AAPCS64, SYSTEM_V, Convention
from spec.images import ImageFile, parse_image_file, print_image_file, read_image_file
from spec.prototypes import Prototype, Type
from tests.support import prover_cases
from tests.support.arm64_images import image_of
from tests.support.independent import violation
from tests.support.native_agreement import compared
from tests.support.native_cpu import unavailable
from tests.support.prove_images import (
    Instruction,
    Trampoline,
    file_of,
    find,
    goal_of,
    long,
    of_kinds,
)
from tests.support.verdicts import pattern

native = pytest.mark.skipif(unavailable() is not None, reason=str(unavailable()))

CASES = Path(prover_cases.__file__).parent
# The executor has no area of a processor's own, in which some kernels count calls.
IMAGES = [
    path
    for path in sorted(Path(properties.proofs.__file__).parent.glob("images/*.json"))
    if not path.stem.endswith("stuffing")
]
SEEDS = range(8)
CHUNK = 250

# What a proof says of each case; of a refuted one the obligation.
EXPECTED = {
    "wrong-proved-01-redzone-8-bytes-in-place": "refuted: fexit 1: ctx[0] is written",
    "wrong-proved-03-undefined-flag": "refuted: no instruction faults",
    "wrong-proved-05-invd-2-bytes": "undecided: the instruction at +0xee: invd is not among the instructions",
    "wrong-proved-08-flags16-none-sleepable": "refuted: some program is entered as one that may sleep",
    "wrong-proved-10-int128-behind-seven-words": "refuted: fentry 1: ctx[7] is argument 7",
    "wrong-proved-12-ctx-word-half-stale-stack-1-byte": "refuted: fentry 1: ctx[3] is written",
    "wrong-refuted-01-return-thunk": "",
    "bomb-mul60-9GB": "undecided: what z3 would be asked is too large",
    "crash-assert-in-fork": "",
    "slow-4000-nops": "refuted: the image is left within 4066 instructions",
}


@pytest.mark.parametrize("name", EXPECTED)
def test_what_was_wrong_once(name: str) -> None:
    """Each case has the verdict that it should have; an empty one is proved."""
    told = judge((CASES / f"{name}.json").read_text(), name).told

    assert told.startswith(EXPECTED[name])
    assert bool(told) is bool(EXPECTED[name])


def test_no_case_is_left_out() -> None:
    """Every file in the folder has its verdict here."""
    assert {path.stem for path in CASES.glob("*.json")} == set(EXPECTED)


@pytest.mark.parametrize("path", IMAGES[::9], ids=lambda path: path.stem)
def test_the_executor_finds_nothing_wrong_with_real_images(path: Path) -> None:
    """What kernels have built does what the executor, too, expects."""
    file = read_image_file(path)

    assert "" == violation(file, code_of(file), SEEDS)


def code_of(file: ImageFile) -> bytes:
    """The bytes of the image itself."""
    return bytes(file.image_hex[: file.used_bytes])


# Brothers: members of a kind, each judged by the prover and by the executor, or by a rule of its own.


@dataclass(frozen=True)
class Member:
    """An image of a kind. must: what the verdict must be, if a rule says so; of others the executor decides."""

    name: str
    image: Image
    goal: Goal
    must: str = ""
    architecture: Architecture = X86_64

    def verdict(self) -> Verdict:
        """The prover's."""
        return prove(self.image, self.goal, architecture=self.architecture)

    def wrong(self) -> str:
        """What the executor says."""
        text = file_of(self.goal, self.image)
        return violation(parse_image_file(text, "x"), self.image.code[: self.image.used], SEEDS)


def inserted(goal: Goal, place: int, code: str) -> Image:
    """An image with more instructions before one of its own; they are those of whom jumps to it."""

    def edit(instructions: list[Instruction]) -> None:
        instructions.insert(place, Instruction(bytes.fromhex(code), None, instructions[place].label))
        instructions[place + 1].label = None

    return Trampoline(goal).image(edit)


EVERY = goal_of(long(8), *of_kinds("fentry", "fmod_ret", "fexit"))
SMALL = goal_of(long(2), *of_kinds("fentry"))

# Each raises rsp, by up to the frame, and lowers it to where it was; r11 is nobody's there.
RAISED = {
    "lea rsp, [rbp]": "4c8d1c24488d65004c89dc",
    "lea rsp, [rsp + 8]; lea rsp, [rsp - 8]": "488d642408488d6424f8",
    "lea rsp, [rsp + 0x20]; lea rsp, [rsp - 0x20]": "488d642420488d6424e0",
    "add rsp, 8; sub rsp, 8": "4883c4084883ec08",
    "sub rsp, -0x18; add rsp, -0x18": "4883ece84883c4e8",
    "pop r11; push r11": "415b4153",
    "pop r11; push rax": "415b50",
    "pop r11; pop r11; lea rsp, [rsp - 0x10]": "415b415b488d6424f0",
    "mov r11, rsp; mov rsp, rbp; mov rsp, r11": "4989e34889ec4c89dc",
    "mov r11, rsp; xchg r11, rsp; add rsp, 16; sub rsp, 16": "4989e34987e34883c4104883ec10",
    "mov r11, rsp; leave; push rbp; mov rbp, rsp; mov rsp, r11": "4989e3c9554889e54c89dc",
    "sub rsp, 8; add rsp, 8": "4883ec084883c408",
    "push rax; pop r11": "50415b",
    "inc rsp; dec rsp": "48ffc448ffcc",
    "adc rsp, 8; and so back": "f84883d408f84883dc08",
    "lea r11, [rsp + 8]; mov rsp, r11; lea rsp, [rsp - 8]": "4c8d5c24084c89dc488d6424f8",
    "enter 0, 0; leave": "c8000000c9",
    "ret to the next": "e800000000415b",
}


def stacks() -> Iterator[Member]:
    """Every way to raise and lower rsp, before each instruction behind the prologue."""
    for goal in (SMALL, EVERY):
        made = Trampoline(goal).code
        for place in range(3, find(made, "c9")):
            for name, code in RAISED.items():
                yield Member(f"{name} at {place}", inserted(goal, place, code), goal)


SETTERS = {
    "mul rcx": ("48f7e1", "zf sf pf"),
    "mul ecx": ("f7e1", "zf sf pf"),
    "imul rcx": ("48f7e9", "zf sf pf"),
    "imul rax, rcx": ("480fafc1", "zf sf pf"),
    "imul rax, rcx, 7": ("486bc107", "zf sf pf"),
    "imul eax, ecx, 0x201": ("69c101020000", "zf sf pf"),
    "shl rax, 4": ("48c1e004", "of"),
    "shr eax, 31": ("c1e81f", "of"),
    "sar rax, 3": ("48c1f803", "of"),
    "shl rax, cl": ("48d3e0", "of"),
    "shl al, 9": ("c0e009", "of cf"),
    "shr ax, 17": ("66c1e811", "of cf"),
    "rol rax, 7": ("48c1c007", "of"),
    "ror rax, 7": ("48c1c807", "of"),
    "rcl rax, 7": ("48c1d007", "of"),
    "rcr rax, 7": ("48c1d807", "of"),
    "shld rax, rcx, 5": ("480fa4c805", "of"),
    "shrd rax, rcx, 5": ("480facc805", "of"),
    "bt rax, rcx": ("480fa3c8", "of sf pf"),
    "bts rax, 5": ("480fbae805", "of sf pf"),
    "btr rax, 5": ("480fbaf005", "of sf pf"),
    "btc rax, rcx": ("480fbbc8", "of sf pf"),
    "bsf rax, rcx": ("480fbcc1", "of sf pf cf"),
    "bsr rax, rcx": ("480fbdc1", "of sf pf cf"),
    "tzcnt rax, rcx": ("f3480fbcc1", "of sf pf"),
    "lzcnt rax, rcx": ("f3480fbdc1", "of sf pf"),
    "div rcx": ("48f7f1", "of sf zf pf cf"),
    "idiv rcx": ("48f7f9", "of sf zf pf cf"),
}
"""Intel's manual, volume 2: flags that instructions leave undefined."""

CONDITIONS = {"of": (0x0, 0x1), "cf": (0x2, 0x3), "zf": (0x4, 0x5, 0x6, 0x7, 0xE, 0xF)} | {
    "sf": (0x8, 0x9, 0xC, 0xD),
    "pf": (0xA, 0xB),
}
"""By flag, the conditions of set, cmov and j that read it."""

START = "4831c031d2b103"
"""xor rax, rax; xor edx, edx; mov cl, 3: the same to both setters."""


def readers(flag: str) -> Iterator[tuple[str, str, str]]:
    """Ways to read a flag twice into r10 and r11: a name, and the code behind the first setter and the second."""
    for condition in CONDITIONS[flag]:
        yield f"set{condition:x}", f"410f{0x90 + condition:02x}c2", f"410f{0x90 + condition:02x}c3"
        moved = f"0f{0x40 + condition:02x}"
        yield f"cmov{condition:x}", f"41ba00000000bf0100000044{moved}d7", f"41bb00000000bf0100000044{moved}df"
        jump = f"{0x70 + condition:02x}06"
        yield f"j{condition:x}", f"41ba00000000{jump}41ba01000000", f"41bb00000000{jump}41bb01000000"
    if flag == "cf":
        yield "adc", "41ba000000004183d200", "41bb000000004183d300"
        yield "sbb", "4519d2", "4519db"
        yield "rcl", "41ba0000000041d1d2", "41bb0000000041d1d3"
    yield "lahf", "9f4188e2", "9f4188e3"
    yield "pushf", "9c415a", "9c415b"


def undefined_flags() -> Iterator[Member]:
    """Each instruction that leaves a flag undefined, and each reader of it: two readings need not be the same."""
    place = find(Trampoline(SMALL).code, "c9") - 2
    for (setter, (code, flags)), compare in product(SETTERS.items(), ("4538da7401cc", "4d39da7401cc")):
        for flag in flags.split():
            for reader, first, second in readers(flag):
                clear = "4d31d24d31db"
                snippet = f"{clear}{START}{code}{first}{START}{code}{second}{compare}"
                yield Member(f"{setter}; {reader}", inserted(SMALL, place, snippet), SMALL, "not proved")


PREFIXES = (
    "",
    "66",
    "f2",
    "f3",
    "2e",
    "3e",
    "64",
    "67",
    "f0",
    "40",
    "41",
    "48",
    "4f",
    "6648",
    "f348",
    "4066",
    "4840",
    "2e66",
)
MODRMS = (*range(0x00, 0x40, 8), *range(0xC0, 0x100, 8), 0xC1, 0x45)
ALLOWED = ("90", "6690", "f390", "f30f1efa", "0faee8", "0faef0", "0faef8")


def encodings() -> Iterator[bytes]:
    """The first bytes of instructions: prefixes, opcodes of the first three maps, and ModRM."""
    for prefix in map(bytes.fromhex, PREFIXES):
        for opcode in (*(bytes([one]) for one in range(256)), *(bytes([0x0F, one]) for one in range(256))):
            for modrm in MODRMS:
                yield prefix + opcode + bytes([modrm]) + bytes(12)
        for map_, opcode, modrm in product((0x38, 0x3A), range(256), (0x00, 0xC1)):
            yield prefix + bytes([0x0F, map_, opcode, modrm]) + bytes(11)


@pytest.mark.parametrize("count", [1_500, pytest.param(0, marks=pytest.mark.proof)])
def test_only_what_is_allowed_has_no_effect(count: int) -> None:
    """Of forms with up to two prefixes, those that the prover takes for no effect are on its list."""
    forms = list(encodings())
    chosen = random.Random(5).sample(forms, count) if count else forms
    known, seen, judged = lifter(X86_64), set[str](), len(chosen)
    for code in [*chosen, *(bytes.fromhex(text) + bytes(12) for text in ALLOWED)]:
        instruction = known.one(code, 0xFFFFFFFFC0100000, 0xFFFFFFFFC0100000)
        if instruction.unmodelled is None and all(op[0] is OpKind.NOTHING for op in instruction.ops):
            seen.add(code[: instruction.size].hex())
    nops = {text for text in seen if text.removeprefix("2e").lstrip("6").startswith("0f1f")}
    print(f"{judged:,} forms; without effect: {len(nops)} of nop r/m, {sorted(seen - nops)}")

    assert seen - nops == set(ALLOWED)
    assert all(int(text.rpartition("0f1f")[2][:2], 16) >> 3 & 7 == 0 for text in nops)


@native
@pytest.mark.proof
def test_what_is_believed_is_what_this_processor_does() -> None:
    """Of these forms SLEIGH, capstone, unicorn and the processor agree on those that the prover believes."""
    known, believed = lifter(X86_64), set[bytes]()
    reasons: Counter[str] = Counter()
    for code in random.Random(9).sample(list(encodings()), 20_000):
        instruction = known.one(code, 0xFFFFFFFFC0100000, 0xFFFFFFFFC0100000)
        if instruction.unmodelled is None:
            believed.add(code[: instruction.size])
        else:
            reasons[
                re.sub(r"(differ): .*|^\S+ (is not among)|the (p-code )?operation \S+", r"\1\2", instruction.unmodelled)
            ] += 1
    report = compared(believed, 4)
    print(report)
    print("\n".join(f"{count:6,} forms undecided: {reason}" for reason, count in reasons.most_common(12)))

    assert [] == report.wrong
    assert report.forms > 2_500


# What is of one form only in a reason.
NAMES = re.compile(r"(differ): .*|^\S+ (is not among)|the (?:p-code )?operation \S+")


def sleepers() -> Iterator[Member]:
    """Every subset of programs that may sleep: the file says only that some do, or tells it of each program."""
    kinds = ("fentry", "fmod_ret", "fexit", "lsm")
    for subset in product((False, True), repeat=len(kinds)):
        programs = tuple(Program(kind, 0, sleepable=sleeps) for kind, sleeps in zip(kinds, subset, strict=True))
        told = goal_of(long(1), *programs)
        image = Trampoline(told).image()
        open_ = replace(told, programs=tuple(replace(one, sleepable=None) for one in told.programs), some_sleep=True)
        yield Member(f"{subset}", image, open_, "proved" if any(subset) else "refuted")
        for other in product((False, True), repeat=len(kinds)):
            pairs = zip(told.programs, other, strict=True)
            wanted = replace(told, programs=tuple(replace(one, sleepable=sleeps) for one, sleeps in pairs))
            yield Member(f"{subset} told as {other}", image, wanted, "proved" if other == subset else "refuted")


def parts() -> Iterator[Member]:
    """Every store of the prologue and of results, in every part, alone and with its other half."""
    for goal in (SMALL, EVERY, goal_of(long(7), *of_kinds("fsession", "fexit", cookies=True), func_ip=True)):
        made = Trampoline(goal).code
        for place, instruction in enumerate(made):
            store = instruction.code
            if len(store) != 7 or store[1] != 0x89 or store[2] & 0xC0 != 0x80 or store[2] & 7 != 5:
                continue
            rest, low = store[2:3], int.from_bytes(store[3:], "little", signed=True)
            rex = store[0] & 0x4 | 0x40
            for name, pieces in PARTS.items():
                code = b"".join(
                    prefix + bytes([rex, opcode]) + rest + (low + at).to_bytes(4, "little", signed=True)
                    for prefix, opcode, at in pieces
                )
                yield Member(f"{name} of store {place}", replaced(goal, place, code), goal)


PARTS: Mapping[str, tuple[tuple[bytes, int, int], ...]] = {
    "no byte": (),
    "one byte": ((b"", 0x88, 0),),
    "two bytes": ((b"\x66", 0x89, 0),),
    "four bytes": ((b"", 0x89, 0),),
    "four bytes, the upper": ((b"", 0x89, 4),),
    "four bytes twice": ((b"", 0x89, 0), (b"", 0x89, 0)),
    "four bytes and again, one less": ((b"", 0x89, 3), (b"", 0x89, 0)),
    "four bytes and the others": ((b"", 0x89, 4), (b"", 0x89, 0)),
    "four bytes and a byte": ((b"", 0x89, 0), (b"", 0x88, 7)),
}


def replaced(goal: Goal, place: int, code: bytes) -> Image:
    """An image with other code in the place of one instruction."""

    def edit(instructions: list[Instruction]) -> None:
        instructions[place].code = code

    return Trampoline(goal).image(edit)


MOST_SLOTS = 12
WIDE = Type("__int128", "INT", 16)
PLACED = {"aligned struct": Type("struct wide", "STRUCT", 16, 16), "__int128": WIDE}


def alignments() -> Iterator[Member]:
    """An argument of 16 bytes at every place of up to twelve, in images that lay out words as Linux does, by sizes."""
    for name, prototype, same, kind in aligned(SYSTEM_V):
        goal = goal_of(prototype, *of_kinds(kind))
        yield Member(f"{name}, {kind}", Trampoline(goal).image(), goal, must(same))
    for name, prototype, same, kind in aligned(AAPCS64):
        if len(prototype.slots) > MOST_SLOTS:
            continue
        image, goal = image_of(prototype, kind)
        yield Member(f"arm64: {name}, {kind}", image, goal, must(same), ARM64)


def aligned(convention: Convention) -> Iterator[tuple[str, Prototype, bool, str]]:
    """Prototypes, and whether alignment leaves all words where sizes alone put them."""
    word = Type("long", "INT", 8)
    for (name, wide), count in product(PLACED.items(), range(1, 13)):
        for place in range(count):
            prototype = Prototype((*(word,) * place, wide, *(word,) * (count - place - 1)), word)
            sizes = prototype.shape.arguments
            same = convention.slots(sizes) == convention.slots(sizes, {place})
            for kind in ("fentry", "fexit"):
                yield f"{name}, {place} of {count}", prototype, same, kind


def must(holds: bool) -> str:
    """What a rule says of a member."""
    return "proved" if holds else "refuted"


FAMILIES = {
    "rsp raised and lowered": stacks,
    "an undefined flag read": undefined_flags,
    "sleepable programs": sleepers,
    "part of a word": parts,
    "alignment 16": alignments,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_some_brothers(family: str) -> None:
    """A part of each family: see test_brothers."""
    members = list(FAMILIES[family]())
    tally, wrong = tally_of(random.Random(3).sample(members, min(25, len(members))))

    assert [] == wrong, tally


@pytest.mark.proof
def test_brothers() -> None:
    """Whatever the executor calls wrong is not proved; and where a rule says what the verdict must be, it is."""
    table = Table(title="brothers of wrong proofs", title_justify="left")
    for heading in ("family", "members", "proved", "refuted", "undecided", "wrong to the executor", "wrong verdicts"):
        table.add_column(heading, justify="left" if heading == "family" else "right")
    found: list[str] = []
    for family, make in FAMILIES.items():
        members = list(make())
        tally, wrong = tally_of(members)
        outcomes = (str(tally[outcome]) for outcome in ("proved", "refuted", "undecided"))
        table.add_row(family, str(len(members)), *outcomes, str(tally["wrong to the executor"]), str(len(wrong)))
        found += [f"{family}: {text}" for text in wrong]
    Console(width=140).print(table)

    assert [] == found


def tally_of(members: Iterable[Member]) -> tuple[Counter[str], list[str]]:
    """Counts verdicts, and lists those that are wrong."""
    tally: Counter[str] = Counter()
    wrong = []
    for member in members:
        outcome = member.verdict().outcome
        tally[outcome] += 1
        said = "" if member.must else member.wrong()
        tally["wrong to the executor"] += bool(said)
        if (outcome == "proved" and said) or (member.must and not fits(outcome, member.must)):
            wrong.append(f"{member.name}: {outcome}, but {said or member.must}")
    return tally, wrong


def fits(outcome: str, wanted: str) -> bool:
    """Whether an outcome is the one that a rule wants."""
    return outcome != "proved" if wanted == "not proved" else outcome == wanted


# Mutants.


def mutants(count: int, seed: int) -> Iterator[tuple[ImageFile, bytes]]:
    """Real images with a byte changed, a bit turned, two bytes exchanged, or up to four random bytes."""
    draw = random.Random(seed)
    files = [read_image_file(path) for path in IMAGES]
    for _ in range(count):
        file = draw.choice(files)
        code = bytearray(code_of(file))
        at = draw.randrange(len(code))
        way = draw.randrange(4)
        if way == 0:
            code[at] ^= draw.randrange(1, 256)
        elif way == 1:
            code[at] ^= 1 << draw.randrange(8)
        elif way == 2:
            other = draw.randrange(len(code))
            code[at], code[other] = code[other], code[at]
        else:
            size = min(draw.randrange(1, 5), len(code) - at)
            code[at : at + size] = draw.randbytes(size)
        yield file, bytes(code)


def attack(count: int, seed: int) -> tuple[Counter[tuple[str, str]], list[str]]:
    """Judges mutants by both: counts by verdict and by what both say; and those that are proved, and wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    wrong = []
    for file, code in mutants(count, seed):
        changed = replace_code(file, code)
        verdict = variants(parse_image(print_image_file(changed), "x"))[0].prove()
        said = violation(changed, code, SEEDS)
        counts[class_of(verdict, said)] += 1
        if verdict.outcome == "proved" and said:
            wrong.append(f"{file.function}: {said}: {code.hex()}")
    return counts, wrong


def replace_code(file: ImageFile, code: bytes) -> ImageFile:
    """The file of another image of this size."""
    value = json.loads(print_image_file(file))
    value["image_hex"] = (code + bytes(file.image_hex[file.used_bytes :])).hex()
    return parse_image_file(json.dumps(value), "x")


def class_of(verdict: Verdict, said: str) -> tuple[str, str]:
    """The verdict; and whether the executor agrees, or what the prover sees that it does not."""
    if verdict.outcome == "proved":
        return "proved", "wrong to the executor" if said else "nothing wrong"
    if said:
        return verdict.outcome, "wrong to the executor"
    if verdict.counterexample is not None:
        return "refuted", f"the executor did not meet: {pattern(verdict.counterexample.obligation)}"
    reason = str(verdict.reason).partition(": ")[2] or str(verdict.reason)
    return "undecided", f"nothing wrong to the executor: {' '.join(reason.split()[-6:])}"


def test_some_mutants_that_are_proved_do_nothing_wrong() -> None:
    """Both judge a few mutants."""
    judge_mutants(1, 60)


@pytest.mark.proof
def test_mutants_that_are_proved_do_nothing_wrong(pytestconfig: pytest.Config) -> None:
    """Both judge mutants: two thousand, or with --attack a hundred thousand."""
    judge_mutants(400 if pytestconfig.getoption("--attack") else 8, CHUNK)


def judge_mutants(chunks: int, size: int) -> None:
    """Has all processors judge mutants; none that is proved may do what the executor calls wrong."""
    counts: Counter[tuple[str, str]] = Counter()
    wrong: list[str] = []
    with ProcessPoolExecutor(len(os.sched_getaffinity(0)), mp_context=get_context("spawn")) as pool:
        for found, failed in pool.map(attack, [size] * chunks, range(chunks)):
            counts += found
            wrong += failed
    Console(width=160).print(tabulated(counts))

    assert [] == wrong
    assert counts["proved", "nothing wrong"]
    assert counts["refuted", "wrong to the executor"] > counts.total() // 2


def tabulated(counts: Counter[tuple[str, str]]) -> Table:
    """Verdicts, and what the executor says of the same mutants."""
    table = Table(title=f"{counts.total():,} mutants", title_justify="left")
    for heading in ("verdict", "the executor", "mutants"):
        table.add_column(heading)
    for (outcome, said), count in sorted(counts.items(), key=lambda one: (one[0][0], -one[1])):
        table.add_row(outcome, said, f"{count:,}")
    return table
