"""The seed file (design contract 3.1): parsing and printing are inverse, and errors name file, line and mistake."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import MISSING, Field, dataclass, fields
from pathlib import Path
from typing import Any

from spec.errors import BadInputError
from spec.operations import (
    FLAVOURS,
    HOW,
    KINDS,
    KPROBES,
    OPERATIONS,
    POINTS,
    STOPS,
    STOPS_AT_PROGRAMS,
    SWITCH,
    Call,
    Finish,
    ObserveSite,
    Operation,
)
from spec.operations import Step as TaskStep
from spec.outcomes import ERRNOS, Errno, Ok, Outcome, Pending
from spec.reading import read_bytes
from spec.semantics import PRESETS

__all__ = ["Expectation", "Seed", "Step", "parse_operation", "parse_seed", "print_operation", "print_seed", "read_seed"]

NAME = re.compile(r"[^\s=#:,]+")
FUNCTION = re.compile(r"(?:[^\s=#:,]+:)?[^\s=#:,]+")
"""A function's name, or a pattern; a module's may stand before a colon (NAME-11)."""
GLOB = re.compile(r"[^\s=#,]+")
"""A glob of ftrace's, or GLOB:mod:MODULE (GLOB-7)."""
NUMBER = re.compile(r"-?(?:0[xX][0-9a-fA-F]{1,16}|[0-9]{1,20})")
SMALLEST, LARGEST = -(1 << 63), (1 << 64) - 1
MOST_BYTES = 16 << 20
CHOICES = {"kind": (*KINDS, *KPROBES), "point": POINTS, "switch": SWITCH, "flavour": FLAVOURS, "how": HOW}
STOP = re.compile(rf"{'|'.join(STOPS)}|(?:{'|'.join(STOPS_AT_PROGRAMS)}):{NAME.pattern}")
EVENT = re.compile(
    rf"ops:\S+|graph>\S+|<graph:\S+|direct:\S+|(?:{'|'.join((*KINDS, *KPROBES))}):\S+|"
    r"body|body:patched|[^\s=\[\]]+\[|\]|=-?[0-9]+|absent",
)
TARGET = re.compile(rf"nop|direct:\S+|trampoline:(?:{'|'.join(KINDS)}):\S+|ops:\S+|ftrace_caller|ftrace_regs_caller")


class _MistakeError(Exception):
    """What is wrong with a line."""


@dataclass(frozen=True, slots=True)
class Expectation:
    """What a line expects behind its arrow: an Outcome, or the words of a trace, a site's target, a task's place."""

    outcome: Outcome | None = None
    words: tuple[str, ...] = ()

    def __str__(self) -> str:
        return str(self.outcome) if self.outcome is not None else " ".join(self.words)


@dataclass(frozen=True, slots=True)
class Step:
    """One operation, what is expected of it, and the line it came from (0: made in memory)."""

    operation: Operation
    expected: Expectation | None = None
    line: int = 0

    def __str__(self) -> str:
        text = print_operation(self.operation)
        return f"{text} -> {self.expected}" if self.expected is not None else text


@dataclass(frozen=True, slots=True)
class Seed:
    """A setting and its steps. world is a built-in name or the path of a population file."""

    world: str
    semantics: str
    steps: tuple[Step, ...]


def read_seed(path: Path) -> Seed:
    """The seed in a file; BadInputError if it is not one."""
    try:
        return parse_seed(read_bytes(path, MOST_BYTES).decode(), str(path))
    except UnicodeDecodeError as error:
        raise BadInputError("is not UTF-8 text", str(path)) from error


def parse_seed(text: str, file: str = "<text>") -> Seed:
    """A seed from its text; BadInputError names file, line and mistake."""
    header: dict[str, str] = {}
    steps: list[Step] = []
    in_header = True
    for number, raw in enumerate(text.split("\n"), 1):
        line = _strip_comment(raw)
        if not line:
            continue
        try:
            if not in_header:
                steps.append(_parse_step(line, number))
            elif line == "---":
                in_header = False
            else:
                _parse_header(line, header)
        except _MistakeError as mistake:
            raise BadInputError(str(mistake), file, number) from mistake
    if in_header:
        raise BadInputError("the header does not end: write a line '---' before the first operation", file)
    for key in ("world", "semantics"):
        if key not in header:
            raise BadInputError(f"the header lacks '{key}': write a line '{key} NAME' before '---'", file)
    return Seed(header["world"], header["semantics"], tuple(steps))


def print_seed(seed: Seed, comments: Iterable[str] = ()) -> str:
    """The text of a seed, comments first; `parse_seed` gives the same seed back, but for line numbers."""
    lines = [f"# {line}".rstrip() for comment in comments for line in comment.split("\n")]
    lines += [f"world {seed.world}", f"semantics {seed.semantics}", "---"]
    lines += [str(step) for step in seed.steps]
    return "\n".join(lines) + "\n"


