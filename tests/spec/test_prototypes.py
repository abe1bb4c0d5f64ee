"""Prototypes: which slots an argument has, where the caller puts them, and what a word looks like at its width."""

from __future__ import annotations

import platform
import random
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

from spec.abi import SYSTEM_V
from spec.prototypes import Prototype, Type
from spec.worlds import BOOL, CHAR, INT, LONG, PAIR, SHORT, synthetic

VOID = Type("void", "VOID", 0)


def struct(size: int) -> Type:
    return Type(f"struct s{size}", "STRUCT", size)


def prototype(*arguments: Type, returns: Type = LONG) -> Prototype:
    return Prototype(arguments, returns)


def places(of: Prototype) -> list[str | int]:
    """Where the caller puts each slot: a register's name, or the number of a stack word."""
    found: list[str | int] = []
    for slot in of.slots:
        place = slot.register if slot.stack is None else slot.stack
        assert place is not None
        found.append(place)
    return found


@pytest.mark.parametrize("arity", range(13))
def test_words_fill_six_registers_and_then_the_stack(arity: int) -> None:
    """ARG-1, ARG-2: of N 64-bit arguments the first six are in registers, the others on the stack in order."""
    assert [*SYSTEM_V.arguments[:arity], *range(arity - 6)] == places(prototype(*[LONG] * arity))


@pytest.mark.parametrize(
    ("size", "widths"),
    [(1, [1]), (3, [3]), (7, [7]), (8, [8]), (9, [8, 1]), (12, [8, 4]), (15, [8, 7]), (16, [8, 8])],
)
def test_an_argument_has_a_slot_for_each_eight_bytes(size: int, widths: list[int]) -> None:
    """ARG-1: the last slot is as wide as what is left."""
    slots = prototype(struct(size)).slots

    assert widths == [slot.size for slot in slots]
    assert [8 * number for number in range(len(widths))] == [slot.offset for slot in slots]


def test_a_pair_takes_two_registers() -> None:
    """ARG-1: `split` of the synthetic world, whose struct lies between two words."""
    split = synthetic().by_name["split"].prototype

    assert split is not None
    assert ["rdi", "rsi", "rdx", "rcx"] == places(split)
    assert [0, 1, 1, 2] == [slot.argument for slot in split.slots]


def test_an_argument_is_never_divided_between_registers_and_stack() -> None:
    """ARG-2: with one register left a pair goes wholly to the stack."""
    assert ["rdi", "rsi", "rdx", "rcx", "r8", 0, 1] == places(prototype(*[LONG] * 5, PAIR))


def test_a_later_argument_may_take_the_register_that_a_pair_left() -> None:
    """ARG-2: `spill` of the synthetic world, in disorder: its last char is in r9, behind the pair on the stack."""
    spill = synthetic().by_name["spill"].prototype

    assert spill is not None
    assert ["rdi", "rsi", "rdx", "rcx", "r8", 0, 1, "r9"] == places(spill)
    assert not spill.in_registers


def test_stack_words_stand_in_argument_order() -> None:
    """ARG-2: pairs and words on the stack are numbered as they come."""
    expected = ["rdi", "rsi", "rdx", "rcx", "r8", 0, 1, "r9", 2, 3, 4]

    assert expected == places(prototype(*[LONG] * 5, PAIR, CHAR, PAIR, INT))


def test_in_registers_tells_what_one_image_for_all_arities_can_serve() -> None:
    """Six words or three pairs fit, one slot more does not."""
    assert prototype().in_registers
    assert prototype(*[LONG] * 6).in_registers
    assert prototype(PAIR, PAIR, PAIR).in_registers
    assert not prototype(*[LONG] * 7).in_registers
    assert not prototype(PAIR, PAIR, PAIR, CHAR).in_registers


@pytest.mark.parametrize(
    ("type_", "word", "expected"),
    [
        (CHAR, 0x1FF, 0xFF),
        (CHAR, -1, 0xFF),
        (SHORT, 0x12345, 0x2345),
        (INT, -1, 0xFFFF_FFFF),
        (LONG, -1, (1 << 64) - 1),
        (BOOL, 0, 0),
        (BOOL, 0x100, 1),
        (BOOL, 1 << 64, 0),
        (struct(3), 0x1234_5678, 0x34_5678),
        (struct(8), -2, (1 << 64) - 2),
    ],
)
def test_a_word_is_observed_at_its_width(type_: Type, word: int, expected: int) -> None:
    """ARG-3: unsigned, without what the caller left above; a bool of any bit set is 1."""
    assert (expected,) == prototype(type_).words((word,))


