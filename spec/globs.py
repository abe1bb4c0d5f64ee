"""How names are matched: by the kernel, filter_parse_regex() and lib/glob.c, and by libbpf (rules GLOB-*)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce

__all__ = [
    "FilterLine",
    "Pattern",
    "filter_line",
    "is_glob",
    "libbpf_matcher",
    "link_pattern",
    "matcher",
    "module_matcher",
    "names_command",
    "record_index",
    "without_bang",
]

META = frozenset("*?[")
NUMBER = re.compile("0[xX][0-9a-fA-F]+|0[0-7]*|[1-9][0-9]*")
MOD = ":mod:"
MODULUS = 1 << 64
"""simple_strtoul() counts modulo this."""


PATTERN = re.compile(r"(?:(?P<how>traceable|attachable)\((?P<inner>.*)\)|(?P<plain>.*))", re.DOTALL)


@dataclass(frozen=True, slots=True)
class Pattern:
    """What stands for several functions in a link (GLOB-6): all of one BTF that match, or some of them.

    how: empty for all that libbpf names, else `traceable` or `attachable`. module: whose BTF, None for vmlinux's.
    """

    how: str
    module: str | None
    glob: str


@dataclass(frozen=True, slots=True)
class FilterLine:
    """A line of set_ftrace_filter or set_ftrace_notrace (GLOB-7).

    glob: without its !, empty for all. removes: it had one. module: MODULE of GLOB:mod:MODULE, else None.
    """

    glob: str
    removes: bool
    module: str | None

    @property
    def awaits(self) -> str:
        """The module that the line waits for, where it selects nothing (FILTER-12): MODULE, but for a star at its end.

        Parsing such a pattern as a prefix, or as a part, has put the end of the string there, before it is kept.
        """
        module = self.module or ""
        pattern, _ = without_bang(module)
        middle = pattern[1:-1]
        is_glob = pattern[:1] in {"[", "?", "\\"} or any(special in middle for special in "*[?\\")
        ends = len(pattern) > 1 and pattern.endswith("*")
        return module[:-1] if ends and not (is_glob or record_index(pattern) is not None) else module


def filter_line(text: str) -> FilterLine:
    """What a line of a filter file says; one with another command than `mod` is taken for a glob as a whole."""
    glob, module = text.split(MOD, 1) if names_module(text) else (text, None)
    return FilterLine(*without_bang(glob), module)


def names_command(text: str) -> bool:
    """Whether a line of a filter file is a command, and not one that names a module (NAME-19)."""
    return ":" in text and not names_module(text)


def names_module(text: str) -> bool:
    """Whether a line is GLOB:mod:MODULE; the first colon ends the glob."""
    glob, found, _ = text.partition(MOD)
    return bool(found) and ":" not in glob


@lru_cache(maxsize=512)
def module_matcher(module: str) -> Callable[[str | None], bool]:
    """A predicate over names of modules, None for the kernel itself, as ftrace_match_record() has it (GLOB-7)."""
    pattern, excludes = without_bang(module)
    if not pattern:
        return lambda name: (name is None) == excludes
    if record_index(pattern) is not None:
        return lambda _: excludes
    match = matcher(pattern)
    return lambda name: (name is not None and match(name)) != excludes


@lru_cache(maxsize=512)
def link_pattern(text: str) -> Pattern | None:
    """The pattern that a FUNC of a link is; None if it is one function's name (GLOB-6)."""
    found = PATTERN.fullmatch(text)
    if found is None or not (found["how"] or is_glob(text)):
        return None
    module, colon, glob = (found["inner"] if found["how"] else text).rpartition(":")
    return Pattern(found["how"] or "", module if colon else None, glob)


@lru_cache(maxsize=512)
def libbpf_matcher(glob: str) -> Callable[[str], bool]:
    """A predicate as libbpf's glob_match() has it, which knows `*` and `?` alone (GLOB-6)."""
    return _compile(["." if letter == "?" else re.escape(letter) for letter in part] for part in glob.split("*"))