def parse_operation(text: str) -> Operation:
    """One operation from its text, without expectation; BadInputError if it is none."""
    try:
        return _parse_operation(text.split())
    except _MistakeError as mistake:
        raise BadInputError(str(mistake)) from mistake


def print_operation(operation: Operation) -> str:
    """An operation as its line."""
    return " ".join([operation.verb, *(word for entry in fields(operation) for word in _print_field(operation, entry))])


def _strip_comment(line: str) -> str:
    return re.split(r"(?:^|\s)#", line, maxsplit=1)[0].strip()


def _parse_header(line: str, header: dict[str, str]) -> None:
    key, _, value = line.partition(" ")
    value = value.strip()
    if key not in {"world", "semantics"}:
        raise _MistakeError(f"unknown header line '{key}': write 'world NAME', 'semantics NAME' or '---'")
    if key in header:
        raise _MistakeError(f"'{key}' is given twice")
    if not value:
        raise _MistakeError(f"'{key}' lacks its value: write '{key} NAME'")
    if key == "semantics" and value not in PRESETS:
        raise _MistakeError(f"unknown semantics '{value}': write one of {', '.join(PRESETS)}")
    header[key] = value


def _parse_step(line: str, number: int) -> Step:
    words = line.split()
    if "->" not in words:
        return Step(_parse_operation(words), None, number)
    arrow = words.index("->")
    operation = _parse_operation(words[:arrow])
    return Step(operation, _parse_expectation(operation, words[arrow + 1 :]), number)


def _parse_expectation(operation: Operation, words: list[str]) -> Expectation:
    if not words:
        raise _MistakeError("nothing is expected behind '->'")
    if isinstance(operation, Call | Finish):
        return Expectation(words=_parse_trace(words))
    if isinstance(operation, TaskStep):
        if len(words) > 1 or not (STOP.fullmatch(words[0]) or words[0] in {"done", "absent"}):
            raise _MistakeError(f"'{' '.join(words)}' is no place of a task: write a point as in to=POINT, or done")
        return Expectation(words=tuple(words))
    if isinstance(operation, ObserveSite):
        if len(words) > 1 or not TARGET.fullmatch(words[0]):
            raise _MistakeError(
                f"'{' '.join(words)}' is no target of a site: write nop, direct:TRAMP, trampoline:KIND:PROG,..., "
                "ops:NAME, ftrace_caller or ftrace_regs_caller",
            )
        return Expectation(words=tuple(words))
    return Expectation(_parse_outcome(words))


def _parse_trace(words: list[str]) -> tuple[str, ...]:
    depth = 0
    for word in words:
        if not EVENT.fullmatch(word):
            raise _MistakeError(f"'{word}' is no event of a trace: write events as in 'fentry:p1 body fexit:p1 =3'")
        depth += word.endswith("[") - (word == "]")
        if depth < 0:
            break
    if depth:
        raise _MistakeError("the brackets of the trace do not match")
    return tuple(words)


def _parse_outcome(words: list[str]) -> Outcome:
    warn = len(words) == 2 and words[1] == "WARN"
    if len(words) == 1 or warn:
        if words[0] == "0":
            return Ok(warn)
        if words == ["pending"]:
            return Pending()
        if words[0].startswith("-") and words[0][1:] in ERRNOS:
            return Errno(words[0][1:], warn)
    raise _MistakeError(
        f"'{' '.join(words)}' is no outcome: write 0, or a minus and an errno's name such as -EBUSY, perhaps with "
        "WARN, or pending"
    )


def _parse_operation(words: list[str]) -> Operation:
    if not words:
        raise _MistakeError("an operation is missing")
    kind = OPERATIONS.get(words[0])
    if kind is None:
        raise _MistakeError(f"unknown verb '{words[0]}'")
    entries = fields(kind)
    rest = words[1:]
    values: dict[str, Any] = {}
    if entries and entries[0].metadata["form"] == "nested":
        return kind(**{entries[0].name: _parse_operation(rest)})
    _take_trailing(entries, rest, values)
    for entry in entries:
        _take(kind.verb, entry, rest, values)
    if rest:
        raise _MistakeError(f"{kind.verb} does not take '{rest[0]}'")
    return kind(**values)


