"""Worlds: the functions that a run is about. The synthetic one is made here, real ones by `spec.populations`."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from spec.globs import matcher, record_index
from spec.prototypes import Prototype, Type

__all__ = ["Callee", "Function", "World", "synthetic"]

ALL = frozenset({"fmod_ret", "sleepable", "freplace"})


@dataclass(frozen=True, slots=True)
class Callee:
    """A call that a body makes.

    Arguments are slot numbers of the caller (`("slot", n)`) or constants (`("value", n)`).
    """

    function: str
    arguments: tuple[tuple[str, int], ...]


@dataclass(frozen=True, slots=True)
class Function:
    """A traceable function: one record of ftrace.

    name: unique in its world; further symbols of one name are NAME@2, NAME@3 in address order, and BTF does not name
    those. prototype: None where BTF has none. btf_id: None where BPF cannot name it. attributes: of `deny`, `noreturn`,
    `fmod_ret`, `sleepable`, `freplace`, as the kernel's lists have it, and `disabled` for a record without a site
    (FILTER-11). callees: what its body calls; its value is then the sum of theirs, otherwise the sum of the arguments'
    members.
    """

    name: str
    prototype: Prototype | None
    btf_id: int | None
    module: str | None = None
    attributes: frozenset[str] = frozenset()
    callees: tuple[Callee, ...] = ()

    @property
    def symbol(self) -> str:
        """The name in kallsyms."""
        return self.name.split("@", 1)[0]

    @property
    def has_site(self) -> bool:
        """Whether ftrace can patch it (FILTER-11)."""
        return "disabled" not in self.attributes


@dataclass(frozen=True, eq=False)
class World:
    """Functions in address order, which is the order of ftrace's records. Every module is loaded at the start.

    Two worlds are equal only if they are one: comparing 47,382 functions to find a cache's entry would cost more
    than it saves.
    """

    name: str
    functions: tuple[Function, ...]

    @cached_property
    def by_name(self) -> dict[str, Function]:
        """Functions by unique name."""
        return {function.name: function for function in self.functions}

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules, in address order."""
        return tuple(dict.fromkeys(function.module for function in self.functions if function.module))

    def matching(
        self, pattern: str, modules: frozenset[str] | None = None, *, lenient_index: bool = False
    ) -> tuple[Function, ...]:
        """Functions that a kernel glob without ! selects, in address order; a number, one without a site too (GLOB-4).

        modules: those loaded, None for all of the world. lenient_index: the fact of `spec.semantics`.
        """
        present = [f for f in self.functions if f.module is None or modules is None or f.module in modules]
        index = record_index(pattern, lenient=lenient_index)
        if index is not None:
            return tuple(present[index - 1 : index]) if index else ()
        match = matcher(pattern)
        return tuple(function for function in present if function.has_site and match(function.symbol))


LONG = Type("long", "INT", 8)
CHAR = Type("char", "INT", 1)
SHORT = Type("short", "INT", 2)
INT = Type("int", "INT", 4)
BOOL = Type("bool", "INT", 1)
PAIR = Type("struct pair", "STRUCT", 16)


def synthetic() -> World:
    """The small world of the design contract: foo0..12, outer, narrow, split, spill, and bar0..12 in module mod1."""
    named: list[tuple[str, tuple[Type, ...], str | None, tuple[Callee, ...]]] = [
        *((f"foo{count}", (LONG,) * count, None, ()) for count in range(13)),
        ("outer", (LONG,), None, (Callee("foo1", (("slot", 0),)), Callee("foo2", (("slot", 0), ("value", 1))))),
        ("narrow", (CHAR, SHORT, INT, BOOL), None, ()),
        ("split", (LONG, PAIR, INT), None, ()),
        ("spill", (CHAR,) * 5 + (PAIR, CHAR), None, ()),
        *((f"bar{count}", (LONG,) * count, "mod1", ()) for count in range(13)),
    ]
    return World(
        "synthetic",
        tuple(
            Function(name, Prototype(arguments, LONG), number, module, ALL, callees)
            for number, (name, arguments, module, callees) in enumerate(named, 1)
        ),
    )
