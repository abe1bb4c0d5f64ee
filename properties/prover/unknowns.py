"""The unknowns of a run by name: where their names come from, and their values in an execution."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping

from properties.prover.architecture import Architecture
from properties.prover.steps import BODY, CALLER

__all__ = ["BEGINNING", "Unknowns", "register_name", "stack_name"]

BEGINNING = "the beginning"
"""The step before the first instruction."""

OR = " or "
STACK_NAME = re.compile(r"stack([+-][0-9]+):([0-9]+) after (.*)")
PATCHED = "patched: "


def register_name(register: str, steps: tuple[str, ...]) -> str:
    """A register that no callee since one of these steps has preserved, and no instruction written."""
    return f"{register} after {OR.join(steps)}"


def stack_name(offset: int, size: int, steps: tuple[str, ...]) -> str:
    """Bytes of the stack, from the first stack pointer on, that nothing has written since one of these steps."""
    return f"stack{offset:+d}:{size} after {OR.join(steps)}"


class Unknowns:
    """Values by name. One that a counterexample does not need is made up: always the same, and unlike any other."""

    def __init__(self, values: Mapping[str, int], defaults: Mapping[str, int]) -> None:
        self.values = dict(values)
        self._defaults = defaults
        self._after: dict[tuple[str, str], int] = {}
        self._stack: dict[str, list[tuple[int, int, int]]] = {}
        for name, value in values.items():
            self._index(name, value)

    def _index(self, name: str, value: int) -> None:
        match = STACK_NAME.fullmatch(name)
        if match:
            for step in match[3].split(OR):
                self._stack.setdefault(step, []).append((int(match[1]), int(match[2]), value))
            return
        what, after, steps = name.partition(" after ")
        for step in steps.split(OR) if after else ():
            self._after[what, step] = value

    def value(self, name: str, bits: int) -> int:
        """The value of an unknown."""
        known = self.values.get(name, self._defaults.get(name))
        if known is not None:
            return known
        return 0 if name.startswith(PATCHED) else _make_up(name, bits)

    def after(self, register: str, step: str, bits: int) -> int:
        """What a step leaves in a register."""
        name = register_name(register, (step,))
        return self._after.get((register, step), _make_up(name, bits))

    def stack_after(self, step: str) -> Iterator[tuple[int, bytes]]:
        """What is in unwritten bytes of the stack after a step: (offset, bytes)."""
        for offset, size, value in self._stack.get(step, ()):
            yield offset, value.to_bytes(size, "little")


def _make_up(name: str, bits: int) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (1 << bits)


def defaults(architecture: Architecture) -> dict[str, int]:
    """Addresses of return and of the stack where a counterexample does not ask for particular ones."""
    text = architecture.kernel_text[0] + 0x1A2B3C0 + 5 // architecture.code_alignment * architecture.code_alignment
    stack = architecture.kernel_stack[0] + 0x8000 - architecture.convention.stack_alignment
    return {CALLER: text + 0x10000, BODY: text + 0x20000, architecture.convention.stack_pointer: stack}