def _take_trailing(entries: tuple[Field[Any], ...], rest: list[str], values: dict[str, Any]) -> None:
    """Take flags and options from the end of the line."""
    flags = {entry.name for entry in entries if entry.metadata["form"] == "flag"}
    options = {entry.name: entry.metadata["kind"] for entry in entries if entry.metadata["form"] == "option"}
    spaces = {entry.name: entry.metadata.get("space", "") for entry in entries}
    while rest:
        key, equals, value = rest[-1].partition("=")
        if key in values and (key in flags or key in options):
            raise _MistakeError(f"'{key}' is given twice")
        if not equals and key in flags:
            values[key] = True
        elif equals and key in options:
            values[key] = _NAMES[spaces[key]](value, key) if options[key] is str else _integer(value, key)
        else:
            return
        rest.pop()


def _take(verb: str, entry: Field[Any], rest: list[str], values: dict[str, Any]) -> None:
    form = entry.metadata["form"]
    if form in {"word", "number"}:
        if rest and (form == "word" or entry.default is not MISSING):
            take = _NAMES[entry.metadata.get("space", "")] if form == "word" else _count
            values[entry.name] = take(rest[0], entry.name)
            rest.pop(0)
        elif entry.default is MISSING:
            raise _MistakeError(f"{verb} lacks its {entry.name}")
    elif form in {"words", "integers", "pairs", "targets"}:
        if not rest and form != "integers":
            raise _MistakeError(f"{verb} lacks its {entry.name}")
        values[entry.name] = tuple(_ITEM[form](item, entry.name) for item in rest)
        rest.clear()


def _name(text: str, what: str) -> str:
    if what in CHOICES and text not in CHOICES[what]:
        raise _MistakeError(f"unknown {what} '{text}': write one of {', '.join(CHOICES[what])}")
    if not NAME.fullmatch(text) or text == "->":
        raise _MistakeError(f"'{text}' is no {what}: a name has no blank and none of = # : ,")
    return text


def _function(text: str, what: str) -> str:
    if not FUNCTION.fullmatch(text) or text == "->":
        raise _MistakeError(f"'{text}' is no {what}: write FUNC or MODULE:FUNC, with no blank and none of = # ,")
    return text


def _glob(text: str, what: str) -> str:
    if not GLOB.fullmatch(text) or text == "->":
        raise _MistakeError(f"'{text}' is no {what}: write GLOB or GLOB:mod:MODULE, with no blank and none of = # ,")
    return text


def _stop(text: str, _what: str) -> str:
    if not STOP.fullmatch(text):
        raise _MistakeError(
            f"'{text}' is no point: write one of {', '.join(STOPS)}, or {', '.join(STOPS_AT_PROGRAMS)} with :PROG"
        )
    return text


def _integer(text: str, what: str) -> int:
    if not NUMBER.fullmatch(text):
        raise _MistakeError(f"'{text}' is no number for {what}: write decimal or 0x...")
    value = int(text, 16 if "x" in text.lower() else 10)
    if not SMALLEST <= value <= LARGEST:
        raise _MistakeError(f"'{text}' does not fit into 64 bits")
    return value


def _count(text: str, what: str) -> int:
    value = _integer(text, what)
    if value < 1:
        raise _MistakeError(f"'{text}' is no {what}: count from 1")
    return value


def _pair(text: str, what: str) -> tuple[str, str]:
    function, equals, tramp = text.partition("=")
    if not equals:
        raise _MistakeError(f"'{text}' is none of the {what}: write FUNC=TRAMP")
    return _function(function, "function"), _name(tramp, "tramp")


def _target(text: str, _what: str) -> tuple[str, int | None]:
    """FUNC[:COOKIE]: what follows the last colon is a cookie if it starts like a number, as no function's name does."""
    function, colon, cookie = text.rpartition(":")
    if colon and re.match("-?[0-9]", cookie):
        return _function(function, "function"), _integer(cookie, "cookie")
    return _function(text, "function"), None


_PLAIN_SPACES = ("", "ops", "prog", "link", "user", "tramp", "task", "module")
_NAMES = {"function": _function, "glob": _glob, "point": _stop} | dict.fromkeys(_PLAIN_SPACES, _name)
_ITEM = {"words": _function, "integers": _integer, "pairs": _pair, "targets": _target}


def _print_field(operation: Operation, entry: Field[Any]) -> list[str]:
    value = getattr(operation, entry.name)
    match entry.metadata["form"]:
        case "flag":
            return [entry.name] if value else []
        case "option":
            return [] if value is None else [f"{entry.name}={value}"]
        case "word":
            return [] if value is None else [value]
        case "number":
            return [] if value == entry.default else [str(value)]
        case "nested":
            return [print_operation(value)]
        case "pairs":
            return [f"{function}={tramp}" for function, tramp in value]
        case "targets":
            return [function if cookie is None else f"{function}:{cookie}" for function, cookie in value]
        case _:
            return [str(item) for item in value]
