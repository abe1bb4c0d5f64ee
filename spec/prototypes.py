"""Prototypes: a function's types, the slots of its arguments, and what a word is at its width (rules ARG-*)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from spec.abi import SLOT_BYTES, SYSTEM_V, Slot

__all__ = ["MAX_ARGUMENT_BYTES", "Prototype", "Shape", "Type"]

MAX_ARGUMENTS = 12
MAX_ARGUMENT_BYTES = 16
MODULUS = 1 << 64
"""A register holds a number modulo this."""

SIGNED = frozenset(
    (
        "char;signed char;short;short int;int;long;long int;long long;long long int;s8;s16;s32;s64;__s32;__s64;"
        "ssize_t;loff_t;ptrdiff_t;__kernel_ssize_t;time64_t;ktime_t;vm_fault_t"
    ).split(";"),
)


@dataclass(frozen=True, slots=True)
class Type:
    """A type as BTF describes it: kind is INT, PTR, ENUM, STRUCT, UNION or VOID; size in bytes.

    alignment: in bytes, where somebody knows it; BTF does not tell it.
    """

    name: str
    kind: str
    size: int
    alignment: int | None = None

    @property
    def by_value(self) -> bool:
        """Whether it is a struct or union, which C passes by value."""
        return self.kind in {"STRUCT", "UNION"}

    @property
    def wide(self) -> bool:
        """Whether C aligns it to 16 bytes, as far as anybody knows."""
        natural = MAX_ARGUMENT_BYTES if self.kind == "INT" and self.size == MAX_ARGUMENT_BYTES else 0
        return (self.alignment or natural) == MAX_ARGUMENT_BYTES

    @property
    def signed(self) -> bool:
        """Whether C extends it with its sign; BTF's encoding is not in the populations, so the name decides."""
        return self.kind == "INT" and self.name in SIGNED

    def read(self, word: int) -> int:
        """The value of this type that C reads from a 64-bit register."""
        return int(word % MODULUS != 0) if self.name in {"bool", "_Bool"} else self.extend(word)

    def extend(self, word: int) -> int:
        """The low bytes of a 64-bit register, with their sign if the type is signed."""
        width = 1 << (8 * min(self.size, SLOT_BYTES))
        value = word % width
        return value - width if self.signed and 2 * value >= width else value


@dataclass(frozen=True, slots=True)
class Shape:
    """What a trampoline depends on: the sizes of the arguments, and of the return value (0: none), in bytes."""

    arguments: tuple[int, ...]
    returns: int


@dataclass(frozen=True)
class Prototype:
    """A function's prototype."""

    arguments: tuple[Type, ...]
    returns: Type
    variadic: bool = False

    @cached_property
    def shape(self) -> Shape:
        """What a trampoline of the function depends on."""
        return Shape(tuple(argument.size for argument in self.arguments), self.returns.size)

    @cached_property
    def slots(self) -> tuple[Slot, ...]:
        """The slots of the arguments, one for each context word, in order, as System V places them (ARG-1, ARG-2)."""
        return SYSTEM_V.slots(self.shape.arguments)

    @cached_property
    def wide(self) -> frozenset[int]:
        """The places of the arguments that C aligns to 16 bytes. Kernels do not: ARG-2 is by sizes alone."""
        return frozenset(place for place, argument in enumerate(self.arguments) if argument.wide)

    @cached_property
    def in_registers(self) -> bool:
        """Whether no argument is on the stack, so that one image for all arities can serve it."""
        return all(slot.register for slot in self.slots)

    @cached_property
    def has_union(self) -> bool:
        """Whether an argument is a union by value, which not every kernel describes (ARG-4)."""
        return any(argument.kind == "UNION" for argument in self.arguments)

    @cached_property
    def describable(self) -> bool:
        """Whether btf_distill_func_proto() makes a model of it, in a kernel where that takes unions (ARG-4)."""
        return (
            len(self.arguments) <= MAX_ARGUMENTS
            and not self.variadic
            and not self.returns.by_value
            and all(0 < argument.size <= MAX_ARGUMENT_BYTES for argument in self.arguments)
        )

    def words(self, arguments: tuple[int, ...]) -> tuple[int, ...]:
        """The caller's arguments, one for each slot, as unsigned words of the slots' widths (ARG-3)."""
        return tuple(self._read_slot(slot, word) for slot, word in zip(self.slots, arguments, strict=True))

    def _read_slot(self, slot: Slot, word: int) -> int:
        argument = self.arguments[slot.argument]
        value = word if argument.by_value else argument.read(word) if slot.size == argument.size else word
        return value % (1 << (8 * slot.size))

    def returned(self, word: int) -> int:
        """The return register as an unsigned word of the return type's width; 0 for void."""
        return word % (1 << (8 * min(self.returns.size, SLOT_BYTES)))