def test_a_struct_is_observed_word_by_word() -> None:
    """ARG-3: each of its words at its slot's width."""
    assert ((1 << 64) - 1, 0xFFFF) == prototype(struct(10)).words((-1, -1))


@pytest.mark.parametrize(
    ("type_", "word", "expected"),
    [
        (CHAR, 0x80, -128),
        (Type("unsigned char", "INT", 1), 0x80, 128),
        (INT, 0xFFFF_FFFF, -1),
        (Type("u32", "INT", 4), 0xFFFF_FFFF, 0xFFFF_FFFF),
        (Type("enum e", "ENUM", 4), 0xFFFF_FFFF, 0xFFFF_FFFF),
        (LONG, 1 << 63, -(1 << 63)),
        (Type("void *", "PTR", 8), 1 << 63, 1 << 63),
        (BOOL, 2, 1),
    ],
)
def test_c_reads_a_word_by_its_type(type_: Type, word: int, expected: int) -> None:
    """TRACE-2: with a sign where the type's name says so."""
    assert expected == type_.read(word)


@pytest.mark.parametrize(("returns", "expected"), [(VOID, 0), (CHAR, 0xFE), (INT, 0xFFFF_FFFE), (LONG, (1 << 64) - 2)])
def test_a_returned_word_has_the_width_of_its_type(returns: Type, expected: int) -> None:
    """ARG-5: unsigned, and 0 for void."""
    assert expected == prototype(returns=returns).returned(-2)


@pytest.mark.parametrize(
    ("of", "expected"),
    [
        (prototype(), True),
        (prototype(*[LONG] * 12), True),
        (prototype(*[LONG] * 13), False),
        (prototype(*[PAIR] * 12), True),
        (prototype(struct(16)), True),
        (prototype(struct(17)), False),
        (prototype(VOID), False),
        (Prototype((LONG,), INT, variadic=True), False),
        (prototype(returns=struct(4)), False),
        (prototype(returns=Type("union u", "UNION", 8)), False),
        (prototype(returns=Type("__int128", "INT", 16)), True),
        (prototype(returns=VOID), True),
    ],
)
def test_what_btf_can_be_distilled_into(of: Prototype, expected: bool) -> None:
    """ARG-4: at most 12 arguments of 1 to 16 bytes, no varargs, no struct or union returned."""
    assert expected == of.describable


def test_a_shape_is_the_sizes_and_nothing_else() -> None:
    """Prototypes of equal sizes share an image: names and kinds do not count, the return value's size does."""
    pointer = Type("void *", "PTR", 8)

    assert prototype(LONG, INT).shape == prototype(pointer, Type("enum e", "ENUM", 4)).shape
    assert prototype(LONG).shape != prototype(LONG, returns=VOID).shape
    assert prototype(LONG).shape != prototype(INT).shape


@dataclass(frozen=True)
class Spelled:
    """A type, and how C declares it."""

    type: Type
    c: str


SCALARS = [
    *(Spelled(Type(name, "INT", size), name) for name, size in (("char", 1), ("short", 2), ("int", 4), ("long", 8))),
    *(Spelled(Type(f"unsigned {name}", "INT", size), f"unsigned {name}") for name, size in (("char", 1), ("int", 4))),
    Spelled(Type("_Bool", "INT", 1), "_Bool"),
    Spelled(Type("void *", "PTR", 8), "void *"),
    Spelled(Type("enum e", "ENUM", 4), "enum e"),
]
BYTES = [Spelled(Type(f"struct b{size}", "STRUCT", size), f"struct b{size}") for size in range(1, 17)]
WORDS = [
    Spelled(Type("struct longs", "STRUCT", 16), "struct longs"),
    Spelled(Type("union either", "UNION", 8), "union either"),
]
SIGNATURES = 200

