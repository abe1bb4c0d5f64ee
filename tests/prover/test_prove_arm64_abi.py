"""arm64's classification of arguments is the compiler's: calls of random prototypes, compiled by gcc, are looked at."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from unicorn import UcError

from properties.prover.arm64 import ARM64
from properties.prover.tools import emulator, register_numbers
from tests.prover.test_prove_abi import STACK, TEXT, Signature, signatures, source

PREFIX = "aarch64-linux-gnu-"

pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(
        shutil.which(f"{PREFIX}gcc") is None,
        reason=f"no {PREFIX}gcc: install it with `apt-get install gcc-aarch64-linux-gnu`",
    ),
]

FLAGS = "-O2 -mgeneral-regs-only -ffreestanding -fno-pic -fno-stack-protector -nostdlib -static".split()


def compiled(made: list[Signature], folder: Path) -> tuple[bytes, dict[str, int]]:
    """The program's bytes from TEXT on, and its symbols."""
    (folder / "calls.c").write_text(source(made).replace(": hlt", ": brk #0"))
    linked = ["-Wl,-N", f"-Wl,-Ttext={TEXT:#x}", "-Wl,--build-id=none", "-Wl,--no-warn-rwx-segments", "-o", "calls"]
    subprocess.run([f"{PREFIX}gcc", *FLAGS, *linked, "calls.c"], cwd=folder, check=True)
    subprocess.run([f"{PREFIX}objcopy", "-O", "binary", "calls", "calls.bin"], cwd=folder, check=True)
    command = [f"{PREFIX}nm", "calls"]
    listed = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout
    symbols = {line.split()[2]: int(line.split()[0], 16) for line in listed.splitlines()}
    return (folder / "calls.bin").read_bytes(), symbols


def called(machine: Any, symbols: dict[str, int], number: int) -> dict[str, int]:
    """What is in the argument registers, and in the words of the stack from the first argument on, at the callee."""
    numbers = register_numbers(ARM64)
    machine.reg_write(numbers["sp"], STACK + 0x8000)
    try:
        machine.emu_start(symbols[f"caller{number}"], symbols[f"callee{number}"], count=1000)
    except UcError as error:
        raise AssertionError(f"caller {number} faults") from error
    found = {name: machine.reg_read(numbers[name]) for name in ARM64.convention.arguments}
    pointer = machine.reg_read(numbers["sp"])
    for word in range(24):
        found[f"stack {word}"] = int.from_bytes(machine.mem_read(pointer + 8 * word, 8), "little")
    return found


def test_gcc_passes_arguments_where_the_slots_say(tmp_path: Path) -> None:
    """600 prototypes: every slot of every argument is in its register or word of the stack, at its width."""
    made = list(signatures(600, seed=64))
    code, symbols = compiled(made, tmp_path)
    machine = emulator(ARM64)
    machine.mem_map(TEXT, -(-len(code) // 0x1000) * 0x1000)
    machine.mem_write(TEXT, code)
    machine.mem_map(STACK, 0x10000)
    slots = stacked = 0
    for number, signature in enumerate(made):
        found = called(machine, symbols, number)
        for slot in ARM64.convention.slots(signature.prototype.shape.arguments):
            value = signature.values[slot.argument][slot.offset : slot.offset + slot.size]
            place = slot.register or f"stack {slot.stack}"
            slots, stacked = slots + 1, stacked + (slot.register is None)

            assert value == found[place].to_bytes(8, "little")[: slot.size], (number, slot, signature)
    print(f"{slots} slots of {len(made)} prototypes, {stacked} on the stack")

    assert slots > 4_000
    assert stacked > 500
