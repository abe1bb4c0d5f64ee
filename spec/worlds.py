"""Worlds: the functions that a run is about. The synthetic ones are made here, real ones by `spec.populations`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import chain
from itertools import count as count_from

from spec.globs import Pattern, libbpf_matcher, matcher, module_matcher, record_index
from spec.prototypes import Prototype, Type

__all__ = ["LOOKUPS", "Callee", "Function", "World", "large", "synthetic"]

ALL = frozenset({"fmod_ret", "sleepable", "freplace", "lsm", "lsm_sleepable"})
UNPATCHED = frozenset({"disabled", "unrecorded"})


@dataclass(frozen=True, slots=True)
class Callee:
    """A call that a body makes.

    Arguments are slot numbers of the caller (`("slot", n)`) or constants (`("value", n)`).
    """

    function: str
    arguments: tuple[tuple[str, int], ...]


LOOKUPS = ("no_symbol", "outside", "no_site")
"""What kallsyms has for a FUNC that is no site: nothing, an address outside of the kernel's text, or text without one
(PROG-7)."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function that ftrace has a record of, or that BTF names.

    name: unique in its world; further symbols of one name are NAME@2, NAME@3, those of vmlinux first, in address order.
    BTF names the first symbol of a name in vmlinux, and the first in each module. prototype: None where BTF has none.
    btf_id: None where BPF cannot name it. module: None for vmlinux; it is also whose BTF names it. attributes: of
    `deny`, `noreturn`, `fmod_ret`, `sleepable`, `freplace`, as the kernel's lists have it, and of hooks of LSM `lsm`,
    `lsm_sleepable`, `lsm_bool` (LSM-2, LSM-3); `empty` for a body of the kernel's that only returns 0 (TRACE-7);
    `disabled` for a record without a site (FILTER-11), `unrecorded` where ftrace has none; and one of LOOKUPS where the
    symbol that BPF finds by its name is not this site. callees: what its body calls; its value is then the sum of
    theirs, otherwise the sum of the arguments' members.
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
        return not self.attributes & UNPATCHED

    @property
    def lookup(self) -> str:
        """What BPF finds by the name of the FUNC, one of LOOKUPS, if that is no site; else empty (PROG-7)."""
        found = next((each for each in LOOKUPS if each in self.attributes), "")
        return found or ("" if self.has_site else "no_site")


@dataclass(frozen=True, eq=False)
class World:
    """Functions in address order, which is the order of ftrace's records. Every module is loaded at the start.

    others: functions that BTF names and ftrace has no record of, in the order of their BTFs and ids; only BPF can be
    asked for them. Two worlds are equal only if they are one: comparing 47,382 functions to find a cache's entry would
    cost more than it saves.
    """

    name: str
    functions: tuple[Function, ...]
    others: tuple[Function, ...] = ()

    @cached_property
    def by_name(self) -> dict[str, Function]:
        """Functions that ftrace has a record of, by unique name."""
        return {function.name: function for function in self.functions}

    @cached_property
    def _symbols(self) -> tuple[str, ...]:
        """The symbol of each of the functions, by which globs select: asking a function for it splits its name."""
        return tuple(function.symbol for function in self.functions)

    @cached_property
    def _others_by_name(self) -> dict[str, Function]:
        return {function.name: function for function in self.others}

    @cached_property
    def _by_btf(self) -> dict[tuple[str | None, str], str]:
        """The unique name of what a module, or vmlinux, has first under a symbol's name."""
        found: dict[tuple[str | None, str], str] = {}
        for function in (*self.functions, *self.others):
            found.setdefault((function.module, function.symbol), function.name)
        return found

    def find(self, name: str) -> Function | None:
        """A function by its unique name, whether ftrace has a record of it or only BTF names it."""
        return self.by_name.get(name) or self._others_by_name.get(name)

    def namesakes(self, symbol: str) -> Iterator[Function]:
        """The functions of a symbol, in the order of their numbers."""
        names = chain((symbol,), (f"{symbol}@{number}" for number in count_from(2)))
        for name in names:
            function = self.find(name)
            if function is None:
                return
            yield function

    def is_in(self, name: str | None, module: str) -> bool:
        """Whether a function by its unique name is a module's."""
        found = self.find(name) if name is not None else None
        return found is not None and found.module == module

    def resolve(self, text: str) -> str:
        """The unique name of a FUNC that may be written MODULE:FUNC (NAME-11); the text itself if there is none."""
        module, colon, symbol = text.partition(":")
        return self._by_btf.get((module, symbol), text) if colon else text

    @cached_property
    def modules(self) -> tuple[str, ...]:
        """Names of the modules, in address order; those without a record behind the others."""
        return tuple(dict.fromkeys(f.module for f in (*self.functions, *self.others) if f.module))

    def expand(self, pattern: Pattern) -> tuple[Function, ...]:
        """What a pattern of a link stands for, by libbpf or by what is traceable, loaded or not (GLOB-6).

        `attachable` selects from what is traceable; that is for who knows the program.
        """
        match = libbpf_matcher(pattern.glob)
        candidates = self.functions if pattern.how else (*self.functions, *self.others)
        return tuple(
            function
            for function in candidates
            if function.btf_id is not None
            and function.module == pattern.module
            and (function.has_site or not pattern.how)
            and function.prototype is not None
            and function.prototype.describable
            and match(function.symbol)
        )

    def probed(self, pattern: Pattern, modules: frozenset[str]) -> tuple[Function, ...]:
        """What a pattern of a kprobe program's link stands for, while these modules are loaded (KPROBE-2)."""
        match = libbpf_matcher(pattern.glob)
        there = (f for f in self.functions if f.has_site and (f.module is None or f.module in modules))
        return tuple(f for f in there if pattern.module in {None, f.module} and match(f.symbol))

    def matching(
        self,
        pattern: str,
        modules: frozenset[str] | None = None,
        *,
        lenient_index: bool = False,
        within: str | None = None,
    ) -> tuple[Function, ...]:
        """Functions that a kernel glob without ! selects, in address order; a number, one without a site too (GLOB-4).

        modules: those loaded, None for all of the world. lenient_index: the fact of `spec.semantics`. within: MODULE of
        GLOB:mod:MODULE, where an empty glob selects all (GLOB-7).
        """
        there = None if modules is None else {None, *modules}
        index = record_index(pattern, lenient=lenient_index)
        if index is not None:
            present = [f for f in self.functions if there is None or f.module in there]
            return tuple(present[index - 1 : index]) if index else ()
        match = matcher("*" if within is not None and not pattern else pattern)
        selected = (function for symbol, function in zip(self._symbols, self.functions, strict=True) if match(symbol))
        held = (f for f in selected if f.has_site and (there is None or f.module in there))
        if within is None:
            return tuple(held)
        match_module = module_matcher(within)
        return tuple(f for f in held if match_module(f.module))


