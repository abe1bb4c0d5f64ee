"""What people have in hand, as probes and globs: programs of bpftrace, its scripts, and command lines of both tools.

Sources: bpftrace's src/lexer.l and src/parser.yy, and its man page; retsnoop's src/env.c.
"""

from __future__ import annotations

import argparse
import re
import shlex
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Final

from properties.plan.selecting import read_small
from spec.errors import BadInputError, clip

__all__ = ["LISTS", "Typed", "list_probes", "read_word", "unquote"]

LISTS: Final = (
    ("-e", "--entry", "retsnoop's entry functions; or a program of bpftrace"),
    ("-a", "--allow", "further functions of retsnoop"),
    ("-d", "--deny", "functions to leave out, of retsnoop's and of all probes"),
)
"""The options that name functions, here and in retsnoop: short, long, and what they are."""

BESIDE: Final = re.compile(
    r"BEGIN|END|begin|end|config\s*=?|(?:struct|union|enum|macro|fn|let|import)\b.*|"
    r"(?:tracepoint|t|rawtracepoint|rt|uprobe|u|uretprobe|ur|usdt|U|software|s|hardware|h|watchpoint|w|"
    r"asyncwatchpoint|aw|iter|it|interval|i|profile|p|self|bench|test):.*",
    re.DOTALL,
)
"""These parts of a program attach to no function of the kernel."""

PASSED_OVER: Final = re.compile(
    r'"(?:\\.|[^"\\])*"?|//[^\n]*|/\*.*?(?:\*/|\Z)|^[ \t]*#[^\n]*', re.DOTALL | re.MULTILINE
)
"""Strings, comments and lines of the preprocessor."""

SPLIT: Final = re.compile(r"([{}(),;])")
DECLARED: Final = re.compile(r"\s*(?:(?:struct|union|enum|let|import)\b.*)?", re.DOTALL)
"""A semicolon ends these."""

SLASH: Final = re.compile(r"(?<=\s)/")
COMMAND: Final = re.compile(
    r"[#$]?\s*(?:(?:sudo|doas|exec|time)(?:\s+|\Z))*(?:(?:[^\s:!]*/)?(?P<tool>bpftrace|retsnoop)(?:\s|\Z)|\Z)"
)
"""The start of a command line, or all that the shell left of it in a word of its own."""

QUOTES: Final = {"'": "'", '"': '"', "`": "`", "‘": "’", "“": "”"}


@dataclass(frozen=True, slots=True)
class Typed:
    """What a word, or several, ask for: bpftrace's probes, and the globs of retsnoop's lists."""

    probes: tuple[str, ...] = ()
    entry: tuple[str, ...] = ()
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()

    def __add__(self, other: Typed) -> Typed:
        """Both, in this order."""
        return Typed(
            self.probes + other.probes, self.entry + other.entry, self.allow + other.allow, self.deny + other.deny
        )


def read_word(text: str) -> Typed:
    """What a word of the command line asks for: a probe, a program, a script's path, or a whole command line."""
    text = unquote(text)
    command = COMMAND.match(text)
    if command is None or not text:
        return Typed(tuple(list_probes(_read_script(text))))
    words = _split_command(text[command.end() :])
    return _read_retsnoop(words) if command["tool"] == "retsnoop" else _read_bpftrace(words)


def unquote(text: str) -> str:
    """A word without blanks, quotes and SEC() around it."""
    text = text.strip()
    if text.startswith('SEC("') and text.endswith('")'):
        return text[5:-2]
    if len(text) > 1 and QUOTES.get(text[0]) == text[-1] and text[-1] not in text[1:-1]:
        return text[1:-1].strip()
    return text


# Command lines.


def _split_command(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise BadInputError(f"the quotes of '{clip(text.strip())}' do not match: write the probes alone") from error


def _read_bpftrace(words: Sequence[str]) -> Typed:
    """The programs of -e; else the last word, which is a script, or what -l lists."""
    programs = [after for word, after in pairwise(words) if re.fullmatch("-[a-zA-Z]*e", word)]
    texts = programs or [_read_script(word) for word in words[-1:] if not word.startswith("-")]
    return Typed(tuple(probe for text in texts for probe in list_probes(text)))


def _read_retsnoop(words: Sequence[str]) -> Typed:
    """The three lists; what other options say matters to no plan, but for cases, which name functions."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for option, name, _ in LISTS:
        parser.add_argument(option, name, action="append", default=[])
    try:
        found, others = parser.parse_known_args(words)
    except argparse.ArgumentError as error:
        raise BadInputError(f"retsnoop: {error}: write GLOB behind it") from error
    if any(word.startswith(("-c", "--case")) for word in others):
        raise BadInputError("retsnoop's cases are not known here: write the globs of a case by -e, -a and -d")
    return Typed((), tuple(found.entry), tuple(found.allow), tuple(found.deny))


def _read_script(text: str) -> str:
    """The content of the script that a word is the path of; else the word."""
    if ":" in text or "{" in text or not (text.endswith(".bt") or _is_file(text)):
        return text
    return read_small(text, "a script of bpftrace").decode(errors="replace")


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False


# Programs.


def list_probes(text: str) -> Iterator[str]:
    """The probes of a program; if all that there is attaches to no function, the whole.

    Blocks, predicates, comments, declarations and probes of other things are passed over.
    """
    probes = [probe.strip() for head in _list_heads(text) for probe in _split_at_commas(head)]
    found = [probe for probe in probes if probe and not BESIDE.fullmatch(probe)]
    yield from found or [text]


def _list_heads(text: str) -> Iterator[str]:
    """What stands before each block, without its predicate, and behind the last one."""
    plain = PASSED_OVER.sub(lambda found: '""' if found[0].startswith('"') else " ", text)
    depth, head = 0, ""
    for part in SPLIT.split(plain):
        if part == "{":
            if not depth:
                yield _without_predicate(head)
                head = ""
            depth += 1
        elif part == "}":
            depth -= 1
            if depth < 0:
                break
        elif not depth:
            head = "" if part == ";" and DECLARED.fullmatch(head) else head + part
    if depth:
        raise BadInputError(f"the braces of '{clip(text)}' do not match")
    yield head


def _without_predicate(head: str) -> str:
    """The probes before a block: a predicate starts at the first slash behind a blank, as paths have slashes, too."""
    inner = head.rstrip()
    if not inner.endswith("/"):
        return head
    start = SLASH.search(inner)
    return inner[: start.start() if start else inner.index("/")]


def _split_at_commas(head: str) -> Iterator[str]:
    """Probes between commas, but for those between parentheses, which stand between types."""
    depth, probe = 0, ""
    for part in SPLIT.split(head):
        depth += {"(": 1, ")": -1}.get(part, 0)
        if part == "," and depth <= 0:
            yield probe
            probe = ""
        else:
            probe += part
    yield probe