def is_glob(pattern: str) -> bool:
    """Whether a name holds a metacharacter, so that it may stand for several functions."""
    return any(letter in META for letter in pattern)


def without_bang(pattern: str) -> tuple[str, bool]:
    """The pattern proper, and whether a leading ! asks for removal (GLOB-1)."""
    return (pattern[1:], True) if pattern.startswith("!") else (pattern, False)


def record_index(pattern: str, *, lenient: bool = False) -> int | None:
    """The 1-based number of a record, for a pattern that starts with a digit; else None (GLOB-4).

    0, which no record has, if malformed. lenient: what follows the number is passed over, as simple_strtoul() does.
    """
    number = NUMBER.match(pattern)
    if number is None:
        return None
    if number.end() < len(pattern) and not lenient:
        return 0
    digits = number[0].lower()
    base = 16 if digits.startswith("0x") else 8 if digits.startswith("0") else 10
    # int() refuses very long numbers.
    value = reduce(lambda high, digit: high * base + int(digit, base), digits.removeprefix("0x"), 0)
    return value % MODULUS if lenient else value


@lru_cache(maxsize=512)
def matcher(pattern: str) -> Callable[[str], bool]:
    """A predicate over names for one pattern without its !, as filter_parse_regex() classifies it (GLOB-2)."""
    inner = pattern.removeprefix("*")
    front, back = inner != pattern, inner.endswith("*")
    literal = inner[:-1] if back else inner
    if any(letter in "*?[\\" for letter in literal):
        return _translate(pattern)
    if front and back:
        return lambda name: literal in name
    if front:
        return lambda name: name.endswith(literal)
    if back:
        return lambda name: name.startswith(literal)
    return lambda name: name == pattern


@lru_cache(maxsize=512)
def _translate(pattern: str) -> Callable[[str], bool]:
    """A predicate as lib/glob.c has it: * ? [class] [!class] and backslash; an unclosed bracket is literal (GLOB-3)."""
    parts: list[list[str]] = [[]]
    at, closed = 0, True
    while at < len(pattern):
        letter = pattern[at]
        at += 1
        if letter == "*":
            parts.append([])
        elif letter == "?":
            parts[-1].append(".")
        elif letter == "\\" and at < len(pattern):
            parts[-1].append(re.escape(pattern[at]))
            at += 1
        elif letter == "[" and closed and (found := _translate_class(pattern, at)):
            parts[-1].append(found[0])
            at = found[1]
        else:
            # Where one bracket is not closed, no later one is.
            closed = closed and letter != "["
            parts[-1].append(re.escape(letter))
    return _compile(parts)


def _compile(parts: Iterable[Sequence[str]]) -> Callable[[str], bool]:
    """A predicate for parts between stars, each of expressions for one letter.

    As such a part has a length, a star need not be tried again once the next part has been found behind it.
    """
    first, *inner = ("".join(part) for part in parts)
    expression = first
    if inner:
        last = inner.pop()
        expression += "".join(f"(?>.*?{part})" for part in inner if part) + f".*{last}"
    compiled = re.compile(expression, re.DOTALL)
    return lambda name: compiled.fullmatch(name) is not None


def _translate_class(pattern: str, at: int) -> tuple[str, int] | None:
    """The class that starts behind a bracket, and where it ends; None if it is not closed."""
    inverted = pattern.startswith("!", at)
    at += inverted
    spans: list[tuple[str, str]] = []
    while at < len(pattern) and (pattern[at] != "]" or not spans):
        low = high = pattern[at]
        at += 1
        if pattern.startswith("-", at) and at + 1 < len(pattern) and pattern[at + 1] != "]":
            high = pattern[at + 1]
            at += 2
        spans.append((low, high))
    if at >= len(pattern):
        return None
    body = "".join(f"{re.escape(low)}-{re.escape(high)}" for low, high in spans if low <= high)
    if not body:
        return ("." if inverted else "(?!)"), at + 1
    return f"[{'^' if inverted else ''}{body}]", at + 1