LONG = Type("long", "INT", 8)
CHAR = Type("char", "INT", 1)
SHORT = Type("short", "INT", 2)
INT = Type("int", "INT", 4)
BOOL = Type("bool", "INT", 1)
PAIR = Type("struct pair", "STRUCT", 16)


@cache
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


VOID = Type("void", "VOID", 0)
LARGE_SHAPES: tuple[tuple[tuple[Type, ...], Type], ...] = (
    *(((LONG,) * count, LONG) for count in range(13)),
    ((CHAR,) * 9, CHAR),
    ((LONG,) * 5 + (PAIR, PAIR, LONG, CHAR), INT),
    ((PAIR, LONG, PAIR, PAIR, SHORT), SHORT),
    ((LONG, INT), VOID),
    ((INT,) * 11, PAIR),
    ((CHAR, SHORT, INT, BOOL) * 3, INT),
)
LARGE_ATTRIBUTES = {
    7: {"deny"},
    17: {"noreturn", "fmod_ret"},
    27: {"disabled", "fmod_ret"},
    29: {"lsm"},
    37: set[str](),
    39: {"lsm", "lsm_bool"},
    47: {"fmod_ret"},
}
LARGE_MODULES = ((None, 1250), ("mod1", 60), ("mod2", 100), ("mod3", 60))
ID_STEP, ID_MODULUS = 707, 1511
"""Ids in another order than addresses: the modulus is a prime, so that they are distinct."""


@cache
def large() -> World:
    """The synthetic world with 1,470 functions more, which are named many1, many2 and so on.

    They have every number of arguments, structs beyond the registers, narrow results and none, one in fifty is on each
    list of the kernel's, and some are in the modules mod1 to mod3. Its records take several pages.
    """
    small = synthetic().functions
    numbers = iter(range(1, ID_MODULUS))
    functions: list[Function] = []
    for module, count in LARGE_MODULES:
        functions += (function for function in small if function.module == module)
        functions += (_one_of_many(next(numbers), module) for _ in range(count))
    ids = (1 + place * ID_STEP % ID_MODULUS for place in range(len(functions)))
    numbered = (replace(f, btf_id=number) if f.prototype else f for f, number in zip(functions, ids, strict=False))
    return World("synthetic-1500", tuple(numbered))


def _one_of_many(number: int, module: str | None) -> Function:
    arguments, returns = LARGE_SHAPES[number % len(LARGE_SHAPES)]
    prototype = Prototype(arguments, returns) if number % 50 else None
    attributes = frozenset(LARGE_ATTRIBUTES.get(number % 50, ALL))
    return Function(f"many{number}", prototype, None, module, attributes)