# Every callee is this one stub under another prototype. It keeps the six registers and the 24 words above its return
# address: wherever the compiler put an argument, it is there.
HARNESS = r"""
#include <stdio.h>
#include <string.h>
unsigned long kept[30];
__asm__(".text\n.globl keep\nkeep:\n"
        "mov %rdi, kept(%rip)\nmov %rsi, kept+8(%rip)\nmov %rdx, kept+16(%rip)\n"
        "mov %rcx, kept+24(%rip)\nmov %r8, kept+32(%rip)\nmov %r9, kept+40(%rip)\n"
        "lea kept+48(%rip), %r10\nmov $24, %ecx\n"
        "1: mov (%rsp,%rcx,8), %rax\nmov %rax, -8(%r10,%rcx,8)\ndec %ecx\njnz 1b\n"
        "xor %eax, %eax\nret\n");
static void show(void) { for (int i = 0; i < 30; i++) printf("%lx ", kept[i]); putchar('\n'); }
enum e { E };
struct longs { long a, b; };
union either { long a; int b; };
"""


def random_signature(rng: random.Random) -> list[Spelled]:
    pools = rng.choices((SCALARS, BYTES, WORDS), weights=(3, 2, 1), k=rng.randrange(13))
    return [rng.choice(pool) for pool in pools]


def calling(number: int, signature: list[Spelled], words: list[int]) -> str:
    """A C function that calls the stub with these words, converted to the types of the signature."""
    lines = [f"static void call{number}(void) {{"]
    for index, spelled in enumerate(signature):
        count = -(-spelled.type.size // 8)
        raw = ", ".join(f"0x{word:x}ul" for word in words[:count])
        del words[:count]
        lines.append(f"  volatile unsigned long v{index}[] = {{{raw}}}; unsigned long w{index}[{count}];")
        lines += [f"  w{index}[{part}] = v{index}[{part}];" for part in range(count)]
        if spelled.type.by_value:
            lines.append(f"  {spelled.c} a{index}; memcpy(&a{index}, w{index}, sizeof a{index});")
        else:
            lines.append(f"  {spelled.c} a{index} = ({spelled.c})w{index}[0];")
    types = ", ".join(spelled.c for spelled in signature) or "void"
    lines.append(f'  extern void callee{number}({types}) __asm__("keep");')
    lines.append(f"  callee{number}({', '.join(f'a{index}' for index in range(len(signature)))});\n  show();\n}}")
    return "\n".join(lines)


def compiled_and_run(source: str, directory: Path) -> list[list[int]]:
    """What the stub kept, call by call: six registers, then stack words."""
    (directory / "calls.c").write_text(source)
    flags = ["-O1", "-mgeneral-regs-only", "-w", "-o", "calls"]
    subprocess.run(["gcc", *flags, "calls.c"], cwd=directory, check=True, timeout=60)
    output = subprocess.run([directory / "calls"], capture_output=True, text=True, check=True, timeout=60).stdout
    return [[int(word, 16) for word in line.split()] for line in output.splitlines()]


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not there: install it to check against a compiler")
@pytest.mark.skipif(platform.machine() != "x86_64", reason="the classification is that of x86-64")
def test_gcc_puts_every_slot_where_the_classification_says(tmp_path: Path) -> None:
    """ARG-1 to ARG-3: in 200 random signatures a compiler passes the words that `words` says, where `slots` says."""
    rng = random.Random(4)
    signatures = [random_signature(rng) for _ in range(SIGNATURES)]
    prototypes = [Prototype(tuple(spelled.type for spelled in signature), VOID) for signature in signatures]
    drawn = [[rng.getrandbits(64) for _ in each.slots] for each in prototypes]
    structs = [f"struct b{size} {{ char b[{size}]; }};" for size in range(1, 17)]
    calls = [calling(number, signature, list(drawn[number])) for number, signature in enumerate(signatures)]
    main = ["int main(void) {", *(f"  call{number}();" for number in range(SIGNATURES)), "}"]
    kept = compiled_and_run("\n".join([HARNESS, *structs, *calls, *main, ""]), tmp_path)

    assert SIGNATURES == len(kept)
    for each, words, found in zip(prototypes, drawn, kept, strict=True):
        registers = dict(zip(SYSTEM_V.arguments, found[:6], strict=True))
        passed = [registers[slot.register] if slot.register else found[6 + (slot.stack or 0)] for slot in each.slots]
        observed = tuple(word % (1 << 8 * slot.size) for word, slot in zip(passed, each.slots, strict=True))

        assert each.words(tuple(words)) == observed, [argument.name for argument in each.arguments]
    assert any(not each.in_registers and "r9" in places(each)[-1:] for each in prototypes)
