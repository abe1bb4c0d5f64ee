"""The unknowns of a run, by name, and their values in an execution."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache

from properties.prover.architecture import Architecture
from properties.prover.steps import BODY, CALLER, PATCHED

__all__ = ["BEGINNING", "Unknowns", "register_name", "undefined_name"]

BEGINNING = "the beginning"
"""The step before the first instruction."""

OR = " or "


def register_name(register: str, steps: tuple[str, ...]) -> str:
    """A register that no callee since one of these steps has preserved, and no instruction written."""
    return f"{register} after {OR.join(steps)}"


def undefined_name(flag: str, offset: int, count: int) -> str:
    """A flag as the instruction at this offset leaves it undefined, when a path is there for the count-th time."""
    return f"{flag} undefined by +{offset:#x}, {count}"


class Unknowns:
    """Values by name. One that a counterexample does not need is made up: always the same, and unlike any other."""

    def __init__(self, values: Mapping[str, int], defaults: Mapping[str, int]) -> None:
        self.values = dict(values)
        self._defaults = defaults
        self._after: dict[tuple[str, str], int] = {}
        for name, value in values.items():
            self._index(name, value)

    def _index(self, name: str, value: int) -> None:
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


def _make_up(name: str, bits: int) -> int:
    digest = hashlib.blake2b(name.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") % (1 << bits)


@cache
def defaults(architecture: Architecture) -> dict[str, int]:
    """Return addresses and a stack pointer, for counterexamples that do not ask for particular ones."""
    text = architecture.kernel_text[0] + 0x1A2B3C0 + 5 // architecture.code_alignment * architecture.code_alignment
    stack = architecture.kernel_stack[0] + 0x8000 - architecture.convention.stack_alignment
    found = {CALLER: text + 0x10000, BODY: text + 0x20000, architecture.convention.stack_pointer: stack}
    return found | dict.fromkeys(architecture.readable, stack + 0x10000000)
