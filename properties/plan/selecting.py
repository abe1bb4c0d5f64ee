"""Which functions a probe asks for: globs, what is denied, and types that arguments have.

retsnoop's own rules are those of its mode -F, which attaches a fentry and a fexit program to each function, one by one.
Sources: append_glob(), append_glob_file() and glob_matches() of retsnoop's src/utils.c; enforced_deny_globs,
prepare_func() and is_func_type_ok() of its src/mass_attacher.c.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Final

from spec.errors import BadInputError, clip
from spec.globs import Pattern, libbpf_matcher, matcher
from spec.prototypes import Prototype, Type
from spec.worlds import Function, World

__all__ = [
    "VMLINUX",
    "NameGlob",
    "Selection",
    "function_matcher",
    "parse_lists",
    "parse_types",
    "read_small",
    "select_as_retsnoop",
]

VMLINUX: Final = "vmlinux"
WITH_MODULE: Final = re.compile(r"(?P<name>[^\[ ]+)\s*\[(?P<module>[^\]]+)\]?\s*")
QUALIFIER: Final = re.compile(r"\b(?:const|volatile|restrict)\b")
INTEGER: Final = frozenset({"signed", "unsigned", "long", "short", "int", "char"})
NAMED: Final = re.compile(r"(\*\s*|\b(?:struct|union|enum)\s+\w+\s+)\w+\Z")
"""An argument with its name."""

COMPOSITE_POINTER: Final = re.compile(r"(?:struct|union) [^*]+ \*")
MOST_FILE_BYTES: Final = 1 << 20

ENFORCED: Final = (
    "bpf_get_smp_processor_id migrate_enable migrate_disable rcu_read_lock* rcu_read_unlock* bpf_spin_lock "
    "bpf_spin_unlock __bpf_prog_enter* __bpf_prog_exit* __bpf_tramp_enter* __bpf_tramp_exit* update_prog_stats "
    "inc_misses_counter bpf_prog_start_time"
).split()
"""What retsnoop denies by itself."""


@dataclass(frozen=True, slots=True)
class NameGlob:
    """A glob over names, and one over modules, None where any of a probe, or vmlinux's of retsnoop, are meant."""

    glob: str
    module: str | None = None

    def __str__(self) -> str:
        return self.glob if self.module is None else f"{self.glob} [{self.module}]"


def function_matcher(globs: Iterable[NameGlob]) -> Callable[[Function], bool]:
    """A predicate for functions that one of the globs matches, as libbpf and retsnoop have it: * and ? alone."""
    names: dict[str | None, list[str]] = {}
    for each in globs:
        names.setdefault(each.module, []).append(each.glob)
    tests = [(libbpf_matcher(module or "*"), name_matcher(some)) for module, some in names.items()]
    return lambda function: any(
        of_module(function.module or VMLINUX) and called(function.symbol) for of_module, called in tests
    )


def name_matcher(globs: Collection[str]) -> Callable[[str], bool]:
    """A predicate for names that one of the globs matches; thousands of plain names cost what one does."""
    wild = {glob for glob in globs if "*" in glob or "?" in glob}
    plain, matches = frozenset(globs) - wild, [libbpf_matcher(glob) for glob in sorted(wild)]
    return lambda name: name in plain or any(match(name) for match in matches)


@dataclass(frozen=True)
class Selection:
    """What a probe asks for: functions that one of the globs matches, but none of the denied ones.

    globs: those of retsnoop name a module each, perhaps vmlinux. types: each must be the type of an argument,
    qualifiers aside. by_retsnoop: it chooses from available_filter_functions by rules of its own.
    """

    globs: tuple[NameGlob, ...]
    denied: tuple[NameGlob, ...] = ()
    types: tuple[str, ...] = ()
    by_retsnoop: bool = False

    def keeps(self, function: Function) -> bool:
        """Whether a function that a glob matches is not denied, and has all types."""
        return not self._denies(function) and _takes(function.prototype, self.types)

    @cached_property
    def _denies(self) -> Callable[[Function], bool]:
        return function_matcher(self.denied)

    def expand(self, world: World, how: str, btf: str) -> tuple[Function, ...]:
        """The functions of one BTF that one call names; how: as `spec.globs.Pattern` has it."""
        module = None if btf == VMLINUX else btf
        called = name_matcher([e.glob for e in self.globs if e.module is None or matcher(e.module)(btf)])
        named = world.expand(Pattern(how, module, "*"))
        found = [function for function in named if called(function.symbol) and self.keeps(function)]
        if self.by_retsnoop:
            ambiguous = _find_ambiguous(world)
            found = [function for function in found if not _obstacle(function, ambiguous)]
        return tuple(found)


# Types of arguments.


def parse_types(text: str, world: World) -> tuple[str, ...]:
    """Types between commas, as BTF or C spells them; BadInputError if no function of the world has such an argument.

    Further arguments are always allowed, so that `...` says nothing; nor do names of arguments.
    """
    parts = [part.strip() for part in text.split(",")]
    types = tuple(dict.fromkeys(_normalize(NAMED.sub(r"\1", part)) for part in parts if part and part != "..."))
    if not types:
        raise BadInputError(f"'({clip(text)})' names no type: write it as in fentry:*(struct sk_buff *)")
    known = {
        _normalize(argument.name)
        for function in (*world.functions, *world.others)
        if function.prototype is not None
        for argument in function.prototype.arguments
    }
    for each in types:
        if not any(_is_called(each, name) for name in known):
            raise BadInputError(
                f"no function of the world {world.name} takes '{clip(each)}': write a type as BTF spells it, such as "
                "(struct sk_buff *) or (long unsigned int)"
            )
    return types


