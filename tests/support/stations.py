"""Guests for tests: which kernels there are, the world of the shared stations, and calls that only tests make."""

from __future__ import annotations

import random
from functools import cache
from pathlib import Path

import pytest

from impl.linux.guest.batch import Batch, Ref, Struct
from impl.linux.guest.packages import Kernel, fetch, host_architecture
from impl.linux.host.cache import directory as cache_directory
from properties.kernels.needs import require_tools
from properties.systems.naming import KERNELS
from spec.errors import BadInputError
from spec.prototypes import Prototype, Type
from spec.worlds import ALL, Callee, Function, World, synthetic

__all__ = ["KERNELS", "debug_kernel_or_skip", "draw_words", "kernel_or_skip", "prog_test_run", "world"]

EDGES = (0, 1, -1, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0x7FFFFFFF, 0x80000000, 1 << 63)
NAMES = "char 1;unsigned char 1;bool 1;short 2;unsigned short 2;int 4;unsigned int 4;long 8;unsigned long 8".split(";")
INTEGERS = tuple(Type(name[:-2], "INT", int(name[-1])) for name in NAMES)
OTHERS = (Type("void *", "PTR", 8), *(Type(f"enum e{size}", "ENUM", size) for size in (1, 2, 4, 8)))
STRUCTS = tuple(Type(f"struct s{size}", "STRUCT", size) for size in range(1, 17))
UNIONS = tuple(Type(f"union u{size}", "UNION", size) for size in (3, 8, 16))
RETURNED = (*INTEGERS, *OTHERS, *STRUCTS, Type("void", "VOID", 0), Type("__int128", "INT", 16))

TEST_RUN, TEST_RUN_BYTES = 10, 80


def kernel_or_skip(name: str) -> Kernel:
    """One of Debian's kernels; the test is skipped where it cannot be had."""
    try:
        require_tools()
        return fetch(name)
    except BadInputError as error:
        pytest.skip(str(error))


def debug_kernel_or_skip() -> Path:
    """A kernel of `linux --config debug`, where `kernel-build` puts it in the cache; else the test is skipped."""
    home = cache_directory() / "own"
    image = home / "build-debug" / host_architecture().boot_image
    if not image.is_file():
        pytest.skip(f"there is no {image}: ./tox -e kernel-build -- {home} --debug")
    return image


@cache
def world() -> World:
    """The synthetic world, and random prototypes; some functions call those before them."""
    draw = random.Random(13)
    functions: list[Function] = []
    for number in range(60):
        scalars, wide = (*INTEGERS, *OTHERS), (*STRUCTS, *UNIONS)
        kinds = [draw.choice(wide if draw.random() < 0.25 else scalars) for _ in range(draw.randrange(13))]
        callees = tuple(_draw_callee(draw, callee) for callee in draw.sample(functions, 2)) if number % 6 == 5 else ()
        prototype = Prototype(tuple(kinds), draw.choice(RETURNED))
        functions.append(Function(f"random{number}", prototype, 100 + number, None, ALL, callees))
    base = synthetic().functions
    return World("random", (*(f for f in base if not f.module), *functions, *(f for f in base if f.module)))


def draw_words(draw: random.Random, function: Function) -> tuple[int, ...]:
    """A word for each slot of a function."""
    assert function.prototype is not None
    return tuple(_draw_word(draw) for _ in function.prototype.slots)


def _draw_callee(draw: random.Random, callee: Function) -> Callee:
    return Callee(callee.name, tuple(("value", word) for word in draw_words(draw, callee)))


def _draw_word(draw: random.Random) -> int:
    return draw.choice(EDGES) if draw.random() < 0.4 else draw.getrandbits(64)


def prog_test_run(batch: Batch, program: int | Ref) -> int:
    """BPF_PROG_TEST_RUN: the kernel calls functions that it has for tests, whatever is attached to them.

    Of a fentry, fexit or fsession program these are bpf_fentry_test1 and its successors, of a fmod_ret program
    bpf_modify_return_test and the like; the kernel's verdict is the 32-bit word at 4 of data[0].
    """
    known, refs = (0, {0: program}) if isinstance(program, Ref) else (program, {})
    attribute = Struct(known.to_bytes(TEST_RUN_BYTES, "little"), refs=refs, out=True)
    return batch.syscall("bpf", TEST_RUN, attribute, TEST_RUN_BYTES)
