"""The classification of arguments is the compiler's: calls of random prototypes, compiled by gcc, are looked at."""

from __future__ import annotations

import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from unicorn import UcError

from properties.prover.tools import emulator, register_numbers
from properties.prover.x86_64 import X86_64
from spec.prototypes import Prototype, Type

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(shutil.which("gcc") is None, reason="no gcc: install it with `apt-get install gcc`"),
]

TEXT = 0x400000
STACK = 0x7F0000
FLAGS = (
    "-O2 -mgeneral-regs-only -ffreestanding -fno-pic -fno-stack-protector -fcf-protection=none -nostdlib -static"
).split()
INTEGERS = {"bool": 1, "char": 1, "short": 2, "int": 4, "long": 8, "void *": 8, "unsigned char": 1, "unsigned int": 4}


@dataclass(frozen=True)
class Signature:
    """A prototype, and the bytes of each argument."""

    prototype: Prototype
    values: tuple[bytes, ...]


def signatures(count: int, seed: int) -> Iterator[Signature]:
    """Up to 12 arguments: integers, pointers, and structs of 1 to 16 bytes without padding."""
    draw = random.Random(seed)
    for _ in range(count):
        types = [_type(draw) for _ in range(draw.randrange(13))]
        values = tuple(_bytes(draw, kind) for kind in types)
        yield Signature(Prototype(tuple(types), Type("void", "VOID", 0)), values)


def _type(draw: random.Random) -> Type:
    if draw.randrange(3):
        name = draw.choice(sorted(INTEGERS))
        return Type(name, "PTR" if "*" in name else "INT", INTEGERS[name])
    size = draw.randrange(1, 17)
    return Type(f"struct s{size}", "STRUCT", size)


def _bytes(draw: random.Random, kind: Type) -> bytes:
    return bytes([draw.randrange(2)]) if kind.name == "bool" else draw.randbytes(kind.size)


def source(made: list[Signature]) -> str:
    """A program with a caller and a callee for each: the callee is a lone hlt."""
    lines = ["#include <stdbool.h>"]
    lines += [f"struct s{size} {{ unsigned char byte[{size}]; }};" for size in range(1, 17)]
    for number, signature in enumerate(made):
        arguments = signature.prototype.arguments
        lines.append(f'__asm__(".globl callee{number}\\ncallee{number}: hlt");')
        lines.append(f"void callee{number}({', '.join(kind.name for kind in arguments) or 'void'});")
        given = [_expression(kind, value) for kind, value in zip(arguments, signature.values, strict=True)]
        lines.append(f'void caller{number}(void) {{ callee{number}({", ".join(given)}); __asm__ volatile (""); }}')
    return "\n".join([*lines, "void _start(void) {}", ""])


def _expression(kind: Type, value: bytes) -> str:
    if kind.by_value:
        return f"(struct s{kind.size}){{{{{', '.join(map(str, value))}}}}}"
    number = int.from_bytes(value, "little")
    return f"({kind.name}){number:#x}ul" if "*" in kind.name else f"({kind.name}){number:#x}"


def compiled(made: list[Signature], folder: Path) -> tuple[bytes, dict[str, int]]:
    """The program's bytes from TEXT on, and its symbols."""
    (folder / "calls.c").write_text(source(made))
    linked = ["-Wl,-N", f"-Wl,-Ttext={TEXT:#x}", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-o", "calls"]
    subprocess.run(["gcc", *FLAGS, *linked, "calls.c"], cwd=folder, check=True)
    subprocess.run(["objcopy", "-O", "binary", "calls", "calls.bin"], cwd=folder, check=True)
    listed = subprocess.run(["nm", "calls"], cwd=folder, check=True, capture_output=True, text=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines()}
    return (folder / "calls.bin").read_bytes(), symbols


def called(machine: Any, symbols: dict[str, int], number: int) -> dict[str, int]:
    """What is in the argument registers, and in the words of the stack from the first argument on, at the callee."""
    top = STACK + 0x8000
    machine.reg_write(register_numbers(X86_64)["rsp"], top)
    try:
        machine.emu_start(symbols[f"caller{number}"], symbols[f"callee{number}"], count=1000)
    except UcError as error:
        raise AssertionError(f"caller {number} faults") from error
    found = {name: machine.reg_read(register_numbers(X86_64)[name]) for name in X86_64.convention.arguments}
    pointer = machine.reg_read(register_numbers(X86_64)["rsp"]) + 8
    for word in range(24):
        found[f"stack {word}"] = int.from_bytes(machine.mem_read(pointer + 8 * word, 8), "little")
    return found


def test_gcc_passes_arguments_where_the_slots_say(tmp_path: Path) -> None:
    """600 prototypes: every slot of every argument is in its register or word of the stack, at its width."""
    made = list(signatures(600, seed=600))
    code, symbols = compiled(made, tmp_path)
    machine = emulator(X86_64)
    machine.mem_map(TEXT, -(-len(code) // 0x1000) * 0x1000)
    machine.mem_write(TEXT, code)
    machine.mem_map(STACK, 0x10000)
    slots = 0
    for number, signature in enumerate(made):
        found = called(machine, symbols, number)
        for slot in signature.prototype.slots:
            value = signature.values[slot.argument][slot.offset : slot.offset + slot.size]
            place = slot.register or f"stack {slot.stack}"
            slots += 1

            assert value == found[place].to_bytes(8, "little")[: slot.size], (number, slot, signature)
    print(f"{slots} slots of {len(made)} prototypes")

    assert slots > 4_000
