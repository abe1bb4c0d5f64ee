"""The one JSON reader: files and lines from outside become values of a type, and each mistake one sentence.

The type says what is expected: a dataclass, or a msgspec.Struct, whose fields have the names of the object's members.
Limits stand in annotations, as `Annotated[int, Meta(ge=1)]` or `Annotated[str, matching("a symbol", "[a-z_]+")]`.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from msgspec import Meta

from spec.errors import BadInputError

__all__ = ["ReadHook", "convert", "decode", "encode", "load", "matching", "one_of", "read_bytes"]

Value = TypeVar("Value")
ReadHook = Callable[[Any, Any], Any]
"""Makes a value of a type that msgspec does not know: hook(type, JSON value). ValueError tells what is expected."""

GZIP = b"\x1f\x8b"
MOST_OF_A_NAME = 40
MEMBER = re.compile(r"Object (missing required|contains unknown) field `(.*)`", re.DOTALL)
MEMBER_MISTAKES = {"missing required": "is missing", "contains unknown": "is no member that is known here"}
MATCHING = re.compile(r"Expected `str` matching regex ['\"]\(\?#(.*?)\)")
KINDS = re.compile(r"`([a-z]+(?: \| [a-z]+)*)`")
WORDS = {
    "int": "an integer",
    "str": "a string",
    "bool": "true or false",
    "null": "null",
    "float": "a float",
    "array": "a list",
    "object": "an object",
}
BYTE = re.compile(r" \(byte ([0-9]+)\)")


def matching(expected: str, pattern: str) -> Meta:
    """A limit of strings to those that a pattern matches as a whole; `expected` says in errors what they are."""
    return Meta(pattern=rf"(?#{expected})\A(?:{pattern})\Z")


def one_of(names: Iterable[str]) -> Meta:
    """A limit of strings to some names."""
    ordered = sorted(names)
    return matching(f"one of {', '.join(ordered)}", "|".join(map(re.escape, ordered)))


def load(path: Path, kind: type[Value], most: int, hook: ReadHook | None = None) -> Value:
    """The value in a file of JSON, perhaps gzipped, of at most so many bytes. BadInputError names file and mistake."""
    return decode(read_bytes(path, most), kind, str(path), hook)


def read_bytes(path: Path, most: int) -> bytes:
    """A file's bytes, decompressed if they start like gzip. Neither file nor content may have more than `most`."""
    try:
        # A FIFO would let its reader wait for ever.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                raise BadInputError("is no regular file", str(path))
            data = file.read(most + 1)
        if data.startswith(GZIP) and len(data) <= most:
            data = _decompress(data, most, path)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot be read: {getattr(error, 'strerror', None) or error}", str(path)) from error
    if len(data) > most:
        raise BadInputError(f"is larger than {most} bytes", str(path))
    return data


def _decompress(data: bytes, most: int, path: Path) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as file:
            return file.read(most + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise BadInputError("is damaged: it starts like gzip but does not decompress", str(path)) from error


def decode(data: bytes, kind: type[Value], file: str | None = None, hook: ReadHook | None = None) -> Value:
    """The value in JSON text; `file` names it in errors."""
    try:
        # msgspec looks only into strings that it keeps.
        data.decode()
        return msgspec.json.decode(data, type=kind, dec_hook=hook)
    except UnicodeDecodeError as error:
        raise BadInputError("is not UTF-8 text", file) from error
    except RecursionError as error:
        raise BadInputError("is nested too deeply", file) from error
    except msgspec.ValidationError as error:
        raise BadInputError(_sentence(str(error)), file) from error
    except msgspec.DecodeError as error:
        raise _no_json(str(error), data, file) from error


def convert(value: object, kind: type[Value], place: str = "", hook: ReadHook | None = None) -> Value:
    """The value in a part of JSON that is parsed already; `place` is where it was, for errors."""
    try:
        return msgspec.convert(value, kind, dec_hook=hook)
    except RecursionError as error:
        raise BadInputError(f"{place}: is nested too deeply") from error
    except msgspec.ValidationError as error:
        raise BadInputError(_sentence(str(error), place)) from error


def encode(value: object, hook: Callable[[Any], Any] | None = None) -> bytes:
    """A value as JSON on one line, without its end."""
    return msgspec.json.encode(value, enc_hook=hook)


def _no_json(mistake: str, data: bytes, file: str | None) -> BadInputError:
    """Msgspec tells the byte where JSON breaks; a text that is cut off breaks at its end."""
    byte = BYTE.search(mistake)
    line = data.count(b"\n", 0, int(byte[1]) if byte else len(data)) + 1
    reason = BYTE.sub("", mistake).removeprefix("JSON is malformed: ")
    return BadInputError(f"is no JSON: {reason}", file, line)


def _sentence(error: str, inside: str = "") -> str:
    """`programs[1].name: expected a string, not null`; msgspec's words end in the places, the innermost first."""
    mistake, *places = error.split(" - at `$")
    place = inside + "".join(place.removesuffix("`") for place in reversed(places))
    if member := MEMBER.fullmatch(mistake):
        place, mistake = f"{place}.{member[2][:MOST_OF_A_NAME]}", MEMBER_MISTAKES[member[1]]
    elif pattern := MATCHING.match(mistake):
        mistake = f"expected {pattern[1]}"
    else:
        mistake = KINDS.sub(lambda kinds: " or ".join(WORDS[kind] for kind in kinds[1].split(" | ")), mistake)
        mistake = mistake.replace("Expected", "expected", 1).replace(", got ", ", not ", 1)
    place = place.removeprefix(".")
    return f"{place}: {mistake}" if place else mistake
