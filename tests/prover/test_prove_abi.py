"""Each convention is its compiler's: calls of random prototypes, compiled by gcc, are looked at."""

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

from properties.prover.architecture import Architecture
from properties.prover.architectures import ARCHITECTURES
from properties.prover.tools import emulator, register_numbers
from spec.prototypes import Prototype, Type

pytestmark = pytest.mark.proof

TEXT = 0x400000
STACK = 0x7F0000
FLAGS = "-O2 -mgeneral-regs-only -ffreestanding -fno-pic -fno-stack-protector -nostdlib -static".split()
INTEGERS = {"bool": 1, "char": 1, "short": 2, "int": 4, "long": 8, "void *": 8, "unsigned char": 1, "unsigned int": 4}


@dataclass(frozen=True)
class Compiler:
    """A compiler for an architecture. prefix: of its tools; package: what has it; halt: an instruction to stop at."""

    machine: str
    prefix: str
    package: str
    halt: str
    flags: tuple[str, ...] = ()

    def run(self, tool: str, *arguments: str, folder: Path) -> str:
        """What one of its tools prints."""
        command = [f"{self.prefix}{tool}", *arguments]
        return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


COMPILERS = (
    Compiler("x86-64", "", "gcc", "hlt", ("-fcf-protection=none",)),
    Compiler("arm64", "aarch64-linux-gnu-", "gcc-aarch64-linux-gnu", "brk #0"),
)


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


def source(made: list[Signature], halt: str) -> str:
    """A program with a caller and a callee for each: the callee is a lone instruction."""
    lines = ["#include <stdbool.h>"]
    lines += [f"struct s{size} {{ unsigned char byte[{size}]; }};" for size in range(1, 17)]
    for number, signature in enumerate(made):
        arguments = signature.prototype.arguments
        lines.append(f'__asm__(".globl callee{number}\\ncallee{number}: {halt}");')
        lines.append(f"void callee{number}({', '.join(kind.name for kind in arguments) or 'void'});")
        given = [_expression(kind, value) for kind, value in zip(arguments, signature.values, strict=True)]
        lines.append(f'void caller{number}(void) {{ callee{number}({", ".join(given)}); __asm__ volatile (""); }}')
    return "\n".join([*lines, "void _start(void) {}", ""])


def _expression(kind: Type, value: bytes) -> str:
    if kind.by_value:
        return f"(struct s{kind.size}){{{{{', '.join(map(str, value))}}}}}"
    number = int.from_bytes(value, "little")
    return f"({kind.name}){number:#x}ul" if "*" in kind.name else f"({kind.name}){number:#x}"


def compiled(compiler: Compiler, made: list[Signature], folder: Path) -> tuple[bytes, dict[str, int]]:
    """The program's bytes from TEXT on, and its symbols."""
    (folder / "calls.c").write_text(source(made, compiler.halt))
    linked = ["-Wl,-N", f"-Wl,-Ttext={TEXT:#x}", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-o", "calls"]
    compiler.run("gcc", *FLAGS, *compiler.flags, *linked, "calls.c", folder=folder)
    compiler.run("objcopy", "-O", "binary", "calls", "calls.bin", folder=folder)
    listed = compiler.run("nm", "calls", folder=folder)
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines()}
    return (folder / "calls.bin").read_bytes(), symbols


def called(architecture: Architecture, machine: Any, symbols: dict[str, int], number: int) -> dict[str, int]:
    """What is in the argument registers, and in the words of the stack from the first argument on, at the callee."""
    numbers, convention = register_numbers(architecture), architecture.convention
    machine.reg_write(numbers[convention.stack_pointer], STACK + 0x8000)
    try:
        machine.emu_start(symbols[f"caller{number}"], symbols[f"callee{number}"], count=1000)
    except UcError as error:
        raise AssertionError(f"caller {number} faults") from error
    found = {name: machine.reg_read(numbers[name]) for name in convention.arguments}
    pointer = machine.reg_read(numbers[convention.stack_pointer]) + convention.pushed
    for word in range(24):
        found[f"stack {word}"] = int.from_bytes(machine.mem_read(pointer + 8 * word, 8), "little")
    return found


@pytest.mark.parametrize("compiler", COMPILERS, ids=lambda compiler: compiler.machine)
def test_gcc_passes_arguments_where_the_slots_say(compiler: Compiler, tmp_path: Path) -> None:
    """600 prototypes: every slot of every argument is in its register or word of the stack, at its width."""
    if shutil.which(f"{compiler.prefix}gcc") is None:
        pytest.skip(f"no {compiler.prefix}gcc: install it with `apt-get install {compiler.package}`")
    architecture = ARCHITECTURES[compiler.machine]
    made = list(signatures(600, seed=600))
    code, symbols = compiled(compiler, made, tmp_path)
    machine = emulator(architecture)
    machine.mem_map(TEXT, -(-len(code) // 0x1000) * 0x1000)
    machine.mem_write(TEXT, code)
    machine.mem_map(STACK, 0x10000)
    slots = stacked = 0
    for number, signature in enumerate(made):
        found = called(architecture, machine, symbols, number)
        for slot in architecture.convention.slots(signature.prototype.shape.arguments):
            value = signature.values[slot.argument][slot.offset : slot.offset + slot.size]
            place = slot.register or f"stack {slot.stack}"
            slots, stacked = slots + 1, stacked + (slot.register is None)

            assert value == found[place].to_bytes(8, "little")[: slot.size], (number, slot, signature)
    print(f"{slots} slots of {len(made)} prototypes, {stacked} on the stack")

    assert slots > 4_000
    assert stacked > 500