@lru_cache(maxsize=1 << 16)
def _normalize(name: str) -> str:
    """Without qualifiers, with one space between words and stars, and C's integers in one order of words."""
    words = QUALIFIER.sub(" ", name).replace("*", " * ").split()
    stars = words.index("*") if "*" in words else len(words)
    base, rest = words[:stars], words[stars:]
    if base and INTEGER.issuperset(base):
        base = _normalize_integer(base)
    return " ".join([*base, *rest])


def _normalize_integer(words: Sequence[str]) -> list[str]:
    """`unsigned long` and `long unsigned int` are one type: sorted, without what says nothing."""
    dull = {"int"} if "char" in words else {"int", "signed"}
    kept = sorted(word for word in words if word not in dull)
    return kept if {"long", "short", "char"}.intersection(kept) else ["int", *kept]


def _is_called(wanted: str, name: str) -> bool:
    return name == wanted or (
        name.partition(" ")[0] in {"struct", "union", "enum"} and name.partition(" ")[2] == wanted
    )


def _takes(prototype: Prototype | None, types: Sequence[str]) -> bool:
    if not types:
        return True
    names = [_normalize(argument.name) for argument in prototype.arguments] if prototype is not None else []
    return all(any(_is_called(wanted, name) for name in names) for wanted in types)


# retsnoop's lists.


MOST_ARGUMENTS: Final = 6
_is_enforced: Final = name_matcher(ENFORCED)


def parse_lists(option: str, texts: Sequence[str]) -> tuple[NameGlob, ...]:
    """The globs of an option that was given so often: GLOB, `GLOB [MODULE]`, or @FILE of them."""
    return tuple(each for text in texts for each in _parse_list(option, text))


def _parse_list(option: str, text: str) -> Iterator[NameGlob]:
    if text.startswith(":"):
        raise BadInputError(
            f"{option} '{text}' names source files, which a world does not know: write a glob of functions, "
            "or @FILE with the names that retsnoop --dry-run -v prints"
        )
    if not text.startswith("@"):
        yield _parse_glob(option, text)
        return
    for word in read_small(text[1:], option).decode(errors="replace").split():
        yield _parse_glob(option, word)


def read_small(path: str, what: str) -> bytes:
    """The content of a file of the command line, of at most MOST_FILE_BYTES; what: as an error names it."""
    try:
        with Path(path).open("rb") as file:
            data = file.read(MOST_FILE_BYTES + 1)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise BadInputError(f"{what}: cannot be read: {why}", path) from error
    if len(data) > MOST_FILE_BYTES:
        raise BadInputError(f"{what}: has more than {MOST_FILE_BYTES:,} bytes", path)
    return data


def _parse_glob(option: str, text: str) -> NameGlob:
    found = WITH_MODULE.fullmatch(text)
    each = NameGlob(found["name"], found["module"]) if found else NameGlob(text)
    for glob in filter(None, (each.glob or "**", each.module)):
        if glob == "**" or ":" in glob or any(letter.isspace() for letter in glob):
            raise BadInputError(
                f"{option} '{text}' is no glob of retsnoop: write GLOB, such as vfs_*, or 'GLOB [MODULE]'"
            )
    return each


def select_as_retsnoop(selection: Selection, world: World) -> tuple[tuple[Function, ...], dict[str, int]]:
    """What retsnoop attaches to, and how many functions it leaves out for each reason of its own."""
    candidates = _list_candidates(selection, world)
    ambiguous = _find_ambiguous(world)
    obstacles = {function.name: _obstacle(function, ambiguous) for function in candidates}
    chosen = tuple(function for function in candidates if not obstacles[function.name])
    return chosen, dict(Counter(filter(None, obstacles.values())))


def _list_candidates(selection: Selection, world: World) -> list[Function]:
    matches = function_matcher(selection.globs)
    return [
        function
        for function in world.functions
        if function.has_site and matches(function) and selection.keeps(function)
    ]


def _find_ambiguous(world: World) -> frozenset[tuple[str | None, str]]:
    """Names that several symbols have, as far as the world knows them."""
    counts = Counter((function.module, function.symbol) for function in world.functions)
    several = {key for key, count in counts.items() if count > 1}
    shadowed = {
        (function.module, function.symbol) for function in world.functions if function.lookup and function.has_site
    }
    return frozenset(several | shadowed)


def _obstacle(function: Function, ambiguous: frozenset[tuple[str | None, str]]) -> str:
    """Why retsnoop leaves a function out; empty if it does not."""
    if _is_enforced(function.symbol):
        return "denied by retsnoop itself"
    if function.prototype is None or (function.btf_id is None and (function.module, function.symbol) not in ambiguous):
        return "no BTF"
    if not _fits(function.prototype):
        return "a prototype that retsnoop does not take"
    return "several symbols of the name" if (function.module, function.symbol) in ambiguous else ""


def _fits(prototype: Prototype) -> bool:
    """is_func_type_ok(), as far as the names of types tell what a pointer points to."""
    few = len(prototype.arguments) <= MOST_ARGUMENTS and not prototype.variadic
    plain = all(argument.kind in {"INT", "PTR", "ENUM"} for argument in prototype.arguments)
    return few and plain and _is_returned(prototype.returns)


def _is_returned(returned: Type) -> bool:
    if returned.kind != "PTR":
        return returned.kind in {"INT", "ENUM"} or returned.name == "void"
    return returned.name == "void *" or COMPOSITE_POINTER.fullmatch(returned.name) is not None
